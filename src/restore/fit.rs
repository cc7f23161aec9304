//! Whether an image can come back in this container at all.

use super::Error;
use crate::bundle::Sharing;
use crate::checkpoint::manifest::{Manifest, Network as NetworkKind};
use crate::runtime::Version;

pub(super) fn check(manifest: &Manifest, version: &Version, sharing: &Sharing) -> Result<(), Error> {
    let ours = version.flavour.name();
    if manifest.runtime.name != ours {
        return Err(Error::OtherRuntime { theirs: manifest.runtime.name.clone(), ours });
    }
    let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
    if manifest.architecture != machine {
        return Err(Error::OtherArchitecture { theirs: manifest.architecture.clone(), ours: machine });
    }
    let own = |kind| if kind == NetworkKind::Host { "the host's network" } else { "a network of its own" };
    let (theirs, ours) = (own(manifest.network), own(NetworkKind::from(sharing)));
    if theirs != ours {
        return Err(Error::OtherNetwork { theirs, ours });
    }
    Ok(())
}

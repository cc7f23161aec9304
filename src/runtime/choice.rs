//! Which runtime runs a container whose client leaves that to the node.
//!
//! An image can only be restored by the runtime that made it, so of a checkpoint that one
//! is taken. Otherwise crun is what `auto` prefers, being faster and smaller, if nothing is
//! lost by that: it has to be there, and able to checkpoint.

use std::path::{Path, PathBuf};

use super::{Error, Flavour, version};
use crate::bundle::{self, write_atomically};
use crate::checkpoint::manifest::Manifest;
use crate::criu;
use crate::operation::{aside, program};
use crate::policy::Runtime as Wanted;
use crate::reaper::Reaper;

/// The binary for a new container, or for one that comes back from `image`.
pub async fn binary(wanted: Wanted, reaper: Reaper, image: Option<&Path>) -> PathBuf {
    let maker = match image {
        Some(image) if wanted != Wanted::Runc => made_by(image.to_owned()).await,
        _ => None,
    };
    let (flavour, why) = match (maker, wanted) {
        (_, Wanted::Runc) => return Flavour::Runc.name().into(),
        (Some(maker), _) => (maker, "it made the checkpoint"),
        (None, Wanted::Crun) => (Flavour::Crun, "the node file says so"),
        (None, Wanted::Auto) => match look_at_crun(reaper).await {
            Ok(()) => (Flavour::Crun, "it is there and can checkpoint"),
            Err(problem) => (Flavour::Runc, problem),
        },
    };
    tracing::info!(runtime = flavour.name(), why, "the client leaves the runtime to the node");
    flavour.name().into()
}

/// The same, noted in the container's bundle for whoever cleans up.
pub(crate) async fn noted(
    bundle: &Path,
    wanted: Wanted,
    image: Option<&Path>,
    reaper: Reaper,
) -> Result<PathBuf, Error> {
    let chosen = binary(wanted, reaper, image).await;
    let path = bundle.join(bundle::RUNTIME);
    write_atomically(&path, chosen.as_os_str().as_encoded_bytes())
        .map_err(|source| Error::Files { verb: "create", source })?;
    Ok(chosen)
}

async fn made_by(image: PathBuf) -> Option<Flavour> {
    let manifest = aside(move || Manifest::read(&image)).await.ok()?;
    Flavour::named(&manifest.runtime.name)
}

/// Nothing if it can take runc's place, or else why not.
async fn look_at_crun(reaper: Reaper) -> Result<(), &'static str> {
    let file = aside(|| program(Flavour::Crun.name())).await.ok_or("crun isn't in PATH")?;
    if aside(criu::library).await.is_none() {
        return Err("crun has no libcriu, which it needs for checkpoints");
    }
    let said = version::said(reaper, &file).await.map_err(|_| "crun doesn't say what it can do")?;
    let can = said.split_whitespace().any(|ability| ability == "+CRIU");
    if can { Ok(()) } else { Err("crun was built without CRIU") }
}

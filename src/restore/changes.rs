//! What the original had changed in its root file system, for a container that has another.

use std::fs::File;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, openat};

use super::{Attempt, Error};
use crate::bundle::Sharing;
use crate::checkpoint::base;
use crate::checkpoint::image::Image;
use crate::container::Subject;
use crate::operation::aside;
use crate::policy::Policy;
use crate::rootfs::{self, Base, helper};

/// To be put back.
#[derive(Debug)]
pub(super) struct Changes {
    digest: String,
}

/// None if the image has none, or if the root file system is the very one that they are in.
pub(super) async fn wanted(
    image: &Image,
    subject: &Subject,
    policy: &Policy,
) -> Result<Option<Changes>, Error> {
    let Some(digest) = image.layer().filter(|_| policy.keeps_rootfs() != Some(false)) else {
        return Ok(None);
    };
    let had = image.manifest.as_ref().and_then(|manifest| manifest.rootfs.clone()).unwrap_or_default();
    let (spec, bundle) = (subject.spec.clone(), subject.bundle.clone());
    let look = move || (rootfs::written_to(&spec, &bundle).ok().flatten(), rootfs::is_own(&spec, &bundle));
    let (here, is_own) = aside(look).await;
    if here.is_some() && here == had.overlay {
        return Ok(None);
    }
    if here.is_none() && !is_own {
        return Err(helper::Error::Shared.into());
    }
    if had.base.chain.is_some() {
        let ours = base(subject).await;
        if had.base.is_another(&ours) {
            // A name may have come to mean another image.
            let words = if had.base.image == ours.image { digest_of } else { name_of };
            return Err(helper::Error::Base { theirs: words(&had.base), ours: words(&ours) }.into());
        }
    }
    Ok(Some(Changes { digest: digest.to_owned() }))
}

impl Attempt {
    /// Into a root file system that nobody uses yet. If the restore fails later they stay there,
    /// as part of a container that has never run; the next restore puts them there once more.
    pub(super) async fn put_back_changes(&self) -> Result<(), Error> {
        let Some(Changes { digest }) = &self.changes else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let layer = openat(&self.image.folder, rootfs::FILE, flags, Mode::empty());
        let layer = layer.map(File::from).map_err(|error| helper::Error::Failed(error.to_string()))?;
        let Subject { spec, bundle, runtime, .. } = &*self.subject;
        let root: PathBuf = rootfs::root(spec, bundle);
        let makes_devices = spec.process.capabilities.all().any(|name| name == "CAP_MKNOD");
        let devices = makes_devices && spec.sharing("user") == Sharing::Host;
        let limits = (self.deadline(), &self.abort);
        Ok(helper::put_back(runtime.reaper, layer, digest, &root, devices, limits).await?)
    }
}

fn name_of(base: &Base) -> String {
    let name = base.image.as_deref().map(|image| crate::message::cut(&crate::message::shown(image), 40));
    name.unwrap_or_else(|| digest_of(base))
}

fn digest_of(base: &Base) -> String {
    crate::message::cut(base.chain.as_deref().unwrap_or_default(), 24)
}

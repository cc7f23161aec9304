//! Whether what a container has changed in its root file system goes into the image.

use super::transit::{KUBERNETES, is_temporary};
use super::{Error, Request};
use crate::container::Subject;
use crate::docker;
use crate::policy::DOCKER;
use crate::rootfs::{self, Base, Had};

/// Whoever gets an archive from containerd has the files besides: Docker in the container's
/// snapshot, which stays as it is, the CRI and `ctr --rw` in a layer that containerd makes.
pub(super) async fn planned(request: &Request, subject: &Subject) -> Result<Option<Had>, Error> {
    let (wish, is_temporary) = (request.policy.keeps_rootfs(), is_temporary(&request.image));
    let has_others = is_temporary && subject.namespace == KUBERNETES;
    if wish == Some(false) || (is_temporary && wish.is_none() && !has_others) {
        return Ok(None);
    }
    let had = |overlay, left| async { Had { base: base(subject).await, overlay, layer: None, left } };
    if has_others {
        return Ok(Some(had(None, None).await));
    }
    match rootfs::written_to(&subject.spec, &subject.bundle) {
        Ok(None) => Ok(None),
        Ok(overlay) => Ok(Some(had(overlay, None).await)),
        Err(problem) if wish.is_some() => Err(Error::Rootfs(problem)),
        Err(problem) => Ok(Some(had(None, Some(problem)).await)),
    }
}

/// What the container was made of.
pub(crate) async fn base(subject: &Subject) -> Base {
    let known = match &*subject.namespace {
        DOCKER => docker::chain(&subject.id, &subject.bundle),
        _ => None,
    };
    match known {
        Some(chain) => Base { chain: Some(chain), image: None },
        None => subject.outside.base(subject.runtime.reaper, &subject.id).await,
    }
}

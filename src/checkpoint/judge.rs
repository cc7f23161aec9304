//! What is seen before the container is touched, and whether it can be checkpointed at all.

use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::destination::Shelf;
use super::injected::{self, Injected};
use super::portable::Bound;
use super::preflight::{self, Look};
use super::{Container, Error, Request, changes};
use crate::criu;
use crate::operation::aside;
use crate::rights::Granted;
use crate::rootfs::{self, Had};
use crate::runtime::{Flavour, Version};
use crate::shm;

/// For a look at /proc, which may wait for a process or a dead server.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);
/// For what a container has changed in its root file system; that has an end.
const MEASURE_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct Judged {
    pub(super) injected: Vec<Injected>,
    /// That the image will take at least.
    pub(super) bytes: u64,
    pub(super) shelf: Option<Shelf>,
    pub(super) bound: Option<Bound>,
    pub(super) had: Option<Had>,
}

pub(super) async fn judge(
    container: &Container<'_>,
    request: &Request,
    version: &Version,
    options: &criu::Options,
    asked: SystemTime,
) -> Result<Judged, Error> {
    let subject = container.subject;
    let had = changes::planned(request, subject).await?;
    let (spec, cgroup, pid) = (subject.spec.clone(), container.cgroup.clone(), container.process.pid());
    let mut look = Look::new(pid, Vec::new(), options.clone()).under(&request.policy, request.exit);
    look.one_network = version.flavour == Flavour::Runc;
    look.image = Some(request.image.clone());
    let keeps_shm = request.policy.keeps_shm();
    let overlay = had.as_ref().and_then(|had| had.overlay.clone());
    let mut shelf = Shelf::of(request, subject, asked);
    let bound = Bound::of(request, subject, asked);
    let target = request.image.clone();
    if let Some(shelf) = &shelf {
        look.image = Some(shelf.root().to_owned());
    }
    let needed = shelf.clone().filter(|shelf| !shelf.is_a_wish());
    let judged = aside(move || {
        let injected = injected::of_container(pid, &spec);
        look.bound = Some(injected::points(&spec, &injected));
        let until = Instant::now() + MEASURE_PATIENCE;
        let changed = overlay.map_or(0, |overlay| rootfs::bytes(&overlay, until));
        look.besides = changed + if keeps_shm { shm::bytes(&spec) } else { 0 };
        look.granted = Some(Granted::of(&spec));
        let judge = |look: &mut Look| preflight::judge(look, || cgroup.processes().unwrap_or_default());
        let bytes = match judge(&mut look) {
            Err(Error::Preflight(blockers))
                if blockers.is_only_room() && shelf.as_ref().is_some_and(Shelf::is_a_wish) =>
            {
                shelf = None;
                look.image = Some(target);
                judge(&mut look)
            }
            judged => judged,
        };
        bytes.map(|bytes| Judged { injected, bytes, shelf, bound, had: None })
    });
    let judged = match timeout(LOOK_PATIENCE, judged).await {
        Ok(judged) => judged?,
        Err(_) => {
            tracing::warn!("/proc gives no answer; CRIU has to find out by itself");
            Judged { shelf: needed, ..Judged::default() }
        }
    };
    Ok(Judged { had, ..judged })
}

//! Taking a checkpoint: a list of phases with one undo.
//!
//! A container is stopped only after its image is sealed: CRIU calls our binary when
//! it has written everything and before it kills anything, and that call seals the
//! image (see [`seal::from_criu`]). If anything fails before, CRIU lets the container
//! run on, we thaw it, and nothing of the attempt is left but its log.

mod changes;
mod container;
mod destination;
mod error;
mod figures;
pub mod image;
pub mod injected;
mod judge;
mod kept;
pub mod manifest;
mod portable;
pub mod preflight;
pub mod seal;
mod settings;
mod transit;
mod unlock;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};

use crate::account;
use crate::criu;
use crate::criu::log;
use crate::criu::stats;
use crate::hooks::Hooks;
use crate::journal::Folder;
use crate::operation::{aside, explain, find_criu, hand_on, work_folder};
use crate::policy::{Policy, Stage};
use crate::restore::{forget_daemons_copy, note_daemons_copy};
use crate::rootfs::Had;
use crate::runtime::{Abort, CriuCall, Version};
use crate::shm;
pub(crate) use changes::base;
pub use container::Container;
use destination::Destination;
pub use error::Error;
pub use figures::Figures;
use figures::Watch;
use injected::Injected;
use judge::Judged;
use manifest::Manifest;
use portable::Portable;
pub use transit::is_temporary;

/// How long a dump may take if the client doesn't say; big memory on a slow disk.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);
/// From the end of a dump to the end of the processes it killed.
const DEATH_PATIENCE: Duration = Duration::from_secs(10);
/// From a kill that nobody has told of to its effect.
const KILL_PATIENCE: Duration = Duration::from_secs(1);
const DUMP_LOG: &str = "dump.log";

/// What the client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    pub image: PathBuf,
    /// Stop the container once its image is safe.
    pub exit: bool,
    /// Where the client wants CRIU's log and statistics.
    pub work: Option<PathBuf>,
    pub options: criu::Options,
    pub policy: Policy,
}

impl Request {
    fn deadline(&self) -> Duration {
        self.policy.deadline().unwrap_or(DEFAULT_DEADLINE)
    }
}

/// A checkpoint that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Where its files are.
    pub image: PathBuf,
    pub figures: Figures,
}

/// Takes a checkpoint. On success the container is gone, or goes on as before; on
/// failure it goes on as before.
pub async fn take(container: &Container<'_>, request: &Request, abort: &Abort) -> Result<Taken, Error> {
    let begun = Instant::now();
    let result = take_among_hooks(container, request, abort).await;
    let figures = result.as_ref().map(|taken| &taken.figures);
    account::of_checkpoint(container.subject, &request.policy, begun.elapsed(), figures);
    result
}

async fn take_among_hooks(
    container: &Container<'_>,
    request: &Request,
    abort: &Abort,
) -> Result<Taken, Error> {
    let asked = SystemTime::now();
    find_criu()?;
    let version = container.subject.runtime.version().await.map_err(Error::Runtime)?;
    let hooks = Hooks::new(&request.policy, &request.image);
    let result = match container.hear(&hooks, Stage::PreDump, abort).await {
        Ok(()) => take_if_possible(container, request, version, &hooks, asked, abort).await,
        Err(error) => Err(error),
    };
    let is_there = result.is_err() || !request.exit;
    if is_there && let Err(error) = container.hear(&hooks, Stage::PostResume, abort).await {
        tracing::warn!(%error, "the container goes on");
    }
    result
}

async fn take_if_possible(
    container: &Container<'_>,
    request: &Request,
    version: Version,
    hooks: &Hooks,
    asked: SystemTime,
    abort: &Abort,
) -> Result<Taken, Error> {
    let subject = container.subject;
    let options = settings::in_force(&request.options, container);
    let judged = judge::judge(container, request, &version, &options, asked).await?;
    // If this shim dies, containerd's copy may still be written to while containerd
    // removes it. Once it is complete, it is containerd's.
    note_daemons_copy(&request.image, &subject.bundle);
    let taken = take_into_place(container, request, version, options, hooks, judged, abort).await;
    forget_daemons_copy(&subject.bundle);
    taken
}

async fn take_into_place(
    container: &Container<'_>,
    request: &Request,
    version: Version,
    options: criu::Options,
    hooks: &Hooks,
    judged: Judged,
    abort: &Abort,
) -> Result<Taken, Error> {
    let Judged { injected, bytes, shelf, bound, had } = judged;
    let target = request.image.clone();
    let destination = aside(move || Destination::begin(&target, shelf.as_ref(), bytes)).await?;
    let subject = container.subject;
    // What is in the store is restored from there, as it is.
    let bound = bound.filter(|_| !destination.is_in_store());
    let portable = Portable::begin(subject.runtime.reaper, destination.folder(), bound);
    let attempt = async {
        let work = work_folder(subject, "checkpoint")?;
        let hooks = hooks.of_image(destination.folder());
        let begun = Instant::now();
        let attempt =
            Attempt { container, request, version, options, hooks, injected, had, work, begun, abort };
        attempt.run(destination.folder()).await
    };
    match attempt.await {
        Ok(mut figures) => {
            figures.compress_us = portable.finish(request.deadline()).await;
            let namespace = subject.namespace.clone();
            let image = aside(move || destination.publish(&namespace)).await?;
            Ok(Taken { image, figures })
        }
        Err(error) => {
            portable.give_up().await;
            aside(|| destination.discard()).await;
            Err(error)
        }
    }
}

struct Attempt<'a> {
    container: &'a Container<'a>,
    request: &'a Request,
    version: Version,
    options: criu::Options,
    hooks: Hooks,
    injected: Vec<Injected>,
    had: Option<Had>,
    /// For CRIU's configuration, log and statistics; kept for a while.
    work: Folder,
    begun: Instant,
    abort: &'a Abort,
}

impl Attempt<'_> {
    async fn run(&self, folder: &Path) -> Result<Figures, Error> {
        match self.dump(folder).await {
            Ok(figures) => self.finish(folder, figures).await,
            // What a stopped container left is never thrown away.
            Err(error) if self.was_stopped(folder).await => {
                tracing::warn!(%error, "the container was stopped and its checkpoint is complete, but");
                Ok(Figures::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it went too far to go back: the image was sealed and the container killed.
    async fn was_stopped(&self, folder: &Path) -> bool {
        if !self.request.exit || !seal::is_sealed(folder) {
            return false;
        }
        let process = &self.container.process;
        let quickly = timeout(KILL_PATIENCE, process.exited()).await.is_ok();
        quickly || (process.is_dying() && timeout(DEATH_PATIENCE, process.exited()).await.is_ok())
    }

    /// Up to the point of no return, which is CRIU's own.
    async fn dump(&self, folder: &Path) -> Result<Figures, Error> {
        let Container { subject, paused, .. } = self.container;
        let work = &*self.work;
        let failed = |source| Error::Write { path: work.to_owned(), source };
        let calls = self.hooks.listen(subject, None).map_err(failed)?;
        let asks = calls.place();
        let config = self.config(asks.is_some()).write(work).map_err(failed)?;
        self.describe(folder)?;
        let freezes = !paused;
        let mut watch = Watch::start(if *paused { self.begun } else { Instant::now() });
        if freezes {
            // CRIU freezes too, but polls for it in steps of a tenth of a second.
            self.container.freeze().await?;
        }
        let settled = self.container.settle().await;
        if freezes {
            watch.frozen();
        }
        let noted = match settled {
            Ok(()) => self.note_what_criu_forgets(folder).await,
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            if freezes {
                self.container.thaw().await;
            }
            return Err(error);
        }
        let network =
            unlock::Network::locked(self.container, &self.options, &self.request.policy, work.join(DUMP_LOG));
        let call = CriuCall {
            version: &self.version,
            image: folder,
            work,
            options: &self.options,
            config: Some(&config),
            link_remap: self.remaps_links(),
            skip_in_flight: self.request.policy.skips_in_flight(),
            hold: None,
            hooks: asks.as_deref(),
            hostname: None,
            deadline: self.request.deadline(),
            abort: self.abort,
        };
        watch.dump_begins();
        let dumped = calls.beside(subject.runtime.checkpoint(&call, !self.request.exit)).await;
        watch.dumped();
        if let Some(network) = network {
            let stopped = dumped.is_ok().then_some(self.request.exit);
            network.after_dump(stopped, self.container).await;
        }
        if freezes || (dumped.is_ok() && self.request.exit) {
            self.container.thaw().await;
            watch.thawed(!self.request.exit);
        }
        if *paused && dumped.is_err() {
            // A CRIU that is killed thaws what it didn't freeze.
            let _ = self.container.freeze().await;
        }
        hand_on(work, self.request.work.as_deref(), &[DUMP_LOG, stats::DUMP_FILE]);
        let Err(error) = dumped else { return Ok(watch.figures().with_criu(work)) };
        if let Some(error) = calls.failure() {
            return Err(error.into());
        }
        Err(explain(error, work.join(DUMP_LOG)).await.map_or_else(Error::Runtime, Error::Criu))
    }

    /// While it stands still: even where it is CRIU that freezes it, clients have paused it.
    async fn note_what_criu_forgets(&self, folder: &Path) -> Result<(), Error> {
        let (first, folder) = (self.container.process.pid(), folder.to_owned());
        let ignores_cgroups = self.options.cgroups_mode.as_deref() == Some("ignore");
        let spec = self.request.policy.keeps_shm().then(|| self.container.subject.spec.clone());
        let until = std::time::Instant::now() + self.request.deadline();
        let limits = shm::Limits { until, abort: self.abort.clone() };
        let cgroup = self.container.cgroup.clone();
        aside(move || {
            if let Err(error) = seal::keep_unread(&folder, first) {
                tracing::warn!(%error, "what the container hasn't read of its input isn't in the checkpoint");
            }
            let failed = |source| Error::Write { path: folder.clone(), source };
            if !ignores_cgroups {
                cgroup.note_nested(first, &folder).map_err(failed)?;
            }
            let shm = spec.map_or_else(|| Ok(Vec::new()), |spec| shm::keep(&spec, &folder, &limits))?;
            if shm.is_empty() {
                return Ok(());
            }
            let manifest = Manifest::read(&folder).map_err(failed)?;
            Manifest { shm, ..manifest }.write(&folder, false).map_err(failed)
        })
        .await
    }

    /// The image is complete; the container runs again, or dies as it was meant to.
    async fn finish(&self, folder: &Path, figures: Figures) -> Result<Figures, Error> {
        if self.request.exit {
            self.await_death().await;
        }
        let criu = log::version(&self.work.join(DUMP_LOG));
        let took = millis(self.begun.elapsed());
        let image = folder.to_owned();
        let seal = move || {
            seal::seal(&image, |manifest| {
                manifest.criu = criu;
                manifest.took = took;
                manifest.figures = Figures { bytes: Some(manifest.bytes()), ..figures };
            })
        };
        match aside(seal).await {
            Err(error) if seal::is_sealed(folder) => {
                tracing::warn!(%error, "the checkpoint is complete, only its figures are missing");
                Ok(figures)
            }
            Err(source) => Err(Error::Write { path: folder.to_owned(), source }),
            Ok(manifest) => Ok(manifest.figures),
        }
    }

    fn describe(&self, folder: &Path) -> Result<(), Error> {
        Manifest::describe(self.container, &self.version, &self.options, !self.request.exit)
            .and_then(|manifest| {
                let (injected, rootfs) = (self.injected.clone(), self.had.clone());
                Manifest { injected, rootfs, ..manifest }.write(folder, false)
            })
            .map_err(|source| Error::Write { path: folder.to_owned(), source })
    }

    async fn await_death(&self) {
        let process = &self.container.process;
        if timeout(DEATH_PATIENCE, process.exited()).await.is_err() {
            tracing::warn!(pid = process.pid(), "still there after its checkpoint and killed");
            let _ = process.signal(9);
            let _ = timeout(DEATH_PATIENCE, process.exited()).await;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

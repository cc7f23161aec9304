//! What is checkpointed: to be frozen, and to be let go on.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Error;
use super::preflight::Spawning;
use crate::cgroup::{self, Cgroup};
use crate::container::Subject;
use crate::hooks::Hooks;
use crate::operation::aside;
use crate::policy::Stage;
use crate::reaper::Process;
use crate::runtime::Abort;

/// Until every process stands still. A process that can't be frozen within this time
/// is stopped or traced and won't be frozen later either.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);
const THAW_PATIENCE: Duration = Duration::from_secs(10);
/// From vfork to exec, which takes no time worth mentioning unless something is in the way.
const SPAWN_PATIENCE: Duration = Duration::from_secs(2);
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// The container that is to be checkpointed, as it is at this moment.
pub struct Container<'a> {
    pub subject: &'a Subject,
    pub process: Process,
    pub cgroup: Cgroup,
    pub paused: bool,
}

impl Container<'_> {
    /// Runs hooks that may talk to the container. Clients pause it before they ask for a
    /// checkpoint; it wouldn't answer then.
    pub(super) async fn hear(&self, hooks: &Hooks, stage: Stage, abort: &Abort) -> Result<(), Error> {
        if !hooks.any_at(stage) {
            return Ok(());
        }
        if self.paused {
            self.thaw().await;
        }
        let run = hooks.run(stage, self.subject, Some(self.process.pid()));
        let result = abort.unless("checkpoint", run).await;
        if self.paused {
            self.freeze().await?;
        }
        Ok(result.map_err(Error::Runtime)??)
    }

    pub(super) async fn freeze(&self) -> Result<(), Error> {
        match self.subject.freezer(&self.cgroup).await.freeze(Instant::now() + FREEZE_PATIENCE).await {
            Ok(()) => Ok(()),
            Err(error @ (cgroup::Error::WontFreeze { .. } | cgroup::Error::FrozenAbove { .. })) => {
                Err(Error::Freeze(error))
            }
            Err(error) => {
                tracing::warn!(%error, "CRIU has to stop the container process by process");
                Ok(())
            }
        }
    }

    /// Whoever is just being started gets the time for it; then all stands still again.
    pub(super) async fn settle(&self) -> Result<(), Error> {
        let deadline = Instant::now() + SPAWN_PATIENCE;
        while let Some(spawning) = self.spawning().await {
            if Instant::now() >= deadline {
                return Err(Error::Spawning(spawning));
            }
            self.thaw().await;
            let lasts = || {
                let spawning = spawning.clone();
                aside(move || spawning.lasts())
            };
            while timeout_at(deadline, lasts()).await == Ok(true) {
                sleep(BETWEEN_LOOKS).await;
            }
            self.freeze().await?;
        }
        Ok(())
    }

    /// Not on the shim's only thread: the kernel may have us wait for an exec.
    async fn spawning(&self) -> Option<Spawning> {
        let cgroup = self.cgroup.clone();
        aside(move || Spawning::among(&cgroup.processes().unwrap_or_default())).await
    }

    pub(super) async fn thaw(&self) {
        match self.subject.freezer(&self.cgroup).await.thaw(Instant::now() + THAW_PATIENCE).await {
            // The runtime has removed the container it stopped.
            Ok(()) | Err(cgroup::Error::Gone { .. }) => {}
            Err(error) => tracing::error!(%error, "the container stays frozen"),
        }
    }
}

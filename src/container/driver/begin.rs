//! What a request sets in motion once it is admitted.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::exec::{self, Stage};
use super::super::lifecycle::{self, Remains};
use super::*;
use crate::account;
use crate::cgroup::Freezer;
use crate::container::exec::signal_process;
use crate::runtime::{self, Cause};

/// From the runtime's `start` to the container's program; milliseconds, mostly.
const EXEC_PATIENCE: Duration = Duration::from_secs(10);
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);
const SIGKILL: u32 = 9;

impl Driver {
    pub(super) fn start(&mut self, reply: Reply<u32>) {
        self.phase = Phase::Starting;
        let subject = self.subject.clone();
        match self.awaited.take() {
            None => self.spawn(async move {
                let result = subject.runtime.start().await.map_err(Error::from);
                Done::Started { reply, result }
            }),
            Some(prepared) => {
                self.abort = prepared.abort.clone();
                self.spawn(async move {
                    let result = prepared.run().await.map_err(Error::from);
                    Done::Restored { reply, result }
                });
            }
        }
    }

    pub(super) fn add_exec(&mut self, id: String, process: &[u8], stdio: Paths) -> Result<(), Error> {
        if self.execs.contains_key(&id) {
            return Err(Error::ExecExists(id));
        }
        if !is_plain_name(&id) {
            return Err(Error::Invalid(format!("{id:?} can't be the id of a process")));
        }
        self.execs.insert(id.clone(), Exec::new(process, stdio)?);
        self.tell(Event::ExecAdded { exec: id });
        Ok(())
    }

    pub(super) fn start_exec(&mut self, id: String, reply: Reply<u32>) {
        let exec = match self.execs.get_mut(&id) {
            None => return self.answer(reply, Err(Error::NoExec(id))),
            Some(exec) => exec,
        };
        if !matches!(exec.stage, Stage::Added) {
            let error = Error::ExecState { ask: "start", exec: id, is: "was started before" };
            return self.answer(reply, Err(error));
        }
        exec.stage = Stage::Starting;
        let (subject, plan) = (self.subject.clone(), exec.plan.clone());
        let process = std::mem::take(&mut exec.process);
        self.spawn(async move {
            let result = exec::start(&subject, &id, &plan, &process).await;
            Done::ExecStarted { id, reply, result }
        });
    }

    pub(super) fn change(&mut self, change: Change, reply: Reply<()>) {
        let from = std::mem::replace(&mut self.phase, Phase::Changing);
        self.resting = match (&change, from) {
            (Change::Pause, _) => Status::Pausing,
            (_, Phase::Created) => Status::Created,
            (_, Phase::Paused) => Status::Paused,
            _ => Status::Running,
        };
        let (subject, cgroup) = (self.subject.clone(), self.cgroup.clone());
        // Nobody can tell whether one goes on that has no cgroup of its own.
        let process = self.process.clone().filter(|_| cgroup.is_some());
        let begun = self.program_begun();
        self.spawn(async move {
            let result = match &change {
                Change::Pause => {
                    begun.await;
                    pause(&subject, cgroup).await
                }
                Change::Resume => resume(&subject, process).await,
                Change::Update(resources) => subject.runtime.update(resources.clone()).await,
            };
            Done::Changed { change, from, reply, result: result.map_err(Error::from) }
        });
    }

    pub(super) fn checkpoint(&mut self, request: Box<checkpoint::Request>, reply: Reply<()>) {
        let (Some(process), Some(cgroup)) = (self.process.clone(), self.cgroup.clone()) else {
            let error = checkpoint::Error::NoCgroup;
            return self.answer(reply, Err(error.into()));
        };
        let execs = self.execs.values().filter(|exec| exec.is_live()).count();
        if request.policy.refuses_execs() && execs > 0 {
            let error = checkpoint::Error::Execs(execs);
            account::of_checkpoint(&self.subject, &request.policy, Duration::ZERO, Err(&error));
            return self.answer(reply, Err(error.into()));
        }
        let from = std::mem::replace(&mut self.phase, Phase::Checkpointing);
        let paused = from == Phase::Paused;
        self.resting = if paused { Status::Paused } else { Status::Running };
        self.abort = Abort::default();
        let (subject, abort) = (self.subject.clone(), self.abort.clone());
        let begun = self.program_begun();
        self.spawn(async move {
            begun.await;
            let container = checkpoint::Container { subject: &subject, process, cgroup, paused };
            let result = checkpoint::take(&container, &request, &abort).await;
            Done::Checkpointed { request, from, reply, result }
        });
    }

    /// The runtime's `start` returns when its own init is about to execute the container's
    /// program. Nobody can come back who was frozen before that.
    fn program_begun(&self) -> impl Future<Output = ()> + use<> {
        let (process, maker) = (self.process.clone(), self.maker.clone());
        async move {
            let (Some(process), Some(maker)) = (process, maker) else { return };
            let deadline = Instant::now() + EXEC_PATIENCE;
            while process.program().as_ref() == Some(&maker) && Instant::now() < deadline {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    pub(super) fn kill(&mut self, signal: u32, all: bool, reply: Reply<()>) {
        if self.anchored {
            // A restore that is under way is called off when the anchor is gone.
            let result =
                self.process.as_ref().map_or(Err(Error::Finished), |anchor| kill_anchor(anchor, signal));
            return self.answer(reply, result);
        }
        if self.phase == Phase::Checkpointing && signal == SIGKILL {
            // No use in finishing what is about to be killed.
            self.abort.abort();
        }
        let runtime = self.subject.runtime.clone();
        let doomed = self.cgroup.clone().filter(|_| self.phase != Phase::Checkpointing && signal == SIGKILL);
        self.spawn(async move {
            let result = match runtime.kill(signal, all).await {
                Err(error) if matches!(error.cause(), Cause::NotRunning | Cause::NoContainer) => {
                    Err(Error::Finished)
                }
                result => result.map_err(Error::from),
            };
            // With cgroup v1 not even SIGKILL ends what is frozen, by whomever.
            if let Some(cgroup) = doomed.filter(|_| result.is_ok()) {
                cgroup.release();
            }
            let _ = reply.send(result);
            Done::Nothing
        });
    }

    pub(super) fn delete(&mut self, reply: Reply<Ended>) {
        self.phase = Phase::Deleting;
        self.outputs = None;
        let remains = Remains {
            awaited: self.awaited.take(),
            process: self.process.clone().filter(|_| self.exit.is_none()),
            streams: self.streams.take(),
            cgroup: self.cgroup.clone(),
        };
        let subject = self.subject.clone();
        self.spawn(async move {
            let result = lifecycle::delete(&subject, remains).await;
            Done::Deleted { reply, result }
        });
    }

    pub(super) fn delete_exec(&mut self, id: String, reply: Reply<Ended>) {
        let exec = match self.execs.get_mut(&id) {
            None => return self.answer(reply, Err(Error::NoExec(id))),
            Some(exec) => exec,
        };
        let ended = match &exec.stage {
            Stage::Ended(ended) => *ended,
            Stage::Added => Ended { pid: 0, exit: Exit::unknown() },
            Stage::Starting | Stage::Running(_) => {
                let error = Error::ExecState { ask: "delete", exec: id, is: "still runs" };
                return self.answer(reply, Err(error));
            }
            Stage::Deleting(_) => {
                let error = Error::ExecState { ask: "delete", exec: id, is: "is being deleted" };
                return self.answer(reply, Err(error));
            }
        };
        exec.stage = Stage::Deleting(ended);
        let (subject, streams) = (self.subject.clone(), exec.streams.take());
        self.spawn(async move {
            exec::delete(&subject.bundle, &id, streams).await;
            Done::ExecDeleted { id, ended, reply }
        });
    }
}

/// On a busy machine runc gives up too early, and leaves the container half frozen.
async fn pause(subject: &Subject, cgroup: Option<Cgroup>) -> Result<(), runtime::Error> {
    let paused = subject.runtime.pause().await;
    let (Err(error), Some(cgroup)) = (&paused, cgroup) else { return paused };
    let freezer = subject.freezer(&cgroup).await;
    if error.cause() == Cause::NotFrozen && freezer.freeze(Instant::now() + FREEZE_PATIENCE).await.is_ok() {
        return Ok(());
    }
    let _ = freezer.thaw(Instant::now() + THAW_PATIENCE).await;
    paused
}

/// runc refuses to let go on what does already: a checkpoint that had to let it go on
/// for a moment may have failed to freeze it again, or somebody did it by hand.
async fn resume(subject: &Subject, process: Option<Process>) -> Result<(), runtime::Error> {
    let resumed = subject.runtime.resume().await;
    let (Err(error), Some(process)) = (&resumed, process) else { return resumed };
    if !goes_on(&process) {
        return resumed;
    }
    tracing::warn!(%error, "the container went on before it was resumed");
    Ok(())
}

/// By the cgroup that the process is in: whatever is frozen above holds that, too.
fn goes_on(process: &Process) -> bool {
    let is_thawed = || Cgroup::of_process(process.pid())?.frozen().map(|is| is == Freezer::Thawed);
    !process.is_dead() && !process.is_dying() && is_thawed().unwrap_or(false)
}

/// An anchor has no handlers, and as the first process of a pid namespace it would
/// ignore everything else: what ends a process by default ends it.
fn kill_anchor(anchor: &Process, signal: u32) -> Result<(), Error> {
    /// Those that do nothing by default, or stop and continue.
    const HARMLESS: [u32; 9] = [0, 17, 18, 19, 20, 21, 22, 23, 28];
    if HARMLESS.contains(&signal) {
        return Ok(());
    }
    signal_process(anchor, SIGKILL)
}

/// Exec ids become file names in the bundle.
fn is_plain_name(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !id.is_empty() && id.len() <= 200 && !id.starts_with('.') && id.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_id_can_not_leave_the_bundle() {
        assert!(is_plain_name("exec-1.a_B"));
        for id in ["", "..", ".hidden", "a/b", "a b", "a\0"] {
            assert!(!is_plain_name(id), "{id:?}");
        }
    }
}

//! What follows when something that was set in motion is over.

use tokio::time::Instant;

use super::super::exec::Stage;
use super::*;

impl Driver {
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Started { reply, result } => self.started(reply, result),
            Done::Restored { reply, result } => self.restored(reply, result),
            Done::Changed { change, from, reply, result } => self.changed(change, from, reply, result),
            Done::Checkpointed { request, from, reply, result } => {
                self.checkpointed(*request, from, reply, result);
            }
            Done::ExecStarted { id, reply, result } => self.exec_started(id, reply, result),
            Done::ExecDeleted { id, ended, reply } => {
                self.execs.remove(&id);
                self.answer(reply, Ok(ended));
            }
            Done::Exited { exec: None, pid, exit } => self.init_exited(pid, exit),
            Done::Exited { exec: Some(id), pid, exit } => self.exec_exited(id, pid, exit),
            Done::Swept => self.ending.iter_mut().for_each(|ending| ending.swept = Some(true)),
            Done::Deleted { reply, result } => self.deletion(reply, result),
            Done::Lost => self.lost(),
            Done::Nothing => {}
        }
    }

    /// Whatever it was: the container can be asked again, and deleted.
    fn lost(&mut self) {
        tracing::error!(id = self.subject.id, phase = %self.phase, "a task of this shim has panicked");
        self.phase = match self.phase {
            Phase::Starting => Phase::Created,
            Phase::Deleting => Phase::Stopped,
            Phase::Changing | Phase::Checkpointing => match self.resting {
                Status::Created => Phase::Created,
                Status::Paused => Phase::Paused,
                _ => Phase::Running,
            },
            phase => phase,
        };
        if let Some(cgroup) = self.cgroup.clone().filter(|_| self.phase == Phase::Running) {
            let subject = self.subject.clone();
            self.spawn(async move {
                let freezer = subject.freezer(&cgroup).await;
                let _ = freezer.thaw(Instant::now() + THAW_PATIENCE).await;
                Done::Nothing
            });
        }
    }

    fn started(&mut self, reply: Reply<u32>, result: Result<(), Error>) {
        if let Err(error) = result {
            // What was made is still there, and the client may look at it or delete it.
            self.phase = Phase::Created;
            return self.answer(reply, Err(error));
        }
        self.phase = Phase::Running;
        self.tell(Event::Started { pid: self.last_pid });
        self.answer(reply, Ok(self.last_pid));
    }

    fn restored(&mut self, reply: Reply<u32>, result: Result<restore::Restored, Error>) {
        let anchor = self.process.take();
        self.anchored = false;
        let killed = self.ending.take();
        match result {
            Ok(restored) => {
                self.network = restored.network;
                if killed.is_some() {
                    // The kill came first; it must not be lost on the anchor.
                    let _ = restored.live.process.signal(9);
                } else if let Some(anchor) =
                    anchor.filter(|anchor| anchor.pid() != restored.live.process.pid())
                {
                    let _ = anchor.signal(9);
                }
                self.live(restored.live);
                self.outputs = None;
                self.phase = Phase::Running;
                self.tell(Event::Started { pid: self.last_pid });
                self.answer(reply, Ok(self.last_pid));
            }
            Err(error) => {
                if let Some(anchor) = anchor {
                    let _ = anchor.signal(9);
                }
                // It never ran, so nobody is told that it ended. Those who wait are let
                // go, and it can be deleted.
                self.failure = Some(error.to_string());
                self.last_pid = 0;
                self.stop(killed.map_or_else(Exit::unknown, |ending| ending.exit));
                self.answer(reply, Err(error));
            }
        }
    }

    fn changed(&mut self, change: Change, from: Phase, reply: Reply<()>, result: Result<(), Error>) {
        self.phase = match (&change, &result) {
            (Change::Pause, Ok(())) => Phase::Paused,
            (Change::Resume, Ok(())) => Phase::Running,
            _ => from,
        };
        match (&change, &result) {
            (Change::Pause, Ok(())) => self.tell(Event::Paused),
            (Change::Resume, Ok(())) => self.tell(Event::Resumed),
            _ => {}
        }
        self.answer(reply, result);
    }

    fn checkpointed(
        &mut self,
        request: checkpoint::Request,
        from: Phase,
        reply: Reply<()>,
        result: Result<checkpoint::Taken, checkpoint::Error>,
    ) {
        self.phase = from;
        match result {
            Ok(taken) => self.tell(Event::Checkpointed { image: taken.image }),
            Err(error) => return self.answer(reply, Err(error.into())),
        }
        if request.exit {
            let Subject { namespace, id, bundle, .. } = &*self.subject;
            self.node.stops.note(namespace, id, bundle);
        }
        match self.process.as_ref().and_then(Process::exit) {
            // Answered when it counts as stopped, so that a Delete right after finds it so.
            Some(exit) if request.exit => self.ending = Some(Ending::after_checkpoint(exit, reply)),
            _ => self.answer(reply, Ok(())),
        }
    }

    fn exec_started(&mut self, id: String, reply: Reply<u32>, result: Result<Live, Error>) {
        let Some(exec) = self.execs.get_mut(&id) else { return };
        match result {
            Ok(Live { process, streams }) => {
                let pid = process.pid();
                exec.streams = Some(streams);
                exec.stage = Stage::Running(process.clone());
                self.tell(Event::ExecStarted { exec: id.clone(), pid });
                self.spawn(async move {
                    let exit = process.exited().await;
                    Done::Exited { exec: Some(id), pid, exit }
                });
                self.answer(reply, Ok(pid));
            }
            Err(error) => {
                exec.end(0, Exit::unknown());
                self.answer(reply, Err(error));
            }
        }
    }

    fn exec_exited(&mut self, id: String, pid: u32, exit: Exit) {
        if let Some(exec) = self.execs.get_mut(&id) {
            exec.end(pid, exit);
            self.tell(Event::Exited { process: id, pid, exit });
        }
    }

    fn init_exited(&mut self, pid: u32, exit: Exit) {
        // A checkpoint may have told it already, and an anchor that a restore has
        // replaced isn't missed.
        let current = self.process.as_ref().is_some_and(|process| process.pid() == pid);
        if !current || self.ending.is_some() || self.exit.is_some() {
            return;
        }
        if self.anchored {
            self.abort.abort();
        }
        // An anchor only ever ends because it is killed, and isn't always our child to ask.
        let exit = if self.anchored { Exit { at: exit.at, ..Exit::killed() } } else { exit };
        self.ending = Some(Ending::new(exit));
    }

    fn deletion(&mut self, reply: Reply<Ended>, result: Result<Option<Exit>, Error>) {
        let killed = match result {
            Ok(killed) => killed,
            Err(error) => {
                self.phase = Phase::Stopped;
                self.exit.get_or_insert_with(Exit::killed);
                return self.answer(reply, Err(error));
            }
        };
        let pid = self.last_pid;
        if let Some(exit) = killed {
            self.tell(Event::Exited { process: self.subject.id.clone(), pid, exit });
        }
        let exit = *self.exit.get_or_insert_with(|| killed.unwrap_or_else(Exit::killed));
        self.tell(Event::Deleted { pid, exit });
        self.deleted = true;
        self.answer(reply, Ok(Ended { pid, exit }));
    }
}

//! The end of the first process, and what has to happen before it is told.

use super::super::lifecycle;
use super::*;
use crate::bundle::Sharing;

pub(super) struct Ending {
    pub(super) exit: Exit,
    /// Whether what the first process left running has been killed; nothing before
    /// that was begun.
    pub(super) swept: Option<bool>,
    /// Whoever asked for the checkpoint that ended it.
    reply: Option<Reply<()>>,
}

impl Ending {
    pub(super) fn new(exit: Exit) -> Ending {
        Ending { exit, swept: None, reply: None }
    }

    pub(super) fn after_checkpoint(exit: Exit, reply: Reply<()>) -> Ending {
        Ending { reply: Some(reply), ..Ending::new(exit) }
    }
}

impl Driver {
    /// After anything that happened: goes on with an ending, and with what was parked.
    pub(super) fn settle(&mut self) {
        if !self.is_busy() {
            self.end();
            for request in std::mem::take(&mut self.parked) {
                self.receive(request);
            }
        }
        self.publish();
    }

    fn end(&mut self) {
        match self.ending.as_ref().map(|ending| ending.swept) {
            Some(None) => self.sweep(),
            Some(Some(true)) if !self.execs.values().any(Exec::is_live) => self.conclude(),
            _ => {}
        }
    }

    fn conclude(&mut self) {
        let Some(Ending { exit, reply, .. }) = self.ending.take() else { return };
        if let Some(oom) = &mut self.oom {
            let kills = oom.unreported();
            self.tell_oom(kills);
        }
        self.tell(Event::Exited { process: self.subject.id.clone(), pid: self.last_pid, exit });
        lifecycle::record_exit(&self.subject, self.last_pid, exit);
        self.stop(exit);
        if let Some(reply) = reply {
            self.answer(reply, Ok(()));
        }
    }

    /// The end of a private pid namespace takes everybody with it; otherwise we do.
    fn sweep(&mut self) {
        let alone = self.anchored || self.subject.spec.sharing("pid") == Sharing::Private;
        self.ending.iter_mut().for_each(|ending| ending.swept = Some(alone));
        if alone {
            return self.end();
        }
        let runtime = self.subject.runtime.clone();
        self.spawn(async move {
            if let Err(error) = runtime.kill(9, true).await {
                tracing::debug!(%error, "nothing was left running by the first process, it seems");
            }
            Done::Swept
        });
    }

    pub(super) fn stop(&mut self, exit: Exit) {
        self.phase = Phase::Stopped;
        self.exit = Some(exit);
        self.oom = None;
        self.outputs = None;
        self.anchored = false;
    }
}

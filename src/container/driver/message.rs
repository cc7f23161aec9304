//! What the driver is asked, and what it hears of things that were set in motion.

use crate::checkpoint;
use crate::container::lifecycle::Live;
use crate::container::state::Phase;
use crate::container::{Change, Ended, Error, Reply};
use crate::reaper::Exit;
use crate::restore;
use crate::stdio::Paths;

pub(in crate::container) enum Request {
    Start { reply: Reply<u32> },
    Exec { id: String, process: Vec<u8>, stdio: Paths, reply: Reply<()> },
    StartExec { id: String, reply: Reply<u32> },
    Change { change: Change, reply: Reply<()> },
    Checkpoint { checkpoint: Box<checkpoint::Request>, reply: Reply<()> },
    Kill { signal: u32, all: bool, reply: Reply<()> },
    KillExec { id: String, signal: u32, reply: Reply<()> },
    Resize { exec: Option<String>, columns: u16, rows: u16, reply: Reply<()> },
    CloseStdin { exec: Option<String>, reply: Reply<()> },
    Delete { reply: Reply<Ended> },
    DeleteExec { id: String, reply: Reply<Ended> },
}

/// Something that took its time is over.
pub(super) enum Done {
    Started {
        reply: Reply<u32>,
        result: Result<(), Error>,
    },
    Restored {
        reply: Reply<u32>,
        result: Result<restore::Restored, Error>,
    },
    Changed {
        change: Change,
        from: Phase,
        reply: Reply<()>,
        result: Result<(), Error>,
    },
    Checkpointed {
        request: Box<checkpoint::Request>,
        from: Phase,
        reply: Reply<()>,
        result: Result<checkpoint::Taken, checkpoint::Error>,
    },
    ExecStarted {
        id: String,
        reply: Reply<u32>,
        result: Result<Live, Error>,
    },
    ExecDeleted {
        id: String,
        ended: Ended,
        reply: Reply<Ended>,
    },
    /// A process of ours ended: an exec'd one, or without a name the first one.
    Exited {
        exec: Option<String>,
        pid: u32,
        exit: Exit,
    },
    /// What the first process left running has been killed.
    Swept,
    Deleted {
        reply: Reply<Ended>,
        result: Result<Option<Exit>, Error>,
    },
    /// What was under way has failed in a way nobody thought of.
    Lost,
    Nothing,
}

impl Request {
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Request::Start { reply } | Request::StartExec { reply, .. } => reply.is_closed(),
            Request::Delete { reply } | Request::DeleteExec { reply, .. } => reply.is_closed(),
            Request::Exec { reply, .. }
            | Request::Change { reply, .. }
            | Request::Checkpoint { reply, .. }
            | Request::Kill { reply, .. }
            | Request::KillExec { reply, .. }
            | Request::Resize { reply, .. }
            | Request::CloseStdin { reply, .. } => reply.is_closed(),
        }
    }

    pub(super) fn refuse(self, error: Error) {
        // Whoever asked may have gone.
        match self {
            Request::Start { reply } | Request::StartExec { reply, .. } => drop(reply.send(Err(error))),
            Request::Delete { reply } | Request::DeleteExec { reply, .. } => drop(reply.send(Err(error))),
            Request::Exec { reply, .. }
            | Request::Change { reply, .. }
            | Request::Checkpoint { reply, .. }
            | Request::Kill { reply, .. }
            | Request::KillExec { reply, .. }
            | Request::Resize { reply, .. }
            | Request::CloseStdin { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

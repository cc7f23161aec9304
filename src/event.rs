//! What the core tells the outside, in the order in which it happened.

use std::path::PathBuf;
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::mount::Mount;
use crate::reaper::Exit;
use crate::stdio::Paths;

/// An event and the container it happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub at: SystemTime,
    pub container: String,
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Created {
        pid: u32,
        bundle: PathBuf,
        rootfs: Vec<Mount>,
        stdio: Paths,
        checkpoint: Option<PathBuf>,
    },
    Started {
        pid: u32,
    },
    ExecAdded {
        exec: String,
    },
    ExecStarted {
        exec: String,
        pid: u32,
    },
    /// `process` is the container's id for its first process, else the exec's.
    Exited {
        process: String,
        pid: u32,
        exit: Exit,
    },
    OutOfMemory,
    Paused,
    Resumed,
    Checkpointed {
        image: PathBuf,
    },
    Deleted {
        pid: u32,
        exit: Exit,
    },
}

/// Where events go. Without a bound, because none may be lost: what fills it is what
/// clients ask for, and they ask through the same daemon that empties it.
pub type Events = mpsc::UnboundedSender<Notice>;

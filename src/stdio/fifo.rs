//! The client's end of stdin.

use std::os::fd::OwnedFd;
use std::path::Path;

use tokio::net::unix::pipe;

use super::{Error, open_error};

/// A writer of our own, so that the process sees no end of input while the client's
/// side comes and goes: containerd restarts, a terminal detaches and attaches.
#[derive(Debug)]
pub(super) struct KeptOpen(#[expect(dead_code, reason = "it is there to stay open")] OwnedFd);

pub(super) struct Input {
    pub(super) fifo: pipe::Receiver,
    pub(super) keep: KeptOpen,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Input, Error> {
        // The reader first: without one, a writer can't be opened without waiting.
        let fifo = pipe::OpenOptions::new().open_receiver(path).map_err(open_error("stdin", path))?;
        let keep = pipe::OpenOptions::new()
            .open_sender(path)
            .and_then(pipe::Sender::into_nonblocking_fd)
            .map_err(open_error("stdin", path))?;
        Ok(Input { fifo, keep: KeptOpen(keep) })
    }
}

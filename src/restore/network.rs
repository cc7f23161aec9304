//! A network namespace that was made for a container before its restore.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::Error;
use crate::reaper::Process;

/// The runtime knows it by a path through this process, so it lasts as long as this does and
/// leaves nothing behind.
#[derive(Debug)]
pub struct Network(OwnedFd);

impl Network {
    pub(super) fn of(anchor: &Process) -> Result<Network, Error> {
        let path = format!("/proc/{}/ns/net", anchor.pid());
        Ok(Network(fs::File::open(path).map_err(Error::Anchor)?.into()))
    }

    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    pub(super) fn place(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }
}

//! Terminals: one is made, its far end is handed to whoever asked for it.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::failure::{Failure, Outcome};

pub(crate) struct Terminal {
    master: OwnedFd,
    pub(crate) slave: File,
}

impl Terminal {
    pub(crate) fn make() -> Outcome<Terminal> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let name = name.into_string().map_err(|_| Failure::new("a terminal without a name"))?;
        let slave = File::options().read(true).write(true).open(name)?;
        Ok(Terminal { master, slave })
    }

    pub(crate) fn send(&self, socket: &str) -> Outcome {
        let stream = UnixStream::connect(socket)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [self.master.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&stream, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::empty())?;
        Ok(())
    }
}

//! Terminals: receiving one from the runtime, and reading, writing and resizing it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Error;
use crate::{bundle, sys};

const RECEIVE_PATIENCE: Duration = Duration::from_secs(30);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where a runtime delivers the terminal it made.
pub struct ConsoleSocket(bundle::Socket);

/// The master side of a process's terminal.
#[derive(Clone)]
pub struct Console(Arc<AsyncFd<OwnedFd>>);

impl ConsoleSocket {
    pub fn listen(bundle: &Path) -> Result<ConsoleSocket, Error> {
        let name = format!("console-{}.sock", NEXT.fetch_add(1, Ordering::Relaxed));
        bundle::Socket::listen(bundle, &name).map(ConsoleSocket).map_err(Error::Console)
    }

    /// Its name for a runtime that works in the bundle.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Call it once the runtime has returned: what it sent is waiting then.
    pub async fn receive(self) -> Result<Console, Error> {
        let receive = async {
            let (stream, _) = self.0.listener.accept().await?;
            let master = receive_descriptor(&stream).await?;
            rustix::io::ioctl_fionbio(&master, true)?;
            Ok(Console(Arc::new(sys::watch(master)?)))
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the runtime sent no terminal within 30 s");
        timeout(RECEIVE_PATIENCE, receive).await.unwrap_or_else(|_| Err(late())).map_err(Error::Console)
    }
}

async fn receive_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    loop {
        stream.readable().await?;
        match stream.try_io(tokio::io::Interest::READABLE, || take_descriptor(stream)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

fn take_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    // The message itself is the terminal's name, which tells nothing new.
    let mut name = [0; 256];
    let parts = &mut [io::IoSliceMut::new(&mut name)];
    recvmsg(stream.as_fd(), parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "the runtime sent no descriptor");
    descriptors.flatten().next().ok_or_else(missing)
}

impl Console {
    pub(super) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.0.get_ref(), size)?)
    }

    /// Fails with EIO once nobody has the other side open any more.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(result) = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?)) {
                return result;
            }
        }
    }

    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(result) = ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                bytes = &bytes[result?..];
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};

    fn send(to: &Path, descriptor: &OwnedFd) {
        let stream = std::os::unix::net::UnixStream::connect(to).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&stream, &[io::IoSlice::new(b"/dev/pts/0")], &mut control, SendFlags::empty()).unwrap();
    }

    #[tokio::test]
    async fn a_terminal_arrives_and_is_resized() {
        let bundle = tempfile::tempdir().unwrap();
        let socket = ConsoleSocket::listen(bundle.path()).unwrap();
        let path = bundle.path().join(socket.name());
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        send(&path, &master);
        let console = socket.receive().await.unwrap();
        assert!(!path.exists());
        console.resize(120, 40).unwrap();
        assert_eq!(rustix::termios::tcgetwinsize(&master).unwrap().ws_col, 120);
    }

    #[tokio::test]
    async fn a_bundle_with_a_long_path_has_a_socket_too() {
        let bundle = tempfile::tempdir().unwrap();
        let deep = bundle.path().join("x".repeat(120)).join("y".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        ConsoleSocket::listen(&deep).unwrap();
    }
}

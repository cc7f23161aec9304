//! A restore that begins with Create and stands still until Start.
//!
//! A network namespace belongs to the user namespace it was made in, and CRIU makes the
//! container's user namespace itself. So nothing can be made beforehand. Instead, CRIU
//! calls our binary when the namespaces are there and nothing is in them yet; that call
//! reports the first process's pid here, waits, and lets CRIU go on with Start.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use super::{Attempt, Error, How, Restored, guard, spec_hooks, sysctls};
use crate::bundle::{Socket, Spec};
use crate::container::{Subject, remove_unfinished};
use crate::criu;
use crate::reaper::Process;
use crate::runtime::{Abort, Flavour};
use crate::sys;

/// Set for the runtime, and handed on by it and by CRIU to our binary.
pub const SOCKET_VARIABLE: &str = "CRYO_HOLD_SOCKET";
const MOMENT: &str = "setup-namespaces";
const SOCKET: &str = "hold.sock";
/// From the start of the restore until the namespaces are there.
const PATIENCE: Duration = Duration::from_secs(60);
/// The client decides how long it waits with Start.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) struct Held {
    /// Closing it calls the restore off, a byte lets it go on.
    release: UnixStream,
    restore: JoinHandle<Result<Restored, Error>>,
    deadline: Duration,
    abort: Abort,
    subject: Arc<Subject>,
    /// crun runs no hooks.
    runs_hooks: bool,
    pid: u32,
}

pub(super) async fn begin(attempt: Attempt) -> Result<(Process, Abort, How), Error> {
    // It has as long as it takes, unlike what follows.
    attempt.put_back_changes().await?;
    let socket = Socket::listen(&attempt.subject.bundle, SOCKET).map_err(Error::Hold)?;
    let place = socket.place();
    let (abort, deadline) = (attempt.abort.clone(), attempt.deadline());
    let subject = attempt.subject.clone();
    let runs_hooks = attempt.version.flavour == Flavour::Crun;
    let reaper = subject.runtime.reaper;
    let mut restore = tokio::spawn(async move { attempt.run(Some(&place)).await });
    let held = tokio::select! {
        held = timeout(PATIENCE, report(&socket)) => {
            held.unwrap_or_else(|_| Err(io::Error::other("CRIU didn't get that far within 60 s")))
        }
        ended = &mut restore => return Err(too_early(ended, &subject).await),
    };
    let anchored = held.and_then(|(pid, release)| Ok((reaper.adopt(&reaper.window(), pid)?, release)));
    match anchored {
        Ok((anchor, release)) => {
            let pid = anchor.pid();
            let held = Held { release, restore, deadline, abort, subject, runs_hooks, pid };
            // If the anchor dies, CRIU ends by itself and says why.
            Ok((anchor, Abort::default(), How::Held(held)))
        }
        Err(error) => {
            abort.abort();
            let _ = restore.await;
            Err(Error::Hold(error))
        }
    }
}

async fn report(socket: &Socket) -> io::Result<(u32, UnixStream)> {
    let (mut stream, _) = socket.listener.accept().await?;
    Ok((stream.read_u32().await?, stream))
}

async fn too_early(ended: Result<Result<Restored, Error>, JoinError>, subject: &Subject) -> Error {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(restored)) => {
            let _ = restored.live.process.signal(9);
            remove_unfinished(subject).await;
            Error::Hold(io::Error::other("CRIU went on without asking: it is older than 3.18"))
        }
        Err(error) => Error::Hold(io::Error::other(error)),
    }
}

impl Held {
    pub(super) async fn go_on(self) -> Result<Restored, Error> {
        if self.runs_hooks
            && let Err(error) = spec_hooks::run(&self.subject, self.pid, &self.abort).await
        {
            self.abandon().await;
            return Err(error);
        }
        let Held { release, mut restore, deadline, abort, .. } = self;
        // If CRIU is gone already, the restore knows why.
        let _ = release.writable().await;
        let _ = release.try_write(&[1]);
        let result = match timeout(deadline, &mut restore).await {
            Ok(result) => result,
            Err(_) => {
                abort.abort();
                restore.await
            }
        };
        result.unwrap_or_else(|error| Err(Error::Hold(io::Error::other(error))))
    }

    pub(super) async fn abandon(self) {
        drop(self.release);
        self.abort.abort();
        let _ = self.restore.await;
    }
}

/// What our binary does when CRIU calls it at some moment of a restore.
pub fn stand_still(action: &str, socket: &Path) -> io::Result<()> {
    if action != MOMENT {
        return Ok(());
    }
    let pid = criu::first_process()?;
    let network = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
    sys::loopback_up()?;
    if let Some(bundle) = std::env::var_os(guard::BUNDLE_VARIABLE) {
        let spec = Spec::read(Path::new(&bundle)).map_err(io::Error::other)?;
        sysctls::apply_here(&spec.linux.sysctl).map_err(io::Error::other)?;
    }
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.write_all(&pid.to_be_bytes())?;
    stream.read_exact(&mut [0])
}

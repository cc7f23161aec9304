//! Opening a network that CRIU has locked and doesn't open again: because it was killed, or
//! because it leaves the lock to the restore of a container that has been stopped. In a
//! network that others share that would shut them off for as long as nobody restores it.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpRepair};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::Container;
use crate::bundle::Sharing;
use crate::criu::Options;
use crate::criu::lock::{Lock, Note};
use crate::operation::aside;
use crate::policy::{NetworkLock, Policy};

/// A network that may be locked; opened before the container can end.
pub(super) struct Network {
    lock: Lock,
    is_own: bool,
    _namespace: File,
    _note: Option<Note>,
}

impl Network {
    /// If CRIU locks it while it dumps connections.
    pub(super) fn locked(
        container: &Container<'_>,
        options: &Options,
        policy: &Policy,
        log: PathBuf,
    ) -> Option<Network> {
        if !options.tcp_established || policy.network_lock() == Some(NetworkLock::Skip) {
            return None;
        }
        let subject = container.subject;
        let namespace = File::open(format!("/proc/{}/ns/net", container.process.pid())).ok()?;
        let held = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()));
        let (lock, note) = match subject.spec.sharing("network") {
            Sharing::Host => {
                let lock = Lock { log: Some(log), ..Lock::of(None) };
                let note = lock.note(&subject.bundle);
                (lock, Some(note))
            }
            Sharing::With(path) => {
                let lock = Lock::of(Some(path));
                let note = lock.note(&subject.bundle);
                (Lock { namespace: Some(held), ..lock }, Some(note))
            }
            // Nobody misses it after the container's end.
            Sharing::Private => (Lock::of(Some(held)), None),
        };
        Some(Network { lock, is_own: note.is_none(), _namespace: namespace, _note: note })
    }

    /// A dump that succeeded has stopped the container or not.
    pub(super) async fn after_dump(&self, stopped: Option<bool>, container: &Container<'_>) {
        match stopped {
            // CRIU has opened it.
            Some(false) => return,
            // Nobody else is shut off, and connections break if their other ends are answered
            // before the container is back.
            Some(true) if self.is_own => return,
            Some(true) | None => self.lock.open(container.subject.runtime.reaper).await,
        }
        if stopped.is_none() {
            let processes = container.cgroup.processes().unwrap_or_default();
            aside(move || let_connections_go_on(&processes)).await;
        }
    }
}

/// Connections that CRIU was reading when it died neither send nor receive until somebody
/// tells them to. What programs tried meanwhile has failed; a CRIU that dies lets them run.
fn let_connections_go_on(processes: &[u32]) {
    for &pid in processes {
        // Processes and descriptors come and go.
        let Some(pid) = Pid::from_raw(pid.cast_signed()) else { continue };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let folder = format!("/proc/{}/fd", pid.as_raw_nonzero());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_socket = |link: PathBuf| link.to_string_lossy().starts_with("socket:");
            let number = entry.file_name().to_string_lossy().parse();
            if let Ok(number) = number
                && fs::read_link(entry.path()).is_ok_and(is_socket)
                && let Ok(socket) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())
                && getsockopt(&socket, TcpRepair).is_ok_and(|repair| repair != 0)
                && let Err(error) = setsockopt(&socket.as_fd(), TcpRepair, &0)
            {
                tracing::warn!(%error, pid = %pid.as_raw_nonzero(), "a connection stands still");
            }
        }
    }
}

//! Opening a network that CRIU has locked and doesn't open again: because it was killed, or
//! because it leaves the lock to the restore of a container that has been stopped. In a
//! network that others share that would shut them off for as long as nobody restores it.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpRepair};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::Container;
use crate::bundle::Sharing;
use crate::criu::Options;
use crate::criu::firewall::Firewall;
use crate::criu::log;
use crate::operation::aside;
use crate::policy::{NetworkLock, Policy};
use crate::reaper::Reaper;

/// A network namespace that may be locked; opened before the container can end.
pub(super) struct Network {
    namespace: File,
    is_hosts: bool,
    is_own: bool,
}

impl Network {
    /// If CRIU locks it while it dumps connections.
    pub(super) fn locked(container: &Container<'_>, options: &Options, policy: &Policy) -> Option<Network> {
        if !options.tcp_established || policy.network_lock() == Some(NetworkLock::Skip) {
            return None;
        }
        let sharing = container.subject.spec.sharing("network");
        let namespace = File::open(format!("/proc/{}/ns/net", container.process.pid())).ok()?;
        Some(Network { namespace, is_hosts: sharing == Sharing::Host, is_own: sharing == Sharing::Private })
    }

    /// A dump that succeeded has stopped the container or not.
    pub(super) async fn after_dump(&self, stopped: Option<bool>, container: &Container<'_>, log: &Path) {
        match stopped {
            // CRIU has opened it.
            Some(false) => return,
            // Nobody else is shut off, and connections break if their other ends are answered
            // before the container is back.
            Some(true) if self.is_own => return,
            Some(true) | None => self.open(container.subject.runtime.reaper, log).await,
        }
        if stopped.is_none() {
            let processes = container.cgroup.processes().unwrap_or_default();
            aside(move || let_connections_go_on(&processes)).await;
        }
    }

    /// Removes what the dump with this log has put there.
    async fn open(&self, reaper: Reaper, log: &Path) {
        let place = || format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into();
        let firewall = Firewall { namespace: (!self.is_hosts).then(place), reaper };
        if !self.is_hosts {
            return firewall.open_all().await;
        }
        let log = log.to_owned();
        let locks = aside(move || log::locks(&log)).await;
        firewall.remove(&locks.rules).await;
        if let Some(table) = locks.table {
            firewall.remove_table(&table).await;
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
            let is_socket = |link: std::path::PathBuf| link.to_string_lossy().starts_with("socket:");
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

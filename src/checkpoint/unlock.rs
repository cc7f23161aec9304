//! Opening a network that CRIU has locked and doesn't open again: because it was killed, or
//! because it leaves the lock to the restore of a container that has been stopped. In a
//! network that others share that would shut them off for as long as nobody restores it.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpRepair};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::bundle::Sharing;
use crate::criu::log::{self, Rule};
use crate::operation::aside;
use crate::reaper::Reaper;
use crate::runtime::hook;

const PATIENCE: Duration = Duration::from_secs(10);
/// For packets of CRIU's own, from its include/soccr.h.
const MARK: &str = "0xC114";
/// All of it, in a namespace in which nobody else uses CRIU at this moment.
const OPEN_ALL: &str = "for tables in iptables ip6tables; do
    command -v $tables >/dev/null || continue
    for chain in INPUT OUTPUT; do while $tables -w -D $chain -j CRIU; do :; done; done
    if $tables -w -F CRIU; then $tables -w -X CRIU; fi
done 2>/dev/null
! command -v nft >/dev/null || nft list tables | while read -r word family name; do
    case $name in CRIU-*) nft delete table $family $name;; esac
done";

/// A network namespace that may be locked; opened before the container can end.
pub(super) struct Network {
    namespace: File,
    is_hosts: bool,
    is_own: bool,
}

impl Network {
    pub(super) fn of(pid: u32, sharing: &Sharing) -> Option<Network> {
        let namespace = File::open(format!("/proc/{pid}/ns/net")).ok()?;
        let (is_hosts, is_own) = (*sharing == Sharing::Host, *sharing == Sharing::Private);
        Some(Network { namespace, is_hosts, is_own })
    }

    /// Whether the lock has to stay until its container is back: nobody else is shut off, and
    /// connections break if their other ends are answered meanwhile.
    pub(super) fn waits_for_restore(&self) -> bool {
        self.is_own
    }

    /// Removes what the dump with this log has put there.
    pub(super) async fn open(&self, reaper: Reaper, log: &Path) {
        if !self.is_hosts {
            let place = format!("--net=/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd());
            let mut enter = Command::new("nsenter");
            enter.args([&place, "sh", "-c", OPEN_ALL]);
            return run(reaper, enter).await;
        }
        let log = log.to_owned();
        let locks = aside(move || log::locks(&log)).await;
        for rule in &locks.rules {
            run(reaper, removal(rule)).await;
        }
        if let Some(table) = locks.table {
            let mut remove = Command::new("nft");
            remove.args(["delete", "table", "inet", &table]);
            run(reaper, remove).await;
        }
    }
}

fn removal(rule: &Rule) -> Command {
    let Rule { chain, source, destination } = rule;
    let mut remove = Command::new(if matches!(source.0, IpAddr::V4(_)) { "iptables" } else { "ip6tables" });
    remove.args(["-w", "-t", "filter", "-D", chain, "--protocol", "tcp"]);
    remove.args(["-m", "mark", "!", "--mark", MARK]);
    for (address, port, end) in [("--source", "--sport", source), ("--destination", "--dport", destination)] {
        remove.args([address, &end.0.to_string(), port, &end.1.to_string()]);
    }
    remove.args(["-j", "DROP"]);
    remove
}

async fn run(reaper: Reaper, command: Command) {
    let program = command.get_program().to_owned();
    if let Err(problem) = hook::run(reaper, command, b"", PATIENCE).await {
        // CRIU may have removed it itself, or never have got that far.
        tracing::debug!(?program, problem, "a lock of the network isn't removed");
    }
}

/// Connections that CRIU was reading when it died neither send nor receive until somebody
/// tells them to.
pub(super) fn let_connections_go_on(processes: &[u32]) {
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

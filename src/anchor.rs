//! The anchor: a process that does nothing but hold a namespace, and a pid.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::reaper::{Process, Reaper};
use crate::sys;

/// As the first argument of our own binary: be an anchor.
pub const ARGUMENT: &str = "anchor";
const READY: u8 = b'r';
/// Namespaces are made in milliseconds, unless the kernel is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// What it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing but its pid.
    Bare,
    /// A network namespace of its own, with the loopback up.
    Network,
    /// The same, or nothing, and the mounts of the host for hooks to add theirs to.
    NetworkAndMounts,
    Mounts,
    /// A user namespace of its own, to be mapped by whoever started it.
    User,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Bare, Kind::Network, Kind::NetworkAndMounts, Kind::Mounts, Kind::User];

    fn name(self) -> &'static str {
        match self {
            Kind::Bare => "bare",
            Kind::Network => "network",
            Kind::NetworkAndMounts => "network-and-mounts",
            Kind::Mounts => "mounts",
            Kind::User => "user",
        }
    }
}

/// Starts one; its namespace is there when this returns.
pub async fn start(reaper: Reaper, kind: Kind) -> io::Result<Process> {
    let (ready, write) = io::pipe()?;
    let mut command = Command::new("/proc/self/exe");
    command.args([ARGUMENT, kind.name()]).current_dir("/");
    command.stdin(Stdio::null()).stdout(write).stderr(Stdio::null());
    let anchor = reaper.spawn(&mut command)?;
    drop(command);
    let mut ready = pipe::Receiver::from_owned_fd(ready.into())?;
    match timeout(PATIENCE, ready.read_u8()).await {
        Ok(Ok(READY)) => Ok(anchor),
        _ => {
            let _ = anchor.signal(9);
            Err(io::Error::other(format!("the process that should hold a {} namespace failed", kind.name())))
        }
    }
}

/// A user namespace with the given mappings, as `container:host:size`, several by comma.
pub async fn user_namespace(reaper: Reaper, users: &str, groups: &str) -> io::Result<OwnedFd> {
    let anchor = start(reaper, Kind::User).await?;
    let place = format!("/proc/{}", anchor.pid());
    let map = |mappings: &str| mappings.replace(',', "\n").replace(':', " ");
    let namespace = fs::write(format!("{place}/uid_map"), map(users))
        .and_then(|()| fs::write(format!("{place}/gid_map"), map(groups)))
        .and_then(|()| fs::File::open(format!("{place}/ns/user")));
    // Whoever has the namespace open keeps it.
    let _ = anchor.signal(9);
    Ok(namespace?.into())
}

/// What the anchor does: its whole life.
pub fn hold(arguments: &[String]) -> io::Result<Infallible> {
    let named = |kind: &Kind| arguments.first().is_some_and(|name| name == kind.name());
    match Kind::ALL.into_iter().find(named) {
        None => return Err(io::Error::other("an anchor needs to know what to hold")),
        Some(Kind::Bare) => {}
        Some(Kind::Mounts) => sys::leave_mounts()?,
        Some(kind @ (Kind::Network | Kind::NetworkAndMounts)) => {
            sys::leave_network()?;
            sys::loopback_up()?;
            if kind == Kind::NetworkAndMounts {
                sys::leave_mounts()?;
            }
        }
        Some(Kind::User) => sys::leave_users()?,
    }
    io::stdout().write_all(&[READY])?;
    io::stdout().flush()?;
    // Until somebody kills it: the shim does when it has no more use for it, the kernel
    // when the shim dies.
    let (mut never, _open) = io::pipe()?;
    loop {
        never.read_exact(&mut [0])?;
    }
}

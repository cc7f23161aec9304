//! The only waiter for children.
//!
//! The shim is a subreaper: besides the commands it starts, it inherits container
//! processes when the runtime that made them ends, and strays that lost their own
//! parent. Each process that somebody owns is waited for through its pidfd, so a
//! reused pid can't be mistaken for it. Strays are collected when SIGCHLD says so.
//!
//! A container process can die before anybody knows its pid: between the runtime's
//! fork and the moment its pid file is read. [`Reaper::window`] covers that span:
//! while a window is open no stray is collected, so the dead process stays a zombie
//! and [`Reaper::adopt`] still finds its exit status.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::sys;

/// How a process ended: its exit code, or 128 plus the signal that killed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub status: u32,
    pub at: SystemTime,
}

impl Exit {
    /// The end of a process that SIGKILL took, now.
    pub fn killed() -> Self {
        Exit::now(128 + 9)
    }

    /// What is reported when the true status can't be known.
    pub fn unknown() -> Self {
        Exit::now(255)
    }

    fn now(status: u32) -> Self {
        Exit { status, at: SystemTime::now() }
    }
}

/// Who the children are is a fact of the process, hence the one static.
static FAMILY: LazyLock<Mutex<Family>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Family {
    owned: HashMap<u32, Process>,
    windows: usize,
}

/// Proof that the process collects its children; whoever has it may start some.
#[derive(Clone, Copy, Debug)]
pub struct Reaper(());

/// A child, or a process that became one. Clones speak of the same process.
#[derive(Clone, Debug)]
pub struct Process {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    exit: watch::Receiver<Option<Exit>>,
}

/// While one of these lives, unknown dead children are left alone.
#[derive(Debug)]
pub struct Window(());

impl Reaper {
    /// Makes this process a subreaper and begins to collect strays.
    pub fn start() -> io::Result<Reaper> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut deaths = signal(SignalKind::child())?;
        tokio::spawn(async move {
            while deaths.recv().await.is_some() {
                collect_strays();
            }
        });
        Ok(Reaper(()))
    }

    /// Starts a command as an owned child. It dies with the shim.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Process> {
        self.spawn_surviving(sys::die_with_parent(command))
    }

    /// The same for one that may outlive the shim.
    pub fn spawn_surviving(&self, command: &mut Command) -> io::Result<Process> {
        // Held across both, so that a quick death isn't taken for a stray's.
        let mut family = family();
        let child = sys::with_old_limit(command).spawn()?;
        own(&mut family, child.id())
    }

    /// Opens a span in which a process may be born, and die, that isn't known yet.
    pub fn window(&self) -> Window {
        family().windows += 1;
        Window(())
    }

    /// Makes a process that the runtime left to us an owned one. The window that was
    /// open when it was born guarantees that its exit wasn't lost.
    pub fn adopt(&self, _window: &Window, pid: u32) -> io::Result<Process> {
        own(&mut family(), pid)
    }
}

/// For tests that wait for children themselves, in a process where other tests have a reaper.
#[cfg(test)]
pub(crate) fn undisturbed() -> Window {
    family().windows += 1;
    Window(())
}

impl Drop for Window {
    fn drop(&mut self) {
        family().windows -= 1;
        // Whatever died inside the window and wasn't adopted.
        collect_strays();
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or_else(Exit::unknown),
            // The waiter is gone only when the whole runtime is shutting down.
            Err(_) => Exit::unknown(),
        }
    }

    /// Tells the programs apart that it runs one after the other: differs after every
    /// exec, even of the same file. Nothing if it is gone.
    pub fn program(&self) -> Option<Vec<u8>> {
        // Addresses and random bytes that the kernel gives to every program.
        std::fs::read(format!("/proc/{}/auxv", self.pid)).ok().filter(|auxv| !auxv.is_empty())
    }

    /// Whether it has ended, also if that isn't collected yet.
    pub fn is_dead(&self) -> bool {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut ended, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Whether it has been killed and the kernel has yet to carry it out.
    pub fn is_dying(&self) -> bool {
        let pending = status_of(self.pid, "ShdPnd:");
        let pending = pending.and_then(|mask| u64::from_str_radix(&mask, 16).ok());
        pending.is_some_and(|mask| mask & 1 << (9 - 1) != 0)
    }

    /// Sends a signal; fails with ESRCH once the process is gone.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        let signal = sys::signal(number).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }
}

/// The parent of any process, if that is still there.
pub fn parent(pid: u32) -> Option<u32> {
    status_of(pid, "PPid:")?.parse().ok()
}

fn status_of(pid: u32, key: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(key))?.trim().to_owned())
}

fn family() -> MutexGuard<'static, Family> {
    FAMILY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own(children: &mut Family, pid: u32) -> io::Result<Process> {
    // Two waiters would take the exit status from each other.
    if let Some(process) = children.owned.get(&pid) {
        return Ok(process.clone());
    }
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = Arc::new(pidfd_open(raw, PidfdFlags::NONBLOCK)?);
    let ended = sys::watch(pidfd.clone())?;
    let (publish, exit) = watch::channel(None);
    let process = Process { pid, pidfd, exit };
    children.owned.insert(pid, process.clone());
    tokio::spawn(async move {
        let exit = wait(&ended).await;
        family().owned.remove(&pid);
        publish.send_replace(Some(exit));
    });
    Ok(process)
}

fn collect_strays() {
    let family = family();
    if family.windows > 0 {
        return;
    }
    for pid in children() {
        if !family.owned.contains_key(&pid.as_raw_pid().cast_unsigned()) {
            // Still alive, or collected a moment ago: both are fine.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

async fn wait(ended: &AsyncFd<Arc<OwnedFd>>) -> Exit {
    loop {
        let Ok(mut ready) = ended.readable().await else { return Exit::unknown() };
        let id = WaitId::PidFd(ended.get_ref().as_fd());
        match waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => {
                let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                return code.map_or_else(Exit::unknown, |code| Exit::now(code.cast_unsigned()));
            }
            Ok(None) => ready.clear_ready(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(%error, "a process ended that isn't a child: its exit status is unknown");
                return Exit::unknown();
            }
        }
    }
}

/// Every direct child of this process, dead ones included.
fn children() -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .filter_map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    async fn until_zombie(pid: &str) {
        let status = format!("/proc/{pid}/status");
        while !std::fs::read_to_string(&status).unwrap().contains("Z (zombie)") {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn exit_codes_and_signals_are_told_apart() {
        let reaper = Reaper::start().unwrap();
        let coded = reaper.spawn(&mut shell("exit 7")).unwrap();
        let killed = reaper.spawn(&mut shell("kill -9 $$")).unwrap();
        let realtime = reaper.spawn(&mut shell("kill -40 $$")).unwrap();
        assert_eq!(coded.exited().await.status, 7);
        assert_eq!(killed.exited().await.status, 137);
        assert_eq!(realtime.exited().await.status, 168);
    }

    #[tokio::test]
    async fn a_process_that_died_inside_a_window_still_tells_how() {
        let reaper = Reaper::start().unwrap();
        let window = reaper.window();
        let file = tempfile::NamedTempFile::new().unwrap();
        // It outlives its shell, which therefore can't collect it.
        let script = format!("(sleep 0.02; exit 3) & echo $! > {}", file.path().display());
        reaper.spawn(&mut shell(&script)).unwrap().exited().await;
        let pid = std::fs::read_to_string(file.path()).unwrap();
        until_zombie(pid.trim()).await;
        let pid = pid.trim().parse().unwrap();
        let orphan = reaper.adopt(&window, pid).unwrap();
        assert_eq!(orphan.exited().await.status, 3);
    }

    #[tokio::test]
    async fn strays_are_collected_once_no_window_is_open() {
        let reaper = Reaper::start().unwrap();
        let window = reaper.window();
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("(sleep 0.02) & echo $! > {}", file.path().display());
        reaper.spawn(&mut shell(&script)).unwrap().exited().await;
        let stray = std::fs::read_to_string(file.path()).unwrap();
        until_zombie(stray.trim()).await;
        drop(window);
        while std::path::Path::new(&format!("/proc/{}", stray.trim())).exists() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_signal_to_a_dead_process_fails() {
        let reaper = Reaper::start().unwrap();
        let process = reaper.spawn(&mut shell("exit 0")).unwrap();
        process.exited().await;
        assert_eq!(process.signal(9).unwrap_err().raw_os_error(), Some(3));
    }
}

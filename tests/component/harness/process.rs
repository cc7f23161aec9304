//! Processes, as /proc tells of them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::isolation::Role;
use super::shim::said;
use super::wait::until;

pub(crate) fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

pub(crate) fn command_line(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned()
}

/// Dead ones that nobody has collected yet don't count. One that has threads left does, and
/// holds what it has open, even if the first of them is dead.
pub(crate) fn is_alive(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok()).any(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
        !matches!(state, Some(b'Z' | b'X'))
    })
}

#[track_caller]
pub(crate) fn wait_for_death(pid: u32) {
    until(&format!("process {pid} ({}) has ended", command_line(pid)), || !is_alive(pid));
}

pub(crate) fn kill(pid: u32, signal: i32) {
    let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    // It may just have ended by itself.
    let _ = nix::sys::signal::kill(pid, signal);
}

/// Those whose command line contains all of these words.
pub(crate) fn with_words(words: &[&str]) -> Vec<u32> {
    let has_all = |pid: &u32| {
        let line = command_line(*pid);
        words.iter().all(|word| line.contains(word))
    };
    all().into_iter().filter(|pid| is_alive(*pid)).filter(has_all).collect()
}

/// The anchors that hold a namespace for a restore.
pub(crate) fn anchors() -> Vec<u32> {
    all()
        .into_iter()
        .filter(|pid| is_alive(*pid) && command_line(*pid).split(' ').nth(1) == Some("anchor"))
        .collect()
}

/// A field of /proc/PID/status, in kilobytes.
pub(crate) fn kilobytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

pub(crate) fn parent(pid: u32) -> u32 {
    stat(pid, 1)
}

pub(crate) fn group(pid: u32) -> u32 {
    stat(pid, 2)
}

/// A field of /proc/PID/stat, counted from the state on.
fn stat(pid: u32, field: usize) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(field).unwrap().parse().unwrap()
}

/// The files that a process has open, by number.
pub(crate) fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let target = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        Some((entry.file_name().to_str()?.parse().ok()?, target))
    };
    entries.filter_map(target).collect()
}

/// What became of somebody who knocked at a socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Knock {
    Answered,
    /// The connection was closed without a word.
    Refused,
    /// There was none.
    KeptOut,
}

/// Knocks as a user and a group, who may be others than ours.
#[track_caller]
pub(crate) fn knock_as(user: u32, group: u32, socket: &Path) -> Knock {
    let (name, role) = Role::stranger(socket);
    let mut command = Command::new("/proc/self/exe");
    let said = said(command.env(name, role).uid(user).gid(group), &[]);
    match said.status.code() {
        Some(0) => Knock::Refused,
        Some(1) => Knock::Answered,
        Some(2) => Knock::KeptOut,
        _ => panic!("whoever knocked ended with {}: {}", said.status, said.stderr),
    }
}

/// What a stranger does: says whether anybody answers it.
pub(crate) fn knock(socket: &Path) -> ExitCode {
    let Ok(mut stream) = UnixStream::connect(socket) else { return ExitCode::from(2) };
    // Any request is answered, if only with an error; a stranger's isn't read.
    let request = [0, 0, 0, 0, 0, 0, 0, 1, 1, 0];
    let _ = stream.write_all(&request);
    match stream.read(&mut [0; 64]) {
        Ok(0) | Err(_) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
    }
}

//! Processes, as /proc tells of them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use super::wait::until;

pub(crate) fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

pub(crate) fn command_line(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned()
}

/// Dead ones that nobody has collected yet don't count.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
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

/// The files that a process has open, by number.
pub(crate) fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let target = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        Some((entry.file_name().to_str()?.parse().ok()?, target))
    };
    entries.filter_map(target).collect()
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

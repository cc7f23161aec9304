//! Processes, as /proc tells of them.

use std::fs;
use std::time::Duration;

const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Dead ones that nobody has collected yet don't count.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
        !matches!(state, Some(b'Z' | b'X'))
    })
}

pub(crate) fn wait_for_death(pid: u32) {
    until(|| !is_alive(pid));
}

pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

pub(crate) fn kill(pid: u32, signal: i32) -> Result<(), nix::Error> {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    nix::sys::signal::kill(pid, Some(nix::sys::signal::Signal::try_from(signal)?))
}

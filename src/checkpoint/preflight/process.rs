//! One process of the container, as /proc tells of it.

use std::fs;

use rustix::thread::CapabilitySet;

use crate::message::shown;
use crate::rights::{FILTERED, Rights};

/// What is wanted of /proc/PID/status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) program: String,
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) tracer: u32,
    pub(super) threads: u32,
    /// In how many pid namespaces it has a number, ours included.
    pub(super) levels: usize,
    /// Whether the leader of its session is in a pid namespace above its own.
    pub(super) session_is_outside: bool,
    /// Kilobytes that are in no file.
    pub(super) memory: u64,
    pub(super) capabilities: u64,
    pub(super) no_new_privileges: bool,
    /// By the kernel's number.
    pub(super) filter_mode: u32,
    /// Part of the first process's family, so part of an image.
    pub(super) inside: bool,
}

/// All of them, the container's family marked. Who is gone by now is in nobody's way.
pub(super) fn family(init: u32, pids: &[u32]) -> Vec<Process> {
    let mut all: Vec<Process> = pids.iter().filter_map(|pid| Process::read(*pid)).collect();
    let parents: std::collections::HashMap<u32, u32> =
        all.iter().map(|process| (process.pid, process.parent)).collect();
    for process in &mut all {
        let ancestors = std::iter::successors(Some(process.pid), |pid| parents.get(pid).copied());
        // No chain is longer; numbers that are used again while we read could make a ring.
        process.inside = ancestors.take(parents.len() + 1).any(|pid| pid == init);
    }
    all
}

impl Process {
    pub(super) fn read(pid: u32) -> Option<Process> {
        Process::parse(pid, &text(&format!("/proc/{pid}/status"))?)
    }

    fn parse(pid: u32, status: &str) -> Option<Process> {
        let mut process = Process { pid, ..Process::default() };
        for line in status.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let number = || value.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            let small = || number().and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
            match key {
                "Name" => process.program = shown(value),
                "State" => process.state = value.chars().next()?,
                "PPid" => process.parent = small(),
                "TracerPid" => process.tracer = small(),
                "Threads" => process.threads = small(),
                "NSpid" => process.levels = value.split_whitespace().count(),
                "NSsid" => process.session_is_outside = value.split_whitespace().last() == Some("0"),
                "CapInh" | "CapPrm" | "CapEff" | "CapBnd" | "CapAmb" => {
                    process.capabilities |= u64::from_str_radix(value, 16).unwrap_or_default();
                }
                "NoNewPrivs" => process.no_new_privileges = value == "1",
                "Seccomp" => process.filter_mode = small(),
                "RssAnon" | "VmSwap" => process.memory += number().unwrap_or_default(),
                _ => {}
            }
        }
        (process.state != '\0').then_some(process)
    }

    pub(super) fn rights(&self) -> Rights {
        Rights {
            capabilities: CapabilitySet::from_bits_retain(self.capabilities),
            may_gain: !self.no_new_privileges,
            unfiltered: self.filter_mode != FILTERED,
        }
    }

    /// Stopped by a signal. One that is frozen besides shows another state.
    pub(super) fn is_stopped(&self) -> bool {
        let waits_in = || text(&format!("/proc/{}/wchan", self.pid)).unwrap_or_default();
        self.state == 'T' || (self.state == 'D' && waits_in() == "do_signal_stop")
    }
}

pub(super) fn program(pid: u32) -> String {
    shown(&text(&format!("/proc/{pid}/comm")).unwrap_or_default())
}

/// What the kernel tells of an open file; nothing of one that is closed by now.
pub(super) fn fdinfo(pid: u32, number: i32) -> String {
    text(&format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default()
}

/// A file of /proc. A name in it may be cut in the middle of a letter.
pub(super) fn text(path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::sleeper;
    use super::*;

    const STATUS: &str = "Name:\tredis-server\nUmask:\t0022\nState:\tt (tracing stop)\nTgid:\t12\nPid:\t12\n\
        PPid:\t7\nTracerPid:\t99\nUid:\t0\t0\t0\t0\nNStgid:\t12\t1\nNSpid:\t12\t1\nNSpgid:\t12\t1\n\
        NSsid:\t9\t0\nVmRSS:\t    5000 kB\nRssAnon:\t    3000 kB\nRssFile:\t 2000 kB\nVmSwap:\t     100 kB\n\
        Threads:\t4\nCapInh:\t0000000000000001\nCapBnd:\t0000010000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn a_name_may_be_cut_in_the_middle_of_a_letter() {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("status");
        fs::write(&status, b"Name:\t\xd0\xb0\xd0\nState:\tS (sleeping)\n").unwrap();
        let process = Process::parse(12, &text(status.to_str().unwrap()).unwrap()).unwrap();
        assert_eq!((process.program.as_str(), process.state), ("\u{430}\u{fffd}", 'S'));
    }

    #[test]
    fn a_status_is_read() {
        let process = Process::parse(12, STATUS).unwrap();
        assert_eq!((process.program.as_str(), process.state, process.parent), ("redis-server", 't', 7));
        assert_eq!((process.tracer, process.threads, process.levels), (99, 4, 2));
        assert_eq!((process.session_is_outside, process.memory), (true, 3100));
        let capabilities = CapabilitySet::CHOWN | CapabilitySet::CHECKPOINT_RESTORE;
        assert_eq!(process.rights(), Rights { capabilities, may_gain: false, unfiltered: false });
        assert_eq!(Process::parse(1, "State"), None);
    }

    #[test]
    fn a_family_has_who_descends_from_the_first() {
        let own = std::process::id();
        let child = sleeper();
        let family = family(child.id(), &[own, child.id()]);
        let inside: Vec<u32> =
            family.iter().filter(|process| process.inside).map(|process| process.pid).collect();
        assert_eq!(inside, [child.id()]);
    }
}

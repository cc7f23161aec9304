//! What CRIU's log says about a failure. The only place where its words are read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::runtime;

/// The line that decided, and what to do about it if we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    pub line: String,
    pub remedy: Option<&'static str>,
}

/// A failure explained by CRIU's own words, and where to read more of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub diagnosis: Diagnosis,
    pub log: PathBuf,
}

impl Failure {
    /// Nothing if it wasn't CRIU that failed, or if it left no word about it.
    pub fn of(error: &runtime::Error, log: &Path) -> Option<Failure> {
        let runtime::Error::Failed { .. } = error else { return None };
        let text = std::fs::read(log).ok()?;
        let diagnosis = diagnose(&String::from_utf8_lossy(&text))?;
        Some(Failure { diagnosis, log: log.to_owned() })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnosis { line, remedy } = &self.diagnosis;
        let line = line.trim_end_matches('.');
        match remedy {
            Some(remedy) => write!(f, "{line}; {remedy} (log: {})", self.log.display()),
            None => write!(f, "{line} (log: {})", self.log.display()),
        }
    }
}

const HEAD_BYTES: u64 = 4 << 10;

/// Lines that CRIU prints as errors although nothing failed because of them.
const NOISE: &[&str] = &[
    // Not root in the first user namespace, or already at the limit.
    "Can't setup RLIMIT_NOFILE for self",
    // What follows from an error, not what caused it.
    "Dumping FAILED",
    "Restoring FAILED",
    "cgroupd: recv req error",
    "Unable to wait",
];

const REMEDIES: &[(&str, &str)] = &[
    (
        "Connected TCP socket",
        "close the connection, or give the container the annotation cryo.tcp=established",
    ),
    ("In-flight connection", "try again when no connection is being set up"),
    ("Some file locks are hold", "ask for file locks to be checkpointed"),
    ("link remap", "checkpoint with exit, or close the deleted file"),
    ("Can't dump ghost file", "make the deleted file smaller or close it"),
    ("External socket is used", "ask for external unix sockets, or close the socket"),
    (
        "Can't dump half of stream unix connection",
        "close the unix socket whose other end is outside the container",
    ),
    ("tty: Unable to find a master", "run the process on the container's own terminal"),
    ("anon_inode:[io_uring]", "CRIU can't checkpoint io_uring: make the program use epoll"),
    ("Unsupported file type", "close that file before the checkpoint"),
    ("No space left on device", "make room on the image's file system"),
    ("Can't open mapped file", "the image of the container must be the one it was checkpointed with"),
    ("has bad size", "the file must be as it was at the checkpoint"),
    ("Can't bind inet socket", "the address the program listened on isn't there after the restore"),
    ("already exists", "the pids of the checkpoint are taken: give the container its own pid namespace"),
    ("unsupported", "see the log for what CRIU can't handle"),
];

/// The first error of the process that failed, or else the first one at all.
pub fn diagnose(log: &str) -> Option<Diagnosis> {
    let line = log.lines().filter(|line| is_error(line)).find(|line| !is_noise(line))?;
    let line = message(line).to_owned();
    let remedy = REMEDIES.iter().find(|(sign, _)| line.contains(sign)).map(|(_, remedy)| *remedy);
    Some(Diagnosis { line, remedy })
}

/// The version that wrote the log, as it names itself at its head.
pub fn version(log: &Path) -> Option<String> {
    let mut head = Vec::new();
    File::open(log).ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    let head = String::from_utf8_lossy(&head);
    head.split_once("Version: ")?.1.split_whitespace().next().map(str::to_owned)
}

fn is_error(line: &str) -> bool {
    line.contains("Error (")
}

fn is_noise(line: &str) -> bool {
    NOISE.iter().any(|noise| line.contains(noise))
}

/// Without time, pid and source line.
fn message(line: &str) -> &str {
    let after = line.split_once("Error (").map_or(line, |(_, rest)| rest);
    after.split_once("): ").map_or(after, |(_, message)| message).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From CRIU 4.2.1.
    const TCP: &str = "(00.000745) Version: 4.2.1 (gitid 0)\n\
        (00.031402) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
        (00.071402) Error (criu/sk-inet.c:199): inet: Connected TCP socket, consider using --tcp-established option.\n\
        (00.071420) Error (criu/cr-dump.c:1632): Dump files (pid: 5144) failed with -1\n\
        (00.077777) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";

    #[test]
    fn the_cause_is_found_behind_the_noise() {
        let diagnosis = diagnose(TCP).unwrap();
        assert_eq!(diagnosis.line, "inet: Connected TCP socket, consider using --tcp-established option.");
        assert!(diagnosis.remedy.unwrap().contains("cryo.tcp"));
    }

    #[test]
    fn an_unknown_cause_is_shown_as_it_is() {
        let log = "(00.024844)      1: Error (criu/files.c:12): strange thing\n";
        assert_eq!(diagnose(log).unwrap(), Diagnosis { line: "strange thing".into(), remedy: None });
    }

    #[test]
    fn a_log_without_errors_has_no_cause() {
        assert_eq!(diagnose("(00.1) all is well\n"), None);
        assert_eq!(diagnose(""), None);
    }

    #[test]
    fn the_version_is_read_from_the_head() {
        let log = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(log.path(), TCP).unwrap();
        assert_eq!(version(log.path()).as_deref(), Some("4.2.1"));
    }
}

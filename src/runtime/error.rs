//! What an OCI runtime said when it failed, as variants. The only place where words
//! of runc or crun are interpreted.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::message::{LIMIT, PREFIX, cut, shown};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run OCI runtime {}: {source}", binary.display())]
    Spawn { binary: PathBuf, source: io::Error },
    #[error("OCI runtime {verb} failed: {}", told(verb, message))]
    Failed { verb: &'static str, cause: Cause, message: String },
    #[error("OCI runtime {verb} didn't end within {} s and was killed", after.as_secs())]
    TimedOut { verb: &'static str, after: Duration },
    #[error("OCI runtime {verb} was given up because the container was killed")]
    Aborted { verb: &'static str },
    #[error("OCI runtime {verb} was ended because CRIU, which did its work, was killed: try again")]
    CriuDied { verb: &'static str },
    #[error("OCI runtime left no usable pid file {}: {source}", path.display())]
    PidFile { path: PathBuf, source: io::Error },
    #[error("cannot hand files to OCI runtime {verb}: {source}")]
    Files { verb: &'static str, source: io::Error },
}

/// Why a runtime refused, as far as callers act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It knows no such container, or no longer.
    NoContainer,
    /// The container exists, its process doesn't run.
    NotRunning,
    AlreadyExists,
    /// It would have to be killed first.
    NotStopped,
    /// Its processes didn't stand still in the time it gives them.
    NotFrozen,
    Other,
}

impl Cause {
    pub fn of(message: &str) -> Cause {
        let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
        if says(&["already exists", "container with id exists"]) {
            Cause::AlreadyExists
        } else if says(&["that is not stopped", "`stopped` state"]) {
            Cause::NotStopped
        } else if says(&["unable to freeze"]) {
            Cause::NotFrozen
        } else if says(&["container does not exist", "` does not exist: open", "/status`: No such file"])
            || (says(&["cannot open directory"]) && says(&["No such file"]))
        {
            Cause::NoContainer
        } else if says(&[
            "process already finished",
            "not running",
            "No such process",
            "no such process",
            "in a stopped container",
            "container that has stopped",
        ]) {
            Cause::NotRunning
        } else {
            Cause::Other
        }
    }
}

impl Error {
    /// The name was taken: whatever has it isn't ours.
    pub fn is_taken(&self) -> bool {
        self.cause() == Cause::AlreadyExists
    }

    pub fn cause(&self) -> Cause {
        match self {
            Error::Failed { cause, .. } => *cause,
            _ => Cause::Other,
        }
    }
}

/// What helps against failures of runc and crun whose own words don't say so. A remedy must
/// not have words in it by which clients tell errors apart, like those of `Cause::of`.
const REMEDIES: &[(&[&str], &str)] = &[
    (&["could not load `libcriu.so"], "install the library libcriu (libcriu2, criu-libs), which crun needs"),
    (&["compiled without CRIU support"], "install a crun that is built with CRIU, or use runc"),
    (
        &["libcriu is too old", "CRIU version", "CRIU: failed checking version"],
        "install CRIU 4.2 where containerd's PATH leads to it (cryo doctor says what is there)",
    ),
    (
        &["config files supported in CRIU >="],
        "install CRIU 4.2 or newer, or drop the annotation org.criu.config",
    ),
    (
        &["apparmor failed to apply profile", "apply apparmor profile", "set apparmor profile"],
        "load the profile with apparmor_parser, or run the container without it",
    ),
    (&["exec format error", "Exec format error"], "use an image for this machine's architecture"),
    (&["exists but it is not executable"], "make the file executable: chmod +x"),
    (
        &["cgroup mountpoint does not", "no cgroup mount found"],
        "mount the cgroup file systems that the node has been booted for",
    ),
    (&["cgroup is not empty"], "give the container a cgroup of its own"),
    (
        &["cgroups in hybrid mode not supported", "cannot use unified on cgroup v1"],
        "boot the node with cgroup v2 alone: systemd.unified_cgroup_hierarchy=1",
    ),
    (
        &["Interactive authentication required", "unable to start unit", "Failed to connect to bus"],
        "see that systemd and D-Bus run, or use the cgroup driver cgroupfs",
    ),
    (&["error loading seccomp filter", "seccomp not supported"], "install a newer libseccomp and runtime"),
];

/// The runtime's message with a remedy. All of it where clients look for words in it; at a
/// checkpoint or restore as much as fits, in one line.
fn told(verb: &str, message: &str) -> String {
    let helps = |signs: &[&str]| signs.iter().any(|sign| message.contains(sign));
    let remedy = REMEDIES.iter().find(|(signs, _)| helps(signs)).map(|(_, remedy)| format!("; {remedy}"));
    let remedy = remedy.unwrap_or_default();
    if !matches!(verb, "checkpoint" | "restore") {
        return format!("{message}{remedy}");
    }
    let before = PREFIX.len() + format!("OCI runtime {verb} failed: ").len();
    let room = LIMIT.saturating_sub(before + remedy.chars().count());
    format!("{}{remedy}", cut(&shown(message), room))
}

/// The runtime's own last words: the last error of its log, or else of its output.
pub(super) fn last_words(log: &str, output: &str, fallback: impl FnOnce() -> String) -> String {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let lines = serde_json::Deserializer::from_str(log).into_iter::<Line>();
    let last = lines.map_while(Result::ok).filter(|line| line.level == "error").last();
    let words = last.map(|line| line.msg).or_else(|| output.lines().last().map(str::to_owned));
    match words.as_deref().map(str::trim) {
        None | Some("") => fallback(),
        Some(words) => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from runc 1.1.15 and 1.3.6, crun 1.21 and 1.28.
    #[test]
    fn recorded_messages_are_understood() {
        let no_container = [
            "container does not exist",
            "exec failed: container does not exist",
            "cannot open directory `/run/x/nope`: No such file or directory",
            "error opening file `/run/x/nope/status`: No such file or directory",
            "container `nope` does not exist: open `/run/x/nope/status`: No such file or directory",
        ];
        let not_running = [
            "container not running",
            "exec failed: cannot exec in a stopped container",
            "cannot start a container that has stopped",
            "container not running: No such process",
            "process not running: No such process",
            "the container `c1` is not running: No such process",
            "os: process already finished",
        ];
        let exists =
            ["runc create failed: container with given ID already exists", "container `c1` already exists"];
        let not_stopped = [
            "cannot delete container c1 that is not stopped: running",
            "the container `c1` is not in `created` or `stopped` state",
        ];
        let other = [
            "runc create failed: unable to start container process: exec: \"/nope\": stat /nope: no such file or directory",
            "executable file `/nope` not found: No such file or directory",
            "cannot stat `/nosuch`: No such file or directory",
            "the container `c1` is paused",
            "unable to signal init: invalid argument",
            "error opening checkpoint directory `/tmp/none`: No such file or directory",
        ];
        for (expected, messages) in [
            (Cause::NoContainer, &no_container[..]),
            (Cause::NotRunning, &not_running),
            (Cause::AlreadyExists, &exists),
            (Cause::NotStopped, &not_stopped),
            (Cause::NotFrozen, &["unable to freeze"]),
            (Cause::Other, &other),
        ] {
            for message in messages {
                assert_eq!(Cause::of(message), expected, "{message}");
            }
        }
    }

    #[test]
    fn the_last_error_of_the_log_is_what_counts() {
        let log = r#"{"level":"warning","msg":"w","time":"t"}
            {"level":"error","msg":"first","time":"t"}
            {
              "msg": "CRIU checkpointing failed: -52: Invalid exchange",
              "level": "error"
            }"#;
        assert_eq!(last_words(log, "out", String::new), "CRIU checkpointing failed: -52: Invalid exchange");
        assert_eq!(last_words("", "a\nb\n", String::new), "b");
        assert_eq!(last_words("{broken", "", || "exit status 7".into()), "exit status 7");
    }

    fn failed(verb: &'static str, message: &str) -> String {
        Error::Failed { verb, cause: Cause::of(message), message: message.to_owned() }.to_string()
    }

    #[test]
    fn a_remedy_follows_the_runtimes_own_words() {
        let own = "could not load `libcriu.so.2`: `libcriu.so.2: cannot open shared object file`";
        let told = failed("restore", own);
        assert!(told.contains(own) && told.contains("; install the library libcriu"), "{told}");
        let own = "runc create failed: unable to start container process: exec /a: exec format error";
        assert!(
            failed("create", own).starts_with(&format!("OCI runtime create failed: {own}; use an image"))
        );
        assert_eq!(failed("start", "a\nstrange thing"), "OCI runtime start failed: a\nstrange thing");
    }

    #[test]
    fn no_remedy_is_taken_for_another_error() {
        for (signs, remedy) in REMEDIES {
            assert_eq!(Cause::of(remedy), Cause::Other, "{remedy}");
            for words in ["not found", "no such file", "permission denied", "not a directory"] {
                assert!(!remedy.contains(words), "{remedy}");
            }
            for sign in *signs {
                assert!(failed("create", sign).ends_with(remedy), "{sign}");
            }
        }
    }

    #[test]
    fn what_is_said_of_a_checkpoint_fits_and_names_the_log() {
        let log = format!("/var/log/cryo/{}/dump.log", "7".repeat(60));
        let long = format!("criu failed: type NOTIFY errno 0\nlog file: {log}");
        let told = failed("checkpoint", &long);
        assert!(told.ends_with(&format!("type NOTIFY errno 0 log file: {log}")), "{told}");
        let told = failed("checkpoint", &format!("{}{long}", "ä".repeat(999)));
        assert!(told.chars().count() + PREFIX.len() <= LIMIT && told.contains('…'), "{told}");
        assert!(told.ends_with(&log), "{told}");
        let told = failed("create", &"long ".repeat(999));
        assert!(told.len() > 4999, "clients look for words in it");
    }
}

//! What an OCI runtime said when it failed, as variants. The only place where words
//! of runc or crun are interpreted.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run OCI runtime {}: {source}", binary.display())]
    Spawn { binary: PathBuf, source: io::Error },
    #[error("OCI runtime {verb} failed: {message}")]
    Failed { verb: &'static str, cause: Cause, message: String },
    #[error("OCI runtime {verb} didn't end within {} s and was killed", after.as_secs())]
    TimedOut { verb: &'static str, after: Duration },
    #[error("OCI runtime {verb} was given up because the container was killed")]
    Aborted { verb: &'static str },
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
    Other,
}

impl Cause {
    pub fn of(message: &str) -> Cause {
        let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
        if says(&["already exists", "container with id exists"]) {
            Cause::AlreadyExists
        } else if says(&["that is not stopped", "`stopped` state"]) {
            Cause::NotStopped
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
}

//! What CRIU's log says about a failure. The only place where its words are read.

mod causes;
mod line;
mod locks;

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use causes::Cause;
use line::Line;
pub use locks::Locks;

use crate::criu::mountpoints;
use crate::message::{self, cut, shown};
use crate::runtime;

/// What went wrong, and what to do about it if we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// CRIU's line that decided.
    pub line: String,
    /// `{}` stands for the detail.
    sentence: &'static str,
    detail: String,
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
        let diagnosis = of_log(BufReader::new(File::open(log).ok()?))?;
        Some(Failure { diagnosis, log: log.to_owned() })
    }

    /// With what only the image in `folder` tells.
    #[must_use]
    pub fn with_image(mut self, folder: &Path) -> Failure {
        let place = self.diagnosis.unnamed_mount().and_then(|mount| mountpoints::place_of(folder, mount));
        if let Some(place) = place {
            self.diagnosis.detail = shown(&place);
        }
        self
    }

    /// In so many characters at most. What is too much is taken from the detail, then from the
    /// sentence; from the log's path only if it is so long that nothing else is left.
    fn within(&self, room: usize) -> String {
        let remedy = self.diagnosis.remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
        let room = room.saturating_sub(remedy.chars().count() + " (log: )".len());
        let log = cut(&shown(&self.log.display().to_string()), room.saturating_sub(1));
        let words = self.diagnosis.within(room.saturating_sub(log.chars().count()));
        format!("{words}{remedy} (log: {log})")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.within(message::LIMIT - message::PREFIX.len()))
    }
}

impl Diagnosis {
    fn of(line: String) -> Diagnosis {
        match Cause::of(&line) {
            Some((cause, detail)) => {
                let (sentence, remedy) = (cause.sentence, Some(cause.remedy));
                Diagnosis { line, sentence, detail, remedy }
            }
            None => {
                let detail = line.trim_end_matches('.').to_owned();
                Diagnosis { line, sentence: "{}", detail, remedy: None }
            }
        }
    }

    /// CRIU 4.2 misses it before it has read where it was.
    fn unnamed_mount(&self) -> Option<u32> {
        let (_, mount) = self.line.split_once("No mapping for ")?;
        mount.strip_suffix(":(null) mountpoint")?.parse().ok()
    }

    fn is_known(&self) -> bool {
        self.remedy.is_some()
    }

    fn within(&self, room: usize) -> String {
        let sentence = self.sentence.chars().count() - "{}".len() * self.sentence.matches("{}").count();
        let detail = cut(&self.detail, room.saturating_sub(sentence));
        cut(&self.sentence.replace("{}", &detail), room)
    }
}

const HEAD_BYTES: u64 = 4 << 10;

/// Errors that are in logs of successes, too, or say no more than that there was one.
const NOISE: &[&str] = &[
    // Not root in the first user namespace, or already at the limit.
    "Can't setup RLIMIT_NOFILE for self",
    "umping FAILED",
    "Restoring FAILED",
    // Helpers of CRIU that notice its end.
    "recv req error",
    "send req error",
];

/// What follows from an error somewhere else, and counts only if nothing else is there.
const ECHOES: &[&str] = &[
    "exited, status=",
    "killed by signal",
    "stopped by signal",
    ") failed with ",
    "dumping finished with error",
    "Unable to wait",
    "bad status: errno=",
    "Can't catch all tasks",
    "Can't stop all tasks on rt_sigreturn",
    "died too early",
    "Failed to wait on helpers and zombies",
    "Restorer fail",
    "mount points can't be mounted",
    "Unable to open fd=",
    "Can't sent fd",
    "Killing processes because of failure on restore",
];

/// The error that decided.
pub fn diagnose(log: &str) -> Option<Diagnosis> {
    of_log(log.as_bytes())
}

/// The first error names the process that failed first; those of others only echo it. Of its
/// own errors the first that we know is preferred, since CRIU may say more and more clearly
/// on its way out.
fn of_log(log: impl BufRead) -> Option<Diagnosis> {
    let errors = line::errors(log, |line| !says(line, NOISE));
    let (echoes, own): (Vec<Line>, Vec<Line>) = errors.into_iter().partition(|line| says(line, ECHOES));
    let candidates = if own.is_empty() { echoes } else { own };
    let process = candidates.first()?.process;
    let mut first = None;
    for line in candidates.into_iter().filter(|line| line.process == process) {
        let diagnosis = Diagnosis::of(line.words);
        if diagnosis.is_known() {
            return Some(diagnosis);
        }
        first.get_or_insert(diagnosis);
    }
    first
}

fn says(line: &Line, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| line.words.contains(phrase))
}

/// What the dump with this log has locked in the host's network.
pub fn locks(log: &Path) -> Locks {
    File::open(log).map(|log| locks::of_log(BufReader::new(log))).unwrap_or_default()
}

/// The version that wrote the log, as it names itself at its head.
pub fn version(log: &Path) -> Option<String> {
    let mut head = Vec::new();
    File::open(log).ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    let head = String::from_utf8_lossy(&head);
    head.split_once("Version: ")?.1.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors in logs and the words that they have to lead to. Those of 4.2.1 are what CRIU
    /// wrote; the others are put together of its messages in that version.
    macro_rules! recorded {
        ($($file:literal: $words:literal),* $(,)?) => {
            &[$(($file, include_str!(concat!("log/recorded/", $file, ".log")), $words)),*]
        };
    }

    const RECORDED: &[(&str, &str, &str)] = recorded![
        "3.19-tcp": "a TCP connection is open; close it, or set the annotation cryo.tcp=",
        "3.19-io-uring": "a program uses io_uring",
        "3.19-freeze": "processes didn't stop in time",
        "3.19-port": "a port that a program listens on is taken",
        "4.0-watch": "inotify or fanotify watches a file",
        "4.0-pid": "process ids of the checkpoint are taken",
        "4.0-profile": "the AppArmor or SELinux profile of the checkpoint isn't here",
        "4.1-unix": "connected to one outside the container: /run/docker.sock; close",
        "4.1-freeze": "processes didn't stop in time",
        "4.1-mount": "the container had a mount at /data, and has none now; mount something",
        "4.1-cpu": "this machine's CPU can't do",
        "4.1-killed": "one of its processes was killed meanwhile",
        "4.2-session": "the leader of process 812's session is outside the container",
        "4.2.1-connection": "an open TCP connection can't be brought back; set the annotation cryo.tcp=close",
        "4.2.1-cut": "the checkpoint is incomplete or damaged",
        "4.2.1-ghost": "/tmp/big is still open and too big for a ghost file; make the deleted file smaller",
        "4.2.1-link": "/tmp/a was deleted under one of its names and is still open",
        "4.2.1-lock": "a process holds file locks",
        "4.2.1-magic": "the checkpoint's file core-144.img isn't one of CRIU's",
        "4.2.1-missing": "tmp/f is missing; give the container the image",
        "4.2.1-rights": "a process belongs to users that CRIU has no rights over",
        "4.2.1-size": "tmp/f isn't the file that it was",
        "4.2.1-taken": "process ids of the checkpoint are taken",
        "4.2.1-tcp": "a TCP connection is open; close it",
        "4.2.1-vsock": "a vsock socket is open",
    ];

    const LOG: &str = "/var/log/cryo/1795261135170-checkpoint-k8s.io-153f7b32a4593d9466fa2fc6/dump.log";

    fn failure(log: &str, path: &str) -> Failure {
        Failure { diagnosis: diagnose(log).unwrap(), log: path.into() }
    }

    #[test]
    fn recorded_logs_are_understood() {
        for (name, log, words) in RECORDED {
            let told = failure(log, LOG).to_string();
            assert!(told.contains(words), "{name}: {told}");
            assert!(told.ends_with(&format!(" (log: {LOG})")), "{name}: {told}");
            assert!(!told.contains('…') && told.chars().count() <= 267, "{name}: {told}");
            let (version, _) = name.split_once('-').unwrap();
            assert!(log.contains(&format!("Version: {version} ")), "{name}");
        }
    }

    #[test]
    fn an_unknown_cause_is_shown_as_it_is() {
        let log = "(00.024844)      1: Error (criu/files.c:12): strange thing.\n";
        let failure = failure(log, "/l");
        assert_eq!(failure.diagnosis.line, "strange thing.");
        assert_eq!(failure.diagnosis.remedy, None);
        assert_eq!(failure.to_string(), "strange thing (log: /l)");
    }

    #[test]
    fn the_earliest_error_of_the_process_that_failed_first_wins() {
        let other = "(1) 2: Error (c:1): 2 killed by signal 9: Killed\n\
            (1)      7: Error (c:1): strange\n\
            (1)      2: Error (c:1): Can't open file tmp/f: No such file or directory\n\
            (1) Error (c:1): No space left on device\n";
        assert_eq!(diagnose(other).unwrap().line, "strange");
        let own = "(1)      7: Error (c:1): strange\n\
            (1)      7: Error (c:1): stranger\n\
            (1)      7: Error (c:1): Can't open file tmp/f: No such file or directory\n\
            (1)      7: Error (c:1): Can't write: No space left on device\n";
        assert_eq!(diagnose(own).unwrap().line, "Can't open file tmp/f: No such file or directory");
    }

    #[test]
    fn an_echo_counts_only_if_it_is_alone() {
        let echo = "(1) Error (c:1): 42 exited, status=1\n(1) Error (c:1): Restoring FAILED.\n";
        assert_eq!(diagnose(echo).unwrap().line, "42 exited, status=1");
        let cause = format!("{echo}(1)      1: Error (c:1): strange\n");
        assert_eq!(diagnose(&cause).unwrap().line, "strange");
    }

    #[test]
    fn a_log_without_errors_has_no_cause() {
        assert_eq!(diagnose("(00.1) all is well\n"), None);
        assert_eq!(diagnose("(00.1) Error (criu/cr-dump.c:1975): Dumping FAILED.\n"), None);
        assert_eq!(diagnose(""), None);
    }

    #[test]
    fn a_message_fits_whatever_is_in_it() {
        let long = "/ä".repeat(3000);
        let lines = [
            format!("(1) Error (c:1): Can't dump ghost file {long} of 3 size, increase limit"),
            format!("(1) Error (c:1): Can't open file {long}"),
            format!("(1) Error (c:1): {long}: No such file or directory"),
            "(1) Error (c:1): Missing required plugin: \u{1b}[31m\u{202e}x".to_owned(),
        ];
        for line in lines {
            for path in [LOG, "/l", &format!("/var/{}/dump.log", "ö".repeat(120)), &long] {
                let failure = failure(&line, path);
                let told = failure.to_string();
                assert!(told.chars().count() + message::PREFIX.len() <= message::LIMIT, "{told}");
                assert!(failure.diagnosis.remedy.is_none_or(|remedy| told.contains(remedy)), "{told}");
                assert!(path == long || told.ends_with(&format!(" (log: {path})")), "{told}");
                assert!(!told.contains(char::is_control) && !told.contains('\u{202e}'), "{told}");
            }
        }
    }

    #[test]
    fn a_long_detail_is_shortened_before_the_sentence() {
        let line = format!("(1) Error (c:1): Can't dump ghost file /{}/end of 3 size", "x".repeat(500));
        let told = failure(&line, LOG).to_string();
        assert!(told.starts_with("the deleted file /xx") && told.contains("/end is still open"), "{told}");
    }

    #[test]
    fn a_log_is_read_from_its_file() {
        let error = |verb| runtime::Error::Failed {
            verb,
            cause: runtime::Cause::Other,
            message: "criu failed: type NOTIFY errno 0".into(),
        };
        let log = tempfile::NamedTempFile::new().unwrap();
        let (_, text, words) = RECORDED[0];
        std::fs::write(log.path(), [b"\xff\xfe\n", text.as_bytes()].concat()).unwrap();
        let told = Failure::of(&error("checkpoint"), log.path()).unwrap().to_string();
        assert!(told.starts_with(words), "{told}");
        assert_eq!(version(log.path()).as_deref(), Some("3.19"));
        assert_eq!(Failure::of(&error("checkpoint"), Path::new("/nowhere")), None);
    }
}

//! How verbs answer: on which stream, in colours or not, and with which exit status.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use cryo::policy::{NODE_FILE, NodeFile};

/// For those who ask by a script: not the answer "no".
const NO_ANSWER: u8 = 2;

pub(crate) const AS_ROOT: &str = "run this as root";

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A reader that has seen enough is no failure.
pub(crate) fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// What people want to know beside the answer.
pub(crate) fn tell(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Nobody is left to tell if even this can't be written.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "cryo: {text}");
}

pub(crate) fn finish(done: Result<ExitCode, String>) -> ExitCode {
    done.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::from(NO_ANSWER)
    })
}

pub(crate) fn has_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// What the node's owner says, as the shim would read it.
pub(crate) fn node_file() -> NodeFile {
    NodeFile::read_or_default(Path::new(NODE_FILE), |error| {
        complain(&format!("{error}; the built-in defaults hold instead"));
    })
}

/// Of milliseconds since 1970.
pub(crate) fn time(milliseconds: u64) -> Option<String> {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

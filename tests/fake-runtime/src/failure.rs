//! How a call fails: in the words and places that runc and crun use.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::process::ExitCode;

use crate::call::{Call, Flavour};

#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Nothing if it fails without a word.
    message: Option<String>,
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { code: 1, message: Some(message.into()) }
    }

    pub(crate) fn silent(code: u8) -> Failure {
        Failure { code, message: None }
    }

    /// Into the log, if there is one, and onto stderr.
    pub(crate) fn report(self, call: &Call) -> ExitCode {
        if let Some(message) = &self.message {
            let log = call.log.as_ref().and_then(|path| OpenOptions::new().append(true).open(path).ok());
            // Without a log the words on stderr have to do.
            let _ = log.map_or(Ok(()), |log| write(log, call.flavour, message));
            eprintln!("{message}");
        }
        ExitCode::from(self.code)
    }
}

/// runc writes one line per message, crun's JSON is spread over several.
fn write(mut log: File, flavour: Flavour, message: &str) -> io::Result<()> {
    let message = serde_json::Value::from(message);
    match flavour {
        Flavour::Runc => {
            writeln!(log, r#"{{"level":"warning","msg":"a warning before","time":"2026-01-01T00:00:00Z"}}"#)?;
            writeln!(log, r#"{{"level":"error","msg":{message},"time":"2026-01-01T00:00:00Z"}}"#)
        }
        Flavour::Crun => {
            writeln!(
                log,
                "{{\n  \"msg\": {message},\n  \"level\": \"error\",\n  \"time\": \"2026-01-01T00:00:00Z\"\n}}"
            )
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::new(error.to_string())
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Failure {
        io::Error::from(error).into()
    }
}

impl From<nix::Error> for Failure {
    fn from(error: nix::Error) -> Failure {
        io::Error::from(error).into()
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        Failure::new(error.to_string())
    }
}

//! What goes wrong outside of any request: one line for containerd to show.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

const NO_CONTAINER: u8 = 3;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}\n\n{usage}", usage = crate::args::USAGE)]
    Usage(String),
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: io::Error },
    /// `cryo` tries another containerd then.
    #[error("there is no such container")]
    NoContainer,
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub(crate) fn usage(problem: impl Into<String>) -> Error {
        Error::Usage(problem.into())
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { what, source }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Error::NoContainer => ExitCode::from(NO_CONTAINER),
            _ => ExitCode::FAILURE,
        }
    }

    pub(crate) fn other(problem: impl Display) -> Error {
        Error::Other(problem.to_string())
    }
}

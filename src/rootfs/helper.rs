//! The process that puts a layer back: our own binary, for as long as that takes. What it
//! needs is its own, what it writes counts as the container's, and it can be killed at any
//! moment.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, Mode, openat};

use super::apply::{self, Problem};
use crate::message::{cut, shown};
use crate::pages::digest::{self, Digester};
use crate::reaper::Reaper;
use crate::runtime::{Abort, capture};
use crate::within::FOLDER;

/// As the first argument of our own binary.
pub const ARGUMENT: &str = "layer";
const DEVICES: &str = "devices";
/// Of what it says.
const SHOWN: usize = 130;
/// Exit statuses beside 1.
const UNTRUSTED: u8 = 2;
const FULL: u8 = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot restore: the checkpoint's files are changes of another image ({theirs}) than this container's ({ours}): give it that image, or set cryo.rootfs=leave"
    )]
    Base { theirs: String, ours: String },
    #[error(
        "cannot restore: the checkpoint brings files that the container had changed, and this one's root file system is a folder of the host's that others may use: put them there yourself, and set cryo.rootfs=leave"
    )]
    Shared,
    #[error(
        "cannot restore: the files that the container had changed aren't trusted, {0}: take the checkpoint again, or set cryo.rootfs=leave"
    )]
    Untrusted(String),
    #[error(
        "cannot restore: there is no room in the root file system for the files that the container had changed, {0}: make room on its disk"
    )]
    Full(String),
    #[error(
        "cannot restore: the files that the container had changed can't be put back: {0}; cryo.rootfs=leave does without them"
    )]
    Failed(String),
    #[error("cannot restore: putting back the files that the container had changed took longer than {} s: raise cryo.timeout", .0.as_secs())]
    TimedOut(Duration),
    #[error("cannot restore: it was called off")]
    Aborted,
}

/// Puts a layer back into a root file system that nobody uses yet, if it has that digest.
pub(crate) async fn put_back(
    reaper: Reaper,
    layer: File,
    digest: &str,
    root: &Path,
    devices: bool,
    (deadline, abort): (Duration, &Abort),
) -> Result<(), Error> {
    let mut command = Command::new("/proc/self/exe");
    command.args([ARGUMENT, digest]).args(devices.then_some(DEVICES));
    command.stdin(Stdio::from(layer)).current_dir(root);
    let ended = abort.unless("restore", capture(reaper, &mut command, deadline)).await;
    let answer = ended.map_err(|_| Error::Aborted)?.map_err(|error| Error::Failed(error.to_string()))?;
    let Some(answer) = answer else { return Err(Error::TimedOut(deadline)) };
    let words = cut(&shown(&answer.errors), SHOWN);
    match answer.status {
        0 => Ok(()),
        status if status == u32::from(UNTRUSTED) => Err(Error::Untrusted(words)),
        status if status == u32::from(FULL) => Err(Error::Full(words)),
        status if words.is_empty() => Err(Error::Failed(format!("exit status {status}"))),
        _ => Err(Error::Failed(words)),
    }
}

/// What the process does: its standard input is the layer, and it stands in the root.
pub fn run(arguments: &[String]) -> ExitCode {
    let (digest, devices) = match arguments {
        [digest] => (digest, false),
        [digest, word] if word == DEVICES => (digest, true),
        _ => return ExitCode::FAILURE,
    };
    match put_back_here(digest, devices) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            problem.status()
        }
    }
}

fn put_back_here(digest: &str, devices: bool) -> Result<(), Problem> {
    let failed = |source| Problem::Io { name: String::new(), source };
    let layer = rustix::stdio::stdin().try_clone_to_owned().map(File::from).map_err(failed)?;
    let root: OwnedFd = openat(CWD, ".", FOLDER, Mode::empty()).map_err(|error| failed(error.into()))?;
    let of_no_kind = || Problem::Damaged("its digest is of an unknown kind".to_owned());
    let digester = Digester::like(digest).ok_or_else(of_no_kind)?;
    if digest::of(&layer, digester, |_| {}).map_err(failed)? != digest {
        return Err(Problem::Damaged("it isn't what it was".to_owned()));
    }
    apply::apply(&layer, root, devices)
}

impl Problem {
    fn status(&self) -> ExitCode {
        let is_full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        match self {
            Problem::Damaged(_) | Problem::Hostile { .. } => UNTRUSTED.into(),
            Problem::Full { .. } | Problem::TooMany { .. } => FULL.into(),
            Problem::Io { source, .. } if is_full(source) => FULL.into(),
            Problem::Io { .. } => ExitCode::FAILURE,
        }
    }
}

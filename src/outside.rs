//! What only the daemon knows, or can get, that asked for a container. The core knows none; it
//! asks a program that does, which is our own binary with another verb: what that takes in
//! memory is gone with it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::message::{cut, shown};
use crate::reaper::Reaper;
use crate::rootfs::Base;
use crate::runtime::{Answer, capture};

/// Daemons answer within milliseconds, or are busy with something else.
const PATIENCE: Duration = Duration::from_secs(5);
/// The image that a container was made of. The program prints what is known as JSON.
pub const BASE: &str = "base";
/// A checkpoint from a registry. The program prints the folder in the store where it is now.
pub const FETCH: &str = "fetch";
/// Exit statuses of the program beside 1.
pub const MISSING: u8 = 4;
pub const UNTRUSTED: u8 = 5;
const SHOWN_REFERENCE: usize = 80;
const SHOWN: usize = 160;

/// How to call the program; what is asked comes after that.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

/// Why a checkpoint isn't here.
#[derive(Debug, thiserror::Error)]
#[error("annotation cryo.restore-from=oci://{reference}: {problem}")]
pub struct Error {
    reference: String,
    problem: String,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Missing,
    Untrusted,
    TooSlow,
    Other,
}

impl Outside {
    /// What nobody tells is unknown.
    pub(crate) async fn base(&self, reaper: Reaper, container: &str) -> Base {
        let problem = match self.ask(reaper, &[BASE.as_ref(), container.as_ref()], PATIENCE).await {
            Ok(Some(answer)) if answer.status == 0 => match serde_json::from_str(&answer.text) {
                Ok(base) => return base,
                Err(error) => error.to_string(),
            },
            Ok(Some(answer)) => answer.errors.trim().to_owned(),
            Ok(None) => "there is no answer".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(problem, "nobody tells what the container's image is");
        Base::default()
    }

    /// Into the node's store, which keeps it as long as the container's bundle is there.
    pub(crate) async fn fetch(
        &self,
        reaper: Reaper,
        reference: &str,
        (node_file, bundle): (&Path, &Path),
        deadline: Duration,
    ) -> Result<PathBuf, Error> {
        let failed =
            |problem: String, why| Error { reference: cut(reference, SHOWN_REFERENCE), problem, why };
        let question = [FETCH.as_ref(), reference.as_ref(), node_file.as_os_str(), bundle.as_os_str()];
        let answer = match self.ask(reaper, &question, deadline).await {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                let seconds = deadline.as_secs();
                return Err(failed(
                    format!("it wasn't here within {seconds} s: raise cryo.timeout"),
                    Why::TooSlow,
                ));
            }
            Err(error) => return Err(failed(error.to_string(), Why::Other)),
        };
        let why = match answer.status {
            0 => return Ok(OsStr::from_bytes(answer.text.trim_end_matches('\n').as_bytes()).into()),
            status if status == u32::from(MISSING) => Why::Missing,
            status if status == u32::from(UNTRUSTED) => Why::Untrusted,
            _ => Why::Other,
        };
        let words = cut(&shown(&answer.errors), SHOWN);
        let words = if words.is_empty() { format!("exit status {}", answer.status) } else { words };
        Err(failed(words, why))
    }

    async fn ask(
        &self,
        reaper: Reaper,
        question: &[&OsStr],
        deadline: Duration,
    ) -> std::io::Result<Option<Answer>> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(question).stdin(Stdio::null()).current_dir("/");
        capture(reaper, &mut command, deadline).await
    }
}

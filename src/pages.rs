//! Memory pages: the big files of a checkpoint, which CRIU calls `pages-N.img`.
//!
//! Their digests while they are written and read, holes where they are all zero, packs in
//! which older checkpoints share what they have in common, and compression for those that
//! travel. All of it is synchronous: for a thread or a process of its own.

pub mod check;
pub mod compress;
pub mod digest;
mod file;
pub mod follow;
pub mod memory;
mod output;
pub mod pack;
pub mod share;
pub mod zeros;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use file::is_pages;

/// What is compared, shared and punched; also where the kernel's own pages are bigger.
pub const PAGE: usize = 4096;

/// What a file has to be like, as the one who keeps it has noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    pub size: u64,
    /// `blake3:` or `sha256:`, and hexadecimal digits.
    pub digest: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is damaged: {problem}; use another checkpoint", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("{} was changed while it was read: {problem}; take the checkpoint again", path.display())]
    Changed { path: PathBuf, problem: &'static str },
    #[error("{} was written by a newer Cryo, in version {version} of its format: use that one", path.display())]
    Future { path: PathBuf, version: u32 },
    #[error("{} would take more pages than can be told apart: leave it as it is", .0.display())]
    TooBig(PathBuf),
    #[error("reading memory pages was cancelled")]
    Cancelled,
}

impl Error {
    /// About a file of an image that is named already.
    pub fn in_image(&self) -> String {
        match self {
            Error::Damaged { path, problem } => format!("{}: {problem}", name(path)),
            Error::Read { path, source } => format!("{}: {source}", name(path)),
            other => other.to_string(),
        }
    }

    pub fn is_no_space(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Error::Write { source, .. } if full.contains(&source.kind()))
    }
}

fn name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn reading(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Read { path: path.to_owned(), source }
}

fn writing(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Write { path: path.to_owned(), source }
}

fn damaged(path: &Path, problem: impl Into<String>) -> Error {
    Error::Damaged { path: path.to_owned(), problem: problem.into() }
}

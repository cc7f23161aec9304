//! What can go wrong with a cgroup.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{file::Access, stragglers::Straggler};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("process {pid} is gone")]
    NoProcess { pid: u32 },
    #[error("no cgroup hierarchy that shows the process is mounted")]
    NotMounted,
    #[error("cgroup path {path:?} must not contain \"..\"")]
    Path { path: String },
    #[error("cgroup {} is gone", .path.display())]
    Gone { path: PathBuf },
    #[error("cgroup {cgroup} has no {controller} controller")]
    NoController { cgroup: String, controller: &'static str },
    #[error("cannot {access} {}", .path.display())]
    File { access: Access, path: PathBuf, source: io::Error },
    #[error("{} holds {text:?}, which makes no sense there", .path.display())]
    Malformed { path: PathBuf, text: String },
    #[error("cgroup {} did not freeze in time: {}", .path.display(), list(.stragglers))]
    WontFreeze { path: PathBuf, stragglers: Vec<Straggler> },
    #[error("cgroup {} did not thaw in time", .path.display())]
    WontThaw { path: PathBuf },
    #[error("cgroup {} stays frozen because a cgroup above it is", .path.display())]
    FrozenAbove { path: PathBuf },
    #[error("cgroup {} is still in use by processes {processes:?}", .path.display())]
    Busy { path: PathBuf, processes: Vec<u32> },
    #[error("cannot watch cgroup {cgroup} for memory running out")]
    Watch { cgroup: String, source: io::Error },
}

impl Error {
    pub(super) fn file(access: Access, path: &Path, source: io::Error) -> Self {
        Self::File { access, path: path.to_owned(), source }
    }

    pub(super) fn malformed(path: &Path, text: &str) -> Self {
        // A whole file may be long; its beginning tells what it is.
        let text = text.chars().take(80).collect();
        Self::Malformed { path: path.to_owned(), text }
    }
}

fn list(stragglers: &[Straggler]) -> String {
    if stragglers.is_empty() {
        return "none of its processes shows why".to_owned();
    }
    let named: Vec<_> = stragglers.iter().map(ToString::to_string).collect();
    named.join(", ")
}

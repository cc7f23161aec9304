//! Why a checkpoint can't be taken: each in one sentence.

use std::io;
use std::path::PathBuf;

use super::{image, preflight};
use crate::criu::log::Failure;
use crate::{cgroup, hooks, runtime, shm, store};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error("cannot checkpoint the container: its cgroup is unknown, so it can't be frozen")]
    NoCgroup,
    #[error("cannot checkpoint the container: {0}")]
    Freeze(cgroup::Error),
    #[error("cannot checkpoint the container: {0}: let it start its program, or end it")]
    Spawning(preflight::Spawning),
    #[error("cannot checkpoint the container: criu isn't in this shim's PATH: install CRIU 3.19 or newer")]
    NoCriu,
    #[error("cannot checkpoint the container: {0}")]
    Runtime(runtime::Error),
    #[error("cannot checkpoint the container: {0}")]
    Criu(Failure),
    #[error(
        "cannot checkpoint the container: it has open TCP connections: {0}; close them, or set cryo.tcp=established to keep them or cryo.tcp=close to have them closed"
    )]
    Connections(preflight::Connections),
    #[error("cannot checkpoint the container: {0}")]
    Preflight(preflight::Blockers),
    #[error(
        "cannot checkpoint the container: processes that were added by exec run in it ({0}), and cryo.exec=refuse is set: end them first"
    )]
    Execs(usize),
    #[error("cannot checkpoint the container: {0}")]
    Hook(#[from] hooks::Error),
    #[error(
        "cannot checkpoint the container: shared memory can't be copied, {0}: {remedy}set the annotation cryo.shm=leave",
        remedy = if .0.is_full() { "make room, or " } else { "" }
    )]
    Shm(#[from] shm::Error),
    #[error(
        "cannot checkpoint the container: cryo.rootfs=keep is set, and {0}: set cryo.rootfs=leave, and carry its files along by other means"
    )]
    Rootfs(String),
    #[error("cannot checkpoint the container: {0}")]
    Store(store::Error),
    /// It was to have a name there, and no folder of a client's.
    #[error(
        "the container was stopped, but its checkpoint can't be put into the store: {0}; it is complete, and cryo store prune does it then"
    )]
    Waits(store::Error),
    #[error("cannot keep the checkpoint's files in {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

//! Why nothing came back.

use std::io;
use std::path::PathBuf;

use super::{adapt, fit, sysctls};
use crate::checkpoint::image;
use crate::criu::log::Failure;
use crate::runtime::hook;
use crate::store::Size;
use crate::{bundle, checkpoint, hooks, runtime, stdio};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error(transparent)]
    Unfit(#[from] fit::Error),
    #[error("cannot make a network namespace for the restore: {0}")]
    Anchor(io::Error),
    #[error("cannot restore: {0}")]
    Sysctl(#[from] sysctls::Refused),
    #[error("cannot prepare the image for CRIU: {0}")]
    View(io::Error),
    #[error("cannot restore: the checkpoint's memory can't be unpacked: {0}")]
    Scratch(String),
    #[error("cannot restore: {0}")]
    Store(crate::store::Error),
    #[error("cannot restore: memory of {bytes} has to be unpacked, and the disk of {} is full: make room there", root.display())]
    NoRoom { root: PathBuf, bytes: Size },
    #[error("cannot restore: {0}")]
    Bundle(#[from] bundle::Error),
    #[error("cannot restore: {0}")]
    Stdio(#[from] stdio::Error),
    #[error("cannot restore: {0}")]
    Runtime(runtime::Error),
    #[error("cannot restore: {0}")]
    Criu(Failure),
    #[error("cannot restore: {0}")]
    Write(checkpoint::Error),
    #[error(transparent)]
    NoCriu(checkpoint::Error),
    #[error(transparent)]
    Mount(#[from] adapt::Missing),
    #[error("cannot restore: {0}")]
    Hook(#[from] hook::Error),
    #[error("cannot restore: {0}")]
    NodeHook(#[from] hooks::Error),
    #[error("cannot listen for hooks: {0}")]
    Hooks(io::Error),
    #[error("cannot hold the restore at its namespaces: {0}")]
    Hold(io::Error),
    #[error("cannot restore: the container is back but not in its own cgroup: {0}")]
    Cgroup(String),
    #[error("cannot restore: what was in shared memory can't be put back at {0}: {remedy}set the annotation cryo.shm=leave", remedy = if .0.is_full() { "give the mount the original's size, or " } else { "" })]
    Shm(#[from] crate::shm::Error),
    #[error(transparent)]
    Rootfs(#[from] crate::rootfs::Error),
    #[error(
        "cannot restore: the seccomp filter can't be kept in the bundle for processes that are added later: {0}: make room on its disk"
    )]
    Filter(io::Error),
}

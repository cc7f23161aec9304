//! The core of Cryo: containers, their processes and their checkpoints.
//!
//! Knows nothing of containerd, ttrpc or containerd's messages.

mod account;
pub mod anchor;
pub mod archive;
pub mod bundle;
pub mod cgroup;
pub mod checkpoint;
mod compressed;
pub mod container;
pub mod criu;
pub mod docker;
pub mod event;
pub mod helper;
pub mod hooks;
pub mod journal;
mod message;
pub mod metrics;
pub mod mount;
mod operation;
pub mod outside;
pub mod pages;
pub mod policy;
pub mod reaper;
pub mod restore;
pub mod rights;
pub mod rootfs;
pub mod runtime;
pub mod shm;
mod sparse;
pub mod stdio;
pub mod store;
pub mod sys;
mod tape;
mod within;

//! Checkpoints on their way between nodes: an image in one file.
//!
//! That file is an OCI image layout in a tar archive, as containerd and registries take it,
//! with layers laid out like the checkpoint archives of Kubernetes and Podman. Written and
//! read as a stream: neither needs a second copy of the memory on the disk.
//!
//! The shim links none of it.
#![cfg(feature = "command")]

mod annotations;
mod blobs;
mod compressed;
mod draft;
pub mod export;
mod gauge;
pub mod import;
mod layer;
mod layout;
mod members;
mod oci;
#[cfg(test)]
mod sample;
mod summed;
mod unpack;
mod verify;

pub use export::{Compression, Exported, Source, export, export_plain};
pub use gauge::Progress;
pub use import::{Imported, Limits, import};
pub use layout::{ContainerConfig, is_beside};

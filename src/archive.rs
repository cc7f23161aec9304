//! Checkpoints on their way between nodes: an image in one file.
//!
//! That file is an OCI image layout in a tar archive, as containerd and registries take it,
//! with layers laid out like the checkpoint archives of Kubernetes and Podman. Written and
//! read as a stream: neither needs a second copy of the memory on the disk.
//!
//! The shim itself never gets so far: what it needs of this, a process of its own does.

mod annotations;
mod blobs;
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
pub use import::{Imported, Limits, import, import_image};
pub use layout::{ContainerConfig, is_beside};

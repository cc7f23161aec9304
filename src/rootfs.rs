//! What a container has changed in its root file system. Where that is an overlay, the
//! changes lie in a folder of their own, and travel in the image as a layer like those that
//! the container's image is made of: [`FILE`], as containerd, CRI-O and Podman call it.
//!
//! It is [saved](save) while the container stands still, by the process that seals the image,
//! and [put back](helper) before CRIU runs, by a short-lived process of its own: what is in it
//! may have been written by anybody.

mod apply;
pub mod helper;
mod member;
mod overlay;
mod save;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bundle::Spec;
use crate::mount::table;
pub use apply::{Problem, apply};
pub use helper::Error;
pub use overlay::Overlay;
use overlay::Root;
pub use save::{bytes, save};

/// The layer among the files of an image.
pub const FILE: &str = "rootfs-diff.tar";

/// In `cryo.json`: the root file system that the container had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Had {
    #[serde(flatten)]
    pub base: Base,
    /// Where the changes were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// The changes, if they are in the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
    /// Why they aren't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
}

/// What a container is made of before it changes anything, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Base {
    /// The image's name, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The digest of all its layers, as the OCI image specification makes it: the same
    /// wherever they were unpacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Of the archive.
    pub bytes: u64,
    /// What is in it, folders apart.
    pub files: u64,
    /// `blake3:` and 64 digits.
    pub digest: String,
    /// The first of those that archives have no way to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

impl Base {
    /// None if nobody can tell.
    pub fn is_another(&self, than: &Base) -> bool {
        matches!((&self.chain, &than.chain), (Some(ours), Some(theirs)) if ours != theirs)
    }
}

/// Where a container's changes are written now. If that can't be told, why.
pub fn written_to(spec: &Spec, bundle: &Path) -> Result<Option<Overlay>, String> {
    let root = root(spec, bundle);
    match overlay::of(&root, &table::of("self")) {
        Root::Changes(overlay) => Ok(Some(overlay)),
        Root::Fixed => Ok(None),
        Root::Other(kind) => {
            Err(format!("the root file system is on {kind}, and only an overlay says what was changed in it"))
        }
    }
}

/// Whether a root file system was mounted for this container, and no folder of the host's that
/// others may use as well: what an image brings is written with the host's rights.
pub(crate) fn is_own(spec: &Spec, bundle: &Path) -> bool {
    std::fs::canonicalize(bundle).is_ok_and(|bundle| root(spec, &bundle).starts_with(&bundle))
}

/// A container's root file system, as the host sees it.
pub(crate) fn root(spec: &Spec, bundle: &Path) -> PathBuf {
    // What is absolute stays so.
    let root = bundle.join(&spec.root.path);
    std::fs::canonicalize(&root).unwrap_or(root)
}

//! What others leave behind around a restore, and nobody else removes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bundle::write_atomically;
use crate::checkpoint::is_temporary;
use crate::runtime::Runtime;

/// In the bundle: where containerd's copy of the checkpoint is.
const NOTE: &str = "cryo-daemons-copy";

/// containerd unpacks a checkpoint into a temporary folder before a restore and forgets
/// it: a copy of the container's memory for every restore.
pub(crate) fn remove_daemons_copy(image: &Path) {
    if !is_temporary(image) {
        return;
    }
    if let Err(error) = fs::remove_dir_all(image) {
        tracing::warn!(%error, folder = %image.display(), "containerd's copy of the checkpoint stays behind");
    }
}

/// For whoever cleans up if this shim doesn't live to do it.
pub(crate) fn note_daemons_copy(image: &Path, bundle: &Path) {
    if is_temporary(image) {
        // Without the note it stays behind, as it does with the stock shim.
        let _ = write_atomically(&bundle.join(NOTE), image.as_os_str().as_encoded_bytes());
    }
}

/// It is somebody else's from now on.
pub(crate) fn forget_daemons_copy(bundle: &Path) {
    let _ = fs::remove_file(bundle.join(NOTE));
}

pub(crate) fn remove_noted_copy(bundle: &Path) {
    if let Ok(image) = fs::read_to_string(bundle.join(NOTE)) {
        remove_daemons_copy(Path::new(&image));
    }
}

/// An empty folder that users of a container's own can look into, as into all of its
/// bundle; crun's own is for root.
pub(super) fn empty_folder(bundle: &Path) -> PathBuf {
    let path = bundle.join("cryo-empty");
    // If it can't be made, CRIU says that it isn't there.
    let _ = fs::create_dir(&path);
    path
}

/// runc and crun bind the root file system to a folder for the time of a restore. If one
/// of them dies meanwhile, crun refuses the next restore, and runc's `delete` goes through
/// the mount and removes what is in the root file system.
pub(crate) fn detach_root(runtime: &Runtime) {
    for folder in [&runtime.bundle, &runtime.root.join(&runtime.id)] {
        let folder = folder.join("criu-root");
        if folder.exists() {
            let _ = crate::mount::detach_all(&folder);
            let _ = fs::remove_dir(&folder);
        }
    }
}

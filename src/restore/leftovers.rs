//! What others leave behind around a restore, and nobody else removes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::RESTORE_LOG;
use crate::bundle::write_atomically;
use crate::checkpoint::is_temporary;
use crate::runtime::Runtime;
use crate::store::Store;

/// In the bundle: where containerd's copy of the checkpoint is.
const NOTE: &str = "cryo-daemons-copy";
const SCRATCH_NOTE: &str = "cryo-scratch";

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

/// For whoever cleans up if this shim doesn't live to do it: which store has unpacked memory.
pub(super) fn note_scratch(bundle: &Path, store: &Path) {
    // Without the note it stays until somebody else uses the store.
    let _ = write_atomically(&bundle.join(SCRATCH_NOTE), store.as_os_str().as_encoded_bytes());
}

pub(super) fn forget_scratch(bundle: &Path) {
    let _ = fs::remove_file(bundle.join(SCRATCH_NOTE));
}

pub(crate) fn remove_noted_scratch(bundle: &Path) {
    let Ok(root) = fs::read_to_string(bundle.join(SCRATCH_NOTE)) else { return };
    if let Err(error) = Store::open(Path::new(&root)).and_then(|store| store.discard_dead()) {
        tracing::warn!(%error, "unpacked memory stays in the store until that is used again");
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

/// CRIU builds a container's mounts in a folder of its own under /tmp and removes it at the
/// end, if it lives to do so. Which one it was, its log says before anything is mounted.
pub(crate) fn remove_mount_yard(work: &Path) {
    let Ok(log) = fs::File::open(work.join(RESTORE_LOG)) else { return };
    let lines = BufReader::new(log).split(b'\n').map_while(Result::ok);
    if let Some(yard) = lines.into_iter().find_map(|line| mount_yard(&String::from_utf8_lossy(&line))) {
        // Whatever is mounted there is seen in the container's namespace only, so it is empty.
        let _ = fs::remove_dir(yard);
    }
}

fn mount_yard(line: &str) -> Option<PathBuf> {
    let (_, place) = line.split_once(": \t\tWill mount ")?.1.split_once(" @ ")?;
    let name = place.strip_prefix("/tmp/")?.split('/').next()?;
    name.starts_with(".criu.mntns.").then(|| Path::new("/tmp").join(name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_crius_folder_for_mounts() {
        let yard = |line| mount_yard(line);
        assert_eq!(
            yard("(00.002970) mnt: \t\tWill mount 61 @ /tmp/.criu.mntns.9Lzq4d/mnt-0000000061 /sys/firmware"),
            Some(PathBuf::from("/tmp/.criu.mntns.9Lzq4d"))
        );
        assert_eq!(yard("(00.002970) mnt: \t\tWill mount 61 @ /tmp/other/mnt-0000000061 /sys"), None);
        assert_eq!(yard("(00.002970) Collected [tmp/.criu.mntns.9Lzq4d/x] ID 0x1"), None);
        assert_eq!(yard(""), None);
    }
}

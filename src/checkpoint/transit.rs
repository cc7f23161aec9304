//! An image on its way through containerd's content store: a client that names no folder
//! gets the image as an archive, and hands it back as one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Archives of layers tell by this prefix what is to be removed.
const WHITEOUT: &str = ".wh.";
/// The CRI takes every entry of the archive for a file of the image.
pub(super) const KUBERNETES: &str = "k8s.io";

/// Whether this is a folder that containerd has made for the time of one operation: only
/// what it makes itself, where it makes it, and what is really ours.
pub fn is_temporary(image: &Path) -> bool {
    let temporary = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let folders = [temporary, Some(std::env::temp_dir())];
    let placed = folders.iter().flatten().any(|folder| image.parent() == Some(folder));
    let digits = image
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("ctrd-checkpoint"))
        .unwrap_or_default();
    let named = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let owner = rustix::process::geteuid().as_raw();
    placed && named && fs::symlink_metadata(image).is_ok_and(|meta| meta.is_dir() && meta.uid() == owner)
}

/// Makes the archive of this image differ from the one a client will make of the same
/// files. Docker unpacks the image and packs it again for the restore; if containerd
/// still has the first archive and the second is the same, it refuses that one as
/// "already exists". What looks like a whiteout is dropped when an archive is unpacked.
pub(super) fn mark(folder: &Path, namespace: &str) -> io::Result<()> {
    if namespace == KUBERNETES {
        return Ok(());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fs::write(folder.join(format!("{WHITEOUT}cryo-{}", now.as_nanos())), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containerds_own_folders_are_temporary() {
        let ours = tempfile::Builder::new().prefix("ctrd-checkpoint123").rand_bytes(0).tempdir().unwrap();
        assert!(is_temporary(ours.path()));
        for other in
            ["/var/lib/ctrd-checkpoint1", "/tmp/ctrd-checkpoint", "/tmp/ctrd-checkpoint1x", "/tmp/mine"]
        {
            assert!(!is_temporary(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = std::env::temp_dir().join("ctrd-checkpoint9876543210");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let taken = is_temporary(&link);
        fs::remove_file(&link).unwrap();
        assert!(!taken);
    }

    #[test]
    fn every_archive_but_kubernetes_own_is_marked() {
        for (namespace, entries) in [("moby", 1), ("default", 1), ("k8s.io", 0)] {
            let folder = tempfile::tempdir().unwrap();
            mark(folder.path(), namespace).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), entries, "{namespace}");
        }
    }
}

//! Where CRIU's logs are kept, one folder per operation, after everything else of the
//! container is gone. The newest are kept, the oldest go.

use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

/// At some hundred kilobytes each, this many take no room that anybody misses.
const KEPT: usize = 50;

#[derive(Clone, Debug)]
pub struct Journal {
    root: PathBuf,
}

impl Journal {
    pub fn new(root: impl Into<PathBuf>) -> Journal {
        Journal { root: root.into() }
    }

    /// A new folder for an operation on a container. Falls back to the bundle if the
    /// journal can't be written: a log that goes with the container beats none.
    pub fn folder(&self, namespace: &str, id: &str, operation: &str, bundle: &Path) -> io::Result<Folder> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // Sorting the names sorts them by age.
        let name = format!("{now:013}-{operation}-{}-{}", short(namespace), short(id));
        let folder = self.root.join(&name);
        if let Err(error) = private_folder(&folder).and_then(|()| probe(&folder)) {
            tracing::warn!(%error, folder = %folder.display(), "this operation's logs go with the container");
            let folder = bundle.join(&name);
            private_folder(&folder)?;
            return Folder::hold(folder);
        }
        let folder = Folder::hold(folder)?;
        self.prune();
        Ok(folder)
    }

    /// The folders of operations on a container, whatever namespace it was in.
    pub fn folders_of(&self, id: &str) -> Vec<PathBuf> {
        let end = format!("-{}", short(id));
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(&end)).collect()
    }

    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        let excess = folders.len().saturating_sub(KEPT);
        for folder in folders[..excess].iter().filter(|folder| !is_held(folder)) {
            // Another shim may be removing the same one.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// A folder in use. It stays as long as this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    fn hold(path: PathBuf) -> io::Result<Folder> {
        let folder = File::open(&path)?;
        flock(&folder, FlockOperation::NonBlockingLockShared)?;
        Ok(Folder { path, _lock: folder })
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

fn is_held(folder: &Path) -> bool {
    let lock = |folder| flock(folder, FlockOperation::NonBlockingLockExclusive);
    File::open(folder).is_ok_and(|folder| lock(folder) == Err(rustix::io::Errno::WOULDBLOCK))
}

/// Docker's ids have 64 digits; the first ones tell them apart, as in its own output.
fn short(id: &str) -> &str {
    let end = id.char_indices().nth(24).map_or(id.len(), |(end, _)| end);
    &id[..end]
}

/// A disk may have room for a folder and none for a file.
fn probe(folder: &Path) -> io::Result<()> {
    let file = folder.join("probe");
    let written = fs::write(&file, [0; 4096]).and_then(|()| fs::remove_file(&file));
    if written.is_err() {
        let _ = fs::remove_dir_all(folder);
    }
    written
}

fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept() {
        let root = tempfile::tempdir().unwrap();
        for age in 0..KEPT + 10 {
            fs::create_dir(root.path().join(format!("{age:013}-checkpoint-ns-old"))).unwrap();
        }
        let journal = Journal::new(root.path());
        let newest = journal.folder("ns", "id", "checkpoint", Path::new("/nowhere")).unwrap();
        assert!(newest.is_dir());
        assert!(is_held(&newest));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), KEPT);
    }

    #[test]
    fn without_a_journal_the_bundle_serves() {
        let bundle = tempfile::tempdir().unwrap();
        let journal = Journal::new("/proc/no-such-place");
        let folder = journal.folder("ns", "id", "restore", bundle.path()).unwrap();
        assert!(folder.starts_with(bundle.path()));
    }
}

//! Checkpoints on the node, each an *entry*: an image folder that nothing is lost from and
//! nothing leaks into.
//!
//! `entries/ID/` is an entry, with `entry.json` beside the files of its image. `new/ID/` is
//! one that is being made, as long as somebody holds `new/ID.lock`; `rubbish/ID/` is one that
//! is being removed; `packs/` holds pages that entries share. Every change is one rename, so
//! that whoever is killed leaves the old state or the new one, and what is left in `new` and
//! `rubbish` goes with the next change. Changes are made under `lock`; an entry that somebody
//! holds (flock on its folder) isn't removed.

mod change;
pub mod claims;
mod contents;
mod disk;
mod draft;
mod entry;
mod error;
mod fetched;
mod id;
pub(crate) mod lock;
mod pack;
mod prune;
mod record;
pub mod retention;
mod share;
mod size;
mod verify;

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

pub use draft::{Draft, Durable, Progress, Wish};
pub use entry::{Damaged, Entry, Held};
pub use error::Error;
pub use id::Id;
use lock::{Failure, How, Lock};
pub use pack::{Packed, Which};
pub use prune::{Pruned, Removed, await_pruning};
pub use record::{Content, Description, Origin, Record};
pub use size::Size;
pub use verify::{Checked, Report};

/// Where the store is if the node's owner doesn't say.
pub const ROOT: &str = "/var/lib/cryo/store";
/// Of the layout; a greater one is refused.
const VERSION: &str = "1";
const VERSION_FILE: &str = "version";
const NEW_VERSION_FILE: &str = "version.new";
const LOCK_FILE: &str = "lock";
const ENTRIES: &str = "entries";
const PACKS: &str = "packs";
/// No folder: a path below it asks for a checkpoint of that name.
const BY_NAME: &str = "by-name";
/// A change is some small files; on a slow disk others' dumps are in its way.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of an id that is to be found by its beginning.
const LEAST_DIGITS: usize = 4;

#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    /// Where copies of clients' folders may lie that name entries.
    copies: Vec<PathBuf>,
}

/// How much there is: checkpoints, and what all takes on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub entries: usize,
    pub bytes: u64,
}

impl Store {
    /// Makes it if it is missing. One on a read-only disk opens, too: checkpoints can be
    /// restored from there.
    pub fn open(root: &Path) -> Result<Store, Error> {
        if !root.is_absolute() || root.components().any(|part| part == Component::ParentDir) {
            return Err(Error::Path(root.to_owned()));
        }
        let store = Store { root: root.to_owned(), copies: Vec::new() };
        let failed = Error::at(root);
        if !root.try_exists().map_err(&failed)? {
            // What is above it isn't its own: metrics, for instance, are for others to read.
            root.parent().map_or(Ok(()), fs::create_dir_all).map_err(&failed)?;
            match disk::make_private(root) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
        }
        store.check_owner()?;
        if store.version()?.is_none() {
            store.make()?;
        }
        for folder in [store.entries_folder(), store.new_folder(), store.rubbish_folder(), store.packs()] {
            match disk::make_private(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::at(&folder)(error));
                }
                _ => {}
            }
        }
        Ok(store)
    }

    /// One that was there before: if it was removed or unmounted meanwhile, it isn't made anew.
    pub fn open_again(root: &Path) -> Result<Store, Error> {
        if !root.join(VERSION_FILE).try_exists().map_err(Error::at(root))? {
            return Err(Error::at(root)(io::ErrorKind::NotFound.into()));
        }
        Store::open(root)
    }

    /// Nothing goes that is named by a checkpoint in one of these folders, however deep: those
    /// that the node file allows restores from.
    pub fn with_copies_in(self, folders: &[PathBuf]) -> Store {
        // The store's own say nothing of others.
        let copies = folders.iter().filter(|folder| !folder.starts_with(&self.root)).cloned().collect();
        Store { copies, ..self }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Of the store at `root`, if there is one.
    pub fn extent(root: &Path) -> io::Result<Extent> {
        let entries = disk::names(&root.join(ENTRIES))?.len();
        Ok(Extent { entries, bytes: disk::bytes(root)? })
    }

    /// Pages that entries share.
    pub fn packs(&self) -> PathBuf {
        self.root.join(PACKS)
    }

    /// All that can be read, the oldest first, and all that can't.
    pub fn entries(&self) -> Result<(Vec<Entry>, Vec<Damaged>), Error> {
        let folder = self.entries_folder();
        let names = disk::names(&folder).map_err(Error::at(&folder))?;
        let (mut good, mut damaged) = (Vec::new(), Vec::new());
        for id in names.iter().filter_map(|name| Id::parse(name)) {
            match Entry::read(&self.entry_folder(&id), &id) {
                Ok(entry) => good.push(entry),
                // Removed since the folder was read.
                Err(_) if !self.entry_folder(&id).exists() => {}
                Err(entry) => damaged.push(entry),
            }
        }
        good.sort_by(|a, b| (a.record.taken_at, a.id()).cmp(&(b.record.taken_at, b.id())));
        Ok((good, damaged))
    }

    /// What a client gives for a folder that wants a checkpoint of that name in the store at
    /// `root`.
    pub fn wish(root: &Path, name: &str) -> PathBuf {
        root.join(BY_NAME).join(name)
    }

    /// The name that it wants, if it does.
    pub fn wanted(root: &Path, path: &Path) -> Option<String> {
        let name = path.strip_prefix(root.join(BY_NAME)).ok()?;
        (!name.as_os_str().is_empty()).then(|| name.to_string_lossy().into_owned())
    }

    /// The one whose folder this is, if it is one of the store at `root`.
    pub fn entry_at(root: &Path, folder: &Path) -> Option<Result<Entry, Error>> {
        let (entries, folder) = (fs::canonicalize(root.join(ENTRIES)).ok()?, fs::canonicalize(folder).ok()?);
        let id = Id::parse(folder.strip_prefix(entries).ok()?.to_str()?)?;
        let folder = &root.join(ENTRIES).join(id.as_str());
        Some(Entry::read(folder, &id).map_err(|damaged| damaged.error()))
    }

    /// By its name, its id, or the beginning of its id.
    pub fn find(&self, text: &str) -> Result<Entry, Error> {
        let (good, damaged) = self.entries()?;
        let named = |entry: &&Entry| entry.record.name.as_deref() == Some(text);
        if let Some(entry) = good.iter().find(named) {
            return Ok(entry.clone());
        }
        if !id::is_prefix(text) {
            return Err(Error::Unknown(crate::message::cut(text, 128)));
        }
        if text.len() < LEAST_DIGITS {
            return Err(Error::Short(text.to_owned()));
        }
        let good = good.into_iter().map(|entry| (entry.id().clone(), Ok(entry)));
        let damaged = damaged.into_iter().map(|entry| (entry.id.clone(), Err(entry.error())));
        let mut found: Vec<_> = good.chain(damaged).filter(|(id, _)| id.as_str().starts_with(text)).collect();
        match found.pop() {
            None => Err(Error::Unknown(crate::message::cut(text, 128))),
            Some((_, entry)) if found.is_empty() => entry,
            Some((last, _)) => Err(ambiguous(text, found.into_iter().map(|(id, _)| id).chain([last]))),
        }
    }

    fn check_owner(&self) -> Result<(), Error> {
        let failed = Error::at(&self.root);
        let metadata = fs::metadata(&self.root).map_err(&failed)?;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || !ours || metadata.mode() & 0o022 != 0 {
            return Err(Error::Open(self.root.clone()));
        }
        // Memory of containers is in it.
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700)).map_err(&failed)?;
        }
        Ok(())
    }

    /// None if there is no store yet.
    fn version(&self) -> Result<Option<()>, Error> {
        let path = self.root.join(VERSION_FILE);
        let bytes = match crate::criu::images::read_small(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(Error::at(&path))?,
        };
        let text = String::from_utf8_lossy(&bytes);
        if text.trim() == VERSION {
            return Ok(Some(()));
        }
        let version = crate::message::cut(&crate::message::shown(&text), 20);
        Err(Error::Later { path: self.root.clone(), version })
    }

    /// Nothing in the folder is ours before it has a version: what is in `new` would be
    /// removed.
    fn make(&self) -> Result<(), Error> {
        // The last one if it is a disk of its own.
        let ours = [LOCK_FILE, NEW_VERSION_FILE, VERSION_FILE, "lost+found"];
        let names = disk::names(&self.root).map_err(Error::at(&self.root))?;
        if names.iter().any(|name| !ours.contains(&name.as_str())) && self.version()?.is_none() {
            return Err(Error::Foreign(self.root.clone()));
        }
        let _lock = self.lock()?;
        let (new, path) = (self.root.join(NEW_VERSION_FILE), self.root.join(VERSION_FILE));
        disk::write(&new, format!("{VERSION}\n").as_bytes())
            .and_then(|()| disk::rename(&new, &path))
            .map_err(Error::at(&self.root))
    }

    /// For a change.
    fn lock(&self) -> Result<Lock, Error> {
        let path = self.root.join(LOCK_FILE);
        let file = Lock::file(&path).map_err(Error::at(&self.root))?;
        Lock::take(file, How::Alone, PATIENCE).map_err(|failure| match failure {
            Failure::Held(by) => Error::Busy { path: self.root.clone(), by, seconds: PATIENCE.as_secs() },
            Failure::Io(error) => Error::at(&path)(error),
        })
    }

    fn entries_folder(&self) -> PathBuf {
        self.root.join(ENTRIES)
    }

    fn entry_folder(&self, id: &Id) -> PathBuf {
        self.entries_folder().join(id.as_str())
    }

    fn new_folder(&self) -> PathBuf {
        self.root.join("new")
    }

    fn rubbish_folder(&self) -> PathBuf {
        self.root.join("rubbish")
    }
}

/// Where the packs are that an entry in this folder shares with others.
pub fn packs_beside(entry: &Path) -> PathBuf {
    let root = entry.parent().and_then(Path::parent).unwrap_or(entry);
    root.join(PACKS)
}

fn ambiguous(text: &str, ids: impl Iterator<Item = Id>) -> Error {
    /// As many as fit into a sentence.
    const SHOWN: usize = 6;
    let mut ids: Vec<_> = ids.map(String::from).collect();
    ids.sort();
    let more = if ids.len() > SHOWN { ", …" } else { "" };
    ids.truncate(SHOWN);
    Error::Ambiguous { text: text.to_owned(), candidates: ids.join(", ") + more }
}

#[cfg(test)]
mod tests;

//! A checkpoint in the store, and the right to use it for a while.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock::{Failure, How, Lock};
use super::record::Record;
use super::{Error, Id, disk};

/// Whoever removes an entry holds it alone for a moment, to look at it once more.
const PATIENCE: Duration = Duration::from_secs(2);

/// As it was when it was read.
#[derive(Clone, Debug)]
pub struct Entry {
    pub record: Record,
    /// An image's, with `entry.json` beside its files.
    pub folder: PathBuf,
    /// What its files take on the disk.
    pub bytes: u64,
}

/// An entry that can't be read: it stays until somebody removes it by its id.
#[derive(Clone, Debug)]
pub struct Damaged {
    pub id: Id,
    pub problem: String,
    pub bytes: u64,
}

/// An entry that nobody removes as long as this lives.
#[derive(Debug)]
pub struct Held {
    entry: Entry,
    _lock: Lock,
}

impl Entry {
    /// From the folder that bears its id.
    pub(super) fn read(folder: &Path, id: &Id) -> Result<Entry, Damaged> {
        // Only for showing: one that can't be measured can still be used.
        let bytes = disk::bytes(folder).unwrap_or_default();
        match Record::read(folder, id) {
            Ok(record) => Ok(Entry { record, folder: folder.to_owned(), bytes }),
            Err(problem) => Err(Damaged { id: id.clone(), problem, bytes }),
        }
    }

    pub fn id(&self) -> &Id {
        &self.record.id
    }

    /// For a restore, an export or a check: many may hold it at once.
    pub fn hold(self) -> Result<Held, Error> {
        let lock = lock(&self.folder, self.id(), How::Shared, PATIENCE)?;
        Ok(Held { entry: self, _lock: lock })
    }

    /// To change how its files are stored: nobody else uses it meanwhile, or begins to.
    pub fn hold_alone(self) -> Result<Held, Error> {
        let lock = lock(&self.folder, self.id(), How::Alone, Duration::ZERO)?;
        Ok(Held { entry: self, _lock: lock })
    }
}

impl Held {
    /// One that isn't in its place yet; nobody can hold it otherwise.
    pub(super) fn new(entry: Entry, lock: Lock) -> Held {
        Held { entry, _lock: lock }
    }
}

impl Deref for Held {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Damaged {
    pub fn error(&self) -> Error {
        Error::Damaged { id: self.id.clone(), problem: self.problem.clone() }
    }
}

/// Of an entry that is still there when it is locked.
pub(super) fn lock(folder: &Path, id: &Id, how: How, patience: Duration) -> Result<Lock, Error> {
    let gone = || Error::Unknown(id.to_string());
    let file = Lock::folder(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => gone(),
        _ => Error::at(folder)(error),
    })?;
    match Lock::take(file, how, patience) {
        Ok(lock) if lock.is_at(folder) => Ok(lock),
        Ok(_) => Err(gone()),
        Err(Failure::Held(by)) => Err(Error::InUse { id: id.clone(), by }),
        Err(Failure::Io(error)) => Err(Error::at(folder)(error)),
    }
}

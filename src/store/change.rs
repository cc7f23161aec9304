//! Changes of entries, each under the store's lock and in one step.

use std::path::Path;
use std::time::Duration;

use super::claims::{self, Claim, Naming, Survey};
use super::entry::{self, Entry};
use super::error::brief;
use super::lock::How;
use super::record::{FILE_NAME, Record};
use super::{Error, Id, Store, disk};

const LONGEST_NAME: usize = 128;

impl Store {
    /// Gives an entry a name, or takes it away.
    pub fn set_name(&self, id: &Id, name: Option<&str>) -> Result<Entry, Error> {
        self.change(id, |record| {
            if let Some(name) = name {
                self.check_name(name, Some(id))?;
            }
            record.name = name.map(str::to_owned);
            Ok(())
        })
    }

    pub fn set_pinned(&self, id: &Id, pinned: bool) -> Result<Entry, Error> {
        self.change(id, |record| {
            record.pinned = pinned;
            Ok(())
        })
    }

    /// Notes that somebody else names it, too.
    pub fn add_claim(&self, id: &Id, claim: Claim) -> Result<Entry, Error> {
        self.change(id, |record| {
            record.claims.retain(|claim| !claim.is_over());
            if !record.claims.contains(&claim) {
                record.claims.push(claim);
            }
            Ok(())
        })
    }

    /// Removes an entry that nobody uses. Forced, also one that somebody needs, or that can't
    /// be read.
    pub fn remove(&self, id: &Id, force: bool) -> Result<(), Error> {
        if force {
            let lock = self.lock()?;
            self.discard(&self.entry_folder(id), id)?;
            drop(lock);
            return self.empty_rubbish();
        }
        // Others' disks are read for it: not under the lock.
        loop {
            let entry = self.read(id)?;
            self.check_free(&entry)?;
            if self.remove_unchanged(&entry)? {
                break;
            }
        }
        self.empty_rubbish()
    }

    /// False if it isn't any longer as it was when that was decided.
    pub(super) fn remove_unchanged(&self, entry: &Entry) -> Result<bool, Error> {
        let _lock = self.lock()?;
        if self.read(entry.id())?.record != entry.record {
            return Ok(false);
        }
        self.discard(&entry.folder, entry.id())?;
        Ok(true)
    }

    /// Under the lock. What it takes on the disk is free when the rubbish is gone.
    fn discard(&self, folder: &Path, id: &Id) -> Result<(), Error> {
        let _alone = entry::lock(folder, id, How::Alone, Duration::ZERO)?;
        disk::rename(folder, &self.rubbish_folder().join(id.as_str())).map_err(Error::at(folder))
    }

    fn check_free(&self, entry: &Entry) -> Result<(), Error> {
        let id = entry.id().clone();
        if entry.record.pinned {
            return Err(Error::Pinned(id));
        }
        match Survey::new(&self.copies).of(&id, &entry.record.claims) {
            Naming::Nobody => Ok(()),
            Naming::By(folder) => Err(Error::Claimed { id, why: brief(&claims::told(&folder)) }),
            Naming::Unknown(why) => Err(Error::Claimed { id, why: brief(&why) }),
        }
    }

    pub(super) fn read(&self, id: &Id) -> Result<Entry, Error> {
        let folder = self.entry_folder(id);
        if !folder.try_exists().map_err(Error::at(&folder))? {
            return Err(Error::Unknown(id.to_string()));
        }
        Entry::read(&folder, id).map_err(|damaged| damaged.error())
    }

    fn change(&self, id: &Id, alter: impl FnOnce(&mut Record) -> Result<(), Error>) -> Result<Entry, Error> {
        let _lock = self.lock()?;
        let mut entry = self.read(id)?;
        let before = entry.record.clone();
        alter(&mut entry.record)?;
        if entry.record == before {
            return Ok(entry);
        }
        let path = entry.folder.join(FILE_NAME);
        let new = self.new_folder().join(format!("{id}.json"));
        let written = entry.record.write(&new).and_then(|()| disk::rename(&new, &path));
        if written.is_err() {
            let _ = disk::remove_file(&new);
        }
        written.map_err(Error::at(&path))?;
        Ok(entry)
    }
}

/// An id would hide the entry that it belongs to.
pub(super) fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let begins = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    begins && bytes.len() <= LONGEST_NAME && bytes.iter().all(plain) && Id::parse(name).is_none()
}

//! An entry that is being made: `new/ID/`, and `new/ID.lock`, which is held as long as
//! somebody works on it and notes what it will need. The folder itself isn't locked, so that
//! an image can be written there as anywhere else.
//!
//! A quota is kept here: a draft counts with what it said it would need.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::claims::Claim;
use super::entry::{Entry, Held};
use super::lock::{How, Lock};
use super::record::{self, Description, Record};
use super::retention::Limits;
use super::{Error, Id, PATIENCE, Size, Store, change, contents, disk};
use crate::checkpoint::manifest::{Manifest, now};
use crate::criu::images;

/// What a new entry needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// Nobody else gets it meanwhile.
    pub name: Option<&'a str>,
    /// About as much as it will take on the disk.
    pub bytes: u64,
    /// Who will name it.
    pub claim: Option<&'a Claim>,
    /// It is taken of a container now, and when it is complete it may be all that is left of it.
    pub of_living: bool,
}

/// How far a draft is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub written: u64,
    /// About as much as there will be.
    pub needed: u64,
}

/// When the disk has the files of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// When its commit is done.
    Now,
    /// Once [`Store::write_back`] has been called and the disk is done, because a client waits.
    /// After a loss of power they may not be what they were; whoever reads them has their digests.
    Later,
}

/// An entry that isn't complete. Dropped, it leaves nothing but what may be all that is left of
/// a container.
#[derive(Debug)]
pub struct Draft {
    of_living: bool,
    store: Store,
    id: Id,
    name: Option<String>,
    folder: PathBuf,
    lock_path: PathBuf,
    _lock: Lock,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Reservation {
    name: Option<String>,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<Claim>,
    of_living: bool,
}

/// What was found of dead processes.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// Drafts that are gone.
    pub(super) dead: usize,
    /// Drafts that are entries now.
    pub(super) saved: Vec<Id>,
}

impl Store {
    /// Makes room for a new entry. If there is none, what may go by the limits goes first.
    pub fn begin(&self, wish: &Wish<'_>, limits: &Limits) -> Result<Draft, Error> {
        self.clean()?;
        match self.reserve(wish, limits) {
            Err(full @ Error::Quota { .. }) => {
                // Whoever prunes already may not have come to what is in the way.
                self.prune(limits, now()).map_err(|error| match error {
                    Error::Pruning { .. } => full,
                    error => error,
                })?;
                self.reserve(wish, limits)
            }
            reserved => reserved,
        }
    }

    fn reserve(&self, wish: &Wish<'_>, limits: &Limits) -> Result<Draft, Error> {
        let _lock = self.lock()?;
        if let Some(name) = wish.name {
            self.check_name(name, None)?;
        }
        self.check_quota(wish.bytes, limits)?;
        let id = self.unused_id()?;
        let folder = self.new_folder().join(id.as_str());
        let lock_path = self.lock_path(&id);
        let failed = Error::at(&self.root);
        let file = Lock::file(&lock_path).map_err(&failed)?;
        // Somebody may be looking whether it is held, and holds it while looking.
        let lock = Lock::take(file, How::Alone, PATIENCE).map_err(|failure| failed(failure.into()))?;
        let name = wish.name.map(str::to_owned);
        let Wish { bytes, claim, of_living, .. } = *wish;
        let reservation = Reservation { name: name.clone(), bytes, claim: claim.cloned(), of_living };
        // From here on what was made goes with the draft.
        let draft = Draft { of_living, store: self.clone(), id, name, folder, lock_path, _lock: lock };
        serde_json::to_vec(&reservation)
            .map_err(io::Error::from)
            .and_then(|text| disk::write(&draft.lock_path, &text))
            .and_then(|()| disk::make_private(&draft.folder))
            .map_err(&failed)?;
        Ok(draft)
    }

    fn check_quota(&self, needed: u64, limits: &Limits) -> Result<(), Error> {
        let Some(most) = limits.max_bytes else { return Ok(()) };
        let used = self.used()?;
        if used.saturating_add(needed) <= most {
            return Ok(());
        }
        let (entries, _) = self.entries()?;
        let biggest = entries.iter().max_by_key(|entry| entry.bytes);
        let biggest = biggest.map_or_else(
            || "and no checkpoint is there that could go".to_owned(),
            |entry| format!("and the biggest is checkpoint {} ({})", entry.id(), Size(entry.bytes)),
        );
        let (path, most, used, needed) = (self.root.clone(), Size(most), Size(used), Size(needed));
        Err(Error::Quota { path, most, used, needed, biggest })
    }

    /// Of the one that is to have a name.
    pub fn progress(&self, name: &str) -> Option<Progress> {
        let drafts = self.reservations().unwrap_or_default();
        let (id, reservation) =
            drafts.into_iter().find(|(_, reservation)| reservation.name.as_deref() == Some(name))?;
        let files = std::fs::read_dir(self.new_folder().join(id.as_str())).ok()?.flatten();
        let written = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        Some(Progress { written, needed: reservation.bytes })
    }

    /// What all of the store takes on the disk, or will take when drafts are complete.
    pub fn used(&self) -> Result<u64, Error> {
        let mut used = disk::bytes(&self.root).map_err(Error::at(&self.root))?;
        for (id, reservation) in self.reservations()? {
            let written = disk::bytes(&self.new_folder().join(id.as_str())).unwrap_or_default();
            used = used.saturating_add(reservation.bytes.saturating_sub(written));
        }
        Ok(used)
    }

    /// Whether an entry may be called so; `but` is the one that may have the name already.
    pub(super) fn check_name(&self, name: &str, but: Option<&Id>) -> Result<(), Error> {
        if !change::is_name(name) {
            return Err(Error::Name(crate::message::cut(&crate::message::shown(name), 60)));
        }
        let (entries, _) = self.entries()?;
        let entries = entries.into_iter().map(|entry| (entry.record.id, entry.record.name));
        let drafts = self.reservations()?.into_iter().map(|(id, reservation)| (id, reservation.name));
        let mut taken = entries.chain(drafts).filter(|(id, _)| Some(id) != but);
        match taken.find(|(_, taken)| taken.as_deref() == Some(name)) {
            Some((by, _)) => Err(Error::NameTaken { name: crate::message::cut(name, 60), by }),
            None => Ok(()),
        }
    }

    /// Removes what dead processes left, but for what nobody else has. Not for whoever has the
    /// lock.
    pub(super) fn clean(&self) -> Result<Swept, Error> {
        let (mut swept, complete) = {
            let _lock = self.lock()?;
            self.sweep()?
        };
        for (id, lock) in complete {
            match self.save(&id) {
                Ok(()) => swept.saved.push(id),
                Err(error) => {
                    tracing::warn!(%error, %id, "a complete checkpoint can't be put into the store yet")
                }
            }
            drop(lock);
        }
        self.empty_rubbish()?;
        Ok(swept)
    }

    /// No more than what can go at once: for those who have no time.
    pub(crate) fn discard_dead(&self) -> Result<(), Error> {
        self.lock().and_then(|_lock| self.sweep())?;
        self.empty_rubbish()
    }

    pub(super) fn empty_rubbish(&self) -> Result<(), Error> {
        let folder = self.rubbish_folder();
        let names = disk::names(&folder).map_err(Error::at(&folder))?;
        names.iter().try_for_each(|name| disk::remove_folder(&folder.join(name))).map_err(Error::at(&folder))
    }

    /// Under the lock: nobody is about to make a draft, or to write an entry anew. What may be
    /// all that is left of a container is looked at later, and belongs to us until then.
    fn sweep(&self) -> Result<(Swept, Vec<(Id, Lock)>), Error> {
        let new = self.new_folder();
        let (mut swept, mut complete) = (Swept::default(), Vec::new());
        let mut sweep = || -> io::Result<()> {
            // A folder comes before the lock that belongs to it.
            for name in disk::names(&new)? {
                let (stem, end) = name.split_once('.').unwrap_or((&name, ""));
                let Some(id) = Id::parse(stem).filter(|id| end == "json" || !self.is_held(id)) else {
                    continue;
                };
                if !end.is_empty() {
                    disk::remove_file(&new.join(&name))?;
                    continue;
                }
                if self.reservation(&id).of_living && may_be_the_last(&new.join(&name)) {
                    let lock = Lock::file(&self.lock_path(&id))?;
                    complete.extend(Lock::take(lock, How::Alone, Duration::ZERO).ok().map(|lock| (id, lock)));
                    continue;
                }
                disk::rename(&new.join(&name), &self.rubbish_folder().join(id.as_str()))?;
                swept.dead += 1;
            }
            Ok(())
        };
        sweep().map_err(Error::at(&new))?;
        Ok((swept, complete))
    }

    /// Who died when the checkpoint was complete may have ended the container already. It
    /// stays until somebody removes it.
    fn save(&self, id: &Id) -> Result<(), Error> {
        let folder = self.new_folder().join(id.as_str());
        let failed = Error::at(&folder);
        let manifest = Manifest::read(&folder).map_err(&failed)?;
        let files = contents::complete(&folder, &BTreeMap::new(), Durable::Now)?;
        let Reservation { name, claim, .. } = self.reservation(id);
        let _lock = self.lock()?;
        // The name was free for others since then.
        let name = name.filter(|name| self.check_name(name, Some(id)).is_ok());
        let container = manifest.container.clone();
        let about = Description {
            container: manifest.container,
            namespace: manifest.namespace,
            taken_at: manifest.taken_at,
            pinned: name.is_none(),
            claims: claim.into_iter().collect(),
            ..Description::default()
        };
        Record::new(id.clone(), name, about, files)
            .write(&folder.join(record::FILE_NAME))
            .map_err(&failed)?;
        disk::rename(&folder, &self.entry_folder(id)).map_err(&failed)?;
        disk::remove_file(&self.lock_path(id)).map_err(&failed)?;
        tracing::warn!(%id, container, "is kept: whoever took it ended when it was complete");
        Ok(())
    }

    fn is_held(&self, id: &Id) -> bool {
        let Ok(file) = File::open(self.lock_path(id)) else { return false };
        Lock::take(file, How::Alone, Duration::ZERO).is_err()
    }

    fn reservations(&self) -> Result<Vec<(Id, Reservation)>, Error> {
        let new = self.new_folder();
        let names = disk::names(&new).map_err(Error::at(&new))?;
        let ids = names.iter().filter_map(|name| Id::parse(name.strip_suffix(".lock")?));
        let with = |id: Id| {
            let reservation = self.reservation(&id);
            (id, reservation)
        };
        Ok(ids.filter(|id| self.is_held(id)).map(with).collect())
    }

    fn reservation(&self, id: &Id) -> Reservation {
        let bytes = images::read_small(&self.lock_path(id)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn unused_id(&self) -> Result<Id, Error> {
        loop {
            let id = Id::random().map_err(Error::at(&self.root))?;
            let folders = [self.entries_folder(), self.new_folder(), self.rubbish_folder()];
            if folders.iter().all(|folder| !folder.join(id.as_str()).exists()) {
                return Ok(id);
            }
        }
    }

    fn lock_path(&self, id: &Id) -> PathBuf {
        self.new_folder().join(format!("{id}.lock"))
    }
}

impl Draft {
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Where the image is to be written.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the complete image an entry, which is on the disk when this returns. It is held,
    /// so that whoever carries its name can be told of it first. Nothing in it is written
    /// afterwards.
    ///
    /// If this fails the draft is what it was.
    pub fn commit(&self, about: Description, durable: Durable) -> Result<Held, Error> {
        let files = contents::complete(&self.folder, &about.digests, durable)?;
        let record = Record::new(self.id.clone(), self.name.clone(), about, files);
        let failed = Error::at(&self.store.root);
        record.write(&self.folder.join(record::FILE_NAME)).map_err(&failed)?;
        disk::sync(&self.folder).map_err(&failed)?;
        let _lock = self.store.lock()?;
        let held = super::entry::lock(&self.folder, &self.id, How::Shared, Duration::ZERO)?;
        let folder = self.store.entry_folder(&self.id);
        std::fs::rename(&self.folder, &folder).map_err(&failed)?;
        // From here on it is an entry, come what may.
        for changed in [self.store.entries_folder(), self.store.new_folder()] {
            if let Err(error) = disk::sync(&changed) {
                tracing::warn!(%error, folder = %changed.display(), "isn't on the disk yet");
            }
        }
        let bytes = disk::bytes(&folder).unwrap_or_default();
        Ok(Held::new(Entry { record, folder, bytes }, held))
    }
}

impl Draft {
    /// Nobody needs it.
    pub fn discard(mut self) {
        self.of_living = false;
    }
}

/// A complete image of a container that was to be stopped.
fn may_be_the_last(folder: &Path) -> bool {
    Manifest::read(folder).is_ok_and(|manifest| manifest.sealed && !manifest.left_running)
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.of_living && may_be_the_last(&self.folder) {
            // The next operation makes it an entry.
            tracing::warn!(folder = %self.folder.display(), "a complete checkpoint stays in the store");
            return;
        }
        let removed = disk::remove_folder(&self.folder).and_then(|()| disk::remove_file(&self.lock_path));
        if let Err(error) = removed {
            tracing::warn!(%error, folder = %self.folder.display(), "an incomplete checkpoint stays behind");
        }
    }
}

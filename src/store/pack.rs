//! Entries that aren't the newest of their container, in packs: what they have in common is
//! stored once.
//!
//! It runs beside everything else, one at a time, and reads entries without holding them: an
//! entry that is in use is packed later, and one that is removed meanwhile isn't missed. Only
//! for the moment in which recipes take the place of memory nobody else has it. Whoever is killed
//! leaves entries as they were or packed, and a pack that nobody names goes with the next change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::entry::{self, Entry};
use super::lock::{Failure, How, Lock};
use super::{Error, Id, Store, disk};
use crate::pages::memory::{Form, form, stands_for};
use crate::pages::pack::{self, Packer};
use crate::pages::{self, Expected, is_pages};

const LOCK_FILE: &str = "packing";
const PACK: &str = ".pack";

/// What is to be packed.
#[derive(Clone, Debug)]
pub enum Which {
    /// All that are older, but for each container's newest. `now` is in milliseconds since 1970.
    Older {
        than: Duration,
        now: u64,
    },
    These(Vec<Id>),
}

#[derive(Debug, Default)]
pub struct Packed {
    /// And what its memory took on the disk before.
    pub packed: Vec<(Entry, u64)>,
    /// What somebody uses.
    pub in_use: Vec<Id>,
    pub problems: Vec<(Id, String)>,
    /// Bytes on the disk.
    pub freed: u64,
}

impl Store {
    /// Whether there is something to pack.
    pub fn has_unpacked(&self, which: &Which) -> Result<bool, Error> {
        Ok(!candidates(&self.entries()?.0, which).is_empty())
    }

    pub fn pack(&self, which: &Which) -> Result<Packed, Error> {
        let _alone = self.pack_alone()?;
        let before = disk::bytes(&self.root).map_err(Error::at(&self.root))?;
        let (entries, _) = self.entries()?;
        let mut done = Packed::default();
        for id in candidates(&entries, which) {
            let Some(entry) = entries.iter().find(|entry| *entry.id() == id) else { continue };
            match self.pack_entry(entry, &lineage(entry, &entries)) {
                Ok(Some(bytes)) => done.packed.push((entry.clone(), bytes)),
                // Removed meanwhile.
                Ok(None) | Err(Failed::Store(Error::Unknown(_))) => {}
                Err(Failed::Store(Error::InUse { .. })) => done.in_use.push(id),
                Err(Failed::Store(error)) => return Err(error),
                Err(Failed::Pages(error)) if error.is_no_space() => {
                    return Err(Error::Full(self.root.clone()));
                }
                Err(Failed::Pages(_)) if !entry.folder.exists() => {}
                Err(Failed::Pages(error)) => done.problems.push((id, error.in_image())),
            }
        }
        if let Err(error) = self.tidy_packs(true) {
            tracing::warn!(%error, "packs stay as they are");
        }
        let after = disk::bytes(&self.root).map_err(Error::at(&self.root))?;
        done.freed = before.saturating_sub(after);
        Ok(done)
    }

    /// Tells what its memory took before.
    fn pack_entry(&self, entry: &Entry, lineage: &[PathBuf]) -> Result<Option<u64>, Failed> {
        let expected: BTreeMap<String, Expected> =
            entry.record.files.iter().map(|(name, content)| (name.clone(), content.expected())).collect();
        let prepared = Packer::open(&self.packs())?.prepare(&entry.folder, &expected, lineage)?;
        let Some(prepared) = prepared else { return Ok(None) };
        match entry.clone().hold_alone() {
            Ok(_held) => Ok(Some(prepared.publish()?.before)),
            Err(error) => {
                prepared.abandon()?;
                Err(Failed::Store(error))
            }
        }
    }

    /// Removes packs that nobody names any longer, unless somebody packs: he will do it.
    pub(super) fn remove_unused_packs(&self) -> Result<(), Error> {
        match self.pack_alone() {
            Ok(_alone) => self.tidy_packs(false),
            Err(Error::Packing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The same, and writes those again of which little is used any longer. Tells how many bytes
    /// are free by that: none if somebody packs.
    pub fn compact_packs(&self) -> Result<u64, Error> {
        let bytes = || disk::bytes(&self.packs()).map_err(Error::at(&self.root));
        let _alone = match self.pack_alone() {
            Err(Error::Packing { .. }) => return Ok(0),
            alone => alone?,
        };
        let before = bytes()?;
        self.tidy_packs(true)?;
        Ok(before.saturating_sub(bytes()?))
    }

    fn tidy_packs(&self, compacts: bool) -> Result<(), Error> {
        let recipes = self.recipes()?;
        // What a recipe names that can't be read, nobody knows.
        let used = pack::referenced(&recipes).map_err(|error| self.of_packs(&error))?;
        let packs = self.packs();
        for name in disk::names(&packs).map_err(Error::at(&packs))? {
            if !used.contains(&name) {
                disk::remove_file(&packs.join(name)).map_err(Error::at(&packs))?;
            }
        }
        if compacts {
            let hold = |recipes: &[&Path]| -> Option<Vec<Lock>> {
                let folders: BTreeSet<_> = recipes.iter().filter_map(|recipe| recipe.parent()).collect();
                folders.into_iter().map(hold_alone).collect()
            };
            pack::compact(&packs, &recipes, hold).map_err(|error| self.of_packs(&error))?;
        }
        Ok(())
    }

    /// What each entry has of the packs: each pack in equal parts among all that name it. What
    /// can't be read has nothing.
    pub fn shares(&self, entries: &[Entry]) -> BTreeMap<Id, u64> {
        let mut users: BTreeMap<String, Vec<&Id>> = BTreeMap::new();
        for entry in entries {
            let packs = pack::referenced(&recipes_in(&entry.folder)).unwrap_or_default();
            packs.into_iter().for_each(|pack| users.entry(pack).or_default().push(entry.id()));
        }
        let mut shares = BTreeMap::new();
        for (pack, users) in users {
            let bytes = disk::bytes(&self.packs().join(pack)).unwrap_or_default();
            for id in &users {
                *shares.entry((*id).clone()).or_default() += bytes / users.len() as u64;
            }
        }
        shares
    }

    /// Packs that aren't what was written, and why.
    pub fn damaged_packs(&self) -> Result<Vec<(String, String)>, Error> {
        let packs = self.packs();
        let mut damaged = Vec::new();
        for name in disk::names(&packs).map_err(Error::at(&packs))? {
            let path = packs.join(&name);
            // One that is being written isn't complete, and one may be gone by now.
            if name.ends_with(PACK)
                && let Err(error) = pack::check(&path)
                && path.exists()
            {
                damaged.push((name, super::error::brief(&error.in_image())));
            }
        }
        Ok(damaged)
    }

    /// Of all entries, also of those that can't be read.
    fn recipes(&self) -> Result<Vec<PathBuf>, Error> {
        let folder = self.entries_folder();
        let names = disk::names(&folder).map_err(Error::at(&folder))?;
        Ok(names.iter().flat_map(|name| recipes_in(&folder.join(name))).collect())
    }

    fn of_packs(&self, error: &pages::Error) -> Error {
        Error::Packs { path: self.packs(), problem: super::error::brief(&error.in_image()) }
    }

    fn pack_alone(&self) -> Result<Lock, Error> {
        self.wait_to_pack(Duration::ZERO)
    }

    pub(super) fn wait_to_pack(&self, patience: Duration) -> Result<Lock, Error> {
        self.alone(LOCK_FILE, patience, |path, by| Error::Packing { path, by })
    }

    /// One of the locks that work in the background has.
    pub(super) fn alone(
        &self,
        name: &str,
        patience: Duration,
        busy: impl FnOnce(PathBuf, String) -> Error,
    ) -> Result<Lock, Error> {
        let path = self.root.join(name);
        let file = Lock::file(&path).map_err(Error::at(&self.root))?;
        Lock::take(file, How::Alone, patience).map_err(|failure| match failure {
            Failure::Held(by) => busy(self.root.clone(), by),
            Failure::Io(error) => Error::at(&path)(error),
        })
    }
}

enum Failed {
    Store(Error),
    Pages(pages::Error),
}

impl From<pages::Error> for Failed {
    fn from(error: pages::Error) -> Failed {
        Failed::Pages(error)
    }
}

/// The oldest first, whose pages later ones share.
fn candidates(entries: &[Entry], which: &Which) -> Vec<Id> {
    let is_plain = |entry: &&Entry| {
        let mut names = entry.record.files.keys().filter(|name| is_pages(name));
        names.any(|name| form(&entry.folder, name) == Some(Form::Plain))
    };
    let is_newest = |entry: &Entry| {
        let newest = entries.iter().rev().find(|other| is_kin(entry, other));
        newest.is_some_and(|newest| newest.id() == entry.id())
    };
    let is_wanted = |entry: &&Entry| match which {
        Which::These(ids) => ids.contains(entry.id()),
        Which::Older { than, now } => {
            let age = Duration::from_millis(now.saturating_sub(entry.record.taken_at));
            age >= *than && !is_newest(entry)
        }
    };
    entries.iter().filter(is_wanted).filter(is_plain).map(|entry| entry.id().clone()).collect()
}

/// Whether they are of the same container.
pub(super) fn is_kin(one: &Entry, other: &Entry) -> bool {
    let (one, other) = (&one.record, &other.record);
    (&one.namespace, &one.container) == (&other.namespace, &other.container)
}

/// Recipes whose packs are likely to have the same pages: those of the same container, the
/// newest first, and then all others.
fn lineage(entry: &Entry, entries: &[Entry]) -> Vec<PathBuf> {
    let (kin, others): (Vec<_>, Vec<_>) = entries.iter().rev().partition(|other| is_kin(entry, other));
    kin.into_iter().chain(others).flat_map(|other| recipes_in(&other.folder)).collect()
}

fn recipes_in(folder: &Path) -> Vec<PathBuf> {
    // One that has gone meanwhile has none.
    let names = disk::names(folder).unwrap_or_default();
    let is_recipe = |name: &&String| {
        let plain = stands_for(name).map(Path::new);
        plain.is_some_and(|plain| pack::recipe_of(plain) == Path::new(name))
    };
    names.iter().filter(is_recipe).map(|name| folder.join(name)).collect()
}

fn hold_alone(folder: &Path) -> Option<Lock> {
    let id = Id::parse(folder.file_name()?.to_str()?)?;
    entry::lock(folder, &id, How::Alone, Duration::ZERO).ok()
}

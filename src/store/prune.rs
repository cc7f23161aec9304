//! Removing what may go: what dead processes left, entries that nobody names any longer, and
//! what the node's limits say (see `retention`).
//!
//! It runs beside everything else. What to remove is decided without the lock, since others'
//! disks are read for it. Before anything goes, those are read once more: a folder that was
//! being moved may have been nowhere at the first look. And an entry goes only if it is as it
//! was when that was decided, and nobody holds it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::claims::{Claim, Naming, Survey};
use super::draft::Swept;
use super::entry::{Damaged, Entry};
use super::lock::Lock;
use super::retention::{Limits, Standing, Summary, Why, decide};
use super::{Error, Id, PATIENCE, Store, disk};
use crate::checkpoint::manifest::now;

const LOCK_FILE: &str = "pruning";
/// From the answer to a client until it has taken note.
const CONFIRMATION: Duration = Duration::from_secs(60);
const SHORT_WAIT: Duration = Duration::from_millis(2);
const LONG_WAIT: Duration = Duration::from_millis(100);

/// Closed when the last one that was begun here beside others has ended.
static BESIDE: Mutex<Option<Receiver<()>>> = Mutex::new(None);

/// For the end of a process; the next one does what isn't done by then.
pub fn await_pruning() {
    let last = BESIDE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let _ = last.map(|end| end.recv_timeout(PATIENCE));
}

#[derive(Debug, Default)]
pub struct Pruned {
    pub removed: Vec<Removed>,
    /// Checkpoints that were never completed.
    pub drafts: usize,
    /// Whoever took these was killed when they were complete.
    pub saved: Vec<Id>,
    /// Bytes on the disk.
    pub freed: u64,
    /// What would have gone if somebody didn't use it.
    pub in_use: Vec<Id>,
    /// What stays because nobody can tell whether it is needed, and why.
    pub unclear: Vec<(Id, String)>,
    pub damaged: Vec<Damaged>,
}

#[derive(Debug)]
pub struct Removed {
    pub entry: Entry,
    pub why: Why,
}

impl Store {
    /// `now` is in milliseconds since 1970.
    pub fn prune(&self, limits: &Limits, now: u64) -> Result<Pruned, Error> {
        let _alone = self.prune_alone()?;
        let before = disk::bytes(&self.root).map_err(Error::at(&self.root))?;
        let Swept { dead: drafts, saved } = self.clean()?;
        let (entries, damaged) = self.entries()?;
        let mut pruned = Pruned { drafts, saved, damaged, ..Pruned::default() };
        let gone = self.doomed(&entries, limits, now, &mut pruned)?;
        let entries: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.id().clone(), entry)).collect();
        let mut again = Survey::new(&self.copies);
        for (id, why) in gone {
            let Some(entry) = entries.get(&id) else { continue };
            if again.of(&id, &entry.record.claims) != Naming::Nobody {
                continue;
            }
            match self.remove_unchanged(entry) {
                Ok(true) => pruned.removed.push(Removed { entry: entry.clone(), why }),
                // Removed, changed or damaged meanwhile.
                Ok(false) | Err(Error::Unknown(_) | Error::Damaged { .. }) => {}
                Err(Error::InUse { .. }) => pruned.in_use.push(id),
                Err(error) => return Err(error),
            }
        }
        self.empty_rubbish()?;
        if let Err(error) = self.remove_unused_packs() {
            tracing::warn!(%error, "packs that nobody needs may stay");
        }
        let after = disk::bytes(&self.root).map_err(Error::at(&self.root))?;
        pruned.freed = before.saturating_sub(after);
        Ok(pruned)
    }

    /// The same beside everything else. Whoever is killed meanwhile leaves the rest to the
    /// next; whoever ends by himself waits for it.
    ///
    /// An entry that is pinned because it may be all that is left of a container is so until
    /// the client that claims it has taken note. Something else may be done `then`.
    pub fn prune_beside(
        self,
        limits: Limits,
        unconfirmed: Option<(Id, Claim)>,
        then: impl FnOnce(&Store) + Send + 'static,
    ) {
        let (running, end) = channel();
        *BESIDE.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        thread::spawn(move || {
            if let Some((id, claim)) = unconfirmed {
                self.confirm(&id, &claim);
            }
            match self.prune(&limits, now()) {
                Ok(pruned) => pruned.unclear.iter().for_each(|(id, why)| {
                    tracing::debug!(%id, why, "stays in the store");
                }),
                Err(Error::Pruning { .. }) => {}
                Err(error) => tracing::warn!(%error, "the checkpoint store isn't pruned"),
            }
            then(&self);
            drop(running);
        });
    }

    fn confirm(&self, id: &Id, claim: &Claim) {
        let begun = Instant::now();
        while begun.elapsed() < CONFIRMATION {
            match claim.is_kept(id) {
                Some(true) => {
                    if let Err(error) = self.set_pinned(id, false) {
                        tracing::warn!(%error, "the checkpoint stays pinned");
                    }
                    return;
                }
                Some(false) => break,
                None => thread::sleep((begun.elapsed() / 10).clamp(SHORT_WAIT, LONG_WAIT)),
            }
        }
        tracing::warn!(%id, "its client forgot the checkpoint: it stays, pinned, until cryo rm removes it");
    }

    fn doomed(
        &self,
        entries: &[Entry],
        limits: &Limits,
        now: u64,
        pruned: &mut Pruned,
    ) -> Result<Vec<(Id, Why)>, Error> {
        let mut survey = Survey::new(&self.copies);
        let shares = self.shares(entries);
        let summaries: Vec<_> = entries
            .iter()
            .map(|entry| {
                let naming = survey.of(entry.id(), &entry.record.claims);
                if let Naming::Unknown(why) = &naming {
                    pruned.unclear.push((entry.id().clone(), why.clone()));
                }
                summary(entry, shares.get(entry.id()).copied().unwrap_or_default(), &naming)
            })
            .collect();
        let own: u64 = summaries.iter().map(|summary| summary.bytes).sum();
        let shared = self.used()?.saturating_sub(own);
        Ok(decide(&summaries, shared, limits, now))
    }

    fn prune_alone(&self) -> Result<Lock, Error> {
        self.alone(LOCK_FILE, Duration::ZERO, |path, by| Error::Pruning { path, by })
    }
}

/// With its share of the packs: all of a pack goes when the last goes that names it.
fn summary(entry: &Entry, share: u64, naming: &Naming) -> Summary {
    let record = &entry.record;
    let standing = match naming {
        Naming::Nobody if record.pinned => Standing::Kept,
        Naming::Nobody if record.name.is_some() => Standing::Named,
        Naming::Nobody => Standing::Unnamed,
        Naming::By(_) | Naming::Unknown(_) => Standing::Kept,
    };
    Summary {
        id: record.id.clone(),
        container: (record.namespace.clone(), record.container.clone()),
        taken_at: record.taken_at,
        bytes: entry.bytes.saturating_add(share),
        standing,
    }
}

//! Where an image is made: in the client's folder, or in the node's store, and then the
//! client's folder gets no more than a word of where that is. A client that names no folder but
//! one of the store's names gets an entry of that name, and nothing else.
//!
//! Docker carries what is in the folder through containerd and back, at some 30 MB/s. What is
//! in the store is written once, by CRIU, and read once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::image::Staging;
use super::manifest::{self, FILE_NAME, Manifest};
use super::transit::{self, KUBERNETES, is_temporary};
use super::{Error, Request};
use crate::container::Subject;
use crate::docker;
use crate::helper;
use crate::pages::follow::{Follower, Summing};
use crate::pages::{self, zeros};
use crate::policy::Data;
use crate::rootfs;
use crate::store::claims::Claim;
use crate::store::retention::Limits;
use crate::store::{self, Description, Draft, Durable, Held, Id, Store, Which, Wish};

/// The store, and the folder of a client's that names what is put there.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    root: PathBuf,
    limits: Limits,
    pack_after: Option<Duration>,
    copies: Vec<PathBuf>,
    claimed: Claimed,
    /// The node's owner wants nothing else, or its client.
    is_a_must: bool,
}

#[derive(Clone, Debug)]
enum Claimed {
    /// What is put there now is on its way to this folder of Docker's.
    Docker(PathBuf),
    Folder(PathBuf),
    /// By nobody but who knows it by its name.
    Name(String),
}

impl Shelf {
    /// None if the data belongs into the client's folder: nobody could tell for how long a
    /// client needs it that has an archive, and an archive may go to another node.
    pub(super) fn of(request: &Request, subject: &Subject, asked: SystemTime) -> Option<Shelf> {
        let (store, target) = (request.policy.store(), &request.image);
        let name = Store::wanted(&store.path, target).map(Claimed::Name);
        let claimed = name.or_else(|| match store.data {
            Data::Client => None,
            _ if subject.namespace == KUBERNETES => None,
            _ if is_temporary(target) => {
                let folder = docker::new_checkpoint(&subject.namespace, &subject.id, &subject.bundle, asked);
                folder.map(Claimed::Docker)
            }
            Data::Store => Some(Claimed::Folder(target.clone())),
            Data::Auto => None,
        })?;
        Some(Shelf {
            root: store.path.clone(),
            limits: store.limits,
            pack_after: store.pack_after,
            copies: request.policy.restore_folders().to_owned(),
            is_a_must: store.data == Data::Store || matches!(claimed, Claimed::Name(_)),
            claimed,
        })
    }

    /// Whether the client's folder will do as well.
    pub(super) fn is_a_wish(&self) -> bool {
        !self.is_a_must
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn begin(&self, bytes: u64) -> Result<Shelved, store::Error> {
        let store = Store::open(&self.root)?.with_copies_in(&self.copies);
        let (name, claim) = match &self.claimed {
            Claimed::Docker(folder) => (None, Some(Claim::docker(folder))),
            Claimed::Folder(folder) => (None, Some(Claim::folder(folder))),
            Claimed::Name(name) => (Some(name.as_str()), None),
        };
        let claim =
            claim.transpose().map_err(|source| store::Error::Io { path: self.root.clone(), source })?;
        let wish = Wish { name, bytes, claim: claim.as_ref(), of_living: true };
        let draft = store.begin(&wish, &self.limits)?;
        let follower = Follower::start(draft.folder(), ()).ok();
        let (limits, pack_after) = (self.limits, self.pack_after);
        Ok(Shelved { store, limits, pack_after, draft, claim, follower })
    }
}

/// An image that is being made.
pub(super) enum Destination {
    Folder(Staging),
    /// In the store, and the client's folder says so.
    Referred(Staging, Box<Shelved>),
    /// In the store, and nowhere else.
    Stored(Box<Shelved>),
}

pub(super) struct Shelved {
    store: Store,
    limits: Limits,
    pack_after: Option<Duration>,
    draft: Draft,
    claim: Option<Claim>,
    /// Reads what CRIU writes while it is still in memory.
    follower: Option<Follower<Summing>>,
}

impl Destination {
    /// Makes room for about so many bytes.
    pub(super) fn begin(target: &Path, shelf: Option<&Shelf>, bytes: u64) -> Result<Destination, Error> {
        let Some(shelf) = shelf else { return Ok(Destination::Folder(Staging::begin(target)?)) };
        if let Claimed::Name(_) = shelf.claimed {
            let shelved = shelf.begin(bytes).map_err(Error::Store)?;
            return Ok(Destination::Stored(Box::new(shelved)));
        }
        let staging = Staging::begin(target)?;
        match shelf.begin(bytes) {
            Ok(shelved) => Ok(Destination::Referred(staging, Box::new(shelved))),
            Err(error) if shelf.is_a_must => {
                staging.discard();
                Err(Error::Store(error))
            }
            Err(error) => {
                tracing::warn!(%error, "the checkpoint's data goes to the client's own folder");
                Ok(Destination::Folder(staging))
            }
        }
    }

    pub(super) fn is_in_store(&self) -> bool {
        !matches!(self, Destination::Folder(_))
    }

    pub(super) fn folder(&self) -> &Path {
        match self {
            Destination::Folder(staging) => staging.folder(),
            Destination::Referred(_, shelved) | Destination::Stored(shelved) => shelved.draft.folder(),
        }
    }

    /// Puts the sealed image where it is to stay, and tells where that is.
    pub(super) fn publish(self, namespace: &str) -> Result<PathBuf, Error> {
        match self {
            Destination::Folder(staging) => hand_over(staging, namespace),
            Destination::Referred(staging, shelved) => {
                // Nobody removes the entry before the client's folder names it.
                let _held = shelved.publish(staging.folder())?;
                hand_over(staging, namespace)
            }
            Destination::Stored(shelved) => shelved.publish_alone(),
        }
    }

    /// Leaves the place as it was.
    pub(super) fn discard(self) {
        match self {
            Destination::Folder(staging) => staging.discard(),
            Destination::Referred(staging, shelved) => {
                shelved.draft.discard();
                staging.discard();
            }
            Destination::Stored(shelved) => shelved.draft.discard(),
        }
    }
}

fn hand_over(staging: Staging, namespace: &str) -> Result<PathBuf, Error> {
    let target = staging.target().to_owned();
    staging.publish()?;
    if is_temporary(&target)
        && let Err(error) = transit::mark(&target, namespace)
    {
        // The image is good without.
        tracing::warn!(%error, "a restore that follows at once may find its archive in containerd already");
    }
    Ok(target)
}

impl Shelved {
    /// If the store can't keep it, the client's folder does.
    fn publish(mut self, folder: &Path) -> Result<Option<Held>, Error> {
        let failed = |source| Error::Write { path: folder.to_owned(), source };
        let manifest = Manifest::read(self.draft.folder()).map_err(failed)?;
        // Until its client has taken note there may be nothing else of the container.
        let held = match self.commit(&manifest, !manifest.left_running) {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(%error, "the checkpoint's data goes to the client's own folder");
                copy_over(self.draft.folder(), folder).map_err(failed)?;
                self.draft.discard();
                return Ok(None);
            }
        };
        // What it had asked for is no longer needed.
        self.draft.discard();
        let unconfirmed = self.claim.filter(|_| !manifest.left_running);
        manifest.naming(held.id(), self.store.root()).write(folder, true).map_err(failed)?;
        tidy_beside(self.store, self.limits, self.pack_after, held.id().clone(), unconfirmed);
        Ok(Some(held))
    }

    /// If the store can't keep it now, the next operation there does.
    fn publish_alone(mut self) -> Result<PathBuf, Error> {
        let folder = self.draft.folder().to_owned();
        let manifest = Manifest::read(&folder).map_err(|source| Error::Write { path: folder, source })?;
        let failed = if manifest.left_running { Error::Store } else { Error::Waits };
        let held = self.commit(&manifest, false).map_err(failed)?;
        self.draft.discard();
        tidy_beside(self.store, self.limits, self.pack_after, held.id().clone(), None);
        Ok(held.folder.clone())
    }

    fn commit(&mut self, manifest: &Manifest, pinned: bool) -> Result<Held, store::Error> {
        let about = Description {
            container: manifest.container.clone(),
            namespace: manifest.namespace.clone(),
            taken_at: manifest.taken_at,
            pinned,
            claims: self.claim.iter().cloned().collect(),
            origin: None,
            digests: digests(self.draft.folder(), manifest, self.follower.take()),
        };
        match self.draft.commit(about.clone(), Durable::Later) {
            // Others may have the store locked for a while.
            Err(store::Error::Busy { .. }) => self.draft.commit(about, Durable::Later),
            done => done,
        }
    }
}

/// What nobody names any longer goes while the client has its answer already; what checkpoints
/// have in common takes room once from then on.
fn tidy_beside(
    store: Store,
    limits: Limits,
    pack_after: Option<Duration>,
    newest: Id,
    unconfirmed: Option<Claim>,
) {
    let unconfirmed = unconfirmed.map(|claim| (newest.clone(), claim));
    store.prune_beside(limits, unconfirmed, move |store| {
        if let Err(error) = tidy(store, &newest, pack_after) {
            tracing::warn!(error, "checkpoints take more room than they need");
        }
    });
}

/// Has a process by itself do what takes long.
fn tidy(store: &Store, newest: &Id, pack_after: Option<Duration>) -> Result<(), String> {
    if let Err(error) = helper::write_back(store.root(), newest) {
        tracing::debug!(%error, "the kernel writes a checkpoint back by itself");
    }
    if store.can_share() {
        return helper::share(store.root(), newest).map_err(|error| error.to_string());
    }
    let Some(than) = pack_after else { return Ok(()) };
    let older = Which::Older { than, now: manifest::now() };
    match store.has_unpacked(&older).map_err(|error| error.to_string())? {
        true => helper::pack(store.root(), than).map_err(|error| error.to_string()),
        false => Ok(()),
    }
}

/// Of memory and changed files; and what of memory is zero takes no room from now on.
fn digests(
    folder: &Path,
    manifest: &Manifest,
    follower: Option<Follower<Summing>>,
) -> BTreeMap<String, String> {
    let is_memory = |(name, _): &(&String, &u64)| pages::is_pages(name);
    let sizes = manifest.files.iter().filter(is_memory).map(|(name, size)| (name.clone(), *size)).collect();
    let followed = match follower.map(|follower| follower.finish(&sizes)) {
        Some(Ok(followed)) => followed,
        // They are made once more, from the files.
        Some(Err(error)) => {
            tracing::warn!(%error, "memory couldn't be read while it was written");
            BTreeMap::new()
        }
        None => BTreeMap::new(),
    };
    for (name, followed) in &followed {
        if let Err(error) = zeros::punch(&folder.join(name), followed.size, &followed.zeros) {
            tracing::debug!(%error, "zeros take room");
        }
    }
    let layer = manifest.rootfs.as_ref().and_then(|had| had.layer.as_ref());
    let layer = layer.map(|layer| (rootfs::FILE.to_owned(), layer.digest.clone()));
    followed.into_iter().map(|(name, followed)| (name, followed.digest)).chain(layer).collect()
}

/// What says that it is complete comes last.
fn copy_over(from: &Path, to: &Path) -> io::Result<()> {
    let manifest = Manifest::read(from)?;
    let files = manifest.files.keys().map(String::as_str);
    for name in files.chain([FILE_NAME]) {
        fs::copy(from.join(name), to.join(name))?;
    }
    Ok(())
}

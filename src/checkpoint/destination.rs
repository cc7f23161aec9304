//! Where an image is made: in the client's folder, or in the node's store, and then the
//! client's folder gets no more than a word of where that is.
//!
//! Docker carries what is in the folder through containerd and back, at some 30 MB/s. What is
//! in the store is written once, by CRIU, and read once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::image::Staging;
use super::manifest::{FILE_NAME, Manifest};
use super::transit::{self, KUBERNETES, is_temporary};
use super::{Error, Request};
use crate::container::Subject;
use crate::docker;
use crate::pages::{self, follow::Follower, zeros};
use crate::policy::Data;
use crate::store::claims::{Claim, Reference};
use crate::store::retention::Limits;
use crate::store::{self, Description, Draft, Durable, Held, Store, Wish};

/// The store, and the folder of a client's that names what is put there.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    root: PathBuf,
    limits: Limits,
    copies: Vec<PathBuf>,
    claimed: Claimed,
    /// The node's owner wants nothing else.
    is_a_must: bool,
}

#[derive(Clone, Debug)]
enum Claimed {
    /// What is put there now is on its way to this folder of Docker's.
    Docker(PathBuf),
    Folder(PathBuf),
}

impl Shelf {
    /// None if the data belongs into the client's folder: nobody could tell for how long a
    /// client needs it that has an archive, and an archive may go to another node.
    pub(super) fn of(request: &Request, subject: &Subject, asked: SystemTime) -> Option<Shelf> {
        let (store, target) = (request.policy.store(), &request.image);
        let claimed = match store.data {
            Data::Client => None,
            _ if subject.namespace == KUBERNETES => None,
            _ if is_temporary(target) => {
                let folder = docker::new_checkpoint(&subject.namespace, &subject.id, &subject.bundle, asked);
                folder.map(Claimed::Docker)
            }
            Data::Store => Some(Claimed::Folder(target.clone())),
            Data::Auto => None,
        }?;
        Some(Shelf {
            root: store.path.clone(),
            limits: store.limits,
            copies: request.policy.restore_folders().to_owned(),
            claimed,
            is_a_must: store.data == Data::Store,
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
        let claim = match &self.claimed {
            Claimed::Docker(folder) => Claim::docker(folder),
            Claimed::Folder(folder) => Claim::folder(folder),
        };
        let claim = claim.map_err(|source| store::Error::Io { path: self.root.clone(), source })?;
        let draft = store.begin(&Wish { name: None, bytes, claim: Some(&claim) }, &self.limits)?;
        let follower = Follower::start(draft.folder()).ok();
        Ok(Shelved { store, limits: self.limits, draft, claim, follower })
    }
}

/// An image that is being made.
pub(super) struct Destination {
    target: PathBuf,
    staging: Staging,
    shelved: Option<Shelved>,
}

struct Shelved {
    store: Store,
    limits: Limits,
    draft: Draft,
    claim: Claim,
    /// Reads what CRIU writes while it is still in memory.
    follower: Option<Follower>,
}

impl Destination {
    /// Makes room for about so many bytes.
    pub(super) fn begin(target: &Path, shelf: Option<&Shelf>, bytes: u64) -> Result<Destination, Error> {
        let staging = Staging::begin(target)?;
        let shelved = match shelf.map(|shelf| (shelf, shelf.begin(bytes))) {
            None => None,
            Some((_, Ok(shelved))) => Some(shelved),
            Some((shelf, Err(error))) if shelf.is_a_must => {
                staging.discard();
                return Err(Error::Store(error));
            }
            Some((_, Err(error))) => {
                tracing::warn!(%error, "the checkpoint's data goes to the client's own folder");
                None
            }
        };
        Ok(Destination { target: target.to_owned(), staging, shelved })
    }

    pub(super) fn folder(&self) -> &Path {
        self.shelved.as_ref().map_or(self.staging.folder(), |shelved| shelved.draft.folder())
    }

    /// Puts the sealed image where it is to stay, and tells where that is.
    pub(super) fn publish(self, namespace: &str) -> Result<PathBuf, Error> {
        let Destination { target, staging, shelved } = self;
        let held = match shelved {
            Some(shelved) => shelved.publish(staging.folder())?,
            None => None,
        };
        staging.publish()?;
        if is_temporary(&target)
            && let Err(error) = transit::mark(&target, namespace)
        {
            // The image is good without.
            tracing::warn!(%error, "a restore that follows at once may find its archive in containerd already");
        }
        drop(held);
        Ok(target)
    }

    /// Leaves the place as it was.
    pub(super) fn discard(self) {
        if let Some(shelved) = self.shelved {
            shelved.draft.discard();
        }
        self.staging.discard();
    }
}

impl Shelved {
    /// Nobody removes the entry before the client's folder names it. If the store can't keep
    /// it, the client's folder does.
    fn publish(self, folder: &Path) -> Result<Option<Held>, Error> {
        let Shelved { store, limits, draft, claim, follower } = self;
        let failed = |source| Error::Write { path: folder.to_owned(), source };
        let manifest = Manifest::read(draft.folder()).map_err(failed)?;
        let about = Description {
            container: manifest.container.clone(),
            namespace: manifest.namespace.clone(),
            taken_at: manifest.taken_at,
            // Until its client has taken note there may be nothing else of the container.
            pinned: !manifest.left_running,
            claims: vec![claim.clone()],
            digests: digests(draft.folder(), &manifest, follower),
        };
        let held = match commit(&draft, &about) {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(%error, "the checkpoint's data goes to the client's own folder");
                copy_over(draft.folder(), folder).map_err(failed)?;
                draft.discard();
                return Ok(None);
            }
        };
        // What it had asked for is no longer needed.
        draft.discard();
        let unconfirmed = (!manifest.left_running).then(|| (held.id().clone(), claim));
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let reference = Reference { entry: held.id().clone(), root: store.root().to_owned(), node };
        Manifest { store: Some(reference), files: BTreeMap::new(), digests: BTreeMap::new(), ..manifest }
            .write(folder, true)
            .map_err(failed)?;
        // What nobody names any longer goes while the client has its answer already.
        store.prune_beside(limits, unconfirmed);
        Ok(Some(held))
    }
}

/// Of memory; and what of it is zero takes no room from now on.
fn digests(folder: &Path, manifest: &Manifest, follower: Option<Follower>) -> BTreeMap<String, String> {
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
    followed.into_iter().map(|(name, followed)| (name, followed.digest)).collect()
}

/// Others may have the store locked for a while.
fn commit(draft: &Draft, about: &Description) -> Result<Held, store::Error> {
    match draft.commit(about.clone(), Durable::Soon) {
        Err(store::Error::Busy { .. }) => draft.commit(about.clone(), Durable::Soon),
        done => done,
    }
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

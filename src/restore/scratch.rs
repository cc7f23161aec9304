//! Memory that is kept compressed or packed, as CRIU reads it, for the time of one restore.
//!
//! It lies in the store, as something that is being made: on a disk, since it is as big as the
//! container was and is no memory of the shim's; for root alone; and gone when this shim is,
//! whatever ends it. A helper puts it together and compares it with its digests.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use tokio::time::timeout;

use super::leftovers;
use super::{Attempt, Error};
use crate::checkpoint::image::Image;
use crate::container::Subject;
use crate::helper::{Helper, Kind, Problem};
use crate::operation::aside;
use crate::runtime::Abort;
use crate::store::retention::Limits;
use crate::store::{self, Draft, Size, Store, Wish, packs_beside};

#[derive(Debug)]
pub(super) struct Scratch {
    /// As long as it works. Dropped first, since it writes to the draft.
    helper: Option<Helper>,
    /// Removed with it.
    draft: Draft,
    folder: OwnedFd,
    bytes: u64,
    root: PathBuf,
    bundle: PathBuf,
}

impl Attempt {
    /// Waits until memory that is kept in another form is there as CRIU reads it.
    pub(super) async fn await_memory(&mut self) -> Result<(), Error> {
        let patience = self.deadline();
        match &mut self.scratch {
            Some(scratch) => scratch.complete(&self.image, &self.abort, patience).await,
            None => Ok(()),
        }
    }
}

impl Scratch {
    /// None if all of the image is as CRIU reads it.
    pub(super) async fn begin(
        image: &Image,
        root: &Path,
        subject: &Subject,
    ) -> Result<Option<Scratch>, Error> {
        let expected = image.memory_elsewhere()?;
        if expected.is_empty() {
            return Ok(None);
        }
        let bytes = expected.values().fold(0, |sum: u64, file| sum.saturating_add(file.size));
        let (root, bundle) = (root.to_owned(), subject.bundle.clone());
        let made = aside(move || -> Result<_, store::Error> {
            let store = Store::open(&root)?;
            leftovers::note_scratch(&bundle, &root);
            // It stays for seconds, and a container may depend on it: there is no limit to it.
            let draft = store.begin(&Wish { bytes, ..Wish::default() }, &Limits::default())?;
            Ok((draft, root, bundle))
        });
        let (draft, root, bundle) = made.await.map_err(Error::Store)?;
        let opened = open(draft.folder(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let folder = opened.map_err(|error| Error::Scratch(error.to_string()))?;
        let packs = packs_beside(image.files());
        let helper = Helper::to_unpack(subject.runtime.reaper, &image.place(), &packs, draft.folder());
        let mut helper = helper.map_err(|error| Error::Scratch(error.to_string()))?;
        helper.tell(&expected).await.map_err(|error| Error::Scratch(error.to_string()))?;
        Ok(Some(Scratch { helper: Some(helper), draft, folder, bytes, root, bundle }))
    }

    /// Waits until all of it is there and right.
    async fn complete(&mut self, image: &Image, abort: &Abort, patience: Duration) -> Result<(), Error> {
        let Some(helper) = &mut self.helper else { return Ok(()) };
        let answer = abort.unless("restore", timeout(patience, helper.answer::<()>()));
        let Ok(done) = answer.await.map_err(Error::Runtime)? else {
            return Err(Error::Scratch(format!("it takes longer than {} s", patience.as_secs())));
        };
        self.helper = None;
        done.map_err(|problem| match problem {
            Problem { text, kind: Kind::Damage } => image.damaged(&text).into(),
            Problem { kind: Kind::Full, .. } => {
                Error::NoRoom { root: self.root.clone(), bytes: Size(self.bytes) }
            }
            Problem { text, kind: Kind::Other } => Error::Scratch(text),
        })
    }

    pub(super) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    pub(super) async fn remove(self) {
        let Scratch { draft, folder, helper, bundle, .. } = self;
        if let Some(helper) = helper {
            // It could write something else otherwise.
            helper.end().await;
        }
        aside(move || {
            drop((folder, draft));
            leftovers::forget_scratch(&bundle);
        })
        .await;
    }
}

//! An image in the node's store, where a client's folder only says which one it is.

use std::path::Path;

use super::image::{Error, Image};
use super::manifest;
use crate::message::{cut, shown};
use crate::pages::{Expected, check::Check};
use crate::store::claims::Reference;
use crate::store::{self, Content, Entry, Held, Store};

impl Image {
    /// Opens the image that a folder holds, or names: it may be in the store at `root`.
    pub fn find(path: &Path, root: &Path) -> Result<Image, Error> {
        let found = Image::open_folder(path)?;
        let reference = found.manifest.as_ref().and_then(|manifest| manifest.store.clone());
        let held = match reference {
            Some(reference) => Image::held(path, reference, root)?,
            None => match Store::entry_at(root, path) {
                Some(entry) => entry.and_then(Entry::hold).map_err(failed(path))?,
                None => return found.complete(),
            },
        };
        let image = Image::open(&held.folder)?;
        Ok(Image { path: path.to_owned(), held: Some(held), ..image })
    }

    /// Where its files are.
    pub fn files(&self) -> &Path {
        self.held.as_ref().map_or(&self.path, |held| &held.folder)
    }

    /// What the folder at `path` names, if the store at `root` has it.
    pub fn held(path: &Path, reference: Reference, root: &Path) -> Result<Held, Error> {
        let Reference { entry, node, .. } = reference;
        let here = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let absent = |entry| match node == here {
            true => Error::Removed { path: path.to_owned(), entry },
            false => Error::Elsewhere { path: path.to_owned(), entry, node: cut(&shown(&node), 64) },
        };
        if !root.exists() {
            return Err(absent(entry));
        }
        let found = Store::open(root).and_then(|store| store.find(entry.as_str()));
        match found.and_then(Entry::hold) {
            Err(store::Error::Unknown(_)) => Err(absent(entry)),
            held => held.map_err(failed(path)),
        }
    }

    /// Begins to compare with what was written what nobody has looked at yet: memory, and
    /// all that is big.
    pub fn check_rest(&self) -> Result<Option<Check>, Error> {
        let Some(held) = &self.held else { return Ok(None) };
        let looked_at = self.manifest.as_ref().map(|manifest| &manifest.digests);
        let is_left = |name: &str| {
            let is_known = looked_at.is_some_and(|digests| digests.contains_key(name));
            !is_known && name != manifest::FILE_NAME
        };
        let rest = held.record.files.iter().filter(|(name, _)| is_left(name));
        let expected = |(name, content): (&String, &Content)| {
            (name.clone(), Expected { size: content.size, digest: content.digest.clone() })
        };
        let check = Check::start(&self.place(), rest.map(expected).collect());
        check.map(Some).map_err(|problem| self.damaged(&problem.in_image()))
    }
}

fn failed(path: &Path) -> impl Fn(store::Error) -> Error {
    move |problem| Error::Store { path: path.to_owned(), problem: Box::new(problem) }
}

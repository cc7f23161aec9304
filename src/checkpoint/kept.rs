//! An image in the node's store, where a client's folder only says which one it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};

use super::image::{Error, Image};
use super::manifest;
use crate::message::{cut, shown};
use crate::pages::check::Check;
use crate::pages::memory::{Form, Memory, form};
use crate::pages::{Expected, is_pages};
use crate::rootfs;
use crate::store::claims::Reference;
use crate::store::{self, Entry, Held, Store, packs_beside};

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

    /// The digest of what the container had changed in its root file system, if that is here.
    /// Archives of others have it, too.
    pub fn layer(&self) -> Option<&str> {
        let noted = self.manifest.as_ref().and_then(|manifest| manifest.rootfs.as_ref()?.layer.as_ref());
        let stored = || self.held.as_ref()?.record.files.get(rootfs::FILE);
        noted.map(|layer| layer.digest.as_str()).or_else(|| Some(stored()?.digest.as_str()))
    }

    /// Memory that isn't kept as CRIU reads it, and what it has to be.
    pub fn memory_elsewhere(&self) -> Result<BTreeMap<String, Expected>, Error> {
        let (place, rest) = (self.place(), self.rest());
        let is_elsewhere =
            |name: &str| is_pages(name) && form(&place, name).is_some_and(|form| form != Form::Plain);
        let names = self.manifest.iter().flat_map(|manifest| manifest.files.keys());
        let expected = |name: &String| match rest.get(name) {
            Some(expected) => Ok((name.clone(), expected.clone())),
            None => Err(self.damaged(&format!("nothing says what {name} was before it was compressed"))),
        };
        names.filter(|name| is_elsewhere(name)).map(expected).collect()
    }

    /// A file of the image at its beginning. Of memory, however it is kept, the end can't be read
    /// if it isn't what it was.
    pub fn open_file(&self, name: &str) -> io::Result<Box<dyn Read>> {
        if is_pages(name) {
            let memory = Memory::open(&self.place(), name, &packs_beside(self.files()));
            let memory = memory.map_err(|error| io::Error::other(error.in_image()))?;
            return Ok(Box::new(memory.into_reader(self.rest().get(name))));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(Box::new(File::from(openat(&self.folder, name, flags, Mode::empty())?)))
    }

    /// What nobody has looked at yet: memory, and all that is big, as far as something is known
    /// about it.
    fn rest(&self) -> BTreeMap<String, Expected> {
        let noted = self.manifest.iter().flat_map(|manifest| &manifest.digests);
        let Some(held) = &self.held else {
            let size = |name: &String| self.manifest.as_ref()?.files.get(name).copied();
            let expected = |(name, digest): (&String, &String)| {
                Some((name.clone(), Expected { size: size(name)?, digest: digest.clone() }))
            };
            return noted.filter(|(name, _)| is_pages(name)).filter_map(expected).collect();
        };
        let seen: BTreeSet<_> = noted.map(|(name, _)| name.as_str()).filter(|name| !is_pages(name)).collect();
        // Whoever puts the layer back looks at it first.
        let is_left =
            |name: &str| !seen.contains(name) && name != manifest::FILE_NAME && name != rootfs::FILE;
        let rest = held.record.files.iter().filter(|(name, _)| is_left(name));
        rest.map(|(name, content)| (name.clone(), content.expected())).collect()
    }

    /// Begins to compare with what was written what lies there as CRIU reads it.
    pub fn check_rest(&self) -> Result<Option<Check>, Error> {
        let elsewhere = self.memory_elsewhere()?;
        let mut rest = self.rest();
        rest.retain(|name, _| !elsewhere.contains_key(name));
        if rest.is_empty() {
            return Ok(None);
        }
        let check = Check::start(&self.place(), rest);
        check.map(Some).map_err(|problem| self.damaged(&problem.in_image()))
    }
}

fn failed(path: &Path) -> impl Fn(store::Error) -> Error {
    move |problem| Error::Store { path: path.to_owned(), problem: Box::new(problem) }
}

//! What a draft holds when its image is complete: every file with its size and digest, and on
//! the disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::error::brief;
use super::record::{self, Content};
use super::{Durable, Error, Id, Store, disk};
use crate::checkpoint::manifest::{self, Manifest};
use crate::criu::images;
use crate::pages::digest::{self, Digester};
use crate::sys;

/// Digests that nobody knows are made from the files.
pub(super) fn complete(
    folder: &Path,
    known: &BTreeMap<String, String>,
    durable: Durable,
) -> Result<BTreeMap<String, Content>, Error> {
    let manifest = sealed(folder)?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(Error::at(folder))? {
        let path = entry.map_err(Error::at(folder))?.path();
        let name = name(&path)?;
        if name == record::FILE_NAME {
            continue;
        }
        let file = open(&path, &name)?;
        let read = || -> io::Result<Content> {
            let noted = manifest.as_ref().and_then(|manifest| manifest.digests.get(&name));
            let digest = match known.get(&name).or(noted) {
                Some(digest) => digest.clone(),
                None => digest::of(&file, Digester::default(), |_| {})?,
            };
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            if durable == Durable::Now || name == manifest::FILE_NAME {
                file.sync_all()?;
            }
            Ok(Content::new(file.metadata()?.len(), digest))
        };
        let content = read().map_err(Error::at(&path))?;
        files.insert(name, content);
    }
    check_sizes(folder, manifest.as_ref(), &files)?;
    Ok(files)
}

impl Store {
    /// Has the kernel begin to write what the commit of an entry hasn't waited for, which takes
    /// as long as its queue for the disk is full.
    pub fn write_back(&self, id: &Id) -> Result<(), Error> {
        let folder = self.entry_folder(id);
        for name in disk::names(&folder).map_err(Error::at(&folder))? {
            // If it can't be begun, the kernel does it by itself half a minute later.
            let _ = File::open(folder.join(name)).and_then(|file| sys::begin_writing_back(&file));
        }
        Ok(())
    }
}

/// What somebody else made has no seal, and is judged by CRIU's inventory.
fn sealed(folder: &Path) -> Result<Option<Manifest>, Error> {
    let incomplete = |problem: String| Error::Incomplete { folder: folder.to_owned(), problem };
    match Manifest::read(folder) {
        Ok(manifest) if manifest.sealed => Ok(Some(manifest)),
        Ok(_) => Err(incomplete("it isn't sealed".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            images::check_inventory(folder).map_err(|error| incomplete(brief(&error)))?;
            Ok(None)
        }
        Err(error) => Err(incomplete(brief(&format!("cryo.json: {error}")))),
    }
}

fn check_sizes(
    folder: &Path,
    manifest: Option<&Manifest>,
    files: &BTreeMap<String, Content>,
) -> Result<(), Error> {
    for (name, size) in manifest.iter().flat_map(|manifest| &manifest.files) {
        let problem = match files.get(name) {
            Some(content) if content.size == *size => continue,
            Some(content) => format!("{name} has {} of {size} bytes", content.size),
            None => format!("{name} is missing"),
        };
        return Err(Error::Incomplete { folder: folder.to_owned(), problem });
    }
    Ok(())
}

fn name(path: &Path) -> Result<String, Error> {
    let name = path.file_name().unwrap_or_default();
    let plain = name.to_str().map(str::to_owned);
    let hostile = || Error::Hostile { name: brief(&name.to_string_lossy()), what: "no plain text by name" };
    plain.ok_or_else(hostile)
}

fn open(path: &Path, name: &str) -> Result<File, Error> {
    let metadata = fs::symlink_metadata(path).map_err(Error::at(path))?;
    let what = match metadata.file_type() {
        kind if kind.is_symlink() => "a link",
        kind if !kind.is_file() => "no plain file",
        _ if metadata.uid() != rustix::process::geteuid().as_raw() => "somebody else's",
        _ if metadata.nlink() > 1 => "a file that can be changed under another name",
        _ => return File::open(path).map_err(Error::at(path)),
    };
    Err(Error::Hostile { name: brief(&name), what })
}

//! Packs: the memory of older checkpoints, each page stored once and compressed.
//!
//! The pages of a folder that no earlier pack holds go into a new one, and each `pages-N.img`
//! becomes a recipe, which says where its pages are. Packs are never changed. A folder is
//! plain as long as a pages file lies beside its recipe: that one goes last, after the pack has
//! reached the disk and was read back, and the recipes have. So it is one or the other, whenever
//! it ends, and packing it again goes on from there.
//!
//! Two pages are the same if 128 bits of their BLAKE3 are. A whole file's digest is compared
//! whenever it is put together again, so whatever a pack says, no wrong page gets into it.
//!
//! The caller sees to it that nobody else packs, or removes packs, meanwhile.

mod archive;
mod compact;
mod known;
mod reader;
mod recipe;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use archive::check;
use archive::{GROUP_BYTES, Writer, hash};
use known::Known;
use recipe::Builder;

pub use compact::compact;
pub(super) use reader::Reader;
pub(super) use recipe::SUFFIX;
pub use recipe::{Problem, Recipe};
use unpack::follow;
pub(super) use unpack::unpack;
pub use unpack::verify;

use super::digest::{blake3_text, read_some};
use super::file::{
    self, is_done_with, is_pages, is_read_once, open_plain, sync_folder, with_suffix, write_synced,
};
use super::output::Output;
use super::zeros::is_zero;
use super::{Error, Expected, PAGE, damaged, reading};

/// What packing a folder has come to. Bytes are those that the disk lost or got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    pub before: u64,
    pub after: u64,
    pub pages: u64,
    pub new_pages: u64,
    /// The file in the folder of packs that was added.
    pub pack: Option<String>,
}

#[derive(Debug)]
pub struct Packer {
    packs: PathBuf,
}

/// Memory of a folder that is in packs by now, and in the folder as well, as it was.
#[derive(Debug)]
pub struct Prepared {
    packs: PathBuf,
    folder: PathBuf,
    names: Vec<String>,
    /// As they are to be written. None if an earlier attempt has done that.
    recipes: Vec<(PathBuf, Vec<u8>)>,
    packed: Packed,
}

impl Packer {
    pub fn open(packs: &Path) -> Result<Packer, Error> {
        file::names(packs, |_| false)?;
        Ok(Packer { packs: packs.to_owned() })
    }

    /// Puts the pages files of a folder into packs, which may take long, and changes nothing in
    /// the folder: others may read it, or remove it. Files that are expected to be otherwise are
    /// left alone. `lineage` are recipes whose packs may have the same pages, the likeliest
    /// first; those that can't be read are passed over.
    pub fn prepare(
        &self,
        folder: &Path,
        expected: &BTreeMap<String, Expected>,
        lineage: &[PathBuf],
    ) -> Result<Option<Prepared>, Error> {
        let names = file::names(folder, is_pages)?;
        if names.is_empty() {
            return Ok(None);
        }
        let (packs, owner) = (self.packs.clone(), folder.to_owned());
        if names.iter().all(|name| self.is_packed(&folder.join(name))) {
            let (recipes, packed) = (Vec::new(), Packed::default());
            return Ok(Some(Prepared { packs, folder: owner, names, recipes, packed }));
        }
        let mut packing = Packing::begin(&self.packs, folder, lineage)?;
        let mut recipes = Vec::new();
        for name in &names {
            let path = folder.join(name);
            recipes.push((recipe_of(&path), packing.file(&path, expected.get(name))?));
        }
        let packed = packing.finish()?;
        let prepared = Prepared { packs, folder: owner, names, recipes, packed };
        // The last chance to notice that an older pack is damaged.
        match prepared.verify() {
            Ok(()) => Ok(Some(prepared)),
            Err(error) => prepared.abandon().and(Err(error)),
        }
    }

    /// Whether an earlier attempt got so far that only the plain file is left to remove.
    fn is_packed(&self, plain: &Path) -> bool {
        let recipe = recipe_of(plain);
        let is_same = || -> Result<bool, Error> {
            verify(&recipe, &self.packs)?;
            Ok(super::digest::of_file(plain)? == Recipe::read(&recipe)?.expected().digest)
        };
        recipe.exists() && is_same().unwrap_or(false)
    }
}

impl Prepared {
    /// From now on the folder has recipes. Nobody may use it meanwhile.
    pub fn publish(self) -> Result<Packed, Error> {
        let written = self.recipes.iter().try_for_each(|(path, bytes)| write_synced(path, bytes));
        if let Err(error) = written.and_then(|()| sync_folder(&self.folder)) {
            self.recipes.iter().try_for_each(|(path, _)| file::remove(path))?;
            return self.abandon().and(Err(error));
        }
        self.names.iter().try_for_each(|name| file::remove(&self.folder.join(name)))?;
        sync_folder(&self.folder)?;
        let recipes: usize = self.recipes.iter().map(|(_, bytes)| bytes.len()).sum();
        Ok(Packed { after: self.packed.after + recipes as u64, ..self.packed })
    }

    /// The folder stays as it is.
    pub fn abandon(self) -> Result<(), Error> {
        self.packed.pack.map_or(Ok(()), |pack| file::remove(&self.packs.join(pack)))
    }

    fn verify(&self) -> Result<(), Error> {
        self.recipes.iter().try_for_each(|(path, bytes)| {
            let recipe = Recipe::read_from(path, bytes)?;
            follow(path, &recipe, &self.packs, Output::nowhere(path, recipe.expected())?)
        })
    }
}

impl Recipe {
    /// What the file is like that it makes.
    pub fn expected(&self) -> Expected {
        Expected { size: self.size, digest: blake3_text(&self.digest) }
    }
}

/// The recipe that stands for a pages file, beside it.
pub fn recipe_of(pages: &Path) -> PathBuf {
    with_suffix(pages, SUFFIX)
}

/// The names of the packs without which these recipes are worth nothing.
pub fn referenced(recipes: &[PathBuf]) -> Result<BTreeSet<String>, Error> {
    let packs =
        recipes.iter().map(|path| Ok(Recipe::read(path)?.packs)).collect::<Result<Vec<_>, Error>>()?;
    Ok(packs.into_iter().flatten().collect())
}

/// One folder's way into a pack.
struct Packing {
    packs: PathBuf,
    known: Known,
    /// Of the new pack, which is made when there is a page for it.
    name: String,
    writer: Option<Writer>,
    packed: Packed,
}

impl Packing {
    fn begin(packs: &Path, folder: &Path, lineage: &[PathBuf]) -> Result<Packing, Error> {
        let name = free_name(packs, folder)?;
        let known = Known::load(packs, lineage);
        Ok(Packing { packs: packs.to_owned(), known, name, writer: None, packed: Packed::default() })
    }

    /// Reads a pages file, and makes its recipe.
    fn file(&mut self, path: &Path, expected: Option<&Expected>) -> Result<Vec<u8>, Error> {
        let file = open_plain(path)?;
        is_read_once(&file);
        let mut recipe = Builder::default();
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        let mut bytes = vec![0; GROUP_BYTES];
        loop {
            let got = fill(&file, path, &mut bytes, size)?;
            if got == 0 {
                break;
            }
            size += got as u64;
            hasher.update(&bytes[..got]);
            bytes[got..].fill(0);
            for page in bytes[..got.next_multiple_of(PAGE)].chunks(PAGE) {
                self.page(page, &mut recipe)?;
            }
        }
        let digest = *hasher.finalize().as_bytes();
        let found = Expected { size, digest: blake3_text(&digest) };
        if expected.is_some_and(|expected| expected.digest.starts_with("blake3:") && *expected != found) {
            return Err(damaged(path, "its content has another digest"));
        }
        self.packed.before += file.metadata().map_err(reading(path))?.blocks() * 512;
        is_done_with(&file);
        recipe.finish(size, &digest).ok_or_else(|| Error::TooBig(path.to_owned()))
    }

    fn page(&mut self, page: &[u8], recipe: &mut Builder) -> Result<(), Error> {
        self.packed.pages += 1;
        if is_zero(page) {
            recipe.zeros(1);
            return Ok(());
        }
        let hash = hash(page);
        if let Some((pack, slot)) = self.known.find(&hash) {
            recipe.page(pack, slot);
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(Writer::create(&self.packs.join(&self.name))?),
        };
        let slot = writer.add(page, hash)?;
        recipe.page(&self.name, slot);
        self.known.add(&self.name, hash, slot);
        Ok(())
    }

    fn finish(self) -> Result<Packed, Error> {
        let Some(writer) = self.writer else { return Ok(self.packed) };
        let new_pages = writer.pages().into();
        let after = writer.finish()?;
        sync_folder(&self.packs)?;
        Ok(Packed { after, new_pages, pack: Some(self.name), ..self.packed })
    }
}

/// What a new pack can be called: like the folder, and with a number if there was one before,
/// which recipes may name.
fn free_name(packs: &Path, like: &Path) -> Result<String, Error> {
    let stem = like.file_name().and_then(|name| name.to_str()).unwrap_or("pages");
    let stem = stem.strip_suffix(".pack").unwrap_or(stem);
    let names = (1..)
        .map(|number| if number == 1 { format!("{stem}.pack") } else { format!("{stem}.{number}.pack") });
    let mut free = names.filter(|name| packs.join(name).symlink_metadata().is_err());
    free.next().ok_or_else(|| Error::TooBig(packs.join(stem)))
}

/// As much as there is of what fits.
fn fill(file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> Result<usize, Error> {
    let mut filled = 0;
    while filled < bytes.len() {
        match read_some(file, path, &mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            got => filled += got,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;

//! The pages that a folder may share with earlier ones, by their hashes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::archive::{Hash, Reader};
use super::{Error, Recipe};

/// 8 GiB of pages, which take about 100 MiB of memory here. What lies beyond them is stored again.
const MOST_PAGES: usize = 2 << 20;
/// A recipe that names more of them is slow to follow, and they are all open meanwhile.
pub(super) const MOST_PACKS: usize = 200;

pub(super) struct Known {
    packs: Vec<String>,
    /// Pack by its place in the list, and slot.
    pages: HashMap<Hash, (u32, u32)>,
    most: usize,
}

impl Known {
    /// Of packs that are named first those that the first recipes name.
    pub(super) fn load(folder: &Path, lineage: &[PathBuf]) -> Known {
        let mut known = Known { packs: Vec::new(), pages: HashMap::new(), most: MOST_PAGES };
        for pack in lineage.iter().filter_map(|path| Recipe::read(path).ok()).flat_map(|recipe| recipe.packs)
        {
            if known.packs.len() == MOST_PACKS || known.pages.len() >= known.most {
                break;
            }
            if !known.packs.contains(&pack) {
                known.load_pack(folder, pack);
            }
        }
        known
    }

    fn load_pack(&mut self, folder: &Path, name: String) {
        let number = self.packs.len() as u32;
        if self.try_load(&folder.join(&name), number).is_ok() {
            self.packs.push(name);
        } else {
            // What it has isn't what it says; the store's own check tells of it.
            self.pages.retain(|_, (pack, _)| *pack != number);
        }
    }

    fn try_load(&mut self, path: &Path, number: u32) -> Result<(), Error> {
        let mut slot = 0;
        Reader::open(path)?.hashes(|hash| {
            self.insert(hash, number, slot);
            slot += 1;
        })
    }

    pub(super) fn find(&self, hash: &Hash) -> Option<(&str, u32)> {
        let (pack, slot) = self.pages.get(hash)?;
        Some((self.packs.get(*pack as usize)?, *slot))
    }

    /// One of the pack that is being made.
    pub(super) fn add(&mut self, pack: &str, hash: Hash, slot: u32) {
        if self.packs.last().is_none_or(|last| last != pack) {
            self.packs.push(pack.to_owned());
        }
        self.insert(hash, self.packs.len() as u32 - 1, slot);
    }

    fn insert(&mut self, hash: Hash, pack: u32, slot: u32) {
        if self.pages.len() < self.most {
            self.pages.entry(hash).or_insert((pack, slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_remembered_than_fits() {
        let mut known = Known { packs: Vec::new(), pages: HashMap::new(), most: 2 };
        for number in 0..5 {
            known.add("a.pack", [number; 16], number.into());
        }
        assert_eq!(known.find(&[1; 16]), Some(("a.pack", 1)));
        assert_eq!(known.find(&[2; 16]), None);
    }

    #[test]
    fn a_lineage_that_cant_be_read_is_no_lineage() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.recipe"), "nonsense").unwrap();
        let lineage = ["nowhere", "x.recipe"].map(|name| folder.path().join(name));
        assert!(Known::load(folder.path(), &lineage).packs.is_empty());
    }
}

//! Packs of which little is used any more, written again without the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zstd::bulk::Decompressor;

use super::archive::{Hash, Reader, Writer, hash};
use super::recipe::{Builder, Recipe, Run};
use super::{Error, free_name};
use crate::pages::file::{remove, sync_folder, write_synced};
use crate::pages::{PAGE, damaged, reading};

/// Writes every pack again of which less than half is used, and changes the recipes that name it.
/// Tells how many packs that were. The recipes have to be all there are; if it ends
/// half-way, each of them names one that is there, the old pack or the new one.
///
/// Nobody may follow the recipes of a pack while they change, which takes moments: whoever can
/// see to that holds them. If he can't, the pack stays as it is.
pub fn compact<L>(
    packs: &Path,
    recipes: &[PathBuf],
    mut hold: impl FnMut(&[&Path]) -> Option<L>,
) -> Result<usize, Error> {
    let mut users: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
    for path in recipes {
        for pack in Recipe::read(path)?.packs {
            users.entry(pack).or_default().push(path);
        }
    }
    let mut compacted = 0;
    for (name, recipes) in users {
        compacted += usize::from(compact_one(packs, &name, &recipes, &mut hold)?);
    }
    Ok(compacted)
}

fn compact_one<L>(
    packs: &Path,
    name: &str,
    recipes: &[&Path],
    hold: &mut impl FnMut(&[&Path]) -> Option<L>,
) -> Result<bool, Error> {
    let old = Reader::open(&packs.join(name))?;
    let slots = used_slots(&old, name, recipes)?;
    if slots.iter().filter(|used| **used).count() * 2 >= slots.len() {
        return Ok(false);
    }
    let new = free_name(packs, Path::new(name))?;
    let moved = copy(&old, &slots, &packs.join(&new))?;
    sync_folder(packs)?;
    let Some(_held) = hold(recipes) else {
        remove(&packs.join(new))?;
        return Ok(false);
    };
    for path in recipes {
        write_synced(path, &rewritten(path, name, &new, &moved)?)?;
        path.parent().map_or(Ok(()), sync_folder)?;
    }
    remove(old.path())?;
    sync_folder(packs)?;
    Ok(true)
}

fn used_slots(pack: &Reader, name: &str, recipes: &[&Path]) -> Result<Vec<bool>, Error> {
    let mut slots = vec![false; pack.pages() as usize];
    for path in recipes {
        let recipe = Recipe::read(path)?;
        for run in recipe.runs() {
            if let Run::Pages { pack, first, count } = run
                && recipe.packs[pack] == name
            {
                let used = slots.get_mut(first as usize..(first + count) as usize);
                used.ok_or_else(|| damaged(path, format!("it wants pages that {name} lacks")))?.fill(true);
            }
        }
    }
    Ok(slots)
}

/// Copies the pages in use; tells the new slot of each old one.
fn copy(old: &Reader, used: &[bool], new: &Path) -> Result<Vec<u32>, Error> {
    let mut hashes: Vec<Hash> = Vec::new();
    old.hashes(|hash| hashes.push(hash))?;
    let mut writer = Writer::create(new)?;
    let mut decompressor = Decompressor::new().map_err(reading(old.path()))?;
    let (mut frame, mut group, mut decoded) = (Vec::new(), Vec::new(), None);
    let mut moved = vec![0; used.len()];
    for slot in (0..used.len()).filter(|slot| used[*slot]) {
        let (number, start) = Reader::place(slot as u64);
        if decoded != Some(number) {
            old.group(number, &mut decompressor, &mut frame, &mut group)?;
            decoded = Some(number);
        }
        let page = &group[start..start + PAGE];
        if hash(page) != hashes[slot] {
            return Err(damaged(old.path(), format!("its page {slot} has another hash")));
        }
        moved[slot] = writer.add(page, hashes[slot])?;
    }
    writer.finish()?;
    Ok(moved)
}

fn rewritten(path: &Path, old: &str, new: &str, moved: &[u32]) -> Result<Vec<u8>, Error> {
    let recipe = Recipe::read(path)?;
    let mut builder = Builder::default();
    for run in recipe.runs() {
        match run {
            Run::Zeros { count } => builder.zeros(count),
            Run::Pages { pack, first, count } => {
                let name = &recipe.packs[pack];
                for slot in first..first + count {
                    let (name, slot) =
                        if name == old { (new, moved[slot as usize]) } else { (name.as_str(), slot as u32) };
                    builder.page(name, slot);
                }
            }
        }
    }
    builder.finish(recipe.size, &recipe.digest).ok_or_else(|| Error::TooBig(path.to_owned()))
}

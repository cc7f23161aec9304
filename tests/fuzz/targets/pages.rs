//! Recipes and packs, which may have rotten on a disk, or come from anywhere.
#![no_main]

use std::fs;

use cryo::pages::memory::Memory;
use cryo::pages::pack::{self, Recipe};

/// A pack whose checksums are right, so that more than those is looked at.
fn pack(groups: &[u8], lengths: &[u32], hashes: &[[u8; 16]]) -> Vec<u8> {
    let lengths: Vec<u8> = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
    let pages = (hashes.len() as u32).to_le_bytes();
    let hashes = hashes.concat();
    let (of_lengths, of_hashes) = (blake3::hash(&lengths), blake3::hash(&hashes));
    let foot = [&pages[..], of_lengths.as_bytes(), of_hashes.as_bytes(), b"cryopack"].concat();
    [b"cryopack", &1u32.to_le_bytes()[..], groups, &lengths, &hashes, &foot].concat()
}

libfuzzer_sys::fuzz_target!(|input: (Vec<u8>, Vec<u8>, Vec<u32>, Vec<[u8; 16]>, bool)| {
    let (recipe, groups, lengths, hashes, is_honest) = input;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let _ = Recipe::parse(&recipe);
    let signed = [&recipe[..], blake3::hash(&recipe).as_bytes()].concat();
    fs::write(path("pages-1.img.recipe"), &signed).expect("a file");
    let archive = if is_honest { pack(&groups, &lengths, &hashes) } else { groups };
    fs::write(path("a.pack"), &archive).expect("a file");
    let _ = pack::check(&path("a.pack"));
    // Zeros without end take time, and nothing else.
    let Some(recipe) = Recipe::parse(&signed).ok().filter(|recipe| recipe.size < 16 << 20) else { return };
    for name in recipe.packs {
        // Names of other lengths than file systems like are no pack's, either.
        let _ = fs::write(path(&name), &archive);
    }
    let _ = pack::verify(&path("pages-1.img.recipe"), folder.path());
    if let Ok(memory) = Memory::open(folder.path(), "pages-1.img", folder.path()) {
        for offset in [0, 4097, memory.size().saturating_sub(9000)] {
            let _ = memory.read_exact_at(&mut [0; 9000], offset);
        }
    }
    let _ = pack::compact(folder.path(), &[path("pages-1.img.recipe")], |_| Some(()));
});

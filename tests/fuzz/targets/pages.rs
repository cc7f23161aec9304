//! Recipes, packs and compressed memory, which an archive may have brought.
#![no_main]

use std::collections::BTreeMap;
use std::fs;

use cryo::pages::pack::{self, Recipe};
use cryo::pages::{Expected, compress};

libfuzzer_sys::fuzz_target!(|input: (Vec<u8>, Vec<u8>, Vec<u8>, u32)| {
    let (recipe, archive, compressed, size) = input;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let _ = Recipe::parse(&recipe);
    // So that more than the checksum is looked at.
    let signed = [&recipe[..], blake3::hash(&recipe).as_bytes()].concat();
    fs::write(path("pages-1.img.recipe"), &signed).expect("a file");
    // Zeros without end take time, and nothing else.
    if let Some(recipe) = Recipe::parse(&signed).ok().filter(|recipe| recipe.size < 16 << 20) {
        for name in recipe.packs {
            // Names of other lengths than file systems like are no pack's, either.
            let _ = fs::write(path(&name), &archive);
        }
        let _ = pack::verify(&path("pages-1.img.recipe"), folder.path());
        let _ = pack::compact(folder.path(), &[path("pages-1.img.recipe")]);
    }
    fs::write(path("pages-2.img.zst"), &compressed).expect("a file");
    let digest = format!("blake3:{:064}", 0);
    let expected = BTreeMap::from([("pages-2.img".to_owned(), Expected { size: size.into(), digest })]);
    let _ = compress::decompress(folder.path(), folder.path(), &expected);
});

use super::*;
use crate::pages::{digest, memory};
use std::fs;

const PAGES: usize = 300;

struct Store {
    _root: tempfile::TempDir,
    packs: PathBuf,
    entries: PathBuf,
}

impl Store {
    fn new() -> Store {
        let root = tempfile::tempdir().unwrap();
        let (packs, entries) = (root.path().join("packs"), root.path().join("entries"));
        fs::create_dir(&packs).unwrap();
        fs::create_dir(&entries).unwrap();
        Store { _root: root, packs, entries }
    }

    /// A folder with two pages files, one of them with an odd end.
    fn entry(&self, name: &str, memory: &[u8]) -> PathBuf {
        let folder = self.entries.join(name);
        fs::create_dir(&folder).unwrap();
        let (first, second) = memory.split_at(memory.len() / 2 / PAGE * PAGE);
        fs::write(folder.join("pages-1.img"), first).unwrap();
        fs::write(folder.join("pages-2.img"), second).unwrap();
        fs::write(folder.join("core-1.img"), "not ours").unwrap();
        folder
    }

    fn pack(&self, folder: &Path, lineage: &[&Path]) -> Result<Packed, Error> {
        let lineage: Vec<_> = lineage.iter().flat_map(|folder| recipes(folder)).collect();
        pack(&self.packs, folder, &BTreeMap::new(), &lineage)
    }

    fn memory(&self, folder: &Path) -> Result<Vec<u8>, Error> {
        let into = tempfile::tempdir().unwrap();
        let expected = recipes(folder)
            .into_iter()
            .zip(["pages-1.img", "pages-2.img"])
            .map(|(recipe, name)| Ok((name.to_owned(), Recipe::read(&recipe)?.expected())));
        let expected = expected.collect::<Result<_, Error>>()?;
        memory::put_together(folder, &self.packs, into.path(), &expected)?;
        Ok(["pages-1.img", "pages-2.img"]
            .iter()
            .flat_map(|name| fs::read(into.path().join(name)).unwrap())
            .collect())
    }
}

/// Nobody uses them.
fn free(_recipes: &[&Path]) -> Option<()> {
    Some(())
}

/// In both steps.
fn pack(
    packs: &Path,
    folder: &Path,
    expected: &BTreeMap<String, Expected>,
    lineage: &[PathBuf],
) -> Result<Packed, Error> {
    let prepared = Packer::open(packs)?.prepare(folder, expected, lineage)?;
    prepared.map_or(Ok(Packed::default()), Prepared::publish)
}

fn recipes(folder: &Path) -> Vec<PathBuf> {
    ["pages-1.img", "pages-2.img"].iter().map(|name| recipe_of(&folder.join(name))).collect()
}

/// Every third page is zero, others are noise and some of them are the same.
fn memory(seed: u8) -> Vec<u8> {
    let mut memory = vec![0; PAGES * PAGE + 77];
    for (number, page) in memory.chunks_mut(PAGE).enumerate().filter(|(number, _)| number % 3 > 0) {
        change(page, (number % 200) as u32, seed);
    }
    memory
}

fn change(page: &mut [u8], number: u32, seed: u8) {
    let mut noise = blake3::Hasher::new().update(&number.to_le_bytes()).update(&[seed]).finalize_xof();
    let half = page.len() / 2;
    noise.fill(&mut page[half..]);
}

fn names_in(folder: &Path) -> Vec<String> {
    file::names(folder, |_| true).unwrap()
}

#[test]
fn packed_memory_comes_back_with_holes() {
    let store = Store::new();
    let memory = memory(1);
    let folder = store.entry("one", &memory);
    let packed = store.pack(&folder, &[]).unwrap();
    assert_eq!(names_in(&folder), ["core-1.img", "pages-1.img.recipe", "pages-2.img.recipe"]);
    assert_eq!((packed.pages, packed.new_pages), (PAGES as u64 + 1, 167));
    assert_eq!(packed.pack.as_deref(), Some("one.pack"));
    let written = [store.packs.join("one.pack")].into_iter().chain(recipes(&folder));
    assert_eq!(packed.after, written.map(|path| fs::metadata(path).unwrap().len()).sum::<u64>());
    assert_eq!(store.memory(&folder).unwrap(), memory);
}

#[test]
fn what_an_earlier_one_has_is_not_stored_again() {
    let store = Store::new();
    let mut memory = memory(1);
    let first = store.entry("one", &memory);
    store.pack(&first, &[]).unwrap();
    change(&mut memory[PAGE..2 * PAGE], 7, 99);
    let second = store.entry("two", &memory);
    assert_eq!(store.pack(&second, &[&first]).unwrap().new_pages, 1);
    let third = store.entry("three", &memory);
    let packed = store.pack(&third, &[&second]).unwrap();
    assert_eq!((packed.new_pages, packed.pack), (0, None));
    for folder in [&second, &third] {
        assert_eq!(store.memory(folder).unwrap(), memory);
        assert_eq!(referenced(&recipes(folder)).unwrap(), ["one.pack", "two.pack"].map(str::to_owned).into());
    }
}

#[test]
fn what_is_prepared_and_given_up_leaves_nothing() {
    let store = Store::new();
    let folder = store.entry("one", &memory(1));
    let before = names_in(&folder);
    let prepare =
        || Packer::open(&store.packs).unwrap().prepare(&folder, &BTreeMap::new(), &[]).unwrap().unwrap();
    let prepared = prepare();
    assert_eq!((names_in(&folder), names_in(&store.packs)), (before.clone(), vec!["one.pack".to_owned()]));
    prepared.abandon().unwrap();
    assert!(names_in(&store.packs).is_empty());
    // Nor does one whose recipes can't be written.
    let prepared = prepare();
    fs::create_dir(folder.join("pages-2.img.recipe.new")).unwrap();
    assert!(matches!(prepared.publish(), Err(Error::Write { .. })));
    fs::remove_dir(folder.join("pages-2.img.recipe.new")).unwrap();
    assert_eq!((names_in(&folder), names_in(&store.packs)), (before, Vec::new()));
}

#[test]
fn zeros_alone_need_no_pack() {
    let store = Store::new();
    let folder = store.entry("zeros", &vec![0; 1 << 20]);
    let packed = store.pack(&folder, &[]).unwrap();
    assert!(packed.after < 300 && names_in(&store.packs).is_empty());
    assert_eq!(store.memory(&folder).unwrap(), vec![0; 1 << 20]);
    let empty = store.entry("empty", &[]);
    store.pack(&empty, &[]).unwrap();
    assert!(store.memory(&empty).unwrap().is_empty());
}

/// Every state that an end at any point can leave.
#[test]
fn whenever_packing_ends_the_next_one_completes_it() {
    let memory = memory(1);
    for end in 0..5 {
        let store = Store::new();
        let folder = store.entry("one", &memory);
        let plain: Vec<_> =
            ["pages-1.img", "pages-2.img"].map(|name| (name, fs::read(folder.join(name)).unwrap())).into();
        store.pack(&folder, &[]).unwrap();
        let put_back = |number: usize| fs::write(folder.join(plain[number].0), &plain[number].1).unwrap();
        match end {
            // The pack and its recipes are there, and both, one or no plain file.
            0 => (0..2).for_each(put_back),
            1 => put_back(1),
            // Only one recipe got its name.
            2 => {
                (0..2).for_each(put_back);
                fs::rename(&recipes(&folder)[1], folder.join("pages-2.img.recipe.new")).unwrap();
            }
            // The pack got its name, or didn't.
            _ => {
                (0..2).for_each(put_back);
                recipes(&folder).iter().for_each(|path| fs::remove_file(path).unwrap());
                let from = store.packs.join("one.pack");
                let to = store.packs.join(if end == 3 { "one.pack" } else { "one.pack.new" });
                fs::rename(from, to).unwrap();
            }
        }
        store.pack(&folder, &[]).unwrap();
        assert!(!folder.join("pages-1.img").exists() && !folder.join("pages-2.img").exists(), "{end}");
        assert_eq!(store.memory(&folder).unwrap(), memory, "{end}");
        let leftovers = names_in(&folder).into_iter().chain(names_in(&store.packs));
        assert!(!leftovers.into_iter().any(|name| name.ends_with(".new")), "{end}");
    }
}

#[test]
fn a_recipe_for_another_file_doesnt_cost_the_plain_one() {
    let store = Store::new();
    let folder = store.entry("one", &memory(1));
    store.pack(&folder, &[]).unwrap();
    let other = memory(2);
    fs::write(folder.join("pages-1.img"), &other[..9 * PAGE]).unwrap();
    store.pack(&folder, &[]).unwrap();
    assert_eq!(store.memory(&folder).unwrap()[..9 * PAGE], other[..9 * PAGE]);
    assert_eq!(names_in(&store.packs), ["one.2.pack", "one.pack"]);
}

#[test]
fn a_damaged_pack_is_found_before_and_after() {
    let store = Store::new();
    let memory = memory(1);
    let first = store.entry("one", &memory);
    store.pack(&first, &[]).unwrap();
    let pack = store.packs.join("one.pack");
    let mut bytes = fs::read(&pack).unwrap();
    bytes[5000] ^= 1;
    fs::write(&pack, &bytes).unwrap();
    assert!(matches!(store.memory(&first), Err(Error::Damaged { .. })));
    let second = store.entry("two", &memory);
    let before = names_in(&second);
    assert!(store.pack(&second, &[&first]).is_err());
    assert_eq!(names_in(&second), before);
    assert_eq!(names_in(&store.packs), ["one.pack"]);
    store.pack(&second, &[]).unwrap();
    assert_eq!(store.memory(&second).unwrap(), memory);
}

#[test]
fn a_missing_or_short_pack_is_one_sentence() {
    let store = Store::new();
    let folder = store.entry("one", &memory(1));
    store.pack(&folder, &[]).unwrap();
    let small = store.entry("small", &memory(1)[PAGE..3 * PAGE]);
    store.pack(&small, &[]).unwrap();
    fs::rename(store.packs.join("small.pack"), store.packs.join("one.pack")).unwrap();
    let error = store.memory(&folder).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    fs::remove_file(store.packs.join("one.pack")).unwrap();
    let error = store.memory(&folder).unwrap_err();
    assert!(matches!(&error, Error::Read { path, .. } if path.ends_with("one.pack")), "{error}");
    let link = store.packs.join("one.pack");
    std::os::unix::fs::symlink("/dev/zero", link).unwrap();
    assert!(store.memory(&folder).is_err());
}

#[test]
fn rot_before_packing_is_not_given_a_new_digest() {
    let store = Store::new();
    let folder = store.entry("one", &memory(1));
    let path = folder.join("pages-1.img");
    let right =
        Expected { size: fs::metadata(&path).unwrap().len(), digest: digest::of_file(&path).unwrap() };
    let expected = BTreeMap::from([("pages-1.img".to_owned(), right)]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[PAGE] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let before = names_in(&folder);
    let error = pack(&store.packs, &folder, &expected, &[]).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert_eq!(names_in(&folder), before);
    assert!(names_in(&store.packs).is_empty());
    store.pack(&folder, &[]).unwrap();
    let into = tempfile::tempdir().unwrap();
    assert!(memory::put_together(&folder, &store.packs, into.path(), &expected).is_err());
    assert!(names_in(into.path()).is_empty());
}

#[test]
fn packs_that_little_uses_are_written_again() {
    let store = Store::new();
    let big = memory(1);
    let first = store.entry("one", &big);
    store.pack(&first, &[]).unwrap();
    let small: Vec<u8> = [&big[90 * PAGE..120 * PAGE], &memory(2)[..10 * PAGE]].concat();
    let second = store.entry("two", &small);
    store.pack(&second, &[&first]).unwrap();
    let both: Vec<_> = [recipes(&first), recipes(&second)].concat();
    assert_eq!(compact(&store.packs, &both, free).unwrap(), 0);
    let before = fs::metadata(store.packs.join("one.pack")).unwrap().len();
    let used = |_: &[&Path]| None::<()>;
    assert_eq!(compact(&store.packs, &recipes(&second), used).unwrap(), 0);
    assert_eq!(names_in(&store.packs), ["one.pack", "two.pack"]);
    assert_eq!(compact(&store.packs, &recipes(&second), free).unwrap(), 1);
    assert_eq!(names_in(&store.packs), ["one.2.pack", "two.pack"]);
    assert!(fs::metadata(store.packs.join("one.2.pack")).unwrap().len() < before / 2);
    assert_eq!(store.memory(&second).unwrap(), small);
    assert_eq!(compact(&store.packs, &recipes(&second), free).unwrap(), 0);
}

#[test]
fn many_can_unpack_at_once() {
    let store = Store::new();
    let memory = memory(1);
    let folder = store.entry("one", &memory);
    store.pack(&folder, &[]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(store.memory(&folder).unwrap(), memory));
        }
    });
}

#[test]
fn a_folder_of_packs_that_cant_be_written_leaves_the_folder_plain() {
    let store = Store::new();
    let folder = store.entry("one", &memory(1));
    let before = names_in(&folder);
    fs::create_dir(store.packs.join("one.pack.new")).unwrap();
    assert!(matches!(store.pack(&folder, &[]), Err(Error::Write { .. })));
    assert_eq!(names_in(&folder), before);
}

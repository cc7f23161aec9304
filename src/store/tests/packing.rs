//! Older entries share what they have in common, and are what they were.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::pages::PAGE;
use crate::pages::memory::{Form, Memory, form};
use crate::store::retention::Why;

const PAGES: usize = 200;
const ALL: Which = Which::Older { than: Duration::ZERO, now: u64::MAX };

/// Noise in which one page depends on the number.
fn memory(number: u64) -> Vec<u8> {
    let mut memory = vec![0; PAGES * PAGE + 9];
    blake3::Hasher::new().finalize_xof().fill(&mut memory);
    memory[7 * PAGE..7 * PAGE + 8].copy_from_slice(&number.to_le_bytes());
    memory
}

/// Without end: one is made, older ones are packed, the oldest goes.
pub(super) fn keep_packing(store: &Store, say: impl Fn(&str)) {
    for number in 1.. {
        let draft = store.begin(&Wish::default(), &NO_LIMITS).unwrap();
        fs::write(draft.folder().join(images::INVENTORY_FILE), INVENTORY).unwrap();
        fs::write(draft.folder().join("pages-1.img"), memory(number)).unwrap();
        let about = Description { pinned: true, taken_at: number, ..Description::default() };
        draft.commit(about, Durable::Now).unwrap();
        say("made");
        store.pack(&ALL).unwrap();
        say("packed");
        let (good, _) = store.entries().unwrap();
        if good.len() > 3 {
            store.remove(good[0].id(), true).unwrap();
            store.compact_packs().unwrap();
        }
    }
}

impl Place {
    /// The container's checkpoint of that number.
    fn taken(&self, container: &str, number: u64) -> Entry {
        let draft = self.store.begin(&Wish::default(), &NO_LIMITS).unwrap();
        fs::write(draft.folder().join(images::INVENTORY_FILE), INVENTORY).unwrap();
        fs::write(draft.folder().join("pages-1.img"), memory(number)).unwrap();
        let (container, pinned) = (container.to_owned(), true);
        let about = Description { container, pinned, taken_at: number, ..Description::default() };
        draft.commit(about, Durable::Now).unwrap().clone()
    }

    fn three(&self) -> [Entry; 3] {
        [1, 2, 3].map(|number| self.taken("c", number))
    }

    fn packs(&self) -> Vec<String> {
        self.names("packs")
    }

    fn bytes_of_packs(&self) -> u64 {
        self.packs().iter().map(|name| disk::bytes(&self.store.packs().join(name)).unwrap()).sum()
    }

    /// What an entry's memory is, and how it is kept.
    fn memory_of(&self, entry: &Entry) -> (Vec<u8>, Option<Form>) {
        let memory = Memory::open(&entry.folder, "pages-1.img", &self.store.packs()).unwrap();
        let mut bytes = vec![0; memory.size() as usize];
        memory.read_exact_at(&mut bytes, 0).unwrap();
        (bytes, form(&entry.folder, "pages-1.img"))
    }

    fn are_good(&self) {
        let (good, damaged) = self.store.entries().unwrap();
        assert!(damaged.is_empty());
        for entry in good {
            assert!(entry.hold().unwrap().verify(|_, _| {}).unwrap().is_good());
        }
    }
}

#[test]
fn all_but_the_newest_share_what_they_have_in_common() {
    let place = Place::new();
    let (all, other) = (place.three(), place.taken("other", 1));
    let before = place.store.used().unwrap();
    let packed = place.store.pack(&ALL).unwrap();
    let ids: Vec<_> = packed.packed.iter().map(|(entry, _)| entry.id()).collect();
    assert_eq!((ids, packed.in_use.len()), (vec![all[0].id(), all[1].id()], 0));
    assert!(packed.problems.is_empty(), "{:?}", packed.problems);
    for (entry, (number, form)) in all.iter().chain([&other]).zip([
        (1, Form::Packed),
        (2, Form::Packed),
        (3, Form::Plain),
        (1, Form::Plain),
    ]) {
        assert!(place.memory_of(entry) == (memory(number), Some(form)), "{number}");
    }
    place.are_good();
    let (used, one) = (place.store.used().unwrap(), (PAGES * PAGE) as u64);
    assert!(before - used > one * 9 / 10 && packed.freed > one * 9 / 10, "{before} {used} {}", packed.freed);
    // What they share is shown with them.
    let (entries, _) = place.store.entries().unwrap();
    let shares = place.store.shares(&entries);
    assert_eq!(shares.len(), 2);
    let sum: u64 = shares.values().sum();
    assert!(sum <= place.bytes_of_packs() && sum + 4 > place.bytes_of_packs());
    assert!(!place.store.has_unpacked(&ALL).unwrap());
    assert!(place.store.pack(&ALL).unwrap().packed.is_empty());
}

#[test]
fn young_ones_stay_unless_somebody_names_them() {
    let place = Place::new();
    let all = place.three();
    let than = |millis| Which::Older { than: Duration::from_millis(millis), now: 1002 };
    assert!(!place.store.has_unpacked(&than(1002)).unwrap());
    assert_eq!(place.store.pack(&than(1001)).unwrap().packed.len(), 1);
    let newest = Which::These(vec![all[2].id().clone()]);
    assert_eq!(place.store.pack(&newest).unwrap().packed.len(), 1);
    let forms = all.each_ref().map(|entry| place.memory_of(entry).1);
    assert_eq!(forms, [Some(Form::Packed), Some(Form::Plain), Some(Form::Packed)]);
    place.are_good();
}

#[test]
fn what_is_in_use_is_packed_the_next_time() {
    let place = Place::new();
    let all = place.three();
    let held = all[0].clone().hold().unwrap();
    let packed = place.store.pack(&ALL).unwrap();
    assert_eq!((packed.packed.len(), packed.in_use), (1, vec![all[0].id().clone()]));
    assert_eq!(place.memory_of(&all[0]).1, Some(Form::Plain));
    assert_eq!(place.packs().len(), 1, "that of the other one");
    drop(held);
    assert_eq!(place.store.pack(&ALL).unwrap().packed.len(), 1);
    place.are_good();
}

#[test]
fn one_at_a_time_packs_and_pruning_doesnt_mind() {
    let place = Place::new();
    place.three();
    let lock = Lock::file(&place.store.root().join("packing")).unwrap();
    let _other = Lock::take(lock, How::Alone, Duration::ZERO).unwrap();
    let error = place.store.pack(&ALL).unwrap_err();
    assert!(matches!(error, Error::Packing { .. }), "{error}");
    sentence(&error);
    fs::write(place.store.packs().join("half.pack.new"), "").unwrap();
    place.store.prune(&NO_LIMITS, 0).unwrap();
    assert_eq!((place.packs().len(), place.store.compact_packs().unwrap()), (1, 0), "the other one's");
}

#[test]
fn a_flipped_bit_in_a_pack_is_found_wherever_it_is() {
    let place = Place::new();
    let all = place.three();
    place.store.pack(&ALL).unwrap();
    let path = place.store.packs().join(format!("{}.pack", all[0].id()));
    let good = fs::read(&path).unwrap();
    for at in [0, 100, good.len() / 3, good.len() / 2, good.len() - 90, good.len() - 1] {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[good[at] ^ 4], at as u64).unwrap();
        let damaged = place.store.damaged_packs().unwrap();
        assert_eq!(damaged.len(), 1, "{at}");
        file.write_all_at(&[good[at]], at as u64).unwrap();
    }
    assert!(place.store.damaged_packs().unwrap().is_empty());
    // And what it does to the entries that name it.
    fs::File::options().write(true).open(&path).unwrap().write_all_at(&[good[9000] ^ 1], 9000).unwrap();
    for entry in &all[..2] {
        let report = entry.clone().hold().unwrap().verify(|_, _| {}).unwrap();
        let damaged: Vec<_> = report.files.iter().filter(|(_, checked)| checked.is_damage()).collect();
        assert!(
            matches!(damaged[..], [(name, Checked::Unreadable(_))] if name == "pages-1.img"),
            "{damaged:?}"
        );
    }
    assert!(all[2].clone().hold().unwrap().verify(|_, _| {}).unwrap().is_good());
}

#[test]
fn rot_stays_where_it_is_and_is_told() {
    let place = Place::new();
    let all = place.three();
    let file = fs::File::options().write(true).open(all[1].folder.join("pages-1.img")).unwrap();
    file.write_all_at(&[1, 2, 3], 9000).unwrap();
    let packed = place.store.pack(&ALL).unwrap();
    assert_eq!((packed.packed.len(), &packed.problems[0].0), (1, all[1].id()));
    assert!(packed.problems[0].1.contains("another digest"), "{:?}", packed.problems);
    assert_eq!(place.memory_of(&all[1]).1, Some(Form::Plain));
    assert_eq!(place.packs().len(), 1);
}

#[test]
fn packs_go_with_the_last_entry_that_needs_them() {
    let place = Place::new();
    let all = place.three();
    place.store.pack(&ALL).unwrap();
    assert_eq!(place.packs().len(), 2);
    place.store.remove(all[0].id(), true).unwrap();
    place.store.prune(&NO_LIMITS, 0).unwrap();
    assert_eq!(place.packs().len(), 2, "the other one needs both");
    assert!(place.memory_of(&all[1]).0 == memory(2));
    place.store.remove(all[1].id(), true).unwrap();
    place.store.prune(&NO_LIMITS, 0).unwrap();
    assert!(place.packs().is_empty());
}

#[test]
fn what_only_removed_entries_had_goes_from_packs_that_others_need() {
    let place = Place::new();
    let big = place.taken("c", 1);
    let draft = place.store.begin(&Wish::default(), &NO_LIMITS).unwrap();
    fs::write(draft.folder().join(images::INVENTORY_FILE), INVENTORY).unwrap();
    fs::write(draft.folder().join("pages-1.img"), &memory(1)[..20 * PAGE]).unwrap();
    let about = Description { container: "c".into(), pinned: true, taken_at: 2, ..Description::default() };
    let small = draft.commit(about, Durable::Now).unwrap().clone();
    place.taken("c", 3);
    place.store.pack(&ALL).unwrap();
    place.store.remove(big.id(), true).unwrap();
    let before = place.bytes_of_packs();
    let held = small.clone().hold().unwrap();
    assert_eq!(place.store.compact_packs().unwrap(), 0, "it is in use");
    drop(held);
    assert!(place.store.compact_packs().unwrap() > before / 2);
    assert!(place.memory_of(&small).0 == memory(1)[..20 * PAGE]);
    place.are_good();
}

/// What a recipe names that can't be read, nobody knows.
#[test]
fn nothing_goes_from_the_packs_as_long_as_a_recipe_cant_be_read() {
    let place = Place::new();
    let all = place.three();
    place.store.pack(&ALL).unwrap();
    let recipe = all[0].folder.join("pages-1.img.recipe");
    let good = fs::read(&recipe).unwrap();
    fs::write(&recipe, &good[..good.len() - 1]).unwrap();
    place.store.remove(all[1].id(), true).unwrap();
    place.store.prune(&NO_LIMITS, 0).unwrap();
    assert_eq!(place.packs().len(), 2);
    sentence(&place.store.compact_packs().unwrap_err());
    fs::write(&recipe, good).unwrap();
    place.store.prune(&NO_LIMITS, 0).unwrap();
    assert_eq!(place.packs().len(), 1);
    assert!(place.memory_of(&all[0]).0 == memory(1));
}

/// An entry that shares all it has frees next to nothing by itself.
#[test]
fn limits_count_what_entries_have_of_the_packs() {
    let place = Place::new();
    for number in 1..=6 {
        let entry = place.taken("c", number);
        place.store.set_pinned(entry.id(), false).unwrap();
        place.store.set_name(entry.id(), Some(&format!("n{number}"))).unwrap();
    }
    place.store.pack(&ALL).unwrap();
    let most = place.store.used().unwrap() - 1;
    let limits = Limits { max_bytes: Some(most), expire_named: true, ..NO_LIMITS };
    let pruned = place.store.prune(&limits, 0).unwrap();
    let removed: Vec<_> =
        pruned.removed.iter().map(|gone| (gone.entry.record.name.clone(), gone.why)).collect();
    assert_eq!(removed, [(Some("n1".to_owned()), Why::TooMuchData)]);
}

#[test]
fn an_entry_shares_with_the_one_before_where_the_file_system_can() {
    let place = Place::new();
    let (all, other) = (place.three(), place.taken("other", 4));
    match (place.store.can_share(), place.store.share(all[2].id())) {
        (true, shared) => {
            assert_eq!(shared.unwrap(), ((PAGES - 8) * PAGE) as u64, "from the page on that differs")
        }
        (false, shared) => drop(sentence(&shared.unwrap_err())),
    }
    assert_eq!(place.store.share(other.id()).unwrap(), 0, "there is nothing before it");
    assert_eq!(place.store.share(&Id::random().unwrap()).unwrap(), 0, "it is gone");
    place.are_good();
    assert_eq!(place.names("new").len(), 0);
}

#[test]
fn packing_beside_everything_else_changes_nothing_that_is_kept() {
    let place = Place::new();
    let store = &place.store;
    let is_over = AtomicBool::new(false);
    let until_over = |work: &dyn Fn()| {
        while !is_over.load(Ordering::SeqCst) {
            work();
        }
    };
    let pack = || match store.pack(&ALL) {
        Ok(packed) => assert!(packed.problems.is_empty(), "{:?}", packed.problems),
        Err(Error::Packing { .. }) => {}
        Err(error) => panic!("{error}"),
    };
    let prune = || match store.prune(&NO_LIMITS, 0) {
        Ok(_) | Err(Error::Pruning { .. }) => drop(store.compact_packs().unwrap()),
        Err(error) => panic!("{error}"),
    };
    thread::scope(|scope| {
        scope.spawn(|| until_over(&pack));
        scope.spawn(|| until_over(&prune));
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 1..=8 {
                let entry = place.taken("c", number);
                assert!(entry.clone().hold().unwrap().verify(|_, _| {}).unwrap().is_good());
                if number % 2 == 0 {
                    // Held for a moment by whoever packs.
                    while let Err(error) = store.remove(entry.id(), true) {
                        assert!(matches!(error, Error::InUse { .. }), "{error}");
                    }
                }
            }
        }));
        is_over.store(true, Ordering::SeqCst);
        worked.unwrap();
    });
    store.pack(&ALL).unwrap();
    place.are_good();
    let (good, _) = store.entries().unwrap();
    assert_eq!(good.len(), 4);
    for (entry, number) in good.iter().zip([1, 3, 5, 7]) {
        assert!(place.memory_of(entry).0 == memory(number));
    }
}

//! Many users at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;

#[test]
fn claims_that_are_added_at_once_are_all_there() {
    let place = Place::new();
    let entry = place.entry(None);
    thread::scope(|scope| {
        for user in 0..4 {
            let (store, id) = (&place.store, entry.id());
            scope.spawn(move || {
                for number in 0..10 {
                    store.add_claim(id, Claim::Later(format!("{user}-{number}").into())).unwrap();
                    store.set_pinned(id, number % 2 == 0).unwrap();
                }
            });
        }
    });
    assert_eq!(place.store.find(entry.id().as_str()).unwrap().record.claims.len(), 40);
}

#[test]
fn a_name_goes_to_one_of_those_who_want_it() {
    let place = Place::new();
    let entries: Vec<_> = (0..6).map(|_| place.entry(None)).collect();
    let given: usize = thread::scope(|scope| {
        let ask = |entry: &Entry| place.store.set_name(entry.id(), Some("one")).is_ok();
        let asked: Vec<_> = entries.iter().map(|entry| scope.spawn(move || ask(entry))).collect();
        asked.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    });
    assert_eq!(given, 1);
    let wish = Wish { name: Some("two"), bytes: 0, claim: None, of_living: false };
    let begin = || place.store.begin(&wish, &NO_LIMITS).ok();
    let drafts: Vec<_> = thread::scope(|scope| {
        let begun: Vec<_> = (0..6).map(|_| scope.spawn(begin)).collect();
        begun.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(drafts.len(), 1);
}

#[test]
fn what_is_held_stays_and_what_was_removed_can_not_be_held() {
    let place = Place::new();
    let entry = place.entry(None);
    let (one, two) = (entry.clone().hold().unwrap(), entry.clone().hold().unwrap());
    assert!(matches!(entry.clone().hold_alone(), Err(Error::InUse { .. })));
    drop(one);
    assert!(matches!(place.store.remove(entry.id(), true), Err(Error::InUse { .. })));
    let pruned = place.store.prune(&NO_LIMITS, 0).unwrap();
    assert_eq!((pruned.in_use.as_slice(), pruned.removed.len()), ([entry.id().clone()].as_slice(), 0));
    // Names and pins can change meanwhile.
    place.store.set_pinned(entry.id(), true).unwrap();
    drop(two);
    drop(entry.clone().hold_alone().unwrap());
    place.store.remove(entry.id(), true).unwrap();
    assert!(matches!(entry.hold(), Err(Error::Unknown(_))));
}

/// An entry is nobody's until its client has been told of it: it stays as long as it is held.
#[test]
fn a_new_entry_is_held_from_its_first_moment() {
    let place = Place::new();
    let held = place.draft(None).commit(Description::default(), Durable::Now).unwrap();
    assert_eq!(place.store.prune(&NO_LIMITS, 0).unwrap().removed.len(), 0);
    drop(held);
    assert_eq!(place.store.prune(&NO_LIMITS, 0).unwrap().removed.len(), 1);
}

#[test]
fn pruning_beside_everything_else_takes_nothing_that_is_needed() {
    let place = Place::new();
    let store = &place.store;
    let working = AtomicUsize::new(3);
    let work = || {
        for _ in 0..3 {
            let pinned = place.described(None, Description { pinned: true, ..Description::default() });
            let held = place.draft(None).commit(Description::default(), Durable::Now).unwrap();
            assert!(held.verify(|_, _| {}).unwrap().is_good());
            assert!(pinned.hold().unwrap().verify(|_, _| {}).unwrap().is_good());
        }
    };
    let prune = || match store.prune(&NO_LIMITS, 0) {
        Ok(_) | Err(Error::Pruning { .. }) => {}
        Err(error) => panic!("{error}"),
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                working.fetch_sub(1, Ordering::SeqCst);
                worked.unwrap();
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while working.load(Ordering::SeqCst) > 0 {
                    prune();
                }
            });
        }
    });
    store.prune(&NO_LIMITS, 0).unwrap();
    let (good, damaged) = store.entries().unwrap();
    assert_eq!((good.len(), damaged.len()), (9, 0));
    assert!(good.iter().all(|entry| entry.record.pinned));
    assert_eq!((place.names("new").len(), place.names("rubbish").len()), (0, 0));
}

#[test]
fn two_do_not_prune_at_once() {
    let place = Place::new();
    let lock = Lock::file(&place.store.root().join("pruning")).unwrap();
    let _other = Lock::take(lock, How::Alone, Duration::ZERO).unwrap();
    let error = place.store.prune(&NO_LIMITS, 0).unwrap_err();
    assert!(matches!(error, Error::Pruning { .. }), "{error}");
    sentence(&error);
}

//! What is removed, by whom, and what never is.

use super::*;
use crate::store::retention::Why;

fn claimed(place: &Place, name: &str) -> (Entry, PathBuf) {
    let folder = place.docker(name);
    let claims = vec![Claim::docker(&folder).unwrap()];
    let entry = place.described(None, Description { claims, ..Description::default() });
    let manifest = serde_json::json!({"version": 1, "store": {"entry": entry.id()}});
    fs::write(folder.join("cryo.json"), manifest.to_string()).unwrap();
    (entry, folder)
}

#[test]
fn an_entry_goes_with_the_last_checkpoint_of_dockers_that_names_it() {
    let place = Place::new();
    let (entry, folder) = claimed(&place, "one");
    let copy = folder.with_file_name("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(folder.join("cryo.json"), copy.join("cryo.json")).unwrap();
    fs::remove_dir_all(folder).unwrap();
    assert_eq!(place.store.prune(&NO_LIMITS, 0).unwrap().removed.len(), 0);
    assert!(matches!(place.store.remove(entry.id(), false), Err(Error::Claimed { .. })));
    fs::remove_dir_all(copy).unwrap();
    let pruned = place.store.prune(&NO_LIMITS, 0).unwrap();
    assert_eq!(pruned.removed.len(), 1);
    assert_eq!(pruned.removed[0].why, Why::NobodyNamesIt);
    assert!(pruned.freed >= 300_000, "{}", pruned.freed);
}

#[test]
fn an_entry_stays_for_a_copy_that_containers_may_be_restored_from() {
    let place = Place::new();
    let (entry, folder) = claimed(&place, "one");
    let allowed = tempfile::tempdir().unwrap();
    fs::rename(folder.join("cryo.json"), allowed.path().join("cryo.json")).unwrap();
    fs::remove_dir_all(folder).unwrap();
    let store = place.store.clone().with_copies_in(&[allowed.path().to_owned()]);
    assert_eq!(store.prune(&NO_LIMITS, 0).unwrap().removed.len(), 0);
    assert!(matches!(store.remove(entry.id(), false), Err(Error::Claimed { .. })));
    drop(allowed);
    assert_eq!(store.prune(&NO_LIMITS, 0).unwrap().removed.len(), 1);
}

#[test]
fn what_nobody_can_tell_stays_and_is_told() {
    let place = Place::new();
    let (entry, _) = claimed(&place, "one");
    fs::remove_dir_all(place.folder.path().join("docker")).unwrap();
    let pruned = place.store.prune(&NO_LIMITS, 0).unwrap();
    assert_eq!(pruned.removed.len(), 0);
    assert_eq!(pruned.unclear[0].0, *entry.id());
    assert!(pruned.unclear[0].1.contains("may have been moved"), "{:?}", pruned.unclear);
    place.store.remove(entry.id(), true).unwrap();
}

#[test]
fn names_and_pins_protect() {
    let place = Place::new();
    let named = place.entry(Some("one"));
    let pinned = place.described(None, Description { pinned: true, ..Description::default() });
    assert_eq!(place.store.prune(&NO_LIMITS, 0).unwrap().removed.len(), 0);
    let error = place.store.remove(pinned.id(), false).unwrap_err();
    assert!(matches!(error, Error::Pinned(_)), "{error}");
    place.store.set_name(named.id(), None).unwrap();
    place.store.set_pinned(pinned.id(), false).unwrap();
    assert_eq!(place.store.prune(&NO_LIMITS, 0).unwrap().removed.len(), 2);
}

#[test]
fn the_limits_of_the_nodes_owner_are_kept() {
    let place = Place::new();
    for (name, taken_at) in [("old", 1_000), ("new", 9_000)] {
        place.described(Some(name), Description { taken_at, ..Description::default() });
    }
    let limits = Limits { max_age: Some(Duration::from_secs(5)), expire_named: true, ..NO_LIMITS };
    let pruned = place.store.prune(&limits, 10_000).unwrap();
    assert_eq!(pruned.removed.len(), 1);
    assert_eq!(pruned.removed[0].entry.record.name.as_deref(), Some("old"));
    assert!(place.store.find("new").is_ok());
}

/// Between the decision and the removal somebody may come to need it.
#[test]
fn an_entry_that_was_changed_meanwhile_stays() {
    let place = Place::new();
    let entry = place.entry(None);
    place.store.set_pinned(entry.id(), true).unwrap();
    assert!(!place.store.remove_unchanged(&entry).unwrap());
    assert_eq!(place.ids(), [entry.id().clone()]);
}

#[test]
fn damaged_entries_are_told_and_stay_until_somebody_removes_them() {
    let place = Place::new();
    for damage in ["", "{", r#"{"version":2}"#] {
        let entry = place.entry(None);
        fs::write(entry.folder.join("entry.json"), damage).unwrap();
        let (good, damaged) = place.store.entries().unwrap();
        assert_eq!((good.len(), damaged.len()), (0, 1), "{damage}");
        assert!(damaged[0].bytes >= 300_000);
        assert_eq!(place.store.prune(&NO_LIMITS, 0).unwrap().damaged.len(), 1, "{damage}");
        let error = place.store.remove(entry.id(), false).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        sentence(&error);
        assert!(matches!(place.store.set_pinned(entry.id(), true), Err(Error::Damaged { .. })));
        place.store.remove(entry.id(), true).unwrap();
    }
    assert!(matches!(place.store.remove(&Id::random().unwrap(), true), Err(Error::Unknown(_))));
}

/// What lies in the store and isn't its own is nobody's to remove.
#[test]
fn what_is_not_an_entry_is_left_alone() {
    let place = Place::new();
    let strange = place.store.root().join("entries/lost+found");
    fs::create_dir(&strange).unwrap();
    place.store.prune(&NO_LIMITS, 0).unwrap();
    assert!(strange.exists());
    assert_eq!(place.ids().len(), 0);
}

#[test]
fn what_its_client_forgets_at_once_stays_pinned() {
    for is_forgotten in [true, false] {
        let place = Place::new();
        let folder = place.docker("one");
        let claim = Claim::docker(&folder).unwrap();
        let claims = vec![claim.clone()];
        let entry = place.described(None, Description { pinned: true, claims, ..Description::default() });
        if is_forgotten {
            fs::remove_dir(&folder).unwrap();
        } else {
            let manifest = serde_json::json!({"version": 1, "store": {"entry": entry.id().as_str()}});
            fs::write(folder.join("cryo.json"), manifest.to_string()).unwrap();
        }
        place.store.clone().prune_beside(NO_LIMITS, Some((entry.id().clone(), claim)), |_| {});
        await_pruning();
        assert_eq!(place.store.find(entry.id().as_str()).unwrap().record.pinned, is_forgotten);
    }
}

#[test]
fn what_may_be_the_last_of_a_container_outlasts_its_draft() {
    for (is_discarded, kept) in [(false, 1), (true, 0)] {
        let place = Place::new();
        let claim = Claim::docker(&place.docker("one")).unwrap();
        let wish = Wish { name: None, bytes: 0, claim: Some(&claim), of_living: true };
        let draft = place.store.begin(&wish, &NO_LIMITS).unwrap();
        write_image(draft.folder());
        write_manifest(draft.folder(), false);
        if is_discarded {
            draft.discard()
        } else {
            drop(draft)
        }
        assert_eq!(place.store.prune(&NO_LIMITS, 0).unwrap().saved.len(), kept);
        assert_eq!((place.ids().len(), place.names("new").len()), (kept, 0));
    }
}

//! Stores in folders of their own: opening, making and finding.

mod company;
mod death;
mod packing;
mod pruning;
mod verifying;

use super::claims::Claim;
use super::retention::Limits;
use super::*;
use crate::checkpoint::image::Staging;
use crate::criu::images;

const INVENTORY: [u8; 8] = [0x16, 0x31, 0x31, 0x58, 0, 0, 0, 0];
const NO_LIMITS: Limits =
    Limits { max_bytes: None, max_count: None, max_per_container: None, max_age: None, expire_named: false };

/// Seals what is there as an image.
fn write_manifest(folder: &Path, left_running: bool) {
    let manifest = serde_json::json!({
        "version": 1, "sealed": true, "container": "c", "namespace": "n", "taken_at": 0,
        "left_running": left_running, "runtime": {"name": "runc", "version": ""}, "criu": null,
        "kernel": "", "architecture": "", "options": {}, "terminal": false,
        "stdio": {"stdin": "", "stdout": "", "stderr": "", "pipes": []}, "network": "private",
        "own_users": false, "cgroup": "", "mounts": [], "spec_digest": "", "files": {}, "took": 0,
    });
    fs::write(folder.join("cryo.json"), manifest.to_string()).unwrap();
}

/// A store, and room for others' folders beside it.
struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Place { folder, store }
    }

    /// A folder that dockerd has made for a checkpoint.
    fn docker(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join("docker/containers/c/checkpoints").join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn draft(&self, name: Option<&str>) -> Draft {
        let draft =
            self.store.begin(&Wish { name, bytes: 0, claim: None, of_living: false }, &NO_LIMITS).unwrap();
        write_image(draft.folder());
        draft
    }

    fn entry(&self, name: Option<&str>) -> Entry {
        self.described(name, Description::default())
    }

    fn described(&self, name: Option<&str>, about: Description) -> Entry {
        let held = self.draft(name).commit(about, Durable::Now).unwrap();
        held.clone()
    }

    fn ids(&self) -> Vec<Id> {
        self.store.entries().unwrap().0.into_iter().map(|entry| entry.record.id).collect()
    }

    /// Names in a folder of the store.
    fn names(&self, folder: &str) -> Vec<String> {
        disk::names(&self.store.root().join(folder)).unwrap()
    }
}

fn write_image(folder: &Path) {
    fs::write(folder.join(images::INVENTORY_FILE), INVENTORY).unwrap();
    fs::write(folder.join("pages-1.img"), vec![7; 300_000]).unwrap();
}

fn sentence(error: &Error) -> String {
    let text = error.to_string();
    assert!(text.chars().count() <= 300 && !text.ends_with('.') && !text.contains('\n'), "{text}");
    text
}

#[test]
fn a_store_is_its_owners_alone() {
    let place = Place::new();
    place.entry(Some("one"));
    let mut folders = vec![place.store.root().to_owned()];
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700, "{}", folder.display());
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                assert_eq!(metadata.mode() & 0o777, 0o600, "{}", entry.path().display());
            }
        }
    }
}

#[test]
fn a_store_that_others_can_look_into_is_closed_and_one_that_they_can_change_is_refused() {
    let place = Place::new();
    let root = place.store.root();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    Store::open(root).unwrap();
    assert_eq!(fs::metadata(root).unwrap().mode() & 0o777, 0o700);
    fs::set_permissions(root, fs::Permissions::from_mode(0o770)).unwrap();
    let error = Store::open(root).unwrap_err();
    assert!(matches!(error, Error::Open(_)), "{error}");
}

#[test]
fn a_store_that_is_gone_is_not_made_anew() {
    let place = Place::new();
    let root = place.folder.path().join("store");
    Store::open_again(&root).unwrap();
    fs::remove_dir_all(&root).unwrap();
    assert!(Store::open_again(&root).is_err());
    assert!(!root.exists());
    // What is left where it was mounted.
    fs::create_dir(&root).unwrap();
    assert!(Store::open_again(&root).is_err());
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

#[test]
fn a_store_of_somebody_else_is_refused() {
    let place = Place::new();
    // Only root can give it away.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(place.store.root(), Some(1), None).unwrap();
        assert!(matches!(Store::open(place.store.root()), Err(Error::Open(_))));
    }
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let mine = folder.path().join("new/0123456789abcdef");
    fs::create_dir_all(&mine).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Foreign(_)), "{error}");
    assert!(mine.exists() && disk::names(folder.path()).unwrap() == ["new"]);
}

#[test]
fn a_store_of_a_later_version_is_refused_by_its_number() {
    let place = Place::new();
    fs::write(place.store.root().join(VERSION_FILE), "2\n").unwrap();
    let error = Store::open(place.store.root()).unwrap_err();
    assert!(sentence(&error).contains("version 2"), "{error}");
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for path in ["relative", "/var/../etc"] {
        assert!(matches!(Store::open(Path::new(path)), Err(Error::Path(_))), "{path}");
    }
}

#[test]
fn what_the_disk_says_is_a_sentence() {
    let at = |kind: io::ErrorKind| sentence(&Error::at(Path::new("/store"))(kind.into()));
    assert!(at(io::ErrorKind::ReadOnlyFilesystem).contains("read-only"));
    assert!(at(io::ErrorKind::StorageFull).contains("full"));
    assert!(at(io::ErrorKind::PermissionDenied).contains("/store"));
    sentence(&Store::open(Path::new("/proc/no/such/place")).unwrap_err());
}

#[test]
fn an_entry_has_every_file_with_its_digest() {
    let place = Place::new();
    let draft = place.draft(None);
    let digests = [("pages-1.img".to_owned(), "blake3:known".to_owned())].into();
    let held = draft
        .commit(Description { container: "c".into(), digests, ..Description::default() }, Durable::Now)
        .unwrap();
    let names: Vec<_> = held.record.files.keys().collect();
    assert_eq!(names, [images::INVENTORY_FILE, "pages-1.img"]);
    assert_eq!(held.record.files["pages-1.img"].digest, "blake3:known");
    let inventory = format!("blake3:{}", blake3::hash(&INVENTORY));
    assert_eq!(held.record.files[images::INVENTORY_FILE].digest, inventory);
    let read = place.store.find(held.id().as_str()).unwrap();
    assert_eq!(read.record, held.record);
    assert!(read.bytes >= 300_000, "{}", read.bytes);
    drop(draft);
    assert_eq!(place.names("new").len(), 0);
}

#[test]
fn an_image_can_be_staged_in_a_draft() {
    let place = Place::new();
    let draft = place.store.begin(&Wish::default(), &NO_LIMITS).unwrap();
    let staging = Staging::begin(draft.folder()).unwrap();
    assert_eq!(staging.folder(), draft.folder());
    write_image(staging.folder());
    staging.publish().unwrap();
    draft.commit(Description::default(), Durable::Now).unwrap();
}

#[test]
fn a_dropped_draft_leaves_nothing() {
    let place = Place::new();
    drop(place.draft(Some("one")));
    assert_eq!(place.names("new").len(), 0);
    assert_eq!(place.ids().len(), 0);
    place.entry(Some("one"));
}

#[test]
fn what_is_no_complete_image_becomes_no_entry() {
    type Damage = fn(&Path);
    let damages: [(Damage, &str); 6] = [
        (|folder| fs::remove_file(folder.join(images::INVENTORY_FILE)).unwrap(), "inventory"),
        (|folder| fs::write(folder.join("cryo.json"), r#"{"version":1}"#).unwrap(), "cryo.json"),
        (|folder| fs::write(folder.join("cryo.json"), r#"{"version":9}"#).unwrap(), "version 9"),
        (|folder| std::os::unix::fs::symlink("/etc/passwd", folder.join("core-1.img")).unwrap(), "a link"),
        (|folder| fs::create_dir(folder.join("parent")).unwrap(), "no plain file"),
        (|folder| fs::hard_link(folder.join("pages-1.img"), folder.join("x")).unwrap(), "another name"),
    ];
    for (damage, problem) in damages {
        let place = Place::new();
        let draft = place.draft(None);
        damage(draft.folder());
        let error = draft.commit(Description::default(), Durable::Now).unwrap_err();
        assert!(sentence(&error).contains(problem), "{error}");
        assert!(draft.folder().exists(), "what can't be kept here may be kept elsewhere");
        drop(draft);
        assert_eq!((place.ids().len(), place.names("new").len()), (0, 0), "{problem}");
    }
}

#[test]
fn entries_are_found_by_name_id_and_the_ids_beginning() {
    let place = Place::new();
    let (one, two) = (place.entry(Some("one")), place.entry(None));
    let found = |text: &str| place.store.find(text).map(|entry| entry.record.id);
    assert_eq!(found("one").unwrap(), *one.id());
    assert_eq!(found(two.id().as_str()).unwrap(), *two.id());
    assert_eq!(found(&two.id().as_str()[..8]).unwrap(), *two.id());
    assert!(matches!(found("no-such"), Err(Error::Unknown(_))));
    assert!(matches!(found(&"f".repeat(400)), Err(Error::Unknown(_))));
    sentence(&found(&"x".repeat(4000)).unwrap_err());
    assert!(matches!(found("abc"), Err(Error::Short(_))));
}

#[test]
fn an_ambiguous_beginning_names_the_candidates() {
    let place = Place::new();
    for end in 0..20 {
        fs::create_dir(place.store.root().join(format!("entries/abcdef01234567{end:02}"))).unwrap();
    }
    let error = place.store.find("abcd").unwrap_err();
    let text = sentence(&error);
    assert!(text.contains("abcdef0123456700, abcdef0123456701") && text.contains('…'), "{text}");
    let error = place.store.find("abcdef0123456719").unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn names_are_plain_and_unique() {
    let place = Place::new();
    let (one, two) = (place.entry(Some("one")), place.entry(None));
    for name in ["", ".hidden", "-x", "a/b", "a b", "ä", "0123456789abcdef", &"x".repeat(129)] {
        let error = place.store.set_name(two.id(), Some(name)).unwrap_err();
        assert!(matches!(error, Error::Name(_)), "{name}");
        sentence(&error);
    }
    let error = place.store.set_name(two.id(), Some("one")).unwrap_err();
    assert!(sentence(&error).contains(one.id().as_str()), "{error}");
    place.store.set_name(one.id(), Some("one")).unwrap();
    let draft = place.draft(Some("three"));
    assert!(matches!(place.store.set_name(two.id(), Some("three")), Err(Error::NameTaken { .. })));
    drop(draft);
    place.store.set_name(two.id(), Some(&"x".repeat(128))).unwrap();
    place.store.set_name(one.id(), None).unwrap();
    place.store.set_name(two.id(), Some("one")).unwrap();
    assert_eq!(place.store.find("one").unwrap().id(), two.id());
}

#[test]
fn a_quota_counts_what_drafts_will_need() {
    let place = Place::new();
    let limits = Limits { max_bytes: Some(50 << 20), ..NO_LIMITS };
    let wish = |bytes| Wish { name: None, bytes, claim: None, of_living: false };
    let first = place.store.begin(&wish(30 << 20), &limits).unwrap();
    let error = place.store.begin(&wish(30 << 20), &limits).unwrap_err();
    assert!(matches!(error, Error::Quota { .. }), "{error}");
    let text = sentence(&error);
    assert!(text.contains("may hold 50.0 MiB") && text.contains("30.0 MiB more"), "{text}");
    drop(first);
    place.store.begin(&wish(30 << 20), &limits).unwrap();
}

#[test]
fn a_quota_lets_go_what_nobody_names_and_names_what_stays() {
    let place = Place::new();
    let unnamed = place.entry(None);
    let used = place.store.used().unwrap();
    let limits = Limits { max_bytes: Some(used + 100_000), ..NO_LIMITS };
    let wish = Wish { name: None, bytes: 200_000, claim: None, of_living: false };
    drop(place.store.begin(&wish, &limits).unwrap());
    assert!(!place.ids().contains(unnamed.id()));
    let named = place.entry(Some("one"));
    let error = place.store.begin(&wish, &limits).unwrap_err();
    assert!(sentence(&error).contains(named.id().as_str()), "{error}");
}

#[test]
fn a_path_can_ask_for_a_name() {
    let root = Path::new("/store");
    assert_eq!(Store::wanted(root, &Store::wish(root, "one")).as_deref(), Some("one"));
    assert_eq!(Store::wanted(root, Path::new("/store/by-name/a/b")).as_deref(), Some("a/b"));
    for path in ["/store/by-name", "/store/by-name/", "/store/entries/one", "/by-name/one"] {
        assert_eq!(Store::wanted(root, Path::new(path)), None, "{path}");
    }
}

#[test]
fn how_far_a_draft_is_can_be_seen_by_its_name() {
    let place = Place::new();
    let wish = Wish { name: Some("one"), bytes: 1 << 20, ..Wish::default() };
    let draft = place.store.begin(&wish, &NO_LIMITS).unwrap();
    fs::write(draft.folder().join("pages-1.img"), [1; 1000]).unwrap();
    assert_eq!(place.store.progress("one"), Some(Progress { written: 1000, needed: 1 << 20 }));
    assert_eq!(place.store.progress("two"), None);
    drop(draft);
    assert_eq!(place.store.progress("one"), None);
}

#[test]
fn what_is_above_a_store_is_for_others_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lib/cryo/store");
    Store::open(&root).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&root), mode(root.parent().unwrap()) & 0o055), (0o700, 0o055));
}

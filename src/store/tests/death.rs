//! Whoever is killed leaves the old state or the new one.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;
use crate::reaper;

/// What the other process does, and where.
const ROLE: &str = "CRYO_STORE_ROLE";
const ROOT: &str = "CRYO_STORE_ROOT";

/// This test program again, as a process that can be killed. It says a line after each step.
struct Other {
    _undisturbed: reaper::Window,
    process: Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

impl Other {
    fn start(place: &Place, role: &str) -> Other {
        Other::start_by(Command::new(std::env::current_exe().unwrap()), place, role)
    }

    fn start_by(mut command: Command, place: &Place, role: &str) -> Other {
        command.args(["--exact", "--ignored", "--nocapture", "store::tests::death::the_other_process"]);
        command.env(ROLE, role).env(ROOT, place.store.root());
        let undisturbed = reaper::undisturbed();
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Other { _undisturbed: undisturbed, process, lines }
    }

    fn wait_for(&mut self, line: &str) {
        assert!(self.lines.by_ref().any(|said| said.unwrap().ends_with(line)), "it never said {line}");
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
#[ignore = "started by others as a process of its own"]
fn the_other_process() {
    let (Ok(role), Ok(root)) = (std::env::var(ROLE), std::env::var(ROOT)) else { return };
    let store = Store::open(Path::new(&root)).unwrap();
    let say = |line: &str| println!("\n{line}");
    let begin = || {
        let draft =
            store.begin(&Wish { name: None, bytes: 0, claim: None, of_living: false }, &NO_LIMITS).unwrap();
        write_image(draft.folder());
        draft
    };
    match role.as_str() {
        "draft" => {
            let _draft = begin();
            say("ready");
            let _ = io::stdin().read_line(&mut String::new());
        }
        "complete" | "complete copy" | "complete with a name" => {
            let (claim, is_named) = (Claim::Later("somebody".into()), role.ends_with("name"));
            let wish = match is_named {
                true => Wish { name: Some("one"), of_living: true, ..Wish::default() },
                false => Wish { claim: Some(&claim), of_living: true, ..Wish::default() },
            };
            let draft = store.begin(&wish, &NO_LIMITS).unwrap();
            write_image(draft.folder());
            write_manifest(draft.folder(), role == "complete copy");
            say("ready");
            let _ = io::stdin().read_line(&mut String::new());
        }
        "hold" => {
            let _held =
                begin().commit(Description { pinned: true, ..Description::default() }, Durable::Now).unwrap();
            say("ready");
            let _ = io::stdin().read_line(&mut String::new());
        }
        "lock" => {
            let _lock = store.lock().unwrap();
            say("ready");
            let _ = io::stdin().read_line(&mut String::new());
        }
        "full" => {
            let draft = store.begin(&Wish::default(), &NO_LIMITS).unwrap();
            fs::write(draft.folder().join(images::INVENTORY_FILE), INVENTORY).unwrap();
            sentence(&draft.commit(Description::default(), Durable::Now).unwrap_err());
            let (good, _) = store.entries().unwrap();
            sentence(&store.set_pinned(good[0].id(), true).unwrap_err());
            say("refused");
        }
        "claims" => {
            for number in 0..20 {
                let (good, _) = store.entries().unwrap();
                let claim = Claim::Later(format!("{}-{number}", std::process::id()).into());
                store.add_claim(good[0].id(), claim).unwrap();
            }
        }
        "packing" => packing::keep_packing(&store, say),
        _ => loop {
            let id = begin()
                .commit(Description { pinned: true, ..Description::default() }, Durable::Now)
                .unwrap()
                .id()
                .clone();
            say("made");
            store.set_name(&id, Some(&format!("n{id}"))).unwrap();
            say("named");
            store.remove(&id, true).unwrap();
            say("removed");
        },
    }
}

#[test]
fn what_may_be_all_that_is_left_of_a_container_is_kept() {
    for (role, kept) in [("complete", 1), ("complete copy", 0)] {
        let place = Place::new();
        let mut other = Other::start(&place, role);
        other.wait_for("ready");
        assert_eq!(place.store.prune(&NO_LIMITS, 0).unwrap().saved.len(), 0);
        other.kill();
        let pruned = place.store.prune(&NO_LIMITS, 0).unwrap();
        assert_eq!((pruned.saved.len(), pruned.drafts), (kept, 1 - kept), "{role}");
        assert_eq!(place.names("new").len(), 0);
        let (good, _) = place.store.entries().unwrap();
        assert_eq!(good.iter().map(Entry::id).collect::<Vec<_>>(), pruned.saved.iter().collect::<Vec<_>>());
        assert!(good.iter().all(|entry| entry.record.pinned && entry.record.container == "c"));
    }
}

#[test]
fn what_was_to_have_a_name_gets_it_unless_somebody_else_has_it_now() {
    for taken in [false, true] {
        let place = Place::new();
        let mut other = Other::start(&place, "complete with a name");
        other.wait_for("ready");
        let refused = place.store.begin(&Wish { name: Some("one"), ..Wish::default() }, &NO_LIMITS);
        assert!(matches!(refused, Err(Error::NameTaken { .. })));
        let folder = place.folder.path().join("elsewhere");
        fs::rename(place.store.new_folder(), &folder).unwrap();
        fs::create_dir(place.store.new_folder()).unwrap();
        other.kill();
        // Before anybody has looked at what it has left.
        let named = taken.then(|| place.entry(Some("one")));
        fs::remove_dir(place.store.new_folder()).unwrap();
        fs::rename(&folder, place.store.new_folder()).unwrap();
        let saved = place.store.prune(&NO_LIMITS, 0).unwrap().saved;
        let entry = place.store.find(saved[0].as_str()).unwrap();
        assert_eq!((entry.record.name.is_none(), entry.record.pinned), (taken, taken));
        let one = place.store.find("one").unwrap();
        assert_eq!(one.id(), named.as_ref().map_or(entry.id(), Entry::id));
    }
}

#[test]
fn a_draft_lives_as_long_as_its_process() {
    let place = Place::new();
    let mut other = Other::start(&place, "draft");
    other.wait_for("ready");
    drop(place.draft(None));
    assert_eq!(place.store.prune(&NO_LIMITS, 0).unwrap().drafts, 0);
    assert_eq!(place.names("new").len(), 2, "it and its lock");
    other.kill();
    assert_eq!(place.store.prune(&NO_LIMITS, 0).unwrap().drafts, 1);
    assert_eq!(place.names("new").len(), 0);
}

#[test]
fn an_entry_is_held_as_long_as_its_process_lives() {
    let place = Place::new();
    let mut other = Other::start(&place, "hold");
    other.wait_for("ready");
    let id = place.ids().remove(0);
    let error = place.store.remove(&id, true).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    let process = format!("process {} ", other.process.id());
    assert!(sentence(&error).contains(&process) || error.to_string().contains("another process"), "{error}");
    other.kill();
    place.store.remove(&id, true).unwrap();
}

/// No file may have as many bytes as an `entry.json` has: each write of one ends half-way.
#[test]
fn what_can_not_be_written_leaves_the_old_state() {
    let place = Place::new();
    let entry = place.entry(Some("one"));
    let mut command = Command::new("env");
    command.args(["--ignore-signal=XFSZ", "prlimit", "--fsize=200"]).arg(std::env::current_exe().unwrap());
    let mut other = Other::start_by(command, &place, "full");
    other.wait_for("refused");
    other.lines.by_ref().for_each(drop);
    assert!(other.process.wait().unwrap().success());
    assert_eq!((place.names("new").len(), place.ids()), (0, vec![entry.id().clone()]));
    assert_eq!(place.store.find("one").unwrap().record, entry.record);
}

#[test]
fn a_dead_process_locks_nobody_out() {
    let place = Place::new();
    let mut other = Other::start(&place, "lock");
    other.wait_for("ready");
    other.kill();
    place.entry(None);
}

#[test]
fn processes_that_change_one_entry_lose_nothing() {
    let place = Place::new();
    let entry = place.entry(None);
    let others: Vec<_> = (0..3).map(|_| Other::start(&place, "claims")).collect();
    for mut other in others {
        // To the end of what it says.
        other.lines.by_ref().for_each(drop);
        assert!(other.process.wait().unwrap().success());
    }
    assert_eq!(place.store.find(entry.id().as_str()).unwrap().record.claims.len(), 60);
}

#[test]
fn killed_at_any_time_it_leaves_whole_entries_only() {
    let place = Place::new();
    for round in 0..9 {
        let mut other = Other::start(&place, "busy");
        // It goes on while it is killed: wherever it is then.
        for _ in 0..=round / 3 {
            other.wait_for(["made", "named", "removed"][round % 3]);
        }
        other.kill();
        let store = Store::open(place.store.root()).unwrap();
        store.prune(&NO_LIMITS, 0).unwrap();
        assert_eq!((place.names("new").len(), place.names("rubbish").len()), (0, 0));
        let (good, damaged) = store.entries().unwrap();
        assert_eq!(damaged.len(), 0, "{damaged:?}");
        for entry in good {
            let id = entry.id().clone();
            let held = entry.hold().unwrap();
            assert!(held.verify(|_, _| {}).unwrap().is_good());
            drop(held);
            store.remove(&id, true).unwrap();
        }
    }
}

#[test]
fn killed_while_it_packs_it_leaves_whole_entries_only() {
    let place = Place::new();
    for round in 0..8 {
        let mut other = Other::start(&place, "packing");
        for _ in 0..=round / 2 {
            other.wait_for(["made", "packed"][round % 2]);
        }
        other.kill();
        let store = Store::open(place.store.root()).unwrap();
        store.prune(&NO_LIMITS, 0).unwrap();
        store.pack(&Which::Older { than: Duration::ZERO, now: u64::MAX }).unwrap();
        assert!(store.damaged_packs().unwrap().is_empty());
        let (good, damaged) = store.entries().unwrap();
        assert!(damaged.is_empty() && !good.is_empty());
        for entry in good {
            let (id, held) = (entry.id().clone(), entry.hold().unwrap());
            assert!(held.verify(|_, _| {}).unwrap().is_good());
            drop(held);
            store.remove(&id, true).unwrap();
        }
        store.prune(&NO_LIMITS, 0).unwrap();
        assert_eq!((place.names("new").len(), place.names("packs").len()), (0, 0));
    }
}

#[test]
fn a_store_that_was_never_finished_is_finished() {
    let states: [&[(&str, Option<&str>)]; 8] = [
        &[],
        &[("lost+found", None)],
        &[("lock", Some(""))],
        &[("lock", Some("")), ("version.new", Some(""))],
        &[("lock", Some("")), ("version.new", Some("1\n"))],
        &[("lock", Some("")), ("version", Some("1\n"))],
        &[("version", Some("1\n")), ("entries", None)],
        &[("version", Some("1\n")), ("entries", None), ("new", None), ("rubbish", None)],
    ];
    for state in states {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in state {
            let path = folder.path().join(name);
            match text {
                Some(text) => fs::write(path, text).unwrap(),
                None => fs::create_dir(path).unwrap(),
            }
        }
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.entries().unwrap().0.len(), 0, "{state:?}");
        store.begin(&Wish::default(), &NO_LIMITS).unwrap();
    }
}

/// Every state between two steps of a commit, a change and a removal, made by hand.
#[test]
fn every_state_between_two_steps_heals() {
    type Leave = fn(root: &Path, id: &str);
    let half: Leave = |root, id| {
        fs::write(root.join(format!("new/{id}.lock")), "").unwrap();
        fs::create_dir(root.join("new").join(id)).unwrap();
    };
    let states: [(&str, Leave, bool); 9] = [
        ("a lock", |root, id| fs::write(root.join(format!("new/{id}.lock")), "{\"na").unwrap(), false),
        ("a draft", half, false),
        (
            "an image without entry.json",
            |root, id| fs::rename(root.join("entries").join(id), root.join("new").join(id)).unwrap(),
            false,
        ),
        (
            "half an entry.json",
            |root, id| {
                fs::rename(root.join("entries").join(id), root.join("new").join(id)).unwrap();
                fs::write(root.join("new").join(id).join("entry.json"), "{").unwrap();
            },
            false,
        ),
        (
            "a lock of one that arrived",
            |root, id| fs::write(root.join(format!("new/{id}.lock")), "").unwrap(),
            true,
        ),
        ("half a change", |root, id| fs::write(root.join(format!("new/{id}.json")), "{").unwrap(), true),
        (
            "a removal that began",
            |root, id| fs::rename(root.join("entries").join(id), root.join("rubbish").join(id)).unwrap(),
            false,
        ),
        (
            "half a removal",
            |root, id| {
                fs::rename(root.join("entries").join(id), root.join("rubbish").join(id)).unwrap();
                fs::remove_file(root.join("rubbish").join(id).join("entry.json")).unwrap();
            },
            false,
        ),
        ("nothing", |_, _| {}, true),
    ];
    for (state, leave, stays) in states {
        for heal in [
            |store: &Store| drop(store.begin(&Wish::default(), &NO_LIMITS).unwrap()),
            |store: &Store| {
                drop(store.prune(&NO_LIMITS, 0).unwrap());
            },
        ] {
            let place = Place::new();
            let entry = place.entry(Some("one"));
            let is_new = state == "a lock" || state == "a draft";
            let other = "00000000000000aa";
            leave(place.store.root(), if is_new { other } else { entry.id().as_str() });
            heal(&Store::open(place.store.root()).unwrap());
            assert_eq!((place.names("new").len(), place.names("rubbish").len()), (0, 0), "{state}");
            let found = place.store.find("one");
            assert_eq!(found.is_ok(), stays || is_new, "{state}");
            if let Ok(entry) = found {
                assert!(entry.hold().unwrap().verify(|_, _| {}).unwrap().is_good(), "{state}");
            }
        }
    }
}

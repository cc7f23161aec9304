//! Checkpoints that a client wants in the node's store, under a name.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Mode, unharmed};
use crate::harness::image::{is_complete, names};
use crate::harness::{Code, Container, Gate, Script, Test, World, process, refused, tests, until};

const STORE: &str = "/var/lib/cryo/store";
const METRICS: &str = "/var/lib/cryo/metrics/cryo.prom";

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_name_becomes_an_entry_and_no_folder,
        a_name_is_taken_once,
        what_can_not_be_a_name_is_refused,
        an_older_containerd_may_have_understood_no_path,
        a_store_without_room_refuses_and_the_container_runs_on,
        what_was_stopped_waits_for_the_store,
        an_operation_is_told_in_one_line_and_counted,
        metrics_that_can_not_be_written_hold_up_nobody,
    ];
    for point in ["before", "written", "dumped", "sealed"] {
        tests.push(Test::new(
            format!("checkpoint::a_failure_leaves_nothing_of_a_name::{point}"),
            move |world| fails(world, point),
        ));
    }
    for (point, kept) in [("written", false), ("sealed", true), ("killed", true)] {
        tests.push(Test::new(
            format!("checkpoint::what_a_killed_shim_has_completed_keeps_its_name::{point}"),
            move |world| dies(world, point, kept),
        ));
    }
    tests
}

fn wish(name: &str) -> PathBuf {
    Path::new(STORE).join("by-name").join(name)
}

/// Every entry's folder, with what the store says of it.
fn entries() -> Vec<(PathBuf, Value)> {
    let folder = Path::new(STORE).join("entries");
    let entry = |name: String| {
        let folder = folder.join(name);
        let record = serde_json::from_slice(&fs::read(folder.join("entry.json")).unwrap()).unwrap();
        (folder, record)
    };
    names(&folder).into_iter().map(entry).collect()
}

#[track_caller]
fn entry(name: &str) -> PathBuf {
    let found = entries().into_iter().find(|(_, record)| record["name"] == name);
    found.unwrap_or_else(|| panic!("{name} isn't among {:?}", entries())).0
}

fn a_name_becomes_an_entry_and_no_folder(world: &World) {
    for (number, mode) in Mode::ALL.into_iter().enumerate() {
        let (id, name) = (format!("c{number}"), format!("name-{number}"));
        let container = mode.started(world.container(&id));
        container.checkpoint(&wish(&name), mode.exit).unwrap();
        let folder = entry(&name);
        assert!(is_complete(&folder), "{mode}: {:?}", names(&folder));
        assert!(!Path::new(STORE).join("by-name").exists());
        container.wait_for_event("checkpointed");
        let told = world.containerd.envelopes(&id);
        let told = told.iter().find(|envelope| envelope.topic == "/tasks/checkpointed").unwrap();
        let event = String::from_utf8_lossy(&told.event.value).into_owned();
        assert!(event.contains(folder.to_str().unwrap()), "{event}");
        if mode.exit {
            assert_eq!(container.wait().unwrap(), 137);
            let restored = world.container(&format!("r{number}")).from_checkpoint(&folder);
            let restored = if mode.crun { restored.crun() } else { restored }.started();
            assert_eq!(restored.calls("restore").len(), 1);
        } else {
            unharmed(world, &container, mode.paused);
        }
        container.clean_up();
    }
}

fn a_name_is_taken_once(world: &World) {
    let container = world.container("c1").started();
    container.checkpoint(&wish("one"), false).unwrap();
    let refused_with = |exit| {
        let said =
            refused(container.checkpoint(&wish("one"), exit), Code::ALREADY_EXISTS, &["\"one\" is taken by"]);
        assert!(said.chars().count() <= 300, "{said}");
        unharmed(world, &container, false);
    };
    refused_with(false);
    refused_with(true);
    assert_eq!(entries().len(), 1);
}

fn what_can_not_be_a_name_is_refused(world: &World) {
    let container = world.container("c1").started();
    for name in ["a/b", "..", ".hidden", "a b", "0123456789abcdef", &"x".repeat(200)] {
        let said = refused(container.checkpoint(&wish(name), true), Code::INVALID_ARGUMENT, &["is no name"]);
        assert!(said.chars().count() <= 300, "{said}");
        unharmed(world, &container, false);
    }
    assert_eq!(names(&Path::new(STORE).join("new")), [""; 0]);
}

/// Under some names of ours it makes a folder of its own, and packs that afterwards.
fn an_older_containerd_may_have_understood_no_path(world: &World) {
    let container = world.container("c1").started();
    let temporary = Path::new("/tmp/ctrd-checkpoint123");
    fs::create_dir(temporary).unwrap();
    let mut request = container.checkpoint_request(temporary, false);
    request.options = Some(crate::harness::pack(&cryo_protos::runc::CheckpointOptions {
        image_path: wish("one").display().to_string(),
        ..Default::default()
    }))
    .into();
    container.checkpoint_with(request).unwrap();
    assert!(is_complete(&entry("one")));
    assert_eq!(names(temporary), [""; 0]);
    fs::remove_dir(temporary).unwrap();
}

fn a_store_without_room_refuses_and_the_container_runs_on(world: &World) {
    fs::create_dir_all(STORE).unwrap();
    let store = Path::new(STORE);
    let (container, exits) = (world.container("c1").started(), world.container("c2").started());
    let (mut failures, mut fitted) = (0, 0);
    for pages in 1..80 {
        world.mount_tmpfs(store, &format!("mode=700,size={}k", pages * 4));
        for (container, exit) in [(&container, false), (&exits, true)] {
            let answer = container.checkpoint(&wish("one"), exit);
            fitted += usize::from(answer.is_ok());
            let Err(said) = answer else { break };
            failures += 1;
            let words = ["no space left", "is full", "room"];
            let message = said.message.to_lowercase();
            assert!(words.iter().any(|word| message.contains(word)), "{said}");
            unharmed(world, container, false);
            assert_eq!(names(&store.join("new")), [""; 0], "{said}");
        }
        until("nobody uses the store", || world.try_unmount(store));
        if fitted > 0 {
            break;
        }
    }
    assert!(failures > 10 && fitted == 1, "{failures} {fitted}");
}

/// The store can't be written to any more when the container has been stopped.
fn what_was_stopped_waits_for_the_store(world: &World) {
    let plan = world.container("c1").rule(Script::at("checkpoint", "killed"), json!({"wait": "killed"}));
    let container = plan.started();
    let gate = Gate::new(&container.bundle.path, "killed");
    let checkpoint = container.begin(|container| container.checkpoint(&wish("one"), true));
    gate.wait_until_reached();
    let entries = Path::new(STORE).join("entries");
    fs::remove_dir(&entries).unwrap();
    fs::write(&entries, "in the way").unwrap();
    gate.open();
    let said = checkpoint.answer().unwrap_err().message;
    assert!(said.contains("was stopped") && said.contains("cryo store prune"), "{said}");
    assert!(said.chars().count() <= 300, "{said}");
    assert_eq!(container.wait().unwrap(), 137);
    fs::remove_file(&entries).unwrap();
    fs::create_dir(&entries).unwrap();
    let next = world.container("c2").started();
    next.checkpoint(&wish("two"), false).unwrap();
    assert!(is_complete(&entry("one")));
}

fn fails(world: &World, point: &'static str) {
    for (number, mode) in Mode::ALL.into_iter().enumerate() {
        let container = mode.started(world.container(&format!("c{number}")));
        container.script(|script| script.rule(Script::at("checkpoint", point), json!({"fail": "no"})));
        container.checkpoint(&wish("one"), mode.exit).unwrap_err();
        unharmed(world, &container, mode.paused);
        assert_eq!((entries().len(), names(&Path::new(STORE).join("new"))), (0, Vec::new()), "{mode}");
        container.clean_up();
    }
    let failures =
        format!("cryo_failures_total{{namespace=\"default\",operation=\"checkpoint\"}} {}", Mode::ALL.len());
    until("all are counted", || is_counted(&failures));
}

fn dies(world: &World, point: &'static str, kept: bool) {
    let container = world.container("c1").rule(Script::at("checkpoint", point), "kill-parent").started();
    container.checkpoint(&wish("one"), true).unwrap_err();
    process::wait_for_death(container.shim);
    container.clean_up();
    // Whoever comes next looks after what is left.
    let next = world.container("c2").started();
    next.checkpoint(&wish("two"), false).unwrap();
    let found: Vec<_> = entries().into_iter().map(|(_, record)| record["name"].clone()).collect();
    assert_eq!(found.contains(&"one".into()), kept, "{found:?}");
    assert_eq!(names(&Path::new(STORE).join("new")), [""; 0]);
    if kept {
        assert!(is_complete(&entry("one")));
        world.container("c3").from_checkpoint(entry("one")).started();
    }
}

fn is_counted(line: &str) -> bool {
    fs::read_to_string(METRICS).is_ok_and(|text| text.lines().any(|found| found == line))
}

fn an_operation_is_told_in_one_line_and_counted(world: &World) {
    let pod = [
        ("io.kubernetes.cri.sandbox-name", "web"),
        ("io.kubernetes.cri.sandbox-namespace", "shop"),
        ("io.kubernetes.cri.container-name", "app"),
    ];
    let blueprint = pod.iter().fold(world.container("c1"), |plan, (key, value)| plan.annotation(key, value));
    let container = blueprint.started();
    container.checkpoint(&wish("one"), false).unwrap();
    container
        .script(|script| script.rule(Script::at("checkpoint", "before"), json!({"fail": "not \"today\""})));
    container.checkpoint(&wish("two"), false).unwrap_err();
    let restored = world.container("c2").from_checkpoint(entry("one")).started();
    let told = |container: &Container, operation: &str, result: &str| -> Vec<String> {
        let wanted = [format!("operation={operation}"), format!("result={result}")];
        let log = container.log();
        let lines = log.lines().filter(|line| wanted.iter().all(|word| line.contains(word.as_str())));
        lines.map(str::to_owned).collect()
    };
    until("all is told", || {
        told(&container, "checkpoint", "failed").len() == 1 && told(&restored, "restore", "done").len() == 1
    });
    let done = told(&container, "checkpoint", "done");
    assert_eq!(done.len(), 1);
    let parts = [
        "namespace=default",
        "id=c1",
        "pod=web",
        "pod_namespace=shop",
        "container=app",
        "took_us=",
        "frozen_us=",
        "dump_us=",
        "bytes=",
    ];
    for part in parts {
        assert!(done[0].contains(part), "{part} isn't in {}", done[0]);
    }
    assert!(told(&container, "checkpoint", "failed")[0].contains("not \\\"today\\\""));
    assert!(told(&restored, "restore", "done")[0].contains("restore_us="));
    let namespace = "namespace=\"default\"";
    for line in [
        format!("cryo_checkpoints_total{{{namespace}}} 1"),
        format!("cryo_restores_total{{{namespace}}} 1"),
        format!("cryo_failures_total{{{namespace},operation=\"checkpoint\"}} 1"),
        "cryo_checkpoint_duration_seconds_count 1".to_owned(),
        "cryo_store_entries 1".to_owned(),
    ] {
        until(&line, || is_counted(&line));
    }
}

fn metrics_that_can_not_be_written_hold_up_nobody(world: &World) {
    fs::create_dir_all("/var/lib/cryo").unwrap();
    fs::write("/var/lib/cryo/metrics", "in the way").unwrap();
    let container = world.container("c1").started();
    container.checkpoint(&wish("one"), true).unwrap();
    until("it is told", || container.log().contains("isn't counted in the metrics"));
    assert!(is_complete(&entry("one")));
}

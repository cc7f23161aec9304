//! The runtime, CRIU or the container fails during a checkpoint.

use std::fs;

use serde_json::{Value, json};

use super::{Mode, unharmed};
use crate::harness::image::{is_complete, is_sealed, manifest, names};
use crate::harness::{Code, Container, Script, Test, World, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![a_missing_criu_is_named, a_container_that_dies_during_its_checkpoint_is_stopped,];
    tests.extend(failures());
    tests.extend(late_failures());
    tests
}

/// The runtime, or CRIU in it, fails at each of its steps before anything is stopped.
fn failures() -> Vec<Test> {
    let tcp = "inet: Connected TCP socket, consider using --tcp-established option.";
    let failures: [(&'static str, &'static str, Value, Code, &'static [&'static str]); 13] = [
        ("--version", "before", json!({"exit": 1}), Code::UNKNOWN, &["runc or crun"]),
        ("--version", "before", json!({"die": 9}), Code::UNKNOWN, &["runc or crun"]),
        (
            "checkpoint",
            "before",
            json!({"fail": "no criu today"}),
            Code::UNKNOWN,
            &["checkpoint", "no criu today"],
        ),
        ("checkpoint", "before", json!({"exit": 5}), Code::UNKNOWN, &["checkpoint", "exit status 5"]),
        ("checkpoint", "before", json!({"die": 9}), Code::UNKNOWN, &["checkpoint", "137"]),
        (
            "checkpoint",
            "written",
            json!({"criu-fail": tcp}),
            Code::FAILED_PRECONDITION,
            &["a TCP connection is open", "log: "],
        ),
        ("checkpoint", "written", json!({"die": 15}), Code::UNKNOWN, &["143"]),
        (
            "checkpoint",
            "dumped",
            json!({"criu-fail": "strange"}),
            Code::FAILED_PRECONDITION,
            &["strange", "log: "],
        ),
        ("checkpoint", "dumped", json!({"fail": "no reason"}), Code::UNKNOWN, &["no reason"]),
        ("checkpoint", "dumped", json!({"die": 9}), Code::UNKNOWN, &["137"]),
        (
            "checkpoint",
            "sealed",
            json!({"criu-fail": "network unlock"}),
            Code::FAILED_PRECONDITION,
            &["network unlock"],
        ),
        ("checkpoint", "sealed", json!({"die": 9}), Code::UNKNOWN, &["137"]),
        ("checkpoint", "sealed", json!({"fail": "after all"}), Code::UNKNOWN, &["after all"]),
    ];
    let mut tests = Vec::new();
    for (number, (verb, point, action, code, words)) in failures.into_iter().enumerate() {
        let verb_name = verb.trim_start_matches('-');
        let name = format!("checkpoint::a_failure_leaves_all_as_it_was::{number:02}_{verb_name}_{point}");
        tests.push(Test::new(name, move |world| {
            for (number, mode) in Mode::ALL.into_iter().enumerate() {
                let container = mode.started(world.container(&format!("c{number}")));
                let image = world.path(&format!("image-{number}"));
                let events = container.events().len();
                // What it has said of itself is noted, and it isn't asked again.
                let _ = fs::remove_dir_all("/run/cryo");
                container.script(|script| script.rule(Script::at(verb, point), action.clone()));
                refused(container.checkpoint(&image, mode.exit), code, words);
                unharmed(world, &container, mode.paused);
                assert!(!image.exists(), "{mode}: {:?} is left", names(&image));
                assert!(!container.events()[events..].iter().any(|event| event == "checkpointed"));
                container.script(|_| {});
                container.checkpoint(&image, mode.exit).unwrap();
                assert!(is_complete(&image), "{mode}");
                container.clean_up();
            }
        }));
    }
    tests
}

/// The runtime fails when the container is stopped already: its image isn't lost.
fn late_failures() -> Vec<Test> {
    let mut tests = Vec::new();
    for (point, action) in [
        ("killed", json!({"die": 9})),
        ("killed", json!({"fail": "cannot remove the cgroup"})),
        ("after", json!({"exit": 1})),
        ("after", json!({"die": 6})),
    ] {
        let what = action.as_object().unwrap().keys().next().unwrap();
        let name = format!("checkpoint::a_failure_after_the_stop_loses_nothing::{point}_{what}");
        tests.push(Test::new(name, move |world| {
            for older in [false, true] {
                let id = format!("c-{older}");
                let image = world.path(&format!("image-{older}"));
                let container = world.container(&id).started();
                if older {
                    container.checkpoint(&image, false).unwrap();
                }
                container.script(|script| script.rule(Script::at("checkpoint", point), action.clone()));
                // Said or not, the container is gone and what it was is here.
                let _ = container.checkpoint(&image, true);
                assert_eq!(container.wait().unwrap(), 137);
                container.delete().unwrap();
                let restored = world.container(&format!("r-{older}")).from_checkpoint(&image).created();
                assert_eq!(
                    manifest(&image).unwrap()["left_running"],
                    false,
                    "the last image is in its place"
                );
                assert!(is_complete(&image));
                restored.start().unwrap();
            }
        }));
    }
    tests
}

fn a_missing_criu_is_named(world: &World) {
    let mut bundle = world.container("c1").lay_out();
    bundle.call.environment.push(("PATH", "/nowhere".into()));
    let container = Container::boot(world, bundle);
    container.create().unwrap();
    container.start().unwrap();
    let image = world.path("image");
    refused(container.checkpoint(&image, true), Code::FAILED_PRECONDITION, &["criu", "PATH"]);
    assert!(!image.exists());
    unharmed(world, &container, false);
}

fn a_container_that_dies_during_its_checkpoint_is_stopped(world: &World) {
    for exit in [false, true] {
        let container = world
            .container(&format!("c-{exit}"))
            .rule(Script::at("checkpoint", "written"), json!({"shell": "kill -9 $(cat init.pid)"}))
            .rule(Script::at("checkpoint", "written"), "await-death")
            .rule(Script::at("checkpoint", "written"), json!({"criu-fail": "Task 1 is gone"}))
            .started();
        let image = world.path(&format!("image-{exit}"));
        refused(container.checkpoint(&image, exit), Code::FAILED_PRECONDITION, &["Task 1 is gone"]);
        assert_eq!(container.wait().unwrap(), 137);
        container.expect_events(["create", "start", "exit 137"]);
        assert!(!image.exists() || is_sealed(&image), "{:?} is left", names(&image));
        container.delete().unwrap();
    }
}

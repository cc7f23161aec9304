//! The runtime fails: what was is still there, and can be tried again.

use std::fs;

use cryo_protos::api::Status;

use crate::harness::{Code, Script, Test, World, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_failed_pause_leaves_it_running_and_a_failed_resume_paused,
        a_failed_start_can_be_tried_again,
        a_failed_delete_can_be_tried_again,
        a_container_the_runtime_has_lost_can_be_deleted,
    ];
    tests.extend(failed_creations());
    tests
}

/// `create` fails at each of its steps: nothing is left, and the same id can be used.
fn failed_creations() -> Vec<Test> {
    use serde_json::json;
    let failures = [
        ("before", json!({"fail": "no namespaces today"}), Code::UNKNOWN, "no namespaces today"),
        ("before", json!({"exit": 7}), Code::UNKNOWN, "exit status 7"),
        ("before", json!({"die": 9}), Code::UNKNOWN, "137"),
        ("made", json!({"fail": "rootfs is no directory"}), Code::UNKNOWN, "rootfs is no directory"),
        ("made", json!({"die": 6}), Code::UNKNOWN, "134"),
        ("born", json!({"fail": "hook failed"}), Code::UNKNOWN, "hook failed"),
        ("born", json!({"die": 15}), Code::UNKNOWN, "143"),
        ("born", json!({"pid-file": null}), Code::INTERNAL, "init.pid"),
        ("born", json!({"pid-file": ""}), Code::INTERNAL, "init.pid"),
        ("born", json!({"pid-file": "many"}), Code::INTERNAL, "init.pid"),
        ("born", json!({"pid-file": "0"}), Code::INTERNAL, "init.pid"),
        ("born", json!({"pid-file": "4000000000"}), Code::INTERNAL, "init.pid"),
        ("after", json!({"fail": "late"}), Code::UNKNOWN, "late"),
        ("after", json!({"die": 9}), Code::UNKNOWN, "137"),
    ];
    let mut tests = Vec::new();
    for (number, (point, action, code, words)) in failures.into_iter().enumerate() {
        for flavour in ["runc", "crun"] {
            let name = format!("lifecycle::a_failed_creation_leaves_nothing::{number:02}_{point}_{flavour}");
            let action = action.clone();
            tests.push(Test::new(name, move |world| {
                let rootfs = world.folder("rootfs");
                let blueprint = world.container("c1").rootfs(&rootfs).fifos();
                let blueprint = if flavour == "crun" { blueprint.crun() } else { blueprint };
                let container = blueprint.rule(Script::at("create", point).nth(1), action.clone()).boot();
                refused(container.create(), code, &[words]);
                refused(container.state(), Code::NOT_FOUND, &["container not created"]);
                let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
                assert!(!mounts.contains("c1/rootfs"), "the root file system stays mounted");
                assert!(crate::harness::process::with_words(&["container", "be"]).is_empty());
                assert!(!world.has_cgroup("c1"), "its cgroup stays behind");
                assert_eq!(container.events(), Vec::<String>::new());
                container.create().unwrap();
                container.start().unwrap();
                container.expect_events(["create", "start"]);
            }));
        }
    }
    tests
}

fn a_failed_start_can_be_tried_again(world: &World) {
    let container = world
        .container("c1")
        .rule(Script::at("start", "before").nth(1), serde_json::json!({"fail": "not yet"}))
        .rule(Script::at("start", "before").nth(2), serde_json::json!({"die": 9}))
        .created();
    refused(container.start(), Code::UNKNOWN, &["start", "not yet"]);
    assert_eq!(container.status(), Status::CREATED);
    refused(container.start(), Code::UNKNOWN, &["start"]);
    container.start().unwrap();
    assert_eq!(container.status(), Status::RUNNING);
    container.expect_events(["create", "start"]);
}

fn a_failed_pause_leaves_it_running_and_a_failed_resume_paused(world: &World) {
    let container = world.container("c1").started();
    container.script(|script| {
        script.rule(Script::at("pause", "before"), serde_json::json!({"fail": "no freezer"}))
    });
    refused(container.pause(), Code::UNKNOWN, &["pause", "no freezer"]);
    assert_eq!(container.status(), Status::RUNNING);
    container.script(|_| {});
    container.pause().unwrap();
    container.script(|script| {
        script.rule(Script::at("resume", "before"), serde_json::json!({"fail": "still no freezer"}))
    });
    refused(container.resume(), Code::UNKNOWN, &["resume", "still no freezer"]);
    assert_eq!(container.status(), Status::PAUSED);
    container.script(|_| {});
    container.resume().unwrap();
    container.expect_events(["create", "start", "paused", "resumed"]);
}

fn a_failed_delete_can_be_tried_again(world: &World) {
    let container = world
        .container("c1")
        .program(["exit 4"])
        .rule(Script::at("delete", "before").nth(1), serde_json::json!({"fail": "busy"}))
        .rule(Script::at("delete", "killed").nth(2), serde_json::json!({"die": 9}))
        .started();
    container.wait().unwrap();
    refused(container.delete(), Code::UNKNOWN, &["delete", "busy"]);
    assert_eq!(container.status(), Status::STOPPED);
    container.delete().unwrap_err();
    assert_eq!(container.delete().unwrap().exit_status, 4);
    container.expect_events(["create", "start", "exit 4", "delete 4"]);
}

fn a_container_the_runtime_has_lost_can_be_deleted(world: &World) {
    for (id, blueprint) in [("runc", world.container("runc")), ("crun", world.container("crun").crun())] {
        let container = blueprint.program(["exit 0"]).started();
        container.wait().unwrap();
        fs::remove_dir_all(format!("/run/containerd/runc/default/{id}")).unwrap();
        container.delete().unwrap();
        assert!(!world.has_cgroup(id), "its cgroup is removed, too");
    }
}

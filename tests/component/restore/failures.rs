//! The runtime, CRIU or the world around them fails a restore.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::stopped_and_deletable;
use crate::harness::image::take;
use crate::harness::{AT_ONCE, Code, Container, Script, Test, World, mkfifo, refused, skip, tests};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_failed_start_tells_its_cause_to_the_next_who_asks,
        a_failed_start_keeps_the_log,
        a_restore_without_its_fifo_fails_cleanly,
        a_restore_without_its_config_fails_cleanly,
        a_config_that_changes_its_form_harms_nobody,
        a_restore_into_a_wrong_cgroup_fails_cleanly,
        a_missing_criu_is_named,
    ];
    tests.extend(failures());
    tests
}

/// The runtime, or CRIU in it, fails at each of its steps.
fn failures() -> Vec<Test> {
    let cases: [(&str, Value, Code, &[&str]); 14] = [
        ("before", json!({"fail": "no criu today"}), Code::UNKNOWN, &["restore", "no criu today"]),
        ("before", json!({"exit": 5}), Code::UNKNOWN, &["restore", "exit status 5"]),
        ("before", json!({"die": 9}), Code::UNKNOWN, &["restore", "137"]),
        (
            "read",
            json!({"criu-fail": "Can't open mapped file"}),
            Code::FAILED_PRECONDITION,
            &["Can't open mapped file", "log: "],
        ),
        ("read", json!({"fail": "no reason"}), Code::UNKNOWN, &["no reason"]),
        ("read", json!({"die": 15}), Code::UNKNOWN, &["143"]),
        ("born", json!({"criu-fail": "strange"}), Code::FAILED_PRECONDITION, &["strange", "log: "]),
        ("born", json!({"die": 9}), Code::UNKNOWN, &["137"]),
        ("born", json!({"pid-file": null}), Code::INTERNAL, &["init.pid"]),
        ("born", json!({"pid-file": "no pid"}), Code::INTERNAL, &["init.pid"]),
        ("born", json!({"pid-file": "0"}), Code::INTERNAL, &["init.pid"]),
        ("after", json!({"fail": "late"}), Code::UNKNOWN, &["late"]),
        ("after", json!({"die": 9}), Code::UNKNOWN, &["137"]),
        ("after", json!({"exit": 1}), Code::UNKNOWN, &["exit status 1"]),
    ];
    let mut tests = Vec::new();
    for (number, (point, action, code, words)) in cases.into_iter().enumerate() {
        for network in [false, true] {
            let kind = if network { "networked" } else { "plain" };
            let name = format!(
                "restore::a_failed_start_leaves_it_stopped_and_deletable::{number:02}_{point}_{kind}"
            );
            let action = action.clone();
            tests.push(Test::new(name, move |world| {
                if point == "born" && action["die"].is_i64() && !world.has_cgroups() {
                    skip("without cgroups nothing tells whose process a killed restore has left");
                }
                let image = take(world, "image", network);
                let rootfs = world.folder("rootfs");
                let blueprint = world.container("c1").rootfs(&rootfs).fifos().from_checkpoint(&image);
                let blueprint = if network { blueprint.networked() } else { blueprint };
                let container = blueprint.rule(Script::at("restore", point), action.clone()).boot();
                let config = fs::read(container.path("config.json")).unwrap();
                container.create().unwrap();
                let waiting = container.begin(Container::wait);
                refused(container.start(), code, words);
                waiting.answer().unwrap();
                stopped_and_deletable(&container);
                assert!(!world.has_cgroup("c1"), "its cgroup is left");
                assert_eq!(container.events().first().map(String::as_str), Some("create"));
                assert!(!container.events().iter().any(|event| event == "start"), "{:?}", container.events());
                // Nothing is in the way of another try, which gets a bundle of its own.
                container.script(|_| {});
                fs::write(container.path("config.json"), &config).unwrap();
                container.create().unwrap();
                container.start().unwrap();
            }));
        }
    }
    tests
}

fn a_failed_start_tells_its_cause_to_the_next_who_asks(world: &World) {
    let image = take(world, "image", false);
    let container = world
        .container("c1")
        .from_checkpoint(&image)
        .rule(Script::at("restore", "read"), json!({"criu-fail": "strange thing"}))
        .created();
    container.start().unwrap_err();
    refused(container.start(), Code::FAILED_PRECONDITION, &["strange thing"]);
    assert_eq!(container.calls("restore").len(), 1, "what is stopped isn't started again");
}

fn a_failed_start_keeps_the_log(world: &World) {
    let image = take(world, "image", false);
    let container = world
        .container("c1")
        .from_checkpoint(&image)
        .rule(Script::at("restore", "read"), json!({"criu-fail": "strange thing"}))
        .created();
    let refusal = container.start().unwrap_err();
    container.delete().unwrap();
    container.clean_up();
    let log = refusal.message.split_once("log: ").unwrap().1.trim_end_matches(')');
    assert!(fs::read_to_string(log).unwrap().contains("strange thing"));
}

fn a_restore_without_its_fifo_fails_cleanly(world: &World) {
    let image = take(world, "image", true);
    let container = world.container("c1").networked().fifos().from_checkpoint(&image).created();
    fs::remove_file(container.stdout().path()).unwrap();
    refused(container.start(), Code::NOT_FOUND, &["stdout", container.bundle.request.stdout.as_str()]);
    stopped_and_deletable(&container);
    // For the reader that the harness has started.
    mkfifo(container.stdout().path());
}

fn a_restore_without_its_config_fails_cleanly(world: &World) {
    let image = take(world, "image", true);
    let container = world.container("c1").networked().from_checkpoint(&image).created();
    fs::remove_file(container.path("config.json")).unwrap();
    refused(container.start(), Code::INTERNAL, &["config.json"]);
    stopped_and_deletable(&container);
}

/// It was an object at Create; what is edited at Start is something else.
fn a_config_that_changes_its_form_harms_nobody(world: &World) {
    let image = take(world, "image", false);
    for (number, text) in
        ["[]", r#"{"process":[],"linux":{}}"#, r#"{"process":{},"linux":7}"#, "7"].into_iter().enumerate()
    {
        let container = world.container(&format!("c{number}")).from_checkpoint(&image).created();
        fs::write(container.path("config.json"), text).unwrap();
        let asked = Instant::now();
        let refusal = container.start().unwrap_err();
        assert!(refusal.code != Code::NOT_FOUND && asked.elapsed() < AT_ONCE, "{text}: {refusal}");
        stopped_and_deletable(&container);
    }
}

fn a_restore_into_a_wrong_cgroup_fails_cleanly(world: &World) {
    if !world.has_cgroups() {
        skip("there are no cgroups here: not root, or cgroup v2 isn't mounted");
    }
    let image = take(world, "image", false);
    let leave = "echo $(cat init.pid) > /sys/fs/cgroup/cgroup.procs";
    let container = world
        .container("c1")
        .from_checkpoint(&image)
        .rule(Script::at("restore", "after"), json!({ "shell": leave }))
        .created();
    refused(container.start(), Code::FAILED_PRECONDITION, &["cgroup", "/default/c1"]);
    stopped_and_deletable(&container);
}

fn a_missing_criu_is_named(world: &World) {
    let image = take(world, "image", false);
    let mut bundle = world.container("c1").from_checkpoint(&image).lay_out();
    bundle.call.environment.push(("PATH", "/nowhere".into()));
    let container = Container::boot(world, bundle);
    refused(container.create(), Code::FAILED_PRECONDITION, &["criu", "PATH"]);
}

//! Between Create and the answer to Start: signals, a deletion, an early exit, and clients
//! that leave.

use std::fs;

use cryo_protos::api::Status;
use serde_json::json;

use super::stopped_and_deletable;
use crate::harness::image::take;
use crate::harness::until;
use crate::harness::{Code, Container, Gate, Leaves, Script, Streams, Test, World, process, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        one_that_exits_before_the_restore_returns_is_told_after_its_start,
        a_kill_before_the_start_ends_it,
        a_harmless_signal_before_the_start_changes_nothing,
        a_delete_before_the_start_leaves_nothing,
        a_client_that_comes_back_before_the_start_hears_the_end,
        a_client_that_comes_back_when_a_restore_has_failed_hears_the_end,
    ];
    tests.extend(clients_that_leave());
    tests
}

fn a_kill_before_the_start_ends_it(world: &World) {
    let image = take(world, "image", true);
    for (number, signal) in [9, 15, 1].into_iter().enumerate() {
        let container = world.container(&format!("c{number}")).networked().from_checkpoint(&image).created();
        let anchor = container.state().unwrap().pid;
        let waiting = container.begin(Container::wait);
        container.kill(signal).unwrap();
        let status = waiting.answer().unwrap();
        assert!(status > 128, "{status}");
        assert!(!process::is_alive(anchor));
        assert_eq!(container.status(), Status::STOPPED);
        refused(container.start(), Code::FAILED_PRECONDITION, &["stopped"]);
        refused(container.kill(9), Code::NOT_FOUND, &["finished"]);
        container.delete().unwrap();
        // Docker waits for the exit of whatever has a pid.
        container.expect_events(["create", &format!("exit {status}"), &format!("delete {status}")]);
        assert!(container.calls("restore").is_empty());
    }
}

fn a_harmless_signal_before_the_start_changes_nothing(world: &World) {
    let image = take(world, "image", false);
    let container = world.container("c1").from_checkpoint(&image).created();
    for signal in [17, 18, 28] {
        container.kill(signal).unwrap();
    }
    assert_eq!(container.status(), Status::CREATED);
    container.start().unwrap();
}

fn a_delete_before_the_start_leaves_nothing(world: &World) {
    let image = take(world, "image", true);
    let rootfs = world.folder("rootfs");
    let container =
        world.container("c1").networked().rootfs(&rootfs).fifos().from_checkpoint(&image).created();
    let waiting = container.begin(Container::wait);
    container.delete().unwrap();
    // Let go, or it came when there was nothing to wait for any more.
    waiting.answer().map_or_else(|refusal| assert_eq!(refusal.code, Code::NOT_FOUND), drop);
    until("no anchor is left", || process::anchors().is_empty());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("c1/rootfs"));
    refused(container.state(), Code::NOT_FOUND, &[]);
    container.create().unwrap();
    container.start().unwrap();
    container.expect_events(["create", "exit 137", "delete 137", "create", "start"]);
}

/// As dockerd does after a crash, for a task that is there and isn't over.
fn a_client_that_comes_back_before_the_start_hears_the_end(world: &World) {
    let image = take(world, "image", false);
    let container = world.container("c1").streams(Streams::UnreadFifos).from_checkpoint(&image).created();
    let outputs = [container.stdout(), container.stderr()];
    outputs.iter().for_each(|output| output.start_reading());
    container.kill(9).unwrap();
    outputs.iter().for_each(|output| assert_eq!(output.wait_for_end(), ""));
    assert_eq!(container.status(), Status::STOPPED);
}

/// It asked before, and comes to opening its ends now.
fn a_client_that_comes_back_when_a_restore_has_failed_hears_the_end(world: &World) {
    let image = take(world, "image", false);
    let container = world
        .container("c1")
        .streams(Streams::UnreadFifos)
        .from_checkpoint(&image)
        .rule(Script::at("restore", "read"), json!({"criu-fail": "strange"}))
        .created();
    refused(container.start(), Code::FAILED_PRECONDITION, &["strange"]);
    let outputs = [container.stdout(), container.stderr()];
    outputs.iter().for_each(|output| output.start_reading());
    outputs.iter().for_each(|output| assert_eq!(output.wait_for_end(), ""));
    stopped_and_deletable(&container);
}

fn one_that_exits_before_the_restore_returns_is_told_after_its_start(world: &World) {
    let image = take(world, "image", false);
    for (id, point) in [("c1", "after"), ("c2", "born")] {
        let blueprint = world.container(id).program(["exit 5"]).from_checkpoint(&image);
        let blueprint = if point == "born" {
            let state = format!("/run/containerd/runc/default/{id}/pids");
            blueprint
                .rule(Script::at("restore", point), json!({ "shell": format!("kill -6 $(cat {state})") }))
        } else {
            blueprint
        };
        let container = blueprint.rule(Script::at("restore", point), "await-death").created();
        container.start().unwrap();
        let status = if point == "born" { 134 } else { 5 };
        assert_eq!(container.wait().unwrap(), status);
        container.delete().unwrap();
        container.expect_events(["create", "start", &format!("exit {status}"), &format!("delete {status}")]);
    }
}

fn clients_that_leave() -> Vec<Test> {
    let mut tests = Vec::new();
    for leaves in [Leaves::HangsUp, Leaves::StopsWaiting] {
        for fails in [false, true] {
            let outcome = if fails { "that_fails_finds_it_stopped" } else { "finds_it_running" };
            tests.push(Test::new(
                format!("restore::a_client_that_{leaves}_during_a_restore_{outcome}"),
                move |world| {
                    let image = take(world, "image", false);
                    let mut blueprint = world
                        .container("c1")
                        .from_checkpoint(&image)
                        .rule(Script::at("restore", "before"), json!({"wait": "gate"}));
                    if fails {
                        blueprint =
                            blueprint.rule(Script::at("restore", "read"), json!({"criu-fail": "strange"}));
                    }
                    let container = blueprint.created();
                    let gate = Gate::new(&container.bundle.path, "gate");
                    let request = cryo_protos::api::StartRequest { id: container.id(), ..Default::default() };
                    leaves.during(&container, "Start", &request, &gate);
                    if fails {
                        container.wait_until_status(Status::STOPPED);
                        refused(container.start(), Code::FAILED_PRECONDITION, &["strange"]);
                        stopped_and_deletable(&container);
                    } else {
                        container.wait_until_status(Status::RUNNING);
                        container.expect_events(["create", "start"]);
                    }
                },
            ));
        }
    }
    tests
}

//! Processes that end before the runtime has said that they began.

use crate::harness::{Code, Script, Test, World, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        a_container_that_dies_before_create_returns_is_told_after_its_creation,
        a_container_that_dies_before_its_pid_is_known_still_tells_how,
        a_container_that_ends_before_start_returns_is_told_after_its_start,
        an_exec_that_ends_before_start_returns_is_told_after_its_start,
        an_exec_that_ends_before_its_pid_is_known_still_tells_how,
    ]
}

fn a_container_that_dies_before_create_returns_is_told_after_its_creation(world: &World) {
    let container = world
        .container("c1")
        .rule(Script::at("create", "after"), serde_json::json!({"shell": "kill -9 $(cat init.pid)"}))
        .rule(Script::at("create", "after"), "await-death")
        .created();
    assert_eq!(container.wait().unwrap(), 137);
    container.expect_events(["create", "exit 137"]);
    refused(container.start(), Code::FAILED_PRECONDITION, &["stopped"]);
    container.delete().unwrap();
    container.expect_events(["create", "exit 137", "delete 137"]);
}

fn a_container_that_dies_before_its_pid_is_known_still_tells_how(world: &World) {
    let state = "/run/containerd/runc/default/c1/state.json";
    let kill = format!(r#"kill -6 $(sed 's/.*"pid":\([0-9]*\).*/\1/' {state})"#);
    let container = world
        .container("c1")
        .rule(Script::at("create", "born"), serde_json::json!({ "shell": kill }))
        .rule(Script::at("create", "born"), "await-death")
        .created();
    assert_eq!(container.wait().unwrap(), 134);
    container.expect_events(["create", "exit 134"]);
}

fn a_container_that_ends_before_start_returns_is_told_after_its_start(world: &World) {
    let container =
        world.container("c1").program(["exit 5"]).rule(Script::at("start", "after"), "await-death").started();
    assert_eq!(container.wait().unwrap(), 5);
    container.expect_events(["create", "start", "exit 5"]);
}

fn an_exec_that_ends_before_start_returns_is_told_after_its_start(world: &World) {
    early_exec(world, "after");
}

fn an_exec_that_ends_before_its_pid_is_known_still_tells_how(world: &World) {
    early_exec(world, "born");
}

fn early_exec(world: &World, point: &'static str) {
    let container = world.container("c1").rule(Script::at("exec", point), "await-death").started();
    container.exec("e1", ["exit 6"]).unwrap();
    let pid = container.start_exec("e1").unwrap();
    assert_eq!(container.wait_exec("e1").unwrap(), 6);
    container.expect_events(["create", "start", "exec-added e1", "exec-started e1", "exit e1 6"]);
    let deleted = container.delete_exec("e1").unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 6));
    refused(container.state_of("e1"), Code::NOT_FOUND, &["e1"]);
}

//! From create to delete, and what is told on the way and in which order.

mod clients;
mod early_ends;
mod execs;
mod failures;
mod hangs;

use std::fs;

use cryo_protos::api::Status;

use crate::harness::{Code, Test, Version, World, refused, tests, until};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        every_step_is_told_in_order,
        both_versions_of_the_service_answer,
        what_shares_the_hosts_pids_is_killed_with_the_first_process,
        exit_codes_and_signals_are_told_as_a_shell_would,
        a_signal_reaches_the_container,
        a_paused_container_is_killed_all_the_same,
        pausing_stops_and_resuming_goes_on,
        an_update_reaches_the_runtime_and_a_bad_one_is_refused,
        the_root_file_system_is_mounted_and_unmounted,
        a_process_that_lost_its_parent_is_collected,
        containers_of_one_group_share_a_shim,
    ];
    tests.extend(execs::tests());
    tests.extend(early_ends::tests());
    tests.extend(failures::tests());
    tests.extend(hangs::tests());
    tests.extend(clients::tests());
    tests
}

fn every_step_is_told_in_order(world: &World) {
    let container = world.container("c1").program(["exit 3"]).boot();
    let pid = container.create().unwrap().pid;
    assert_eq!(container.status(), Status::CREATED);
    assert_eq!(container.start().unwrap(), pid);
    assert_eq!(container.wait().unwrap(), 3);
    let state = container.state().unwrap();
    assert_eq!((state.pid, state.exit_status), (pid, 3));
    assert!(state.exited_at.seconds > 0);
    let deleted = container.delete().unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 3));
    container.expect_events(["create", "start", "exit 3", "delete 3"]);
    refused(container.state(), Code::NOT_FOUND, &["container not created"]);
}

fn both_versions_of_the_service_answer(world: &World) {
    let container = world.container("c1").boot();
    let old = container.through(container.client().clone().speaking(Version::V2));
    old.create().unwrap();
    container.start().unwrap();
    assert_eq!(old.status(), Status::RUNNING);
    assert_eq!(container.status(), Status::RUNNING);
    old.kill(9).unwrap();
    assert_eq!(container.wait().unwrap(), 137);
}

fn exit_codes_and_signals_are_told_as_a_shell_would(world: &World) {
    for (number, (step, status)) in
        [("exit 0", 0), ("exit 255", 255), ("die 6", 134), ("die 9", 137)].iter().enumerate()
    {
        let container = world.container(&format!("c{number}")).program([step]).started();
        assert_eq!(container.wait().unwrap(), *status, "{step}");
    }
}

fn a_signal_reaches_the_container(world: &World) {
    let container = world.container("c1").fifos().program(["trap 15 7", "print ready", "sleep"]).started();
    container.stdout().wait_for("ready");
    container.kill(15).unwrap();
    assert_eq!(container.wait().unwrap(), 7);
    refused(container.kill(15), Code::NOT_FOUND, &["already finished"]);
}

fn what_shares_the_hosts_pids_is_killed_with_the_first_process(world: &World) {
    let container = world.container("c1").shared_pids().program(["fork", "sleep"]).started();
    container.exec("e1", ["sleep"]).unwrap();
    container.start_exec("e1").unwrap();
    container.kill(15).unwrap();
    assert_eq!(container.wait().unwrap(), 143);
    container.expect_events([
        "create",
        "start",
        "exec-added e1",
        "exec-started e1",
        "exit e1 137",
        "exit 143",
    ]);
    assert_eq!(container.calls("kill").iter().filter(|call| call.contains("--all")).count(), 1);
}

fn a_paused_container_is_killed_all_the_same(world: &World) {
    let container = world.container("c1").started();
    container.pause().unwrap();
    container.kill(9).unwrap();
    assert_eq!(container.wait().unwrap(), 137);
    container.delete().unwrap();
}

fn pausing_stops_and_resuming_goes_on(world: &World) {
    let container = world.container("c1").started();
    container.exec("e1", ["sleep"]).unwrap();
    container.start_exec("e1").unwrap();
    container.pause().unwrap();
    assert_eq!(container.status(), Status::PAUSED);
    assert_eq!(container.state_of("e1").unwrap().status.enum_value(), Ok(Status::PAUSED));
    container.resume().unwrap();
    assert_eq!(container.status(), Status::RUNNING);
    container.wait_for_event("resumed");
    assert_eq!(container.events()[4..], ["paused", "resumed"]);
}

fn an_update_reaches_the_runtime_and_a_bad_one_is_refused(world: &World) {
    let container = world.container("c1").started();
    container.update(br#"{"memory":{"limit":1000000}}"#).unwrap();
    let updated = fs::read_to_string(container.path("updated.json")).unwrap();
    assert_eq!(updated, r#"{"memory":{"limit":1000000}}"#);
    container.update(b"not json").unwrap_err();
    assert_eq!(container.status(), Status::RUNNING);
}

fn the_root_file_system_is_mounted_and_unmounted(world: &World) {
    let rootfs = world.folder("rootfs");
    fs::write(rootfs.join("file"), "content").unwrap();
    let container = world.container("c1").rootfs(&rootfs).started();
    assert_eq!(fs::read_to_string(container.path("rootfs/file")).unwrap(), "content");
    container.kill(9).unwrap();
    container.wait().unwrap();
    container.delete().unwrap();
    assert!(!container.path("rootfs/file").exists());
}

fn a_process_that_lost_its_parent_is_collected(world: &World) {
    let container = world.container("c1").fifos().program(["print ready", "sleep"]).started();
    // A child of the exec outlives it, and dies later as a child of nobody but the shim.
    container.exec("e1", ["fork", "exit 0"]).unwrap();
    container.start_exec("e1").unwrap();
    container.wait_exec("e1").unwrap();
    container.kill(9).unwrap();
    container.wait().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", container.shim);
    until("the shim has no dead children left", || fs::read_to_string(&children).unwrap().trim().is_empty());
}

fn containers_of_one_group_share_a_shim(world: &World) {
    let of_group = |id| world.container(id).annotation("io.containerd.runc.v2.group", "pod");
    let first = of_group("c1").started();
    let second = of_group("c2").boot();
    assert_eq!((first.shim, &first.address), (second.shim, &second.address));
    second.create().unwrap();
    second.start().unwrap();
    first.kill(9).unwrap();
    assert_eq!(first.wait().unwrap(), 137);
    first.delete().unwrap();
    // Ignored: somebody still lives here.
    first.shutdown().unwrap();
    assert_eq!(second.status(), Status::RUNNING);
    refused(first.state(), Code::NOT_FOUND, &[]);
}

//! How a shim ends: when it is told to, and not before.

use std::time::Instant;

use cryo_protos::api::{Empty, ShutdownRequest, Status};

use super::sockets;
use crate::harness::{AT_ONCE, Answer, Container, Test, World, process, tests, until};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_signal_ends_the_shim_and_not_its_container,
        a_shim_that_has_told_everything_ends_at_once,
        the_last_events_are_told_before_a_signal_ends_the_shim,
        a_containerd_that_takes_no_events_does_not_keep_a_shim,
        signals_that_are_not_meant_to_end_it_do_not,
        shutdown_is_ignored_while_there_is_a_container,
        shutdown_ends_a_shim_that_never_had_a_container,
    ];
    for (name, signal) in [("sigterm", 15), ("sigint", 2)] {
        let name = format!("bootstrap::{name}_ends_a_shim_and_removes_its_socket");
        tests.push(Test::new(name, move |world| signal_ends(world, signal)));
    }
    tests
}

fn signal_ends(world: &World, signal: i32) {
    let container = world.container("c1").boot();
    assert!(container.socket().exists());
    process::kill(container.shim, signal);
    process::wait_for_death(container.shim);
    assert!(sockets().is_empty(), "{:?}", sockets());
}

fn a_signal_ends_the_shim_and_not_its_container(world: &World) {
    let container = world.container("c1").started();
    let pid = container.init_pid();
    process::kill(container.shim, 15);
    process::wait_for_death(container.shim);
    assert!(sockets().is_empty(), "{:?}", sockets());
    assert!(process::is_alive(pid));
    // As after any other death, containerd calls `delete`.
    assert_eq!(container.delete_after_death().deleted().pid, pid);
    assert!(!process::is_alive(pid));
}

fn a_shim_that_has_told_everything_ends_at_once(world: &World) {
    let container = world.container("c1").started();
    container.expect_events(["create", "start"]);
    let begun = Instant::now();
    process::kill(container.shim, 15);
    process::wait_for_death(container.shim);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert!(!container.log().contains("last events"), "{}", container.log());
}

fn the_last_events_are_told_before_a_signal_ends_the_shim(world: &World) {
    let container = world.container("c1").boot();
    world.containerd.answer_with(Answer::Stall);
    container.create().unwrap();
    process::kill(container.shim, 15);
    until("the shim is about to end", || sockets().is_empty());
    world.containerd.answer_with(Answer::Accept);
    container.wait_for_event("create");
    process::wait_for_death(container.shim);
}

fn a_containerd_that_takes_no_events_does_not_keep_a_shim(world: &World) {
    let container = world.container("c1").boot();
    world.containerd.answer_with(Answer::Stall);
    container.create().unwrap();
    process::kill(container.shim, 15);
    process::wait_for_death(container.shim);
    assert_eq!(container.events(), [""; 0]);
    world.containerd.answer_with(Answer::Accept);
}

/// A pipe without a reader, a report that is asked for, a child that ended.
fn signals_that_are_not_meant_to_end_it_do_not(world: &World) {
    let container = world.container("c1").started();
    for signal in [13, 10, 17] {
        process::kill(container.shim, signal);
        assert_eq!(container.status(), Status::RUNNING);
    }
    assert_eq!(container.reconnected().connect().unwrap().shim_pid, container.shim);
}

#[track_caller]
fn shut_down(container: &Container, now: bool) {
    let request = ShutdownRequest { id: container.id(), now, ..Default::default() };
    let _: Empty = container.reconnected().client().call("Shutdown", &request).unwrap();
}

/// `now` or not: somebody still has to tell how it ended.
fn shutdown_is_ignored_while_there_is_a_container(world: &World) {
    let container = world.container("c1").created();
    let ignores = |expected| {
        [false, true].into_iter().for_each(|now| shut_down(&container, now));
        assert_eq!(container.reconnected().status(), expected);
        assert!(container.shim_is_alive());
    };
    ignores(Status::CREATED);
    container.start().unwrap();
    ignores(Status::RUNNING);
    container.pause().unwrap();
    ignores(Status::PAUSED);
    container.kill(9).unwrap();
    container.wait().unwrap();
    ignores(Status::STOPPED);
    container.delete().unwrap();
    assert!(container.shim_is_alive());
    shut_down(&container, false);
    process::wait_for_death(container.shim);
    assert!(sockets().is_empty(), "{:?}", sockets());
    container.forget();
}

fn shutdown_ends_a_shim_that_never_had_a_container(world: &World) {
    let container = world.container("c1").boot();
    shut_down(&container, true);
    process::wait_for_death(container.shim);
    assert!(sockets().is_empty(), "{:?}", sockets());
}

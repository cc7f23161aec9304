//! The shim is killed at any moment. What containerd then calls, `delete`, is quick,
//! removes everything and says how the container ended; an image is sealed, or it is
//! rubbish and known as such.

mod delete;
mod moments;

use std::fs;
use std::path::Path;
use std::time::Duration;

use cryo_protos::api::Status;
use serde_json::json;

use crate::harness::image::take;
use crate::harness::{
    Code, Container, Said, Streams, Test, World, logger, process, refused, skip, tests, until,
};

/// containerd waits no longer.
const BUDGET: Duration = Duration::from_secs(5);

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        an_anchor_dies_with_its_shim,
        a_restore_that_stands_still_dies_with_its_shim,
        a_logger_outlives_nothing,
        a_shim_killed_while_containers_run_takes_no_other_down,
    ];
    tests.extend(delete::tests());
    tests.extend(moments::tests());
    tests
}

fn an_anchor_dies_with_its_shim(world: &World) {
    let image = take(world, "image", true);
    let container = world.container("c1").networked().from_checkpoint(&image).created();
    let anchor = container.state().unwrap().pid;
    container.kill_shim();
    process::wait_for_death(anchor);
    let said = container.bundle.call.delete();
    in_budget(&said);
    assert_eq!(said.deleted().exit_status, 137);
    nothing_left(world, &container);
}

fn a_restore_that_stands_still_dies_with_its_shim(world: &World) {
    if !world.has_cgroups() {
        skip("without cgroups nothing tells whose process a killed restore has left");
    }
    let users = json!({"type": "user"});
    let origin = world.container("origin").networked().with_namespace(users.clone()).started();
    let image = world.path("image");
    origin.checkpoint(&image, true).unwrap();
    let container = world.container("c1").networked().with_namespace(users).from_checkpoint(&image).created();
    container.kill_shim();
    until("the runtime is gone", || process::with_words(&["--root", "restore"]).is_empty());
    let said = container.bundle.call.delete();
    in_budget(&said);
    assert_eq!(said.deleted().exit_status, 137);
    nothing_left(world, &container);
}

/// It has all it needs from the container's pipes, and ends when those do.
fn a_logger_outlives_nothing(world: &World) {
    let log = world.path("log");
    let logger = logger(world, &format!("cat <&3 >> {}", log.display()));
    let container = world
        .container("c1")
        .streams(Streams::Uri(format!("binary://{}", logger.display())))
        .program(["print hello", "sleep"])
        .started();
    until("the logger has heard it", || fs::read_to_string(&log).is_ok_and(|text| text == "hello\n"));
    container.kill_shim();
    container.bundle.call.delete().deleted();
    until("the logger is gone", || process::with_words(&[logger.to_str().unwrap()]).is_empty());
}

fn a_shim_killed_while_containers_run_takes_no_other_down(world: &World) {
    let first = world.container("c1").started();
    let second = world.container("c2").started();
    first.kill_shim();
    first.bundle.call.delete().deleted();
    assert_eq!(second.status(), Status::RUNNING);
    refused(second.start(), Code::FAILED_PRECONDITION, &["running"]);
}

#[track_caller]
fn in_budget(said: &Said) {
    assert!(said.took < BUDGET, "delete took {:?}; it said {}", said.took, said.stderr);
}

#[track_caller]
fn nothing_left(world: &World, container: &Container) {
    until("no process of the container is left", || process::with_words(&["container", "be"]).is_empty());
    assert!(!world.has_cgroup(&container.id()), "its cgroup is left");
    assert!(
        !Path::new("/run/containerd/runc/default").join(container.id()).exists(),
        "the runtime still knows it"
    );
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("/rootfs "), "a mount is left");
    assert!(!container.socket().exists(), "the socket is left");
}

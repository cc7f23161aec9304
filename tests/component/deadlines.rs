//! Nothing lasts for ever: a runtime that hangs is ended, with all that it started.

use std::fs;
use std::time::{Duration, Instant};

use cryo_protos::api::Status;
use serde_json::json;

use crate::harness::image::{is_complete, names, take};
use crate::harness::{
    Blueprint, Code, Container, Gate, Script, Test, World, process, refused, skip, tests, until,
};

/// The shortest that can be asked for.
const DEADLINE: &str = "1";
/// Between SIGTERM and SIGKILL a command has two seconds; the rest is for a busy machine.
const GRACE: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(6);

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_runtime_that_forgets_the_stop_is_helped,
        a_deadline_that_is_no_number_is_refused_before_anything_happens,
        a_restore_is_called_off_at_once_when_its_container_is_killed,
    ];
    for hang in ["hang", "hang-hard", "hang-with-child"] {
        for point in ["before", "dumped", "sealed"] {
            let name = format!("deadlines::a_checkpoint_that_hangs_is_ended_and_undone::{point}_{hang}");
            tests.push(Test::new(name, move |world| a_checkpoint_hangs(world, point, hang)));
        }
        for point in ["before", "born"] {
            let name = format!("deadlines::a_restore_that_hangs_is_ended_and_undone::{point}_{hang}");
            tests.push(Test::new(name, move |world| a_restore_hangs(world, point, hang)));
        }
    }
    tests
}

fn hurried(blueprint: Blueprint<'_>) -> Blueprint<'_> {
    blueprint.annotation("cryo.timeout", DEADLINE)
}

/// Ended after its deadline and before the end of anybody's patience, politely or not.
#[track_caller]
fn in_time(began: Instant, hang: &str) {
    let took = began.elapsed();
    let least = if hang == "hang-hard" { Duration::from_secs(1) + GRACE } else { Duration::from_secs(1) };
    assert!(took >= least && took < least + SLACK, "{hang} ended after {took:?}");
}

fn gone(container: &Container, hang: &str, verb: &str) {
    assert!(process::with_words(&["--root", verb]).is_empty(), "the runtime is still there");
    if hang == "hang-with-child" {
        let child = fs::read_to_string(container.path("hanging-child")).unwrap().parse().unwrap();
        process::wait_for_death(child);
    }
}

fn a_checkpoint_hangs(world: &World, point: &'static str, hang: &'static str) {
    for exit in [false, true] {
        let container = hurried(world.container(&format!("c-{exit}")))
            .rule(Script::at("checkpoint", point).nth(1), hang)
            .started();
        let image = world.path(&format!("image-{exit}"));
        let began = Instant::now();
        refused(container.checkpoint(&image, exit), Code::DEADLINE_EXCEEDED, &["checkpoint", "1 s"]);
        in_time(began, hang);
        gone(&container, hang, "checkpoint");
        assert_eq!(container.status(), Status::RUNNING);
        assert!(process::is_alive(container.init_pid()));
        if world.has_cgroups() {
            let frozen = world.cgroup(&container.id()).join("cgroup.freeze");
            assert_eq!(fs::read_to_string(frozen).unwrap().trim(), "0");
        }
        assert!(!image.exists(), "{:?} is left", names(&image));
        container.checkpoint(&image, exit).unwrap();
        assert!(is_complete(&image));
    }
}

fn a_restore_hangs(world: &World, point: &'static str, hang: &'static str) {
    if point == "born" && !world.has_cgroups() {
        skip("without cgroups nothing tells whose process a killed restore has left");
    }
    let image = take(world, "image", false);
    let container = hurried(world.container("c1"))
        .from_checkpoint(&image)
        .rule(Script::at("restore", point), hang)
        .created();
    let waiting = container.begin(Container::wait);
    let began = Instant::now();
    refused(container.start(), Code::DEADLINE_EXCEEDED, &["restore", "1 s"]);
    in_time(began, hang);
    gone(&container, hang, "restore");
    assert_eq!(container.status(), Status::STOPPED);
    waiting.answer().unwrap();
    until("no anchor is left", || process::anchors().is_empty());
    assert!(process::with_words(&["container", "be"]).is_empty(), "a process of the container is left");
    container.delete().unwrap();
}

/// The runtime says that the container is stopped, but it isn't. Ten seconds long,
/// because that is what big ones are given to die.
fn a_runtime_that_forgets_the_stop_is_helped(world: &World) {
    let container = world.container("c1").rule(Script::at("checkpoint", "sealed"), "skip").started();
    let image = world.path("image");
    container.checkpoint(&image, true).unwrap();
    assert!(is_complete(&image));
    assert_eq!(container.status(), Status::STOPPED);
    assert_eq!(container.wait().unwrap(), 137);
    container.expect_events(["create", "start", "checkpointed", "exit 137"]);
}

fn a_deadline_that_is_no_number_is_refused_before_anything_happens(world: &World) {
    let image = take(world, "image", false);
    for (number, value) in ["soon", "0", "-1", "1.5"].into_iter().enumerate() {
        let container = world.container(&format!("c{number}")).annotation("cryo.timeout", value).boot();
        refused(container.create(), Code::INVALID_ARGUMENT, &["cryo.timeout", value]);
        assert!(container.calls("create").is_empty());
        let id = format!("r{number}");
        let container = world.container(&id).annotation("cryo.timeout", value).from_checkpoint(&image).boot();
        refused(container.create(), Code::INVALID_ARGUMENT, &["cryo.timeout", value]);
    }
}

fn a_restore_is_called_off_at_once_when_its_container_is_killed(world: &World) {
    let image = take(world, "image", false);
    for (number, (point, action)) in [
        ("before", json!({"wait": "gate"})),
        ("read", json!("hang-with-child")),
        ("born", json!({"wait": "gate"})),
    ]
    .into_iter()
    .enumerate()
    {
        if point == "born" && !world.has_cgroups() {
            // Nothing tells whose that process is.
            continue;
        }
        let container = world
            .container(&format!("c{number}"))
            .from_checkpoint(&image)
            .rule(Script::at("restore", point), action)
            .created();
        let gate = Gate::new(&container.bundle.path, "gate");
        let starting = container.begin(Container::start);
        until("the restore hangs", || gate.is_reached() || container.path("hanging-child").exists());
        let began = Instant::now();
        container.kill(9).unwrap();
        assert_eq!(container.wait().unwrap(), 137);
        starting.answer().unwrap_err();
        assert!(began.elapsed() < GRACE + SLACK, "{:?}", began.elapsed());
        assert_eq!(container.status(), Status::STOPPED);
        container.delete().unwrap();
        assert!(process::with_words(&["container", "be"]).is_empty(), "{point}: a process is left");
    }
}

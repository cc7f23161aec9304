//! What clients ask for during a checkpoint, and clients that leave meanwhile.

use std::time::{Duration, Instant};

use serde_json::json;

use super::unharmed;
use crate::harness::image::{is_complete, names};
use crate::harness::{AT_ONCE, Code, Gate, Leaves, Script, Test, World, at_gate, refused, tests, until};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_kill_ends_a_checkpoint_under_way,
        a_second_checkpoint_waits_for_the_first,
        requests_that_wait_for_a_checkpoint_are_served_after_it,
        what_freezes_the_container_waits_for_an_exec_that_is_being_started,
    ];
    tests.extend(clients_that_leave());
    tests
}

fn a_kill_ends_a_checkpoint_under_way(world: &World) {
    for exit in [false, true] {
        let id = format!("c-{exit}");
        let (container, gate) = at_gate(world.container(&id), "checkpoint");
        container.create().unwrap();
        container.start().unwrap();
        let image = world.path(&format!("image-{exit}"));
        let target = image.clone();
        let checkpoint = container.begin(move |container| container.checkpoint(&target, exit));
        gate.wait_until_reached();
        let asked = Instant::now();
        container.kill(9).unwrap();
        assert!(asked.elapsed() < AT_ONCE);
        refused(checkpoint.answer(), Code::ABORTED, &["killed"]);
        assert_eq!(container.wait().unwrap(), 137);
        container.delete().unwrap();
        container.expect_events(["create", "start", "exit 137", "delete 137"]);
        assert!(!image.exists(), "{:?} is left", names(&image));
    }
}

fn a_second_checkpoint_waits_for_the_first(world: &World) {
    let (container, gate) = at_gate(world.container("c1"), "checkpoint");
    container.create().unwrap();
    container.start().unwrap();
    let (first, second) = (world.path("first"), world.path("second"));
    let (to_first, to_second) = (first.clone(), second.clone());
    let one = container.begin(move |container| container.checkpoint(&to_first, false));
    gate.wait_until_reached();
    let other = container.reconnected().begin(move |container| container.checkpoint(&to_second, true));
    gate.open();
    one.answer().unwrap();
    other.answer().unwrap();
    assert!(is_complete(&first) && is_complete(&second));
    container.expect_events(["create", "start", "checkpointed", "checkpointed", "exit 137"]);
}

fn requests_that_wait_for_a_checkpoint_are_served_after_it(world: &World) {
    let (container, gate) = at_gate(world.container("c1"), "checkpoint");
    container.create().unwrap();
    container.start().unwrap();
    container.exec("e1", ["exit 3"]).unwrap();
    let image = world.path("image");
    let checkpoint = container.begin(move |container| container.checkpoint(&image, false));
    gate.wait_until_reached();
    let exec = container.reconnected().begin(|container| container.start_exec("e1"));
    let update = container.reconnected().begin(|container| container.update(b"{}"));
    gate.open();
    checkpoint.answer().unwrap();
    exec.answer().unwrap();
    update.answer().unwrap();
    assert_eq!(container.wait_exec("e1").unwrap(), 3);
    container.expect_events([
        "create",
        "start",
        "exec-added e1",
        "checkpointed",
        "exec-started e1",
        "exit e1 3",
    ]);
}

/// A process that is half way into the container would be caught there by the freezer,
/// or by a dump that knows nothing of it.
fn what_freezes_the_container_waits_for_an_exec_that_is_being_started(world: &World) {
    for operation in ["pause", "checkpoint"] {
        let container = world
            .container(&format!("c-{operation}"))
            .rule(Script::at("exec", "made"), json!({"wait": "made"}))
            .started();
        let gate = Gate::new(&container.bundle.path, "made");
        container.exec("e1", ["sleep"]).unwrap();
        let exec = container.begin(|container| container.start_exec("e1"));
        gate.wait_until_reached();
        let image = world.path("image");
        let freezing = container.reconnected().begin(move |container| match operation {
            "pause" => container.pause(),
            _ => container.checkpoint(&image, false),
        });
        // Nothing tells that a request waits; what happens too early happens soon.
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            assert!(container.calls(operation).is_empty(), "{operation} doesn't wait");
            std::thread::sleep(Duration::from_millis(5));
        }
        gate.open();
        exec.answer().unwrap();
        freezing.answer().unwrap();
    }
}

/// The client goes while the dump lasts; it is finished, and the next caller learns so.
fn clients_that_leave() -> Vec<Test> {
    let mut tests = Vec::new();
    for leaves in [Leaves::HangsUp, Leaves::StopsWaiting] {
        for exit in [false, true] {
            let kind = if exit { "an_exit_checkpoint" } else { "a_checkpoint" };
            tests.push(Test::new(
                format!("checkpoint::a_client_that_{leaves}_during_{kind}_finds_it_done"),
                move |world| {
                    let (container, gate) = at_gate(world.container("c1"), "checkpoint");
                    container.create().unwrap();
                    container.start().unwrap();
                    let image = world.path("image");
                    leaves.during(
                        &container,
                        "Checkpoint",
                        &container.checkpoint_request(&image, exit),
                        &gate,
                    );
                    container.wait_for_event("checkpointed");
                    until("the image is sealed", || is_complete(&image));
                    if exit {
                        assert_eq!(container.wait().unwrap(), 137);
                    } else {
                        unharmed(world, &container, false);
                    }
                },
            ));
            tests.push(Test::new(
                format!("checkpoint::a_client_that_{leaves}_during_{kind}_that_fails_finds_it_undone"),
                move |world| {
                    let blueprint = world
                        .container("c1")
                        .rule(Script::at("checkpoint", "dumped").nth(1), json!({"fail": "no"}));
                    let (container, gate) = at_gate(blueprint, "checkpoint");
                    container.create().unwrap();
                    container.start().unwrap();
                    let image = world.path("image");
                    leaves.during(
                        &container,
                        "Checkpoint",
                        &container.checkpoint_request(&image, exit),
                        &gate,
                    );
                    // The next one waits its turn, and gets what it asks for.
                    container.checkpoint(&image, false).unwrap();
                    assert_eq!(container.calls("checkpoint").len(), 2);
                    assert!(is_complete(&image));
                    unharmed(world, &container, false);
                },
            ));
        }
    }
    tests
}

//! Several clients at once, clients that leave, and a containerd that was restarted.

use cryo_protos::api::Status;

use crate::harness::{
    Code, Container, Leaves, SOON, Script, Test, World, at_gate, refused, tests, until, until_within,
};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        everybody_who_waits_is_answered,
        only_one_of_many_creates_with_the_same_id_succeeds,
        a_restarted_containerd_finds_every_container_again,
    ];
    tests.extend(clients_that_leave());
    tests
}

fn everybody_who_waits_is_answered(world: &World) {
    let container = world.container("c1").created();
    let early = [container.begin(Container::wait), container.reconnected().begin(Container::wait)];
    container.start().unwrap();
    let later = container.begin(Container::wait);
    container.exec("e1", ["sleep"]).unwrap();
    let exec = container.begin(|container| container.wait_exec("e1"));
    container.start_exec("e1").unwrap();
    assert!(!later.is_answered() && !exec.is_answered());
    container.kill_exec("e1", 15).unwrap();
    assert_eq!(exec.answer().unwrap(), 143);
    container.kill(9).unwrap();
    early.into_iter().chain([later]).for_each(|wait| assert_eq!(wait.answer().unwrap(), 137));
    assert_eq!(container.wait().unwrap(), 137);
}

fn only_one_of_many_creates_with_the_same_id_succeeds(world: &World) {
    let container = world.container("c1").boot();
    let attempts: Vec<_> = (0..8).map(|_| container.reconnected().begin(Container::create)).collect();
    let answers: Vec<_> = attempts.into_iter().map(|attempt| attempt.answer()).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for answer in answers.into_iter().filter(Result::is_err) {
        refused(answer, Code::ALREADY_EXISTS, &["c1"]);
    }
    assert_eq!(container.calls("create").len(), 1);
    container.start().unwrap();
}

/// What containerd asks of each shim after its own restart, in its order. An empty list
/// of pids, or one refused, would make it throw the container away.
fn a_restarted_containerd_finds_every_container_again(world: &World) {
    let created = world.container("created").created();
    let running = world.container("running").started();
    let stopped = world.container("stopped").program(["exit 0"]).started();
    stopped.wait().unwrap();
    let image = crate::harness::image::take(world, "image", false);
    let awaited = world.container("awaited").from_checkpoint(image).created();
    for container in [created, running, stopped, awaited] {
        let again = container.reconnected();
        let connected = again.connect().unwrap();
        assert_eq!(connected.shim_pid, container.shim);
        assert_eq!(connected.task_pid, again.state().unwrap().pid);
        assert!(!again.pids().unwrap().is_empty(), "{}", container.id());
    }
}

/// The client closes its connection, or stops waiting, while the runtime works. What was
/// begun is finished, and the next caller sees it so.
fn clients_that_leave() -> Vec<Test> {
    let mut tests = Vec::new();
    for leaves in [Leaves::HangsUp, Leaves::StopsWaiting] {
        let name = |what: &str| format!("lifecycle::a_client_that_{leaves}_during_{what}");
        tests.push(Test::new(name("create_finds_it_created"), move |world| {
            let (container, gate) = at_gate(world.container("c1"), "create");
            leaves.during(&container, "Create", &container.bundle.request, &gate);
            until("it is created", || container.state().is_ok());
            assert_eq!(container.status(), Status::CREATED);
            container.start().unwrap();
            container.expect_events(["create", "start"]);
        }));
        tests.push(Test::new(name("a_create_that_fails_may_try_again"), move |world| {
            let blueprint = world
                .container("c1")
                .rule(Script::at("create", "made").nth(1), serde_json::json!({"die": 9}));
            let (container, gate) = at_gate(blueprint, "create");
            leaves.during(&container, "Create", &container.bundle.request, &gate);
            until("the id is free again", || container.create().is_ok());
            container.expect_events(["create"]);
        }));
        tests.push(Test::new(name("start_finds_it_running"), move |world| {
            let (container, gate) = at_gate(world.container("c1"), "start");
            container.create().unwrap();
            let request = cryo_protos::api::StartRequest { id: container.id(), ..Default::default() };
            leaves.during(&container, "Start", &request, &gate);
            container.wait_until_status(Status::RUNNING);
            refused(container.start(), Code::FAILED_PRECONDITION, &["running"]);
            container.expect_events(["create", "start"]);
        }));
        tests.push(Test::new(name("delete_finds_its_id_free"), move |world| {
            let (container, gate) = at_gate(world.container("c1").program(["exit 0"]), "delete");
            container.create().unwrap();
            container.start().unwrap();
            container.wait().unwrap();
            leaves.during(&container, "Delete", &container.delete_request(), &gate);
            container.wait_for_event("delete 0");
            until_within(SOON, "the id is free", || container.create().is_ok());
        }));
        tests.push(Test::new(name("exec_finds_it_running"), move |world| {
            let (container, gate) = at_gate(world.container("c1"), "exec");
            container.create().unwrap();
            container.start().unwrap();
            container.exec("e1", ["sleep"]).unwrap();
            let request = cryo_protos::api::StartRequest {
                id: container.id(),
                exec_id: "e1".into(),
                ..Default::default()
            };
            leaves.during(&container, "Start", &request, &gate);
            until("the exec runs", || {
                container.state_of("e1").unwrap().status.enum_value() == Ok(Status::RUNNING)
            });
        }));
    }
    tests
}

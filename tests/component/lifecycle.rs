//! From create to delete, and what is told on the way and in which order.

use std::fs;
use std::time::Instant;

use cryo_protos::api::Status;

use crate::harness::{AT_ONCE, Blueprint, Code, Container, Gate, Script, Test, Version, World, refused, tests, until, until_within};

/// Between an event and what has to follow from it in the shim itself.
pub(crate) const SOON: std::time::Duration = std::time::Duration::from_secs(3);

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        every_step_is_told_in_order,
        both_versions_of_the_service_answer,
        an_exec_exits_before_the_container_does,
        what_shares_the_hosts_pids_is_killed_with_the_first_process,
        a_container_that_dies_before_create_returns_is_told_after_its_creation,
        a_container_that_dies_before_its_pid_is_known_still_tells_how,
        a_container_that_ends_before_start_returns_is_told_after_its_start,
        an_exec_that_ends_before_start_returns_is_told_after_its_start,
        an_exec_that_ends_before_its_pid_is_known_still_tells_how,
        many_quick_execs_are_each_told_once_and_in_order,
        everybody_who_waits_is_answered,
        an_exec_that_was_never_started_holds_up_nothing,
        an_exec_that_fails_to_start_can_be_deleted,
        exit_codes_and_signals_are_told_as_a_shell_would,
        a_signal_reaches_the_container,
        a_paused_container_is_killed_all_the_same,
        pausing_stops_and_resuming_goes_on,
        a_failed_pause_leaves_it_running_and_a_failed_resume_paused,
        an_update_reaches_the_runtime_and_a_bad_one_is_refused,
        only_one_of_many_creates_with_the_same_id_succeeds,
        a_failed_start_can_be_tried_again,
        a_failed_delete_can_be_tried_again,
        a_container_the_runtime_has_lost_can_be_deleted,
        the_root_file_system_is_mounted_and_unmounted,
        a_process_that_lost_its_parent_is_collected,
        containers_of_one_group_share_a_shim,
        a_restarted_containerd_finds_every_container_again,
    ];
    tests.extend(failed_creations());
    tests.extend(hanging_operations());
    tests.extend(clients_that_leave());
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

fn an_exec_exits_before_the_container_does(world: &World) {
    let container = world.container("c1").started();
    container.exec("e1", ["sleep"]).unwrap();
    container.start_exec("e1").unwrap();
    container.kill(9).unwrap();
    assert_eq!(container.wait().unwrap(), 137);
    container.delete().unwrap();
    let expected = ["create", "start", "exec-added e1", "exec-started e1", "exit e1 137", "exit 137", "delete 137"];
    container.expect_events(expected);
}

fn what_shares_the_hosts_pids_is_killed_with_the_first_process(world: &World) {
    let container = world.container("c1").shared_pids().program(["fork", "sleep"]).started();
    container.exec("e1", ["sleep"]).unwrap();
    container.start_exec("e1").unwrap();
    container.kill(15).unwrap();
    assert_eq!(container.wait().unwrap(), 143);
    container.expect_events(["create", "start", "exec-added e1", "exec-started e1", "exit e1 137", "exit 143"]);
    assert_eq!(container.calls("kill").iter().filter(|call| call.contains("--all")).count(), 1);
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

fn many_quick_execs_are_each_told_once_and_in_order(world: &World) {
    let container = world.container("c1").started();
    let run = |number: usize| {
        let name = format!("e{number}");
        container.begin(move |container| {
            container.exec(&name, ["exit 0"])?;
            container.start_exec(&name)?;
            container.wait_exec(&name)
        })
    };
    let running: Vec<_> = (0..12).map(run).collect();
    running.into_iter().for_each(|exec| assert_eq!(exec.answer().unwrap(), 0));
    container.kill(9).unwrap();
    container.wait().unwrap();
    container.wait_for_event("exit 137");
    let told = container.events();
    for number in 0..12 {
        let expected = [format!("exec-added e{number}"), format!("exec-started e{number}"), format!("exit e{number} 0")];
        let name = format!(" e{number}");
        let of_it: Vec<_> =
            told.iter().filter(|event| event.ends_with(&name) || event.contains(&format!("{name} "))).collect();
        assert_eq!(of_it, expected.iter().collect::<Vec<_>>());
    }
    assert_eq!(told.len(), 2 + 3 * 12 + 1);
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

fn an_exec_that_was_never_started_holds_up_nothing(world: &World) {
    let container = world.container("c1").started();
    container.exec("e1", ["sleep"]).unwrap();
    container.exec("e2", ["sleep"]).unwrap();
    container.delete_exec("e2").unwrap();
    container.kill(9).unwrap();
    assert_eq!(container.wait().unwrap(), 137);
    container.delete().unwrap();
    container.expect_events(["create", "start", "exec-added e1", "exec-added e2", "exit 137", "delete 137"]);
}

fn an_exec_that_fails_to_start_can_be_deleted(world: &World) {
    let container = world.container("c1").started();
    let failures = [
        ("before", serde_json::json!({"fail": "no such program"})),
        ("made", serde_json::json!({"die": 9})),
        ("before", serde_json::json!({"exit": 3})),
        ("born", serde_json::json!({"pid-file": null})),
        ("born", serde_json::json!({"pid-file": "not a pid"})),
    ];
    for (number, (point, action)) in failures.into_iter().enumerate() {
        container.script(|script| script.rule(Script::at("exec", point), action));
        let name = format!("e{number}");
        container.exec(&name, ["exit 0"]).unwrap();
        container.start_exec(&name).unwrap_err();
        container.wait_exec(&name).unwrap();
        container.delete_exec(&name).unwrap();
        refused(container.start_exec(&name), Code::NOT_FOUND, &[&name]);
    }
    container.script(|_| {});
    container.exec("e0", ["exit 0"]).unwrap();
    container.start_exec("e0").unwrap();
    assert_eq!(container.wait_exec("e0").unwrap(), 0);
    assert_eq!(container.status(), Status::RUNNING);
}

fn exit_codes_and_signals_are_told_as_a_shell_would(world: &World) {
    for (number, (step, status)) in [("exit 0", 0), ("exit 255", 255), ("die 6", 134), ("die 9", 137)].iter().enumerate() {
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

fn a_failed_pause_leaves_it_running_and_a_failed_resume_paused(world: &World) {
    let container = world.container("c1").started();
    container.script(|script| script.rule(Script::at("pause", "before"), serde_json::json!({"fail": "no freezer"})));
    refused(container.pause(), Code::UNKNOWN, &["pause", "no freezer"]);
    assert_eq!(container.status(), Status::RUNNING);
    container.script(|_| {});
    container.pause().unwrap();
    container.script(|script| script.rule(Script::at("resume", "before"), serde_json::json!({"fail": "still no freezer"})));
    refused(container.resume(), Code::UNKNOWN, &["resume", "still no freezer"]);
    assert_eq!(container.status(), Status::PAUSED);
    container.script(|_| {});
    container.resume().unwrap();
    container.expect_events(["create", "start", "paused", "resumed"]);
}

fn an_update_reaches_the_runtime_and_a_bad_one_is_refused(world: &World) {
    let container = world.container("c1").started();
    container.update(br#"{"memory":{"limit":1000000}}"#).unwrap();
    let updated = fs::read_to_string(container.path("updated.json")).unwrap();
    assert_eq!(updated, r#"{"memory":{"limit":1000000}}"#);
    container.update(b"not json").unwrap_err();
    assert_eq!(container.status(), Status::RUNNING);
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

/// Whatever takes its time, questions are answered at once.
fn hanging_operations() -> Vec<Test> {
    type Operation = fn(&World, &Container);
    let started = |container: &Container| {
        container.create().unwrap();
        container.start().unwrap();
    };
    let operations: [(&str, fn(&Container), Operation); 8] = [
        ("start", |c| drop(c.create().unwrap()), |_, c| drop(c.start())),
        ("exec", started, |_, c| {
            c.exec("e1", ["exit 0"]).unwrap();
            drop(c.start_exec("e1"));
        }),
        ("pause", started, |_, c| drop(c.pause())),
        ("update", started, |_, c| drop(c.update(b"{}"))),
        ("checkpoint", started, |w, c| drop(c.checkpoint(&w.path("image"), false))),
        ("kill", started, |_, c| drop(c.kill(15))),
        ("resume", |c| { c.create().unwrap(); c.start().unwrap(); c.pause().unwrap(); }, |_, c| drop(c.resume())),
        ("delete", |c| drop(c.create().unwrap()), |_, c| drop(c.delete())),
    ];
    let mut tests = Vec::new();
    for (verb, prepare, operation) in operations {
        let name = format!("lifecycle::questions_are_answered_at_once_while_the_runtime_hangs_in_{verb}");
        tests.push(Test::new(name, move |world| {
            let container = world.container("c1").boot();
            let gate = Gate::new(&container.bundle.path, "hang");
            prepare(&container);
            container.script(|script| script.rule(Script::at(verb, "before").nth(1), serde_json::json!({"wait": "hang"})));
            std::thread::scope(|scope| {
                let asker = container.reconnected();
                scope.spawn(move || operation(world, &asker));
                gate.wait_until_reached();
                questions_are_answered_at_once(&container);
                gate.open();
            });
        }));
    }
    tests.push(Test::new("lifecycle::questions_are_answered_at_once_while_the_runtime_hangs_in_create", |world| {
        let container = world.container("c1").rule(Script::at("create", "before"), serde_json::json!({"wait": "hang"})).boot();
        let gate = Gate::new(&container.bundle.path, "hang");
        let creating = container.begin(Container::create);
        gate.wait_until_reached();
        let asked = Instant::now();
        refused(container.state(), Code::NOT_FOUND, &["container not created"]);
        refused(container.create(), Code::ALREADY_EXISTS, &["c1"]);
        assert_eq!(container.connect().unwrap().task_pid, 0);
        assert!(asked.elapsed() < AT_ONCE);
        gate.open();
        creating.answer().unwrap();
    }));
    tests.push(Test::new("lifecycle::questions_are_answered_at_once_while_the_runtime_hangs_in_restore", |world| {
        let image = crate::harness::image::take(world, "image", false);
        let container = world
            .container("c1")
            .from_checkpoint(image)
            .rule(Script::at("restore", "before"), serde_json::json!({"wait": "hang"}))
            .created();
        let gate = Gate::new(&container.bundle.path, "hang");
        let starting = container.begin(Container::start);
        gate.wait_until_reached();
        questions_are_answered_at_once(&container);
        gate.open();
        starting.answer().unwrap();
    }));
    tests
}

#[track_caller]
fn questions_are_answered_at_once(container: &Container) {
    let asked = Instant::now();
    container.state().unwrap();
    assert!(!container.pids().unwrap().is_empty());
    assert_eq!(container.connect().unwrap().shim_pid, container.shim);
    // Not everybody has a cgroup to count in.
    let _ = container.stats();
    assert!(asked.elapsed() < AT_ONCE, "answered after {:?}", asked.elapsed());
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
            let blueprint = world.container("c1").rule(Script::at("create", "made").nth(1), serde_json::json!({"die": 9}));
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
            let request = cryo_protos::api::StartRequest { id: container.id(), exec_id: "e1".into(), ..Default::default() };
            leaves.during(&container, "Start", &request, &gate);
            until("the exec runs", || container.state_of("e1").unwrap().status.enum_value() == Ok(Status::RUNNING));
        }));
    }
    tests
}

#[derive(Clone, Copy)]
pub(crate) enum Leaves {
    HangsUp,
    StopsWaiting,
}

impl std::fmt::Display for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Leaves::HangsUp => "hangs_up",
            Leaves::StopsWaiting => "stops_waiting",
        })
    }
}

impl Leaves {
    /// Asks, leaves while the runtime stands at the gate, and opens that.
    #[track_caller]
    pub(crate) fn during<Q: cryo_protos::protobuf::Message>(self, container: &Container, method: &str, request: &Q, gate: &Gate) {
        match self {
            Leaves::HangsUp => {
                let client = crate::harness::Client::connect(container.runtime(), &container.address).unwrap();
                client.send_and_hang_up(method, request, || drop(gate.wait_until_reached()));
            }
            Leaves::StopsWaiting => {
                let impatient = container.with_patience(std::time::Duration::from_millis(300));
                let answer = impatient.client().call::<_, cryo_protos::api::Empty>(method, request);
                // Whoever counts first says it: the shim, or we ourselves.
                let code = answer.unwrap_err().code;
                assert!(matches!(code, Code::DEADLINE_EXCEEDED | Code::UNAVAILABLE), "{code:?}");
                gate.wait_until_reached();
            }
        }
        gate.open();
    }
}

/// A shim whose runtime will wait at a gate before it begins its first call of a verb.
pub(crate) fn at_gate(blueprint: Blueprint<'_>, verb: &'static str) -> (Container, Gate) {
    let container = blueprint.rule(Script::at(verb, "before").nth(1), serde_json::json!({"wait": "gate"})).boot();
    let gate = Gate::new(&container.bundle.path, "gate");
    (container, gate)
}

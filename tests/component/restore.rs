//! A restore brings the container back, or leaves nothing but a container that can be
//! deleted and a cause.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cryo_protos::api::{CreateTaskRequest, Empty, Status};
use cryo_protos::runc;
use serde_json::{Value, json};

use crate::harness::image::{contents, is_complete, manifest, names, take};
use crate::harness::{
    AT_ONCE, Code, Container, Gate, Script, Streams, Test, World, mkfifo, pack, process, refused, skip, tests, until,
    until_within,
};
use crate::lifecycle::{Leaves, SOON};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_container_comes_back_and_lives_on,
        a_container_comes_back_under_crun,
        a_network_is_there_before_anything_runs,
        a_network_given_by_path_is_used_as_it_is,
        a_container_with_users_of_its_own_stands_still_until_its_start,
        a_container_with_users_of_its_own_can_be_given_up,
        a_container_with_users_of_its_own_fails_with_the_cause,
        what_was_in_force_at_the_dump_is_in_force_again,
        an_image_named_in_the_options_is_restored,
        five_generations_come_back_and_keep_their_output,
        a_terminal_comes_back_even_if_the_client_wants_none,
        a_container_beside_its_original_gets_a_cgroup_of_its_own,
        one_that_exits_before_the_restore_returns_is_told_after_its_start,
        a_kill_before_the_start_ends_it,
        a_harmless_signal_before_the_start_changes_nothing,
        a_delete_before_the_start_leaves_nothing,
        a_failed_start_tells_its_cause_to_the_next_who_asks,
        a_failed_start_keeps_the_log,
        a_restore_without_its_fifo_fails_cleanly,
        a_restore_without_its_config_fails_cleanly,
        a_config_that_changes_its_form_harms_nobody,
        a_restore_into_a_wrong_cgroup_fails_cleanly,
        containerds_copy_is_removed_and_nothing_else,
        containerds_copy_is_removed_if_the_restore_fails,
        containerds_copy_is_removed_if_the_restore_never_starts,
        the_image_is_the_one_that_was_checked,
        a_giant_image_file_does_not_fill_memory,
        an_image_whose_arrival_was_cut_short_is_whole_or_refused,
        the_daemons_namespaces_are_left_alone,
        a_missing_criu_is_named,
    ];
    tests.extend(bad_images());
    tests.extend(failures());
    tests.extend(clients_that_leave());
    tests
}

fn a_container_comes_back_and_lives_on(world: &World) {
    let image = take(world, "image", false);
    let container = world.container("c1").fifos().program(["print back", "trap 15 7", "sleep"]).from_checkpoint(&image).boot();
    let anchor = container.create().unwrap().pid;
    assert!(anchor > 0 && process::is_alive(anchor));
    assert_eq!(container.status(), Status::CREATED);
    assert!(container.calls("restore").is_empty(), "nothing is restored before the start");
    let pid = container.start().unwrap();
    assert_eq!((container.state().unwrap().pid, container.init_pid()), (pid, pid));
    until("the anchor has gone", || !process::is_alive(anchor));
    container.stdout().wait_for("back");
    container.exec("e1", ["exit 4"]).unwrap();
    container.start_exec("e1").unwrap();
    assert_eq!(container.wait_exec("e1").unwrap(), 4);
    container.pause().unwrap();
    container.resume().unwrap();
    container.checkpoint(&world.path("second"), false).unwrap();
    assert!(is_complete(&world.path("second")));
    container.kill(15).unwrap();
    assert_eq!(container.wait().unwrap(), 7);
    container.delete().unwrap();
    container.expect_events([
        "create", "start", "exec-added e1", "exec-started e1", "exit e1 4", "paused", "resumed", "checkpointed",
        "exit 7", "delete 7",
    ]);
    let call = &container.calls("restore")[0];
    assert!(call.contains("--detach") && call.contains("--no-subreaper") && call.contains("--file-locks"), "{call}");
}

fn a_container_comes_back_under_crun(world: &World) {
    let image = world.path("image");
    let origin = world.container("c1").crun().networked().started();
    origin.checkpoint(&image, true).unwrap();
    origin.delete().unwrap();
    let container = world.container("c2").crun().networked().from_checkpoint(&image).created();
    container.start().unwrap();
    // An option it doesn't know would have ended it with status 64.
    assert_eq!(container.calls("restore").len(), 1);
    assert_eq!(container.status(), Status::RUNNING);
}

fn inode_of_network(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino()
}

fn a_network_is_there_before_anything_runs(world: &World) {
    let image = take(world, "image", true);
    let before = contents(&image);
    let container = world.container("c1").networked().from_checkpoint(&image).created();
    let anchor = container.state().unwrap().pid;
    let network = inode_of_network(anchor);
    assert_ne!(network, inode_of_network(container.shim), "a network of its own");
    let lo = fs::read_to_string(format!("/proc/{anchor}/net/if_inet6")).unwrap_or_default();
    assert!(lo.contains(" lo"), "the loopback is up: {lo:?}");
    let pid = container.start().unwrap();
    assert_ne!(pid, anchor);
    let config: Value = serde_json::from_slice(&fs::read(container.path("config.json")).unwrap()).unwrap();
    let namespaces = config["linux"]["namespaces"].as_array().unwrap();
    let path = namespaces.iter().find(|listed| listed["type"] == "network").unwrap()["path"].as_str().unwrap();
    assert_eq!(fs::metadata(path).unwrap().ino(), network, "the runtime is told of it, and it lasts");
    assert!(process::anchors().is_empty());
    assert!(contents(&image) == before, "the client's image is as it was");
    // Again: now the runtime calls the network external.
    let second = world.path("second");
    container.checkpoint(&second, true).unwrap();
    let again = world.container("c2").networked().from_checkpoint(&second).created();
    again.start().unwrap();
}

fn a_network_given_by_path_is_used_as_it_is(world: &World) {
    let image = take(world, "image", true);
    let given = json!({"type": "network", "path": "/proc/1/ns/net"});
    let container = world.container("c1").with_namespace(given).from_checkpoint(&image).created();
    container.start().unwrap();
    let config = fs::read_to_string(container.path("config.json")).unwrap();
    assert!(config.contains(r#""path":"/proc/1/ns/net""#), "{config}");
}

fn own_users(world: &World) -> Container {
    let image = world.path("image");
    let users = json!({"type": "user"});
    let origin = world.container("origin").networked().with_namespace(users.clone()).started();
    origin.checkpoint(&image, true).unwrap();
    origin.clean_up();
    world.container("c1").networked().with_namespace(users).from_checkpoint(image).boot()
}

fn a_container_with_users_of_its_own_stands_still_until_its_start(world: &World) {
    let container = own_users(world);
    let pid = container.create().unwrap().pid;
    assert_eq!(container.calls("restore").len(), 1, "its restore has begun");
    assert_eq!((container.status(), container.state().unwrap().pid), (Status::CREATED, pid));
    assert_eq!(container.start().unwrap(), pid);
    assert_eq!((container.status(), container.init_pid()), (Status::RUNNING, pid));
    container.kill(9).unwrap();
    assert_eq!(container.wait().unwrap(), 137);
    container.delete().unwrap();
    container.expect_events(["create", "start", "exit 137", "delete 137"]);
}

fn a_container_with_users_of_its_own_can_be_given_up(world: &World) {
    for way in ["delete", "kill"] {
        let container = own_users(world);
        container.create().unwrap();
        if way == "kill" {
            container.kill(9).unwrap();
            assert_eq!(container.wait().unwrap(), 137);
            refused(container.start(), Code::FAILED_PRECONDITION, &[]);
        }
        container.delete().unwrap();
        assert!(process::with_words(&["--root", "restore"]).is_empty(), "{way}: the runtime still waits");
        assert!(process::with_words(&["container", "be"]).is_empty(), "{way}: a process is left");
        container.clean_up();
        container.expect_shim_gone();
    }
}

fn a_container_with_users_of_its_own_fails_with_the_cause(world: &World) {
    let failures = [("before", json!({"fail": "no"})), ("read", json!({"criu-fail": "bad image"})), ("read", json!({"die": 9}))];
    for (point, action) in failures {
        let container = own_users(world);
        container.script(|script| script.rule(Script::at("restore", point), action));
        container.create().unwrap_err();
        refused(container.state(), Code::NOT_FOUND, &[]);
        container.script(|script| script.rule(Script::at("restore", "born"), json!({"criu-fail": "bad memory"})));
        container.create().unwrap();
        refused(container.start(), Code::FAILED_PRECONDITION, &["bad memory", "log: "]);
        stopped_and_deletable(&container);
        container.clean_up();
        container.expect_shim_gone();
    }
}

fn what_was_in_force_at_the_dump_is_in_force_again(world: &World) {
    let origin = world.container("origin").started();
    let options = runc::CheckpointOptions { exit: true, open_tcp: true, external_unix_sockets: true, ..Default::default() };
    let image = world.path("image");
    let mut request = origin.checkpoint_request(&image, true);
    request.options = Some(pack(&options)).into();
    origin.checkpoint_with(request).unwrap();
    let container = world.container("c1").from_checkpoint(&image).created();
    container.start().unwrap();
    let call = &container.calls("restore")[0];
    for word in ["--tcp-established", "--ext-unix-sk", "--file-locks"] {
        assert!(call.contains(word), "{word} in {call}");
    }
}

fn an_image_named_in_the_options_is_restored(world: &World) {
    let image = take(world, "image", false);
    let work = world.path("work");
    let container = world
        .container("c1")
        .options(|options| {
            options.criu_image_path = image.to_str().unwrap().into();
            options.criu_work_path = work.to_str().unwrap().into();
        })
        .created();
    container.start().unwrap();
    assert_eq!((container.calls("create").len(), container.calls("restore").len()), (0, 1));
    assert!(fs::read_to_string(work.join("restore.log")).unwrap().contains("finished successfully"));
}

fn five_generations_come_back_and_keep_their_output(world: &World) {
    let mut image = world.path("image-0");
    let origin = world.container("c0").fifos().program(["print generation 0", "sleep"]).started();
    origin.stdout().wait_for("generation 0");
    origin.checkpoint(&image, true).unwrap();
    for generation in 1..=5 {
        let line = format!("generation {generation}");
        let id = format!("c{generation}");
        let container =
            world.container(&id).fifos().program([&format!("print {line}"), "sleep"]).from_checkpoint(&image).created();
        container.start().unwrap();
        container.stdout().wait_for(&line);
        image = world.path(&format!("image-{generation}"));
        container.checkpoint(&image, true).unwrap();
        assert_eq!(container.stdout().wait_for_end_after(|| drop(container.delete().unwrap())), format!("{line}\n"));
    }
}

fn a_terminal_comes_back_even_if_the_client_wants_none(world: &World) {
    let image = world.path("image");
    let origin = world.container("c0").streams(Streams::Terminal).started();
    origin.checkpoint(&image, true).unwrap();
    assert_eq!(manifest(&image).unwrap()["terminal"], true);
    let container = world.container("c1").fifos().program(["print on a terminal", "sleep"]).from_checkpoint(&image).created();
    container.start().unwrap();
    assert!(container.calls("restore")[0].contains("--console-socket"));
    container.stdout().wait_for("on a terminal\r\n");
    // And the other way round.
    let plain = take(world, "plain", false);
    let container =
        world.container("c2").streams(Streams::Terminal).program(["print on pipes", "sleep"]).from_checkpoint(&plain).created();
    container.start().unwrap();
    assert!(!container.calls("restore")[0].contains("--console-socket"));
    container.stdout().wait_for("on pipes\n");
}

fn a_container_beside_its_original_gets_a_cgroup_of_its_own(world: &World) {
    if !world.has_cgroups() {
        skip("there are no cgroups here: not root, or cgroup v2 isn't mounted");
    }
    let image = world.path("image");
    let origin = world.container("origin").started();
    origin.checkpoint(&image, false).unwrap();
    let bundle = world.container("clone").from_checkpoint(&image).lay_out();
    let config = fs::read_to_string(bundle.path.join("config.json")).unwrap();
    fs::write(bundle.path.join("config.json"), config.replace("/default/clone", "/default/origin")).unwrap();
    let clone = Container::boot(world, bundle);
    clone.create().unwrap();
    let pid = clone.start().unwrap();
    let procs = |id| fs::read_to_string(world.cgroup(id).join("cgroup.procs")).unwrap();
    assert_eq!(procs("clone").trim(), pid.to_string());
    assert_eq!(procs("origin").trim(), origin.init_pid().to_string());
    clone.kill(9).unwrap();
    clone.wait().unwrap();
    clone.delete().unwrap();
    assert_eq!(origin.status(), Status::RUNNING);
    assert!(!world.has_cgroup("clone") && world.has_cgroup("origin"));
}

fn one_that_exits_before_the_restore_returns_is_told_after_its_start(world: &World) {
    let image = take(world, "image", false);
    for (id, point) in [("c1", "after"), ("c2", "born")] {
        let blueprint = world.container(id).program(["exit 5"]).from_checkpoint(&image);
        let blueprint = if point == "born" {
            let state = format!("/run/containerd/runc/default/{id}/pids");
            blueprint.rule(Script::at("restore", point), json!({ "shell": format!("kill -6 $(cat {state})") }))
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
    let container = world.container("c1").networked().rootfs(&rootfs).fifos().from_checkpoint(&image).created();
    let waiting = container.begin(Container::wait);
    container.delete().unwrap();
    waiting.answer().unwrap();
    assert!(process::anchors().is_empty());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("c1/rootfs"));
    refused(container.state(), Code::NOT_FOUND, &[]);
    container.create().unwrap();
    container.start().unwrap();
    container.expect_events(["create", "exit 137", "delete 137", "create", "start"]);
}

/// What a failed restore leaves: a container that is stopped and can be deleted.
#[track_caller]
fn stopped_and_deletable(container: &Container) {
    let asked = Instant::now();
    assert_eq!(container.status(), Status::STOPPED);
    assert_eq!(container.state().unwrap().pid, 0);
    let status = container.wait().unwrap();
    assert!(status > 0 && asked.elapsed() < AT_ONCE, "{status} after {:?}", asked.elapsed());
    assert!(!container.pids().unwrap().is_empty());
    // Killed before the answer, dead a moment later.
    until_within(SOON, "the anchor is gone", || process::anchors().is_empty());
    until_within(SOON, "no process of the container is left", || process::with_words(&["container", "be"]).is_empty());
    refused(container.kill(9), Code::NOT_FOUND, &["finished"]);
    container.delete().unwrap();
    refused(container.state(), Code::NOT_FOUND, &[]);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("/rootfs "), "a mount is left");
    let runtime = Path::new("/run/containerd/runc/default").join(container.id());
    assert!(!runtime.exists(), "the runtime still knows it");
}

/// The runtime, or CRIU in it, fails at each of its steps.
fn failures() -> Vec<Test> {
    let cases: [(&str, Value, Code, &[&str]); 14] = [
        ("before", json!({"fail": "no criu today"}), Code::UNKNOWN, &["restore", "no criu today"]),
        ("before", json!({"exit": 5}), Code::UNKNOWN, &["restore", "exit status 5"]),
        ("before", json!({"die": 9}), Code::UNKNOWN, &["restore", "137"]),
        ("read", json!({"criu-fail": "Can't open mapped file"}), Code::FAILED_PRECONDITION, &["Can't open mapped file", "log: "]),
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
            let name = format!("restore::a_failed_start_leaves_it_stopped_and_deletable::{number:02}_{point}_{kind}");
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
    for (number, text) in ["[]", r#"{"process":[],"linux":{}}"#, r#"{"process":{},"linux":7}"#, "7"].into_iter().enumerate() {
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

fn daemons_copy(world: &World, name: &str) -> PathBuf {
    let image = take(world, "image", false);
    let copy = PathBuf::from("/tmp").join(name);
    fs::create_dir(&copy).unwrap();
    for file in names(&image) {
        fs::copy(image.join(&file), copy.join(&file)).unwrap();
    }
    copy
}

fn containerds_copy_is_removed_and_nothing_else(world: &World) {
    let copy = daemons_copy(world, "ctrd-checkpoint1234");
    let mine = world.path("ctrd-checkpoint1234");
    fs::rename(world.path("image"), &mine).unwrap();
    for (id, image) in [("c1", &copy), ("c2", &mine)] {
        let container = world.container(id).from_checkpoint(image).created();
        container.start().unwrap();
    }
    assert!(!copy.exists(), "a copy of the container's memory for each restore");
    assert!(is_complete(&mine));
}

fn containerds_copy_is_removed_if_the_restore_fails(world: &World) {
    let copy = daemons_copy(world, "ctrd-checkpoint1234");
    let container = world
        .container("c1")
        .from_checkpoint(&copy)
        .rule(Script::at("restore", "read"), json!({"fail": "no"}))
        .created();
    container.start().unwrap_err();
    assert!(!copy.exists());
}

fn containerds_copy_is_removed_if_the_restore_never_starts(world: &World) {
    for way in ["delete", "kill"] {
        let copy = daemons_copy(world, "ctrd-checkpoint1234");
        let container = world.container("c1").from_checkpoint(&copy).created();
        if way == "kill" {
            container.kill(9).unwrap();
            container.wait().unwrap();
        }
        container.delete().unwrap();
        let left = copy.exists();
        let _ = fs::remove_dir_all(&copy);
        assert!(!left, "after {way}");
        container.clean_up();
        container.expect_shim_gone();
        fs::remove_dir_all(world.path("image")).unwrap();
    }
}

fn the_image_is_the_one_that_was_checked(world: &World) {
    let image = take(world, "image", false);
    let container = world.container("c1").from_checkpoint(&image).created();
    // The path leads elsewhere by now.
    fs::rename(&image, world.path("moved")).unwrap();
    let other = world.folder("image");
    fs::write(other.join("inventory.img"), "not an inventory").unwrap();
    container.start().unwrap();
}

/// What is wrong with an image is found at Create, and said.
fn bad_images() -> Vec<Test> {
    type Damage = fn(&World, &Path) -> PathBuf;
    fn same(image: &Path) -> PathBuf {
        image.to_owned()
    }
    fn edit(image: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
        let mut manifest = manifest(image).unwrap();
        change(&mut manifest);
        fs::write(image.join("cryo.json"), manifest.to_string()).unwrap();
        same(image)
    }
    fn write(image: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(image.join(name), bytes).unwrap();
        same(image)
    }
    fn foreign(image: &Path) {
        fs::remove_file(image.join("cryo.json")).unwrap();
    }
    let cases: [(&str, Damage, Code, &[&str]); 26] = [
        ("missing", |w, _| w.path("nowhere"), Code::NOT_FOUND, &["/tmp/test/nowhere"]),
        ("no_folder", |w, _| { fs::write(w.path("file"), "").unwrap(); w.path("file") }, Code::INTERNAL, &["/tmp/test/file"]),
        ("relative", |_, _| "image".into(), Code::INVALID_ARGUMENT, &["absolute"]),
        ("leading_up", |_, _| "/tmp/test/../test/image".into(), Code::INVALID_ARGUMENT, &[".."]),
        ("behind_a_link", |w, i| { symlink(i, w.path("link")).unwrap(); w.path("link") }, Code::INTERNAL, &["/tmp/test/link"]),
        ("empty", |w, _| w.folder("empty"), Code::FAILED_PRECONDITION, &["isn't a checkpoint"]),
        ("of_something_else", |w, _| write(&w.folder("other"), "inventory.img", b"text"), Code::FAILED_PRECONDITION, &["isn't a checkpoint"]),
        ("with_an_empty_inventory", |_, i| { foreign(i); write(i, "inventory.img", b"") }, Code::FAILED_PRECONDITION, &["isn't a checkpoint"]),
        ("unsealed", |_, i| edit(i, |m| m["sealed"] = false.into()), Code::FAILED_PRECONDITION, &["never completed"]),
        ("of_the_future", |_, i| edit(i, |m| m["format"] = 99.into()), Code::DATA_LOSS, &["format 99"]),
        ("with_a_broken_manifest", |_, i| write(i, "cryo.json", b"{"), Code::DATA_LOSS, &["cryo.json"]),
        ("with_an_empty_manifest", |_, i| write(i, "cryo.json", b""), Code::DATA_LOSS, &["cryo.json"]),
        ("with_a_binary_manifest", |_, i| write(i, "cryo.json", &[0xff; 99]), Code::DATA_LOSS, &["cryo.json"]),
        ("with_a_deep_manifest", |_, i| write(i, "cryo.json", "[".repeat(100_000).as_bytes()), Code::DATA_LOSS, &["cryo.json"]),
        ("with_a_file_cut_short", |_, i| { fs::File::options().write(true).open(i.join("pages-1.img")).unwrap().set_len(9).unwrap(); same(i) }, Code::DATA_LOSS, &["pages-1.img", "9 of 65536"]),
        ("with_a_file_missing", |_, i| { fs::remove_file(i.join("core-1.img")).unwrap(); same(i) }, Code::DATA_LOSS, &["core-1.img is missing"]),
        ("with_files_elsewhere", |_, i| edit(i, |m| m["files"]["../../../etc/passwd"] = 1.into()), Code::DATA_LOSS, &["passwd"]),
        ("of_another_runtime", |_, i| edit(i, |m| m["runtime"]["name"] = "crun".into()), Code::FAILED_PRECONDITION, &["crun", "runc"]),
        ("of_another_architecture", |_, i| edit(i, |m| m["architecture"] = "s390x".into()), Code::FAILED_PRECONDITION, &["s390x"]),
        ("of_another_kind_of_network", |_, i| edit(i, |m| m["network"] = "private".into()), Code::FAILED_PRECONDITION, &["network"]),
        ("with_a_link_in_it", |_, i| { symlink("/etc/passwd", i.join("core-2.img")).unwrap(); same(i) }, Code::INVALID_ARGUMENT, &["core-2.img"]),
        ("with_a_link_for_a_manifest", |_, i| { fs::rename(i.join("cryo.json"), i.join("other")).unwrap(); symlink("other", i.join("cryo.json")).unwrap(); same(i) }, Code::INVALID_ARGUMENT, &["cryo.json"]),
        ("with_a_folder_in_it", |_, i| { fs::create_dir(i.join("parent")).unwrap(); same(i) }, Code::INVALID_ARGUMENT, &["parent"]),
        ("with_a_fifo_in_it", |_, i| { mkfifo(&i.join("pages-2.img")); same(i) }, Code::INVALID_ARGUMENT, &["pages-2.img"]),
        ("with_a_socket_in_it", |_, i| { drop(std::os::unix::net::UnixListener::bind(i.join("s.img")).unwrap()); same(i) }, Code::INVALID_ARGUMENT, &["s.img"]),
        ("with_a_file_of_somebody_else", |w, i| { if !w.can_be_others() { skip("there is only one user here"); } std::os::unix::fs::chown(i.join("pages-1.img"), Some(1000), None).unwrap(); same(i) }, Code::INVALID_ARGUMENT, &["pages-1.img"]),
    ];
    let mut tests = Vec::new();
    for (name, damage, code, words) in cases {
        tests.push(Test::new(format!("restore::an_image_is_refused::{name}"), move |world| {
            let image = damage(world, &take(world, "image", false));
            let rootfs = world.folder("rootfs");
            let container = world.container("c1").rootfs(&rootfs).from_checkpoint(&image).boot();
            refused(container.create(), code, words);
            refused(container.state(), Code::NOT_FOUND, &[]);
            assert!(container.calls("restore").is_empty());
            assert!(process::anchors().is_empty(), "an anchor is left");
            assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("c1/rootfs"), "a mount is left");
            assert!(container.events().is_empty());
            // With a good one the same id works.
            let good = take(world, "good", false);
            let request = CreateTaskRequest {
                checkpoint: good.to_str().unwrap().into(),
                ..container.bundle.request.clone()
            };
            container.client().call::<_, Empty>("Create", &request).unwrap();
        }));
    }
    tests.extend(damage_found_late());
    tests
}

/// What only CRIU's own files tell, and only when they are needed.
fn damage_found_late() -> Vec<Test> {
    type Damage = fn(&Path);
    let cases: [(&str, bool, Damage); 7] = [
        ("core_cut_short", false, |i| fs::write(i.join("core-1.img"), "short").unwrap()),
        ("core_missing", false, |i| fs::remove_file(i.join("core-1.img")).unwrap()),
        ("pstree_missing", true, |i| fs::remove_file(i.join("pstree.img")).unwrap()),
        ("pstree_cut_short", true, |i| fs::write(i.join("pstree.img"), b"\x19CVT00").unwrap()),
        ("pstree_of_garbage", true, |i| fs::write(i.join("pstree.img"), [0xff; 64]).unwrap()),
        ("ids_with_an_endless_length", true, |i| {
            let bytes = [&b"\x19CVT\x30\x20\x43\x54"[..], &[0xff; 4], &[0; 8]].concat();
            fs::write(i.join("ids-1.img"), bytes).unwrap();
        }),
        ("network_of_garbage", true, |i| fs::write(i.join("netns-10.img"), [0xff; 64]).unwrap()),
    ];
    let mut tests = Vec::new();
    for (name, network, damage) in cases {
        tests.push(Test::new(format!("restore::a_foreign_image_with_damage_fails_cleanly::{name}"), move |world| {
            let image = take(world, "image", network);
            fs::remove_file(image.join("cryo.json")).unwrap();
            damage(&image);
            let blueprint = world.container("c1").from_checkpoint(&image);
            let container = if network { blueprint.networked() } else { blueprint }.boot();
            let refusal = match container.create() {
                Err(refusal) => {
                    refused(container.state(), Code::NOT_FOUND, &[]);
                    refusal
                }
                Ok(_) => {
                    let refusal = container.start().unwrap_err();
                    stopped_and_deletable(&container);
                    refusal
                }
            };
            // The image is to blame, not the shim.
            assert!(
                matches!(refusal.code, Code::DATA_LOSS | Code::FAILED_PRECONDITION),
                "the image is to blame: {refusal}"
            );
            assert!(refusal.message.contains(".img"), "{refusal}");
        }));
    }
    tests
}

fn a_giant_image_file_does_not_fill_memory(world: &World) {
    for name in ["inventory.img", "pstree.img", "ids-1.img", "cryo.json"] {
        let image = take(world, &format!("image-{name}"), true);
        if name != "cryo.json" {
            fs::remove_file(image.join("cryo.json")).unwrap();
        }
        // Sparse: it takes no room on disk.
        fs::File::options().write(true).open(image.join(name)).unwrap().set_len(400 << 20).unwrap();
        let container = world.container(&format!("c-{name}")).networked().from_checkpoint(&image).boot();
        if container.create().is_ok() {
            let _ = container.start();
        }
        let peak = process::kilobytes(container.shim, "VmHWM") >> 10;
        assert!(peak < 100, "{name}: the shim took {peak} MiB");
    }
}

/// A new image is moved beside the remains of an older one, file by file and its manifest
/// last; the shim was killed on the way.
fn an_image_whose_arrival_was_cut_short_is_whole_or_refused(world: &World) {
    let complete = take(world, "complete", false);
    let files: Vec<_> = names(&complete).into_iter().filter(|name| name != "cryo.json").collect();
    for arrived in 0..=files.len() {
        let image = world.folder(&format!("image-{arrived}"));
        fs::set_permissions(&image, fs::Permissions::from_mode(0o755)).unwrap();
        let staging = image.join(".cryo-4711");
        fs::create_dir(&staging).unwrap();
        for (number, name) in names(&complete).into_iter().enumerate() {
            let is_there = name != "cryo.json" && number < arrived;
            let to = if is_there { image.join(&name) } else { staging.join(&name) };
            fs::copy(complete.join(&name), to).unwrap();
        }
        let container = world.container(&format!("c{arrived}")).from_checkpoint(&image).boot();
        match container.create() {
            Err(refusal) => assert!(refusal.code == Code::FAILED_PRECONDITION, "{arrived}: {refusal}"),
            Ok(_) => {
                let _ = container.start();
                assert!(is_complete(&image), "with {arrived} files it was taken for somebody else's");
            }
        }
    }
}

/// Nothing the shim does for a restore may move the shim itself.
fn the_daemons_namespaces_are_left_alone(world: &World) {
    let image = take(world, "image", true);
    let container = world.container("c1").networked().from_checkpoint(&image).boot();
    let spaces = || ["net", "mnt", "user", "pid", "cgroup"].map(|kind| {
        fs::read_link(format!("/proc/{}/ns/{kind}", container.shim)).unwrap()
    });
    let before = spaces();
    container.create().unwrap();
    container.start().unwrap();
    assert_eq!(spaces(), before);
}

fn a_missing_criu_is_named(world: &World) {
    let image = take(world, "image", false);
    let mut bundle = world.container("c1").from_checkpoint(&image).lay_out();
    bundle.call.environment.push(("PATH", "/nowhere".into()));
    let container = Container::boot(world, bundle);
    refused(container.create(), Code::FAILED_PRECONDITION, &["criu", "PATH"]);
}

fn clients_that_leave() -> Vec<Test> {
    let mut tests = Vec::new();
    for leaves in [Leaves::HangsUp, Leaves::StopsWaiting] {
        for fails in [false, true] {
            let outcome = if fails { "that_fails_finds_it_stopped" } else { "finds_it_running" };
            tests.push(Test::new(format!("restore::a_client_that_{leaves}_during_a_restore_{outcome}"), move |world| {
                let image = take(world, "image", false);
                let mut blueprint = world
                    .container("c1")
                    .from_checkpoint(&image)
                    .rule(Script::at("restore", "before"), json!({"wait": "gate"}));
                if fails {
                    blueprint = blueprint.rule(Script::at("restore", "read"), json!({"criu-fail": "strange"}));
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
            }));
        }
    }
    tests
}

//! The shim is killed at any moment. What containerd then calls, `delete`, is quick,
//! removes everything and says how the container ended; an image is sealed, or it is
//! rubbish and known as such.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cryo_protos::api::Status;
use serde_json::{Value, json};

use crate::harness::image::{is_complete, is_sealed, names, take};
use crate::harness::{Code, Container, Said, Script, Test, World, process, refused, tests, until};

/// containerd waits no longer.
const BUDGET: Duration = Duration::from_secs(5);

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        delete_tells_the_exit_that_was_recorded,
        delete_tells_the_exit_of_a_checkpoint,
        delete_says_killed_if_nobody_knows_better,
        delete_of_a_container_never_created_succeeds,
        delete_works_twice,
        delete_finds_the_bundle_beside_its_working_directory,
        delete_unmounts_what_is_mounted_in_the_bundle,
        delete_kills_what_the_runtime_does_not_know,
        delete_is_in_time_if_the_runtime_hangs,
        delete_is_in_time_if_the_runtime_ignores_sigterm,
        delete_removes_the_rest_if_the_runtime_fails,
        delete_removes_the_rest_if_the_runtime_is_gone,
        delete_works_with_what_is_left_of_a_bundle,
        delete_thaws_what_was_left_frozen,
        delete_leaves_the_socket_of_a_shim_that_lives,
        an_anchor_dies_with_its_shim,
        a_restore_that_stands_still_dies_with_its_shim,
        a_logger_outlives_nothing,
        a_shim_killed_while_containers_run_takes_no_other_down,
    ];
    tests.extend(at_every_verb());
    tests.extend(during_a_checkpoint());
    tests.extend(during_a_restore());
    tests
}

#[track_caller]
fn in_budget(said: &Said) {
    assert!(said.took < BUDGET, "delete took {:?}; it said {}", said.took, said.stderr);
}

#[track_caller]
fn nothing_left(world: &World, container: &Container) {
    until("no process of the container is left", || process::with_words(&["container", "be"]).is_empty());
    assert!(!world.has_cgroup(&container.id()), "its cgroup is left");
    assert!(!Path::new("/run/containerd/runc/default").join(container.id()).exists(), "the runtime still knows it");
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("/rootfs "), "a mount is left");
    assert!(!container.socket().exists(), "the socket is left");
}

/// Waits for the death that a script has set up, and does what containerd does then.
#[track_caller]
fn deleted_after_death(world: &World, container: &Container) -> (u32, u32) {
    process::wait_for_death(container.shim);
    container.script(|_| {});
    let said = container.bundle.call.delete();
    in_budget(&said);
    let answer = said.deleted();
    assert!(answer.exited_at.seconds > 0);
    nothing_left(world, container);
    container.forget();
    (answer.pid, answer.exit_status)
}

/// The runtime kills the shim at each point of each verb.
fn at_every_verb() -> Vec<Test> {
    type Act = fn(&Container);
    let started: Act = |container| {
        container.create().unwrap();
        container.start().unwrap();
    };
    let cases: [(&str, &[&str], Act, Act); 8] = [
        ("create", &["before", "made", "born", "after"], |_| {}, |c| drop(c.create())),
        ("start", &["before", "after"], |c| drop(c.create().unwrap()), |c| drop(c.start())),
        ("exec", &["before", "made", "born", "after"], started, |c| {
            c.exec("e1", ["sleep"]).unwrap();
            drop(c.start_exec("e1"));
        }),
        ("pause", &["before", "after"], started, |c| drop(c.pause())),
        ("resume", &["before", "after"], |c| { c.create().unwrap(); c.start().unwrap(); c.pause().unwrap(); }, |c| drop(c.resume())),
        ("update", &["before", "after"], started, |c| drop(c.update(b"{}"))),
        ("kill", &["before", "after"], started, |c| drop(c.kill(15))),
        ("delete", &["before", "killed", "after"], |c| drop(c.create().unwrap()), |c| drop(c.delete())),
    ];
    let mut tests = Vec::new();
    for (verb, points, prepare, act) in cases {
        for point in points {
            let name = format!("shim_death::a_shim_killed_in_{verb}_leaves_nothing::{point}");
            tests.push(Test::new(name, move |world| {
                let rootfs = world.folder("rootfs");
                let container = world.container("c1").rootfs(&rootfs).boot();
                prepare(&container);
                let pid = fs::read_to_string(container.path("init.pid")).map(|_| container.init_pid());
                container.script(|script| script.rule(Script::at(verb, point).nth(1), "kill-parent"));
                act(&container);
                let (told, status) = deleted_after_death(world, &container);
                assert_eq!(status, 137);
                if let Ok(pid) = pid {
                    assert_eq!(told, pid);
                }
            }));
        }
    }
    tests
}

fn during_a_checkpoint() -> Vec<Test> {
    let mut tests = Vec::new();
    for exit in [false, true] {
        for point in ["before", "written", "dumped", "sealed", "killed", "after"] {
            if point == "killed" && !exit {
                continue;
            }
            for older in [false, true] {
                let kind = if exit { "exit" } else { "leave_running" };
                let place = if older { "_over_an_older_one" } else { "" };
                let name = format!("shim_death::a_shim_killed_in_checkpoint_leaves_a_sealed_image_or_rubbish::{point}_{kind}{place}");
                tests.push(Test::new(name, move |world| killed_in_checkpoint(world, point, exit, older)));
            }
        }
    }
    tests
}

fn killed_in_checkpoint(world: &World, point: &'static str, exit: bool, older: bool) {
    let image = world.path("image");
    if older {
        let origin = world.container("older").started();
        origin.checkpoint(&image, true).unwrap();
        origin.clean_up();
    }
    let container = world.container("c1").rule(Script::at("checkpoint", point), "kill-parent").started();
    let _ = container.checkpoint(&image, exit);
    let (_, status) = deleted_after_death(world, &container);
    assert_eq!(status, 137);
    // Once a container was stopped for it, its image is there.
    let stopped = exit && matches!(point, "killed" | "after");
    let restored = world.container("c2").from_checkpoint(&image).boot();
    let answer = restored.create();
    if older || stopped {
        answer.unwrap();
        assert!(is_complete(&image), "{:?}", names(&image));
        restored.start().unwrap();
        if stopped {
            let core = String::from_utf8_lossy(&fs::read(image.join("core-1.img")).unwrap()).into_owned();
            assert!(core.contains("c1"), "the older image was restored in place of the last one");
        }
    } else if !is_sealed(&image) {
        let refusal = answer.unwrap_err();
        assert!(matches!(refusal.code, Code::FAILED_PRECONDITION | Code::NOT_FOUND), "{refusal}");
    }
    // Whatever it is, it isn't in the way of the next one.
    let next = world.container("c3").started();
    next.checkpoint(&image, false).unwrap();
    assert!(is_complete(&image));
    assert!(names(&image).iter().all(|name| !name.starts_with('.')), "{:?}", names(&image));
}

fn during_a_restore() -> Vec<Test> {
    let mut tests = Vec::new();
    for point in ["before", "read", "born", "after"] {
        for network in [false, true] {
            let kind = if network { "networked" } else { "plain" };
            let name = format!("shim_death::a_shim_killed_in_restore_leaves_nothing::{point}_{kind}");
            tests.push(Test::new(name, move |world| {
                if point == "born" && !world.has_cgroups() {
                    crate::harness::skip("without cgroups nothing tells whose process a killed restore has left");
                }
                let image = take(world, "image", network);
                let rootfs = world.folder("rootfs");
                let blueprint = world.container("c1").rootfs(&rootfs).from_checkpoint(&image);
                let blueprint = if network { blueprint.networked() } else { blueprint };
                let container = blueprint.rule(Script::at("restore", point), "kill-parent").created();
                let _ = container.start();
                let (_, status) = deleted_after_death(world, &container);
                assert_eq!(status, 137);
                assert!(process::anchors().is_empty());
                assert!(is_complete(&image), "the image is as it was");
            }));
        }
    }
    tests
}

fn delete_tells_the_exit_that_was_recorded(world: &World) {
    let container = world.container("c1").program(["exit 7"]).started();
    let pid = container.state().unwrap().pid;
    assert_eq!(container.wait().unwrap(), 7);
    let exited_at = container.state().unwrap().exited_at.seconds;
    container.kill_shim();
    let said = container.bundle.call.delete();
    in_budget(&said);
    let answer = said.deleted();
    assert_eq!((answer.pid, answer.exit_status, answer.exited_at.seconds), (pid, 7, exited_at));
    nothing_left(world, &container);
}

fn delete_tells_the_exit_of_a_checkpoint(world: &World) {
    let container = world.container("c1").started();
    container.checkpoint(&world.path("image"), true).unwrap();
    container.kill_shim();
    assert_eq!(container.bundle.call.delete().deleted().exit_status, 137);
    assert!(is_complete(&world.path("image")));
    nothing_left(world, &container);
}

fn delete_says_killed_if_nobody_knows_better(world: &World) {
    let container = world.container("c1").started();
    container.exec("e1", ["sleep"]).unwrap();
    container.start_exec("e1").unwrap();
    let pid = container.init_pid();
    container.kill_shim();
    let said = container.bundle.call.delete();
    in_budget(&said);
    let answer = said.deleted();
    assert_eq!((answer.pid, answer.exit_status), (pid, 137));
    assert_eq!(said.stderr, "", "there was nothing to complain about");
    nothing_left(world, &container);
}

fn delete_of_a_container_never_created_succeeds(world: &World) {
    let container = world.container("c1").boot();
    container.kill_shim();
    let said = container.bundle.call.delete();
    in_budget(&said);
    assert_eq!(said.deleted().exit_status, 137);
    nothing_left(world, &container);
    // Not even that: containerd calls it when `start` has failed, too.
    let bundle = world.container("c2").lay_out();
    assert_eq!(bundle.call.delete().deleted().exit_status, 137);
}

fn delete_works_twice(world: &World) {
    let container = world.container("c1").started();
    container.kill_shim();
    container.bundle.call.delete().deleted();
    let said = container.bundle.call.delete();
    in_budget(&said);
    assert_eq!(said.deleted().exit_status, 137);
}

fn delete_finds_the_bundle_beside_its_working_directory(world: &World) {
    let container = world.container("c1").program(["exit 9"]).started();
    container.wait().unwrap();
    let other = world.container("c2").lay_out();
    container.kill_shim();
    let mut command = std::process::Command::new("/run/bin/containerd-shim-cryo-v2");
    command.args(["-namespace", "default", "-address", "/run/containerd/containerd.sock", "-id", "c1", "delete"]);
    let said = crate::harness::said(command.current_dir(&other.path), &[]);
    assert_eq!(said.deleted().exit_status, 9);
    nothing_left(world, &container);
}

fn delete_unmounts_what_is_mounted_in_the_bundle(world: &World) {
    let rootfs = world.folder("rootfs");
    fs::create_dir(rootfs.join("below")).unwrap();
    let container = world.container("c1").rootfs(&rootfs).started();
    let below = container.path("rootfs/below");
    rustix::mount::mount_bind(world.folder("other"), &below).unwrap();
    // Somebody is still in there.
    let user = fs::File::open(&below).unwrap();
    container.kill_shim();
    let said = container.bundle.call.delete();
    in_budget(&said);
    said.deleted();
    nothing_left(world, &container);
    drop(user);
}

fn delete_kills_what_the_runtime_does_not_know(world: &World) {
    if !world.has_cgroups() {
        crate::harness::skip("without cgroups nothing tells whose process it is");
    }
    let container = world.container("c1").started();
    fs::remove_dir_all("/run/containerd/runc/default/c1").unwrap();
    container.kill_shim();
    let said = container.bundle.call.delete();
    in_budget(&said);
    said.deleted();
    nothing_left(world, &container);
}

fn delete_is_in_time_if_the_runtime_hangs(world: &World) {
    delete_with_a_broken_runtime(world, json!("hang"));
}

fn delete_is_in_time_if_the_runtime_ignores_sigterm(world: &World) {
    delete_with_a_broken_runtime(world, json!("hang-with-child"));
}

fn delete_removes_the_rest_if_the_runtime_fails(world: &World) {
    delete_with_a_broken_runtime(world, json!({"fail": "no luck"}));
}

/// The runtime is no help: everything else is done all the same, and the container dies.
fn delete_with_a_broken_runtime(world: &World, action: Value) {
    let rootfs = world.folder("rootfs");
    let container = world.container("c1").rootfs(&rootfs).started();
    container.kill_shim();
    container.script(|script| script.rule(Script::at("delete", "before"), action));
    let said = container.bundle.call.delete();
    in_budget(&said);
    assert_eq!(said.deleted().exit_status, 137);
    assert!(!said.stderr.is_empty(), "what couldn't be done is said");
    let hanging = fs::read_to_string(container.path("hanging-child")).ok();
    until("the container is dead", || process::with_words(&["container", "be", "program"]).is_empty());
    until("the runtime is gone", || process::with_words(&["--root", "delete"]).is_empty());
    if let Some(child) = hanging {
        process::wait_for_death(child.parse().unwrap());
    }
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("/rootfs "), "a mount is left");
    assert!(!container.socket().exists());
    assert!(!world.has_cgroup("c1"), "its cgroup is left");
    // What only the runtime can remove is for a later try.
    container.script(|_| {});
    container.bundle.call.delete().deleted();
}

fn delete_removes_the_rest_if_the_runtime_is_gone(world: &World) {
    let rootfs = world.folder("rootfs");
    let container = world.container("c1").rootfs(&rootfs).started();
    container.kill_shim();
    let options = fs::read_to_string(container.path("options.json")).unwrap();
    for name in ["options.json", "runtime"] {
        let text = fs::read_to_string(container.path(name)).unwrap().replace("/run/bin/runc", "/run/bin/nothing");
        fs::write(container.path(name), text).unwrap();
    }
    let said = container.bundle.call.delete();
    in_budget(&said);
    assert_eq!(said.deleted().exit_status, 137);
    assert!(said.stderr.contains("/run/bin/nothing"), "{}", said.stderr);
    until("the container is dead", || process::with_words(&["container", "be"]).is_empty());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("/rootfs "), "a mount is left");
    fs::write(container.path("options.json"), options).unwrap();
    container.bundle.call.delete().deleted();
}

fn delete_works_with_what_is_left_of_a_bundle(world: &World) {
    let losses: [&[&str]; 6] = [
        &["config.json"],
        &["options.json"],
        &["runtime"],
        &["init.pid"],
        &["address"],
        &["log", "shim-binary-path", "bootstrap.json"],
    ];
    for (number, lost) in losses.into_iter().enumerate() {
        let id = format!("c{number}");
        let container = world.container(&id).started();
        container.kill_shim();
        for name in lost {
            fs::remove_file(container.path(name)).unwrap();
        }
        let said = container.bundle.call.delete();
        in_budget(&said);
        assert_eq!(said.deleted().exit_status, 137, "without {lost:?}");
        until(&format!("without {lost:?} the container is dead"), || process::with_words(&["container", "be"]).is_empty());
        assert!(!Path::new("/run/containerd/runc/default").join(&id).exists(), "without {lost:?}");
        // Without its address nobody can find the socket; the next start replaces it.
        let _ = fs::remove_file(container.socket());
        for text in ["", "{", "[]", "\u{0}"] {
            lost.iter().for_each(|name| fs::write(container.path(name), text).unwrap());
            assert_eq!(container.bundle.call.delete().deleted().exit_status, 137, "with {text:?} as {lost:?}");
        }
    }
}

fn delete_thaws_what_was_left_frozen(world: &World) {
    let container = world.container("c1").started();
    container.pause().unwrap();
    container.kill_shim();
    let said = container.bundle.call.delete();
    in_budget(&said);
    assert_eq!(said.deleted().exit_status, 137);
    nothing_left(world, &container);
}

fn delete_leaves_the_socket_of_a_shim_that_lives(world: &World) {
    let of_group = |id| world.container(id).annotation("io.containerd.runc.v2.group", "pod");
    let first = of_group("c1").started();
    let second = of_group("c2").lay_out();
    assert_eq!(second.call.start().address(second.call.dialect), first.address);
    second.call.delete().deleted();
    assert_eq!(first.reconnected().status(), Status::RUNNING);
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
        crate::harness::skip("without cgroups nothing tells whose process a killed restore has left");
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
    let logger = crate::stdio::logger(world, &format!("cat <&3 >> {}", log.display()));
    let container = world
        .container("c1")
        .streams(crate::harness::Streams::Uri(format!("binary://{}", logger.display())))
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

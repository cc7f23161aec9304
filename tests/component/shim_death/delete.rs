//! What `delete` says and removes, whatever is left and whatever the runtime does.

use std::fs;
use std::path::Path;
use std::process::Command;

use cryo_protos::api::Status;
use serde_json::{Value, json};

use super::{in_budget, nothing_left};
use crate::harness::image::is_complete;
use crate::harness::{Script, Test, World, process, said, skip, tests, until};

pub(super) fn tests() -> Vec<Test> {
    tests![
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
    ]
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
    let mut command = Command::new("/run/bin/containerd-shim-cryo-v2");
    command.args([
        "-namespace",
        "default",
        "-address",
        "/run/containerd/containerd.sock",
        "-id",
        "c1",
        "delete",
    ]);
    let said = said(command.current_dir(&other.path), &[]);
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
        skip("without cgroups nothing tells whose process it is");
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
    delete_with_a_broken_runtime(world, json!("hang"), true);
}

fn delete_is_in_time_if_the_runtime_ignores_sigterm(world: &World) {
    delete_with_a_broken_runtime(world, json!("hang-with-child"), true);
}

fn delete_removes_the_rest_if_the_runtime_fails(world: &World) {
    delete_with_a_broken_runtime(world, json!({"fail": "no luck"}), false);
}

/// The runtime is no help: everything else is done all the same, and the container dies.
fn delete_with_a_broken_runtime(world: &World, action: Value, hangs: bool) {
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
    let known = Path::new("/run/containerd/runc/default/c1").exists();
    // One that says no has a reason, and it is for a later try; one that says nothing is done without.
    assert_eq!(known, !(hangs && world.has_cgroups()), "whether the runtime knows it still");
    container.script(|_| {});
    container.bundle.call.delete().deleted();
}

fn delete_removes_the_rest_if_the_runtime_is_gone(world: &World) {
    let rootfs = world.folder("rootfs");
    let container = world.container("c1").rootfs(&rootfs).started();
    container.kill_shim();
    let options = fs::read_to_string(container.path("options.json")).unwrap();
    for name in ["options.json", "runtime"] {
        let text =
            fs::read_to_string(container.path(name)).unwrap().replace("/run/bin/runc", "/run/bin/nothing");
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
        until(&format!("without {lost:?} the container is dead"), || {
            process::with_words(&["container", "be"]).is_empty()
        });
        assert!(!Path::new("/run/containerd/runc/default").join(&id).exists(), "without {lost:?}");
        // Without its address nobody can find the socket; the next start replaces it.
        let _ = fs::remove_file(container.socket());
        for text in ["", "{", "[]", "\u{0}"] {
            lost.iter().for_each(|name| fs::write(container.path(name), text).unwrap());
            assert_eq!(
                container.bundle.call.delete().deleted().exit_status,
                137,
                "with {text:?} as {lost:?}"
            );
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

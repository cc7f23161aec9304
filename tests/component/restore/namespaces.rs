//! The namespaces that a container comes back into: its network and its users.

use std::fs;
use std::os::unix::fs::MetadataExt;

use cryo_protos::api::Status;
use serde_json::{Value, json};

use super::stopped_and_deletable;
use crate::harness::image::{contents, take};
use crate::harness::until;
use crate::harness::{Code, Container, Script, Test, World, process, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        a_network_is_there_before_anything_runs,
        a_network_given_by_path_is_used_as_it_is,
        a_container_with_users_of_its_own_stands_still_until_its_start,
        a_container_with_users_of_its_own_can_be_given_up,
        a_container_with_users_of_its_own_fails_with_the_cause,
        the_daemons_namespaces_are_left_alone,
    ]
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
    let path =
        namespaces.iter().find(|listed| listed["type"] == "network").unwrap()["path"].as_str().unwrap();
    assert_eq!(fs::metadata(path).unwrap().ino(), network, "the runtime is told of it, and it lasts");
    until("no anchor is left", || process::anchors().is_empty());
    assert!(contents(&image) == before, "the client's image is as it was");
    // Again: now the runtime calls the network external.
    let second = world.path("second");
    container.checkpoint(&second, true).unwrap();
    let again = world.container("c2").networked().from_checkpoint(&second).created();
    again.start().unwrap();
}

fn inode_of_network(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino()
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
    let failures = [
        ("before", json!({"fail": "no"})),
        ("read", json!({"criu-fail": "bad image"})),
        ("read", json!({"die": 9})),
    ];
    for (point, action) in failures {
        let container = own_users(world);
        container.script(|script| script.rule(Script::at("restore", point), action));
        container.create().unwrap_err();
        refused(container.state(), Code::NOT_FOUND, &[]);
        container
            .script(|script| script.rule(Script::at("restore", "born"), json!({"criu-fail": "bad memory"})));
        container.create().unwrap();
        refused(container.start(), Code::FAILED_PRECONDITION, &["bad memory", "log: "]);
        stopped_and_deletable(&container);
        container.clean_up();
        container.expect_shim_gone();
    }
}

/// Nothing the shim does for a restore may move the shim itself.
fn the_daemons_namespaces_are_left_alone(world: &World) {
    let image = take(world, "image", true);
    let container = world.container("c1").networked().from_checkpoint(&image).boot();
    let spaces = || {
        ["net", "mnt", "user", "pid", "cgroup"]
            .map(|kind| fs::read_link(format!("/proc/{}/ns/{kind}", container.shim)).unwrap())
    };
    let before = spaces();
    container.create().unwrap();
    container.start().unwrap();
    assert_eq!(spaces(), before);
}

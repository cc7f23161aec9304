//! What a client asks for: the runtime is told of it, and it decides whether the
//! container exits.

use cryo_protos::api::{CheckpointTaskRequest, Status};
use cryo_protos::{linux_runc, runc};

use crate::harness::image::{manifest, take};
use crate::harness::{Code, Test, World, any, pack, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        what_is_asked_for_reaches_the_runtime,
        options_of_every_generation_say_whether_to_exit,
        without_options_docker_means_to_exit_and_others_to_run_on,
        an_annotation_decides_where_no_option_does,
        annotations_that_nobody_understands_make_no_container,
        a_checkpoint_is_restored_by_annotation_only_if_the_node_allows_it,
        added_processes_stand_in_the_way_if_the_owner_minds,
    ]
}

fn what_is_asked_for_reaches_the_runtime(world: &World) {
    let container = world.container("c1").started();
    let options = runc::CheckpointOptions {
        open_tcp: true,
        external_unix_sockets: true,
        file_locks: true,
        cgroups_mode: "soft".into(),
        ..Default::default()
    };
    let request = CheckpointTaskRequest {
        options: Some(pack(&options)).into(),
        ..container.checkpoint_request(&world.path("image"), false)
    };
    container.checkpoint_with(request).unwrap();
    let call = &container.calls("checkpoint")[0];
    for word in [
        "--tcp-established",
        "--ext-unix-sk",
        "--file-locks",
        "--manage-cgroups-mode soft",
        "--leave-running",
    ] {
        assert!(call.contains(word), "{word} in {call}");
    }
    assert!(!call.contains("--shell-job"), "without a terminal there is no job of a shell");
    let written = manifest(&world.path("image")).unwrap();
    assert_eq!(written["options"]["tcp_established"], true);
}

fn options_of_every_generation_say_whether_to_exit(world: &World) {
    let new = |exit| pack(&runc::CheckpointOptions { exit, ..Default::default() });
    let old = |exit| pack(&linux_runc::CheckpointOptions { exit, ..Default::default() });
    for (number, (options, exits)) in
        [(new(true), true), (new(false), false), (old(true), true), (old(false), false)]
            .into_iter()
            .enumerate()
    {
        let container = world.container(&format!("c{number}")).started();
        let request = CheckpointTaskRequest {
            options: Some(options).into(),
            ..container.checkpoint_request(&world.path(&format!("image-{number}")), false)
        };
        container.checkpoint_with(request).unwrap();
        assert_eq!(container.status() == Status::STOPPED, exits, "options {number}");
    }
}

fn without_options_docker_means_to_exit_and_others_to_run_on(world: &World) {
    for (namespace, exits) in [("moby", true), ("default", false), ("k8s.io", false)] {
        for options in [None, Some(any("", b""))] {
            let id = format!("c-{}", options.is_some());
            let container = world.container(&id).namespace(namespace).started();
            let image = world.path(&format!("{namespace}-{id}"));
            let request = CheckpointTaskRequest {
                options: options.into(),
                ..container.checkpoint_request(&image, false)
            };
            container.checkpoint_with(request).unwrap();
            assert_eq!(container.status() == Status::STOPPED, exits, "{namespace}");
            container.clean_up();
            container.expect_shim_gone();
        }
    }
}

fn an_annotation_decides_where_no_option_does(world: &World) {
    for (value, exits) in [("true", true), ("false", false)] {
        let container =
            world.container(&format!("c-{value}")).annotation("cryo.checkpoint.exit", value).started();
        let request = CheckpointTaskRequest {
            options: None.into(),
            ..container.checkpoint_request(&world.path(value), false)
        };
        container.checkpoint_with(request).unwrap();
        assert_eq!(container.status() == Status::STOPPED, exits, "{value}");
    }
}

/// Told when the container is made: it can't be mended later.
fn annotations_that_nobody_understands_make_no_container(world: &World) {
    for (name, value) in [
        ("cryo.checkpoint.exit", "maybe"),
        ("cryo.tcp", "yes"),
        ("cryo.exec", "wait"),
        ("cryo.restore-from", "./image"),
    ] {
        let container = world.container(name).annotation(name, value).boot();
        refused(container.create(), Code::INVALID_ARGUMENT, &[name, value]);
        assert!(container.calls("create").is_empty());
    }
}

fn a_checkpoint_is_restored_by_annotation_only_if_the_node_allows_it(world: &World) {
    // A name is one in the store.
    let named = world.container("named").annotation("cryo.restore-from", "image").boot();
    refused(named.create(), Code::PERMISSION_DENIED, &["doesn't allow restores from its store"]);
    let image = take(world, "image", false);
    let named = image.to_str().unwrap();
    let container = world.container("c1").annotation("cryo.restore-from", named).boot();
    refused(
        container.create(),
        Code::PERMISSION_DENIED,
        &["cryo.restore-from", named, "/etc/cryo/config.toml"],
    );
    assert!(container.calls("create").is_empty() && container.calls("restore").is_empty());
}

fn added_processes_stand_in_the_way_if_the_owner_minds(world: &World) {
    let container = world.container("c1").annotation("cryo.exec", "refuse").started();
    container.exec("e1", ["sleep"]).unwrap();
    container.start_exec("e1").unwrap();
    let refusal = container.checkpoint(&world.path("image"), true);
    refused(refusal, Code::FAILED_PRECONDITION, &["added by exec", "cryo.exec=refuse"]);
    assert_eq!(container.status(), Status::RUNNING);
    assert!(container.calls("checkpoint").is_empty());
    container.kill_exec("e1", 9).unwrap();
    container.wait_exec("e1").unwrap();
    container.checkpoint(&world.path("image"), true).unwrap();
}

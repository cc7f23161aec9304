//! What a client asks for: the runtime is told of it, and it decides whether the
//! container exits.

use cryo_protos::api::{CheckpointTaskRequest, Status};
use cryo_protos::{linux_runc, runc};

use crate::harness::image::manifest;
use crate::harness::{Code, Test, World, any, pack, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        what_is_asked_for_reaches_the_runtime,
        options_of_every_generation_say_whether_to_exit,
        without_options_docker_means_to_exit_and_others_to_run_on,
        an_annotation_decides_where_no_option_does,
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
    let container = world.container("c1").annotation("cryo.checkpoint.exit", "maybe").started();
    let request = CheckpointTaskRequest {
        options: None.into(),
        ..container.checkpoint_request(&world.path("maybe"), false)
    };
    refused(container.checkpoint_with(request), Code::INVALID_ARGUMENT, &["cryo.checkpoint.exit", "maybe"]);
    // With options there is nothing to decide.
    container.checkpoint(&world.path("maybe"), false).unwrap();
}

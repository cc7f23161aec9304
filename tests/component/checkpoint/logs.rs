//! CRIU's logs: where they are kept, and what is told of them.

use std::fs;
use std::path::Path;

use cryo_protos::api::CheckpointTaskRequest;
use cryo_protos::runc;
use serde_json::json;

use super::unharmed;
use crate::harness::image::{is_complete, names};
use crate::harness::{Code, Script, Test, World, pack, refused, tests};

const JOURNAL: &str = "/var/log/cryo";

pub(super) fn tests() -> Vec<Test> {
    tests![
        logs_outlive_the_container,
        logs_go_where_the_client_wants_them,
        without_a_journal_logs_stay_in_the_bundle,
        with_nowhere_to_write_to_nothing_is_left,
        the_cause_in_criu_s_log_is_told_with_its_remedy,
    ]
}

fn logs_outlive_the_container(world: &World) {
    let container = world
        .container("c1")
        .rule(Script::at("checkpoint", "written").nth(1), json!({"criu-fail": "strange thing"}))
        .started();
    let refusal = container.checkpoint(&world.path("image"), false).unwrap_err();
    container.checkpoint(&world.path("image"), true).unwrap();
    container.delete().unwrap();
    container.clean_up();
    let log = refusal.message.split_once("log: ").unwrap().1.trim_end_matches(')');
    assert!(log.starts_with(JOURNAL));
    assert!(fs::read_to_string(log).unwrap().contains("strange thing"));
    assert_eq!(names(Path::new(JOURNAL)).len(), 2, "one folder for each checkpoint");
    for folder in names(Path::new(JOURNAL)) {
        assert!(Path::new(JOURNAL).join(folder).join("dump.log").exists());
    }
}

fn logs_go_where_the_client_wants_them(world: &World) {
    let container = world.container("c1").started();
    let work = world.path("work");
    let options = runc::CheckpointOptions { work_path: work.to_str().unwrap().into(), ..Default::default() };
    let request = CheckpointTaskRequest {
        options: Some(pack(&options)).into(),
        ..container.checkpoint_request(&world.path("image"), false)
    };
    container.script(|script| {
        script.rule(Script::at("checkpoint", "dumped").nth(1), json!({"criu-fail": "strange"}))
    });
    container.checkpoint_with(request.clone()).unwrap_err();
    assert!(fs::read_to_string(work.join("dump.log")).unwrap().contains("strange"));
    container.checkpoint_with(request).unwrap();
    assert_eq!(names(&work), ["dump.log", "stats-dump"]);
    assert!(!fs::read_to_string(work.join("dump.log")).unwrap().contains("strange"));
}

fn without_a_journal_logs_stay_in_the_bundle(world: &World) {
    fs::write(JOURNAL, "a file in its place").unwrap();
    let container = world.container("c1").started();
    container.checkpoint(&world.path("image"), false).unwrap();
    assert!(is_complete(&world.path("image")));
    container
        .script(|script| script.rule(Script::at("checkpoint", "written"), json!({"criu-fail": "strange"})));
    let refusal = container.checkpoint(&world.path("image"), false).unwrap_err();
    let log = refusal.message.split_once("log: ").unwrap().1.trim_end_matches(')');
    assert!(Path::new(log).starts_with(&container.bundle.path) && Path::new(log).exists(), "{log}");
    fs::remove_file(JOURNAL).unwrap();
}

fn with_nowhere_to_write_to_nothing_is_left(world: &World) {
    let container = world.container("c1").started();
    fs::write(JOURNAL, "a file in its place").unwrap();
    let bundle = container.bundle.path.clone();
    rustix::mount::mount_bind(&bundle, &bundle).unwrap();
    world.make_read_only(&bundle);
    let image = world.path("image");
    let refusal = container.checkpoint(&image, true);
    world.unmount(&bundle);
    fs::remove_file(JOURNAL).unwrap();
    refused(refusal, Code::FAILED_PRECONDITION, &["Read-only"]);
    assert!(!image.exists(), "the image's folder is left");
    unharmed(world, &container, false);
}

fn the_cause_in_criu_s_log_is_told_with_its_remedy(world: &World) {
    let cases = [
        (
            "inet: Connected TCP socket, consider using --tcp-established option.",
            ["a TCP connection is open", "close it"],
        ),
        ("Can't dump ghost file /tmp/x of 3145728 size, increase limit", ["/tmp/x", "smaller"]),
        ("Some file locks are hold by dumping tasks!", ["holds file locks", "release"]),
        ("something nobody has seen before", ["something nobody has seen before", "(log: "]),
    ];
    let container = world.container("c1").started();
    for (line, [cause, remedy]) in cases {
        container
            .script(|script| script.rule(Script::at("checkpoint", "written"), json!({ "criu-fail": line })));
        let message = refused(
            container.checkpoint(&world.path("image"), true),
            Code::FAILED_PRECONDITION,
            &[cause, remedy, "log: "],
        );
        assert!(!message.contains("type NOTIFY errno 0"), "{message}");
        assert!(message.chars().count() <= 300, "{message}");
    }
}

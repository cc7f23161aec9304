//! Programs of the client's that take the output.

use std::fs;
use std::path::Path;

use cryo_protos::api::{CreateTaskRequest, Empty};

use super::MUCH;
use crate::harness::{Code, Gate, Streams, Test, World, logger, process, refused, tests, until};

pub(super) fn tests() -> Vec<Test> {
    tests![
        a_logger_gets_both_streams_and_knows_whose_they_are,
        a_loggers_arguments_are_in_its_uri,
        a_logger_that_dies_holds_up_nobody,
        a_logger_that_dies_early_fails_the_creation_under_version_2,
        a_logger_that_says_nothing_is_ready_when_it_closes,
        a_logger_that_is_missing_is_named,
        a_logger_writes_the_rest_after_the_container_has_ended,
        a_logger_of_a_terminal_gets_its_output,
    ]
}

fn a_logger_gets_both_streams_and_knows_whose_they_are(world: &World) {
    let log = world.path("log");
    let script = format!(
        "(cat <&4 > {0}.err) & cat <&3 > {0}.out; wait; echo $CONTAINER_NAMESPACE $CONTAINER_ID > {0}",
        log.display()
    );
    let logger = logger(world, &script);
    let container = world
        .container("c1")
        .streams(binary(&logger))
        .program(["print out", "error err", "exit 0"])
        .started();
    container.wait().unwrap();
    container.delete().unwrap();
    wait_for_text(&log, "default c1\n");
    wait_for_text(&log.with_extension("out"), "out\n");
    wait_for_text(&log.with_extension("err"), "err\n");
}

fn a_loggers_arguments_are_in_its_uri(world: &World) {
    let log = world.path("log");
    let logger = logger(world, &format!("echo \"$@\" > {}; cat <&3", log.display()));
    let uri = format!("binary://{}?--level=3&name=a+b%26c&-v", logger.display());
    let container = world.container("c1").streams(Streams::Uri(uri)).program(["exit 0"]).started();
    container.wait().unwrap();
    wait_for_text(&log, "--level 3 name a b&c -v\n");
}

fn a_logger_that_dies_holds_up_nobody(world: &World) {
    let logger = logger(world, "exec sleep 1000");
    let fill = format!("fill {MUCH}");
    let container = world
        .container("c1")
        .streams(binary(&logger))
        .program(["wait go", &fill, "error too", "exit 4"])
        .boot();
    let gate = Gate::new(&container.bundle.path, "go");
    container.create().unwrap();
    container.start().unwrap();
    until("the logger sleeps", || !process::with_words(&["sleep 1000"]).is_empty());
    let pid = process::with_words(&["sleep 1000"])[0];
    process::kill(pid, 9);
    process::wait_for_death(pid);
    gate.open();
    assert_eq!(container.wait().unwrap(), 4, "neither stuck nor killed by SIGPIPE");
    container.delete().unwrap();
}

fn a_logger_that_dies_early_fails_the_creation_under_version_2(world: &World) {
    let logger = logger(world, "exit 1");
    let uri = |scheme| Streams::Uri(format!("{scheme}://{}", logger.display()));
    let container = world.container("c1").streams(uri("binary-v2")).boot();
    refused(container.create(), Code::INTERNAL, &[logger.to_str().unwrap(), "ready"]);
    refused(container.state(), Code::NOT_FOUND, &[]);
    // Under the first version closing is all there is to say.
    let container = world.container("c2").streams(uri("binary")).program(["print lost", "exit 0"]).started();
    assert_eq!(container.wait().unwrap(), 0);
}

fn a_logger_that_says_nothing_is_ready_when_it_closes(world: &World) {
    let log = world.path("log");
    let script = format!("printf x >&5; READY; cat <&3 > {}", log.display());
    let logger = logger(world, &script);
    let uri = Streams::Uri(format!("binary-v2://{}", logger.display()));
    let container = world.container("c1").streams(uri).program(["print hello", "exit 0"]).started();
    container.wait().unwrap();
    container.delete().unwrap();
    wait_for_text(&log, "hello\n");
}

fn a_logger_that_is_missing_is_named(world: &World) {
    let container = world.container("c1").streams(Streams::Uri("binary:///nowhere/logger".into())).boot();
    refused(container.create(), Code::INTERNAL, &["/nowhere/logger"]);
}

fn a_logger_writes_the_rest_after_the_container_has_ended(world: &World) {
    let log = world.path("log");
    let script = format!("trap '' TERM; READY; cat <&3 > {0}.new; mv {0}.new {0}", log.display());
    let logger = logger(world, &script);
    let fill = "fill 300000";
    let container = world.container("c1").streams(binary(&logger)).program([fill, "exit 0"]).started();
    container.wait().unwrap();
    container.delete().unwrap();
    container.clean_up();
    until("all of it is written", || fs::metadata(&log).is_ok_and(|metadata| metadata.len() == 300_000));
}

fn a_logger_of_a_terminal_gets_its_output(world: &World) {
    let log = world.path("log");
    let logger = logger(world, &format!("cat <&3 > {}", log.display()));
    let container = world.container("c1").program(["print hello", "exit 0"]).boot();
    let config = fs::read_to_string(container.path("config.json")).unwrap();
    fs::write(container.path("config.json"), config.replace(r#""terminal":false"#, r#""terminal":true"#))
        .unwrap();
    let request = CreateTaskRequest {
        terminal: true,
        stdout: format!("binary://{}", logger.display()),
        ..container.bundle.request.clone()
    };
    container.client().call::<_, Empty>("Create", &request).unwrap();
    container.start().unwrap();
    container.wait().unwrap();
    container.delete().unwrap();
    wait_for_text(&log, "hello\r\n");
}

fn binary(logger: &Path) -> Streams {
    Streams::Uri(format!("binary://{}", logger.display()))
}

#[track_caller]
fn wait_for_text(path: &Path, text: &str) {
    until(&format!("{} holds {text:?}", path.display()), || {
        fs::read_to_string(path).is_ok_and(|now| now == text)
    });
}

//! What can't be done is refused with the code that clients act on, in every state, and
//! changes nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use cryo_protos::api::{CheckpointTaskRequest, CreateTaskRequest, Empty, Status};
use serde_json::{Value, json};

use crate::harness::image::{self, take};
use crate::harness::{Code, Container, Refusal, Test, World, any, process, refused, tests};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        options_of_another_shim_are_refused_and_leave_nothing,
        checkpoint_options_of_another_shim_are_refused,
        a_bundle_without_a_readable_config_is_refused,
        stdout_of_an_unknown_kind_is_refused,
        a_missing_fifo_is_named,
        an_exec_is_refused_a_taken_id,
        an_exec_id_that_leads_out_of_the_bundle_is_refused,
        an_exec_whose_description_is_no_json_is_refused,
        an_exec_whose_description_is_no_object_is_refused,
        an_unknown_exec_is_not_found,
        an_exec_is_refused_what_it_is_not_ready_for,
        an_unknown_method_or_service_is_refused,
        garbage_on_a_connection_harms_nobody_else,
        a_runtime_that_is_missing_is_named,
        a_mount_that_fails_is_named_and_undone,
        an_error_carries_the_runtimes_own_words,
    ];
    for (state, _) in STATES {
        let name = format!("refusals::every_request_gets_its_code_from_a_container_that_is_{state}");
        tests.push(Test::new(name, move |world| every_request_gets_its_code(world, state)));
    }
    tests
}

type Request = (&'static str, fn(&World, &Container) -> Result<(), Refusal>);

/// Harmless ones first: what succeeds may change the state.
const REQUESTS: [Request; 15] = [
    ("Connect", |_, c| c.connect().map(drop)),
    ("State", |_, c| c.state().map(drop)),
    ("Pids", |_, c| c.pids().map(drop)),
    ("CloseIO", |_, c| c.close_stdin()),
    ("ResizePty", |_, c| c.resize(80, 25)),
    ("Wait for an exec", |_, c| c.wait_exec("none").map(drop)),
    ("Kill an exec", |_, c| c.kill_exec("none", 9)),
    ("Delete an exec", |_, c| c.delete_exec("none").map(drop)),
    ("Exec", |_, c| c.exec("e1", ["exit 0"])),
    ("Update", |_, c| c.update(b"{}")),
    ("Checkpoint", |w, c| c.checkpoint(&w.path("refused"), false)),
    ("Start", |_, c| c.start().map(drop)),
    ("Pause", |_, c| c.pause()),
    ("Resume", |_, c| c.resume()),
    ("Delete", |_, c| c.delete().map(drop)),
];

/// A column per request above. `.`: done; `P`: FailedPrecondition; `N`: NotFound; a blank:
/// not asked, because it would change what the rest of the row is about.
const STATES: [(&str, &str); 7] = [
    //               Co St Pi IO Rs WE KE DE Ex Up Ck St Pa Re De
    ("unknown", /**/ ".  N  N  N  N  N  N  N  N  N  N  N  N  N  N"),
    ("created", /**/ ".  .  .  .  .  N  N  N  .  .  P  -  P  P  ."),
    ("awaited", /**/ ".  .  .  .  .  N  N  N  P  P  P  -  P  P  ."),
    ("running", /**/ ".  .  .  .  .  N  N  N  .  .  .  P  .  .  P"),
    ("paused", /* */ ".  .  .  .  .  N  N  N  P  .  .  P  P  .  P"),
    ("stopped", /**/ ".  .  .  .  .  N  N  N  P  P  P  P  P  P  ."),
    ("deleted", /**/ ".  N  N  N  N  N  N  N  N  N  N  N  N  N  N"),
];

fn every_request_gets_its_code(world: &World, state: &str) {
    let container = in_state(world, state);
    let row = STATES.iter().find(|(name, _)| *name == state).unwrap().1;
    for ((request, ask), cell) in REQUESTS.into_iter().zip(row.split_whitespace()) {
        let expected = match cell {
            "-" => continue,
            "P" => Err(Code::FAILED_PRECONDITION),
            "N" => Err(Code::NOT_FOUND),
            _ => Ok(()),
        };
        let answer = ask(world, &container);
        let said = answer.clone().map_err(|refusal| refusal.code);
        assert_eq!(said, expected, "{request} of a container that is {state}: {answer:?}");
        let words = answer.err().map(|refusal| refusal.message).unwrap_or_default();
        assert!(!words.contains("Error") && !words.contains('\n'), "one sentence, not {words:?}");
    }
    if cell_of(row, "Checkpoint") != "." {
        assert!(!world.path("refused").exists(), "a refused checkpoint has left its folder");
    }
}

fn cell_of<'a>(row: &'a str, request: &str) -> &'a str {
    let column = REQUESTS.iter().position(|(name, _)| *name == request).unwrap();
    row.split_whitespace().nth(column).unwrap()
}

fn in_state(world: &World, state: &str) -> Container {
    match state {
        "unknown" => world.container("c1").boot(),
        "created" => world.container("c1").created(),
        "awaited" => world.container("c1").from_checkpoint(take(world, "image", false)).created(),
        "running" => world.container("c1").started(),
        "paused" => {
            let container = world.container("c1").started();
            container.pause().unwrap();
            container
        }
        "stopped" => {
            let container = world.container("c1").program(["exit 0"]).started();
            container.wait().unwrap();
            container
        }
        "deleted" => {
            let container = in_state(world, "stopped");
            container.delete().unwrap();
            container
        }
        other => panic!("no such state: {other}"),
    }
}

fn options_of_another_shim_are_refused_and_leave_nothing(world: &World) {
    let container = world.container("c1").boot();
    for (type_url, value) in
        [("kata.v1.Options", &b"\xff\xff"[..]), ("containerd.runc.v1.Options", b"\xff\xff")]
    {
        let request = CreateTaskRequest {
            options: Some(any(type_url, value)).into(),
            ..container.bundle.request.clone()
        };
        let answer = container.client().call::<_, Empty>("Create", &request);
        refused(answer, Code::INVALID_ARGUMENT, &[type_url]);
    }
    assert!(container.calls("create").is_empty());
    container.create().unwrap();
}

fn checkpoint_options_of_another_shim_are_refused(world: &World) {
    let container = world.container("c1").started();
    let image = world.path("image");
    for (type_url, value) in
        [("kata.v1.Options", &b"\x08\x01"[..]), ("containerd.runc.v1.CheckpointOptions", b"\xff")]
    {
        let request = CheckpointTaskRequest {
            options: Some(any(type_url, value)).into(),
            ..container.checkpoint_request(&image, true)
        };
        refused(container.checkpoint_with(request), Code::INVALID_ARGUMENT, &[type_url]);
    }
    assert_eq!(container.status(), Status::RUNNING);
    assert!(!image.exists());
}

fn a_bundle_without_a_readable_config_is_refused(world: &World) {
    let container = world.container("c1").boot();
    let config = std::fs::read(container.path("config.json")).unwrap();
    for text in ["", "{", "null", r#"{"process":7}"#] {
        std::fs::write(container.path("config.json"), text).unwrap();
        refused(container.create(), Code::INTERNAL, &["config.json"]);
    }
    std::fs::remove_file(container.path("config.json")).unwrap();
    refused(container.create(), Code::INTERNAL, &["config.json"]);
    std::fs::write(container.path("config.json"), config).unwrap();
    container.create().unwrap();
}

fn stdout_of_an_unknown_kind_is_refused(world: &World) {
    let container = world.container("c1").boot();
    let request =
        CreateTaskRequest { stdout: "tcp://somewhere:1".into(), ..container.bundle.request.clone() };
    let answer = container.client().call::<_, Empty>("Create", &request);
    refused(answer, Code::INVALID_ARGUMENT, &["tcp://somewhere:1"]);
}

fn a_missing_fifo_is_named(world: &World) {
    let container = world.container("c1").boot();
    for stream in ["stdin", "stdout", "stderr"] {
        let mut request = container.bundle.request.clone();
        let place = match stream {
            "stdin" => &mut request.stdin,
            "stdout" => &mut request.stdout,
            _ => &mut request.stderr,
        };
        *place = format!("/run/nowhere/{stream}");
        let answer = container.client().call::<_, Empty>("Create", &request);
        refused(answer, Code::NOT_FOUND, &[stream, "/run/nowhere"]);
    }
    container.create().unwrap();
}

fn an_exec_is_refused_a_taken_id(world: &World) {
    let container = world.container("c1").started();
    container.exec("e1", ["exit 0"]).unwrap();
    refused(container.exec("e1", ["exit 0"]), Code::ALREADY_EXISTS, &["e1"]);
}

fn an_exec_id_that_leads_out_of_the_bundle_is_refused(world: &World) {
    let container = world.container("c1").started();
    for id in ["../c2", "a/b", "..", ".hidden"] {
        refused(container.exec(id, ["exit 0"]), Code::INVALID_ARGUMENT, &[id]);
    }
}

fn an_exec_whose_description_is_no_json_is_refused(world: &World) {
    let container = world.container("c1").started();
    let mut request = container.exec_request("e1", &Value::Null);
    request.spec = Some(any("Process", b"{not json")).into();
    refused(container.exec_with(request), Code::INVALID_ARGUMENT, &["JSON"]);
    container.exec("e1", ["exit 0"]).unwrap();
}

fn an_exec_whose_description_is_no_object_is_refused(world: &World) {
    let container = world.container("c1").started();
    for description in [json!([]), json!("sh"), json!(7), json!(true), Value::Null] {
        let answer = container.exec_with(container.exec_request("e1", &description));
        refused(answer, Code::INVALID_ARGUMENT, &[]);
        assert_eq!(container.status(), Status::RUNNING);
        container.update(b"{}").unwrap_or_else(|refusal| panic!("after {description}: {refusal}"));
    }
}

fn an_unknown_exec_is_not_found(world: &World) {
    let container = world.container("c1").started();
    let asked = [
        container.start_exec("e9").map(drop),
        container.state_of("e9").map(drop),
        container.wait_exec("e9").map(drop),
        container.kill_exec("e9", 9),
        container.delete_exec("e9").map(drop),
    ];
    for answer in asked {
        refused(answer, Code::NOT_FOUND, &["e9"]);
    }
}

fn an_exec_is_refused_what_it_is_not_ready_for(world: &World) {
    let container = world.container("c1").started();
    container.exec("e1", ["sleep"]).unwrap();
    refused(container.kill_exec("e1", 15), Code::FAILED_PRECONDITION, &["e1"]);
    container.start_exec("e1").unwrap();
    refused(container.start_exec("e1"), Code::FAILED_PRECONDITION, &["e1"]);
    refused(container.delete_exec("e1"), Code::FAILED_PRECONDITION, &["e1"]);
    container.kill_exec("e1", 9).unwrap();
    container.wait_exec("e1").unwrap();
    refused(container.kill_exec("e1", 9), Code::NOT_FOUND, &["finished"]);
    container.delete_exec("e1").unwrap();
    refused(container.delete_exec("e1"), Code::NOT_FOUND, &["e1"]);
}

fn an_unknown_method_or_service_is_refused(world: &World) {
    let container = world.container("c1").started();
    let answer = container.client().call::<_, Empty>("Migrate", &Empty::default());
    // containerd takes Unimplemented as leave to try something older.
    refused(answer, Code::UNIMPLEMENTED, &["Migrate"]);
    assert_eq!(container.status(), Status::RUNNING);
}

fn garbage_on_a_connection_harms_nobody_else(world: &World) {
    let container = world.container("c1").started();
    let lines: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        // A header that announces more than anybody may send, and one of an unknown kind.
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0],
        &[0, 0, 0, 2, 0, 0, 0, 3, 9, 0, 1, 2],
        // A request that isn't one.
        &[0, 0, 0, 3, 0, 0, 0, 5, 1, 0, 0xff, 0xff, 0xff],
    ];
    let mut open = Vec::new();
    for line in lines {
        let mut stream = UnixStream::connect(container.socket()).unwrap();
        stream.write_all(line).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
        // An answer, an end or silence: all are fine.
        let _ = stream.read(&mut [0; 512]);
        open.push(stream);
        assert_eq!(container.reconnected().status(), Status::RUNNING);
    }
    assert!(container.shim_is_alive());
    assert!(!container.log().contains("panic"), "{}", container.log());
}

fn a_runtime_that_is_missing_is_named(world: &World) {
    let container = world.container("c1").boot();
    let options = cryo_protos::runc::Options { binary_name: "/run/bin/nothing".into(), ..Default::default() };
    let request = CreateTaskRequest {
        options: Some(crate::harness::pack(&options)).into(),
        ..container.bundle.request.clone()
    };
    let answer = container.client().call::<_, Empty>("Create", &request);
    refused(answer, Code::INTERNAL, &["/run/bin/nothing", "No such file"]);
    refused(container.state(), Code::NOT_FOUND, &[]);
}

fn a_mount_that_fails_is_named_and_undone(world: &World) {
    let source = world.folder("source");
    let good = cryo_protos::api::Mount {
        type_: "bind".into(),
        source: source.to_str().unwrap().into(),
        options: vec!["bind".into()],
        ..Default::default()
    };
    let bad = cryo_protos::api::Mount { source: "/nowhere".into(), target: "/below".into(), ..good.clone() };
    let container = world.container("c1").mounts(vec![good, bad]).boot();
    refused(container.create(), Code::INTERNAL, &["/nowhere"]);
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains("c1/rootfs"));
    assert!(container.calls("create").is_empty());
}

fn an_error_carries_the_runtimes_own_words(world: &World) {
    let words = "unable to start container process: exec: \"nope\": executable file not found in $PATH";
    for (id, blueprint) in [("c1", world.container("c1")), ("c2", world.container("c2").crun())] {
        let rule = crate::harness::Script::at("create", "made");
        let container = blueprint.rule(rule, json!({ "fail": words })).boot();
        refused(container.create(), Code::UNKNOWN, &["create", words]);
        assert!(image::names(&container.bundle.path).iter().all(|name| !name.starts_with("log-")), "{id}");
        assert!(process::with_words(&["container", "be"]).is_empty());
    }
}

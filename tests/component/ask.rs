//! The verbs by which `cryo` has the shim's binary ask containerd.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;

use prost::Message;
use serde_json::{Value, json};

use crate::harness::{Code, Grpc, Reply, Said, Test, World, said, shim, tests};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_checkpoint_is_asked_of_containerd,
        what_containerd_says_comes_through_whole,
        a_containerd_that_is_not_there_is_named,
        a_containerd_that_goes_away_may_have_finished,
        an_answer_that_is_none_is_an_error_and_no_panic,
        an_unknown_container_can_be_told_from_other_problems,
        a_container_that_has_not_ended_is_left_alone,
        what_has_ended_goes_on_with_the_streams_it_had,
        a_task_that_nobody_kept_goes_on_with_the_streams_that_are_asked_for,
        what_can_not_start_is_removed_again,
        a_copy_is_a_container_of_its_own,
        a_copy_that_can_not_start_leaves_nothing,
        a_copy_whose_id_is_taken_leaves_nothing,
        what_can_not_be_copied_is_refused_before_anything_is_made,
        what_is_missing_in_a_call_is_said,
    ]
}

#[derive(Clone, PartialEq, Message)]
struct Packed {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Checkpoint {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(message, optional, tag = "3")]
    options: Option<Packed>,
}

#[derive(Clone, PartialEq, Message)]
struct Create {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(message, repeated, tag = "3")]
    rootfs: Vec<Mount>,
    #[prost(string, tag = "4")]
    stdin: String,
    #[prost(string, tag = "5")]
    stdout: String,
    #[prost(string, tag = "6")]
    stderr: String,
    #[prost(bool, tag = "7")]
    terminal: bool,
    #[prost(message, optional, tag = "9")]
    options: Option<Packed>,
}

#[derive(Clone, PartialEq, Message)]
struct Mount {
    #[prost(string, tag = "1")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct Mounts {
    #[prost(message, repeated, tag = "1")]
    mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, Message)]
struct Task {
    #[prost(message, optional, tag = "1")]
    process: Option<Process>,
}

#[derive(Clone, PartialEq, Message)]
struct Process {
    #[prost(int32, tag = "4")]
    status: i32,
    #[prost(string, tag = "5")]
    stdin: String,
    #[prost(string, tag = "6")]
    stdout: String,
    #[prost(string, tag = "7")]
    stderr: String,
}

#[derive(Clone, PartialEq, Message)]
struct Started {
    #[prost(uint32, tag = "1")]
    pid: u32,
}

#[derive(Clone, PartialEq, Message)]
struct OfContainer {
    #[prost(message, optional, tag = "1")]
    container: Option<Record>,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(map = "string, string", tag = "2")]
    labels: HashMap<String, String>,
    #[prost(string, tag = "3")]
    image: String,
    #[prost(message, optional, tag = "4")]
    runtime: Option<Runtime>,
    #[prost(message, optional, tag = "5")]
    spec: Option<Packed>,
    #[prost(string, tag = "6")]
    snapshotter: String,
    #[prost(string, tag = "7")]
    snapshot_key: String,
}

#[derive(Clone, PartialEq, Message)]
struct Runtime {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    options: Option<Packed>,
}

#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(string, tag = "3")]
    parent: String,
}

#[derive(Clone, PartialEq, Message)]
struct Stat {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "2")]
    parent: String,
}

const GONE: Reply = Reply::Refuse(Code::NOT_FOUND, "no running task found");

fn record() -> Record {
    let options = cryo_protos::runc::Options { binary_name: "crun".into(), ..Default::default() };
    let options = cryo_protos::pack(&options).unwrap();
    let spec = json!({"linux": {"cgroupsPath": "/default/c1"}, "later": null}).to_string();
    Record {
        id: "c1".into(),
        labels: [("mine".to_owned(), "yes".to_owned())].into(),
        image: "docker.io/library/redis:7".into(),
        runtime: Some(Runtime {
            name: "io.containerd.runc.cryo.v2".into(),
            options: Some(Packed { type_url: options.type_url, value: options.value }),
        }),
        spec: Some(Packed { type_url: "types/Spec".into(), value: spec.into_bytes() }),
        snapshotter: "overlayfs".into(),
        snapshot_key: "c1".into(),
    }
}

fn of(record: Record) -> Reply {
    Reply::of(&OfContainer { container: Some(record) })
}

fn ended(stdin: &str, stdout: &str) -> Reply {
    let process = Process { status: 3, stdin: stdin.into(), stdout: stdout.into(), stderr: String::new() };
    Reply::of(&Task { process: Some(process) })
}

#[track_caller]
fn ask(words: &[&str]) -> Said {
    let address = crate::harness::Containerd::address();
    let mut command = Command::new(shim());
    command.args(["-address", address, "-namespace", "default", "-id", "c1"]).args(words);
    said(&mut command, &[])
}

const CHECKPOINT: [&str; 4] = ["-image", "/store/by-name/one", "-exit", "checkpoint"];
const RESTORE: [&str; 3] = ["-image", "/store/entries/1", "restore"];
const COPY: [&str; 5] = ["-image", "/store/entries/1", "-new-id", "c2", "restore"];

#[track_caller]
fn refused(said: &Said, status: i32, words: &str) {
    assert_eq!(said.status.code(), Some(status), "{}", said.stderr);
    assert!(said.stderr.contains(words) && said.stderr.trim().lines().count() == 1, "{}", said.stderr);
    assert!(said.stdout.is_empty());
}

fn a_checkpoint_is_asked_of_containerd(world: &World) {
    let grpc = Grpc::serve(world.runtime(), []);
    let said = ask(&CHECKPOINT);
    assert!(said.status.success(), "{}", said.stderr);
    let call = grpc.call("Tasks/Checkpoint");
    let request: Checkpoint = call.read();
    assert_eq!((call.namespace.as_str(), request.container_id.as_str()), ("default", "c1"));
    let options = request.options.unwrap();
    assert_eq!(options.type_url, "containerd.runc.v1.CheckpointOptions");
    let options: cryo_protos::runc::CheckpointOptions =
        cryo_protos::protobuf::Message::parse_from_bytes(&options.value).unwrap();
    assert_eq!((options.exit, options.image_path.as_str()), (true, "/store/by-name/one"));
}

fn what_containerd_says_comes_through_whole(world: &World) {
    let words = "cannot checkpoint the container: 50%25 of it%E2%80%A6 log: /var/log/cryo/x";
    let refuse = Reply::Refuse(Code::FAILED_PRECONDITION, words);
    let _grpc = Grpc::serve(world.runtime(), [("Tasks/Checkpoint", refuse)]);
    let said = ask(&CHECKPOINT);
    refused(&said, 1, "");
    assert_eq!(said.stderr, "cannot checkpoint the container: 50% of it… log: /var/log/cryo/x\n");
}

fn a_containerd_that_is_not_there_is_named(_: &World) {
    refused(&ask(&CHECKPOINT), 1, "containerd doesn't answer at /run/containerd/containerd.sock");
}

fn a_containerd_that_goes_away_may_have_finished(world: &World) {
    let _grpc = Grpc::serve(world.runtime(), [("Tasks/Checkpoint", Reply::HangUp)]);
    refused(&ask(&CHECKPOINT), 1, "may still be finished");
}

fn an_answer_that_is_none_is_an_error_and_no_panic(world: &World) {
    for method in ["Tasks/Checkpoint", "Containers/Get"] {
        let _grpc = Grpc::serve(world.runtime(), [(method, Reply::Garbage)]);
        let words: &[&str] = if method == "Tasks/Checkpoint" { &CHECKPOINT } else { &RESTORE };
        refused(&ask(words), 1, "containerd's answer can't be read");
    }
}

fn an_unknown_container_can_be_told_from_other_problems(world: &World) {
    let grpc = Grpc::serve(world.runtime(), [("Containers/Get", GONE)]);
    refused(&ask(&RESTORE), 3, "no such container");
    assert_eq!(grpc.methods(), ["Containers/Get"]);
}

fn a_container_that_has_not_ended_is_left_alone(world: &World) {
    for status in [0, 1, 2, 4, 5] {
        let task = Reply::of(&Task { process: Some(Process { status, ..Process::default() }) });
        let grpc = Grpc::serve(world.runtime(), [("Containers/Get", of(record())), ("Tasks/Get", task)]);
        refused(&ask(&RESTORE), 1, "hasn't ended");
        assert_eq!(grpc.methods(), ["Containers/Get", "Tasks/Get"]);
    }
}

fn what_has_ended_goes_on_with_the_streams_it_had(world: &World) {
    let (stdin, stdout) = (world.path("fifos/stdin"), world.path("fifos/stdout"));
    let mounts = Mounts { mounts: vec![Mount { kind: "overlay".into() }] };
    let grpc = Grpc::serve(
        world.runtime(),
        [
            ("Containers/Get", of(record())),
            ("Tasks/Get", ended(stdin.to_str().unwrap(), stdout.to_str().unwrap())),
            ("Snapshots/Mounts", Reply::of(&mounts)),
            ("Tasks/Start", Reply::of(&Started { pid: 77 })),
        ],
    );
    let said = ask(&RESTORE);
    assert_eq!(
        (said.status.code(), String::from_utf8_lossy(&said.stdout).trim()),
        (Some(0), "77"),
        "{}",
        said.stderr
    );
    let expected =
        ["Containers/Get", "Tasks/Get", "Tasks/Delete", "Snapshots/Mounts", "Tasks/Create", "Tasks/Start"];
    assert_eq!(grpc.methods(), expected);
    let create: Create = grpc.call("Tasks/Create").read();
    assert_eq!((create.container_id.as_str(), create.rootfs), ("c1", mounts.mounts));
    assert_eq!(
        (create.stdin.as_str(), create.stdout.as_str()),
        (stdin.to_str().unwrap(), stdout.to_str().unwrap())
    );
    let is_fifo = |path| fs::metadata(path).unwrap().file_type().is_fifo();
    assert!(is_fifo(&stdin) && is_fifo(&stdout), "others can attach to them");
    let options: cryo_protos::runc::Options =
        cryo_protos::protobuf::Message::parse_from_bytes(&create.options.unwrap().value).unwrap();
    assert_eq!(
        (options.binary_name.as_str(), options.criu_image_path.as_str()),
        ("crun", "/store/entries/1")
    );
}

fn a_task_that_nobody_kept_goes_on_with_the_streams_that_are_asked_for(world: &World) {
    let cases = [
        (&[][..], ("", "", false)),
        (&["-log-uri", "file:///tmp/log"], ("file:///tmp/log", "file:///tmp/log", false)),
        (&["-log-uri", "file:///tmp/log", "-terminal"], ("file:///tmp/log", "", true)),
    ];
    for (words, expected) in cases {
        let grpc = Grpc::serve(world.runtime(), [("Containers/Get", of(record())), ("Tasks/Get", GONE)]);
        let said = ask(&[words, &RESTORE].concat());
        assert!(said.status.success(), "{}", said.stderr);
        let create: Create = grpc.call("Tasks/Create").read();
        assert_eq!((create.stdout.as_str(), create.stderr.as_str(), create.terminal), expected);
    }
}

fn what_can_not_start_is_removed_again(world: &World) {
    let refuse = Reply::Refuse(Code::DATA_LOSS, "the checkpoint is damaged");
    let get = [("Containers/Get", of(record())), ("Tasks/Get", GONE)];
    let [container, task] = get.clone();
    let grpc = Grpc::serve(world.runtime(), [container, task, ("Tasks/Start", refuse.clone())]);
    refused(&ask(&RESTORE), 1, "the checkpoint is damaged");
    assert_eq!(grpc.methods().last().map(String::as_str), Some("Tasks/Delete"));
    drop(grpc);
    let [container, task] = get;
    let grpc = Grpc::serve(world.runtime(), [container, task, ("Tasks/Create", refuse)]);
    refused(&ask(&RESTORE), 1, "the checkpoint is damaged");
    assert_eq!(grpc.methods().last().map(String::as_str), Some("Tasks/Create"), "there is nothing to delete");
}

fn copied() -> [(&'static str, Reply); 2] {
    let info = Some(Info { parent: "sha256:layers".into() });
    [("Containers/Get", of(record())), ("Snapshots/Stat", Reply::of(&Stat { info }))]
}

fn a_copy_is_a_container_of_its_own(world: &World) {
    let grpc = Grpc::serve(world.runtime(), copied());
    let said = ask(&COPY);
    assert!(said.status.success(), "{}", said.stderr);
    let prepared = grpc.call("Snapshots/Prepare");
    let snapshot: Snapshot = prepared.read();
    assert_eq!((snapshot.key.as_str(), snapshot.parent.as_str()), ("c2", "sha256:layers"));
    assert!(prepared.lease.starts_with("cryo-"), "{prepared:?}");
    let made = grpc.call("Containers/Create");
    assert_eq!(made.lease, prepared.lease);
    let made = made.read::<OfContainer>().container.unwrap();
    let original = record();
    assert_eq!((made.id.as_str(), made.snapshot_key.as_str()), ("c2", "c2"));
    assert_eq!((made.image, made.labels, made.runtime), (original.image, original.labels, original.runtime));
    let spec: Value = serde_json::from_slice(&made.spec.unwrap().value).unwrap();
    assert_eq!(spec, json!({"linux": {"cgroupsPath": "/default/c2"}, "later": null}));
    grpc.call("Leases/Delete");
    let create: Create = grpc.call("Tasks/Create").read();
    assert_eq!(create.container_id, "c2");
}

fn a_copy_that_can_not_start_leaves_nothing(world: &World) {
    let [container, info] = copied();
    let refuse = Reply::Refuse(Code::UNKNOWN, "no");
    let grpc = Grpc::serve(world.runtime(), [container, info, ("Tasks/Start", refuse)]);
    refused(&ask(&COPY), 1, "no");
    grpc.call("Tasks/Delete");
    grpc.call("Containers/Delete");
    assert_eq!(grpc.call("Snapshots/Remove").read::<Snapshot>().key, "c2");
}

fn a_copy_whose_id_is_taken_leaves_nothing(world: &World) {
    let [container, info] = copied();
    let refuse = Reply::Refuse(Code::ALREADY_EXISTS, "container \"c2\": already exists");
    let grpc = Grpc::serve(world.runtime(), [container, info, ("Containers/Create", refuse)]);
    refused(&ask(&COPY), 1, "there is a container or a snapshot c2 already: choose another --id");
    assert_eq!(grpc.call("Snapshots/Remove").read::<Snapshot>().key, "c2");
    grpc.call("Leases/Delete");
    assert!(!grpc.methods().contains(&"Containers/Delete".to_owned()), "it is somebody else's");
    drop(grpc);
    let [container, info] = copied();
    let refuse = Reply::Refuse(Code::ALREADY_EXISTS, "snapshot \"c2\": already exists");
    let grpc = Grpc::serve(world.runtime(), [container, info, ("Snapshots/Prepare", refuse)]);
    refused(&ask(&COPY), 1, "there is a container or a snapshot c2 already: choose another --id");
    assert!(!grpc.methods().contains(&"Snapshots/Remove".to_owned()), "it is somebody else's");
}

fn what_can_not_be_copied_is_refused_before_anything_is_made(world: &World) {
    let of_nerdctl = Record { labels: [("nerdctl/name".to_owned(), "x".to_owned())].into(), ..record() };
    let without_snapshot = Record { snapshot_key: String::new(), ..record() };
    for (record, words) in [(of_nerdctl, "nerdctl run --annotation"), (without_snapshot, "no snapshot")] {
        let grpc = Grpc::serve(world.runtime(), [("Containers/Get", of(record))]);
        refused(&ask(&COPY), 1, words);
        assert_eq!(grpc.methods(), ["Containers/Get"]);
    }
}

fn what_is_missing_in_a_call_is_said(_: &World) {
    for words in [["checkpoint"], ["restore"]] {
        let said = ask(&words);
        assert!(!said.status.success() && said.stderr.contains("needs -image"), "{}", said.stderr);
    }
    let said = said(Command::new(shim()).args(["-image", "/x", "checkpoint"]), &[]);
    assert!(!said.status.success() && said.stderr.contains("needs -namespace"), "{}", said.stderr);
}

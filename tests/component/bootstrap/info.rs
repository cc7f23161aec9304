//! `-info`: what the shim and a runtime can do, for whoever asks and however they do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryo_protos::introspection::RuntimeInfo;
use cryo_protos::protobuf::Message;
use cryo_protos::protobuf::well_known_types::any::Any;
use cryo_protos::{runc, runtimeoptions};
use serde_json::{Value, json};

use super::{daemons, sockets};
use crate::harness::{AT_ONCE, Call, Said, Script, Test, World, any, pack, tests};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_runtimes_own_words_are_handed_on,
        the_runtime_is_the_one_that_the_options_name,
        options_of_the_cri_are_understood,
        options_of_another_shim_are_handed_back,
        garbage_asks_for_the_usual_runtime,
        the_answer_is_there_at_once_and_nothing_else,
        a_runtime_that_fails_has_no_features,
        a_runtime_that_is_killed_has_no_features,
        a_runtime_that_talks_for_ever_has_no_features,
    ];
    for (name, program) in BROKEN {
        let name = format!("bootstrap::a_runtime_that_{name}_has_no_features");
        tests.push(Test::new(name, move |world| has_no_features(world, program)));
    }
    for how in ["hang", "hang-hard", "hang-with-child"] {
        let name = format!("bootstrap::a_runtime_that_does_{}_has_no_features", how.replace('-', "_"));
        tests.push(Test::new(name, move |world| hangs(world, how)));
    }
    tests
}

/// As containerd looks for it (core/runtime/typeurl.go).
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
/// containerd creates no container of ours before it has the answer.
const PATIENCE: Duration = Duration::from_secs(10);
const RUNC: &str = "org.opencontainers.runc.version";
const CRUN: &str = "run.oci.crun.version";

/// Programs in a runtime's place; nothing is one that isn't there.
const BROKEN: [(&str, Option<&str>); 6] = [
    ("is_missing", None),
    ("is_no_program", Some("\x7fELF and then nothing")),
    ("says_nothing", Some("#!/bin/sh\n")),
    ("says_garbage", Some("#!/bin/sh\necho Usage: runtime COMMAND\n")),
    ("says_half_of_it", Some("#!/bin/sh\necho '{\"ociVersionMin\": \"1.0.0\",'\n")),
    ("speaks_of_something_else", Some("#!/bin/sh\necho '[1, 2]'\n")),
];

#[track_caller]
fn read(said: &Said) -> RuntimeInfo {
    assert!(said.status.success(), "{said:?}");
    let info = RuntimeInfo::parse_from_bytes(&said.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.runc.cryo.v2");
    assert_eq!(info.version.version, env!("CARGO_PKG_VERSION"));
    info
}

#[track_caller]
fn features(info: &RuntimeInfo) -> Option<Value> {
    let features = info.features.as_ref()?;
    assert_eq!(features.type_url, FEATURES);
    Some(serde_json::from_slice(&features.value).unwrap())
}

/// Whose features are told for these options.
#[track_caller]
fn runtime_of(call: &Call, options: &Any) -> &'static str {
    let info = read(&call.info(&options.write_to_bytes().unwrap()));
    assert_eq!(info.options.as_ref(), Some(options));
    let features = features(&info).expect("features");
    let [runc, crun] = [RUNC, CRUN].map(|name| features["annotations"][name].is_string());
    assert_ne!(runc, crun, "{features}");
    if runc { "runc" } else { "crun" }
}

fn options(binary: impl Into<PathBuf>) -> runc::Options {
    runc::Options { binary_name: binary.into().to_str().unwrap().to_owned(), ..Default::default() }
}

fn a_runtimes_own_words_are_handed_on(world: &World) {
    let call = world.container("c1").lay_out().call;
    let said = call.info(&pack(&options("/run/bin/runc")).write_to_bytes().unwrap());
    let features = features(&read(&said)).expect("features");
    assert_eq!(said.stderr, "");
    // What containerd acts on.
    assert_eq!(features["mountOptions"], json!(["ro", "rro"]));
    assert_eq!(features["linux"]["namespaces"], json!(["mount", "network", "pid", "user"]));
    assert_eq!(features["annotations"]["org.opencontainers.runc.checkpoint.enabled"], "true");
}

fn the_runtime_is_the_one_that_the_options_name(world: &World) {
    let call = world.container("c1").lay_out().call;
    assert_eq!(runtime_of(&call, &pack(&options("/run/bin/crun"))), "crun");
    assert_eq!(runtime_of(&call, &pack(&options("crun"))), "crun");
    assert_eq!(runtime_of(&call, &pack(&options("/run/bin/runc"))), "runc");
    assert_eq!(runtime_of(&call, &pack(&runc::Options::default())), "runc");
    let hosted =
        Any { type_url: "type.googleapis.com/containerd.runc.v1.Options".into(), ..pack(&options("crun")) };
    assert_eq!(runtime_of(&call, &hosted), "crun");
}

fn options_of_the_cri_are_understood(world: &World) {
    let call = world.container("c1").lay_out().call;
    let file = world.path("options.toml");
    fs::write(&file, "BinaryName = \"/run/bin/crun\"\nSystemdCgroup = false\n").unwrap();
    let by_path =
        runtimeoptions::Options { config_path: file.to_str().unwrap().to_owned(), ..Default::default() };
    assert_eq!(runtime_of(&call, &pack(&by_path)), "crun");
    let body = b"binary_name = \"crun\"\nof_another_shim = [1, 2]\n".to_vec();
    let by_body = runtimeoptions::Options { config_body: body, ..Default::default() };
    assert_eq!(runtime_of(&call, &pack(&by_body)), "crun");
    for broken in [&b"no toml"[..], b"binary_name = 7"] {
        let broken = runtimeoptions::Options { config_body: broken.to_vec(), ..Default::default() };
        assert_eq!(runtime_of(&call, &pack(&broken)), "runc");
    }
    let missing = runtimeoptions::Options { config_path: "/not/there".into(), ..Default::default() };
    assert_eq!(runtime_of(&call, &pack(&missing)), "runc");
}

fn options_of_another_shim_are_handed_back(world: &World) {
    let call = world.container("c1").lay_out().call;
    for foreign in
        [any("type.googleapis.com/kata.v1.Options", &[0xff; 9]), any("containerd.runc.v1.Options", b"\xff")]
    {
        assert_eq!(runtime_of(&call, &foreign), "runc");
    }
}

fn garbage_asks_for_the_usual_runtime(world: &World) {
    let call = world.container("c1").lay_out().call;
    for garbage in [&b""[..], &[0xff; 40], b"{}\n", &[0x0a, 0xff]] {
        let info = read(&call.info(garbage));
        assert!(info.options.is_none(), "{info:?}");
        assert!(features(&info).expect("features")["annotations"][RUNC].is_string());
    }
}

fn the_answer_is_there_at_once_and_nothing_else(world: &World) {
    let call = world.container("c1").lay_out().call;
    let said = call.info(&[]);
    assert!(said.took < AT_ONCE, "containerd waits for {:?}", said.took);
    let calls = fs::read_to_string(call.bundle.join("calls")).unwrap();
    assert_eq!(calls, "features\tfeatures\n");
    assert!(sockets().is_empty() && daemons().is_empty());
    assert!(!Path::new("/run/containerd/runc").exists());
}

/// Checks that everything but the features is told, and on stderr why they aren't.
#[track_caller]
fn tells_the_rest(said: &Said, runtime: &str) {
    let info = read(said);
    assert!(info.features.is_none(), "{info:?}");
    assert!(info.options.is_some());
    assert!(said.stderr.contains(runtime), "{said:?}");
}

fn has_no_features(world: &World, program: Option<&str>) {
    tells_the_rest(&of_program(world, program), "broken-runtime");
}

/// Neither time nor memory are without end.
fn a_runtime_that_talks_for_ever_has_no_features(world: &World) {
    let said = of_program(world, Some("#!/bin/sh\nwhile echo '{'; do :; done\n"));
    tells_the_rest(&said, "broken-runtime");
    assert!(said.took < PATIENCE, "containerd waits for {:?}", said.took);
}

fn of_program(world: &World, program: Option<&str>) -> Said {
    let path = world.path("broken-runtime");
    if let Some(program) = program {
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let call = world.container("c1").lay_out().call;
    call.info(&pack(&options(&path)).write_to_bytes().unwrap())
}

fn scripted(world: &World, action: Value) -> Said {
    let call = world.container("c1").rule(Script::at("features", "before"), action).lay_out().call;
    call.info(&pack(&options("/run/bin/runc")).write_to_bytes().unwrap())
}

/// As those do that are older than the command.
fn a_runtime_that_fails_has_no_features(world: &World) {
    let said = scripted(world, json!({ "fail": "unknown command \"features\"" }));
    tells_the_rest(&said, "unknown command");
}

fn a_runtime_that_is_killed_has_no_features(world: &World) {
    tells_the_rest(&scripted(world, json!({ "die": 9 })), "runc");
}

fn hangs(world: &World, how: &str) {
    let said = scripted(world, json!(how));
    tells_the_rest(&said, "runc");
    assert!(said.took < PATIENCE, "containerd waits for {:?}", said.took);
}

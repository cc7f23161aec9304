//! What containerd writes to `start`, what it hears, and where the shim listens.

use std::fs;
use std::path::Path;

use cryo_protos::protobuf::Message;

use super::{SOCKETS, daemons, nothing_started, refuses, sockets};
use crate::harness::{Bundle, Container, Dialect, Test, World, any, tests};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        addresses_are_those_of_the_stock_shim,
        no_options_are_fine,
        garbage_is_no_options,
        options_of_another_shim_are_no_obstacle,
        options_that_look_like_parameters_are_options,
        parameters_that_name_somebody_else_are_none,
        the_socket_is_where_the_parameters_say,
        a_bundle_without_a_readable_configuration_is_refused,
    ];
    for (generation, dialect) in GENERATIONS {
        let name = |what| format!("bootstrap::{what}_of_containerd_{generation}");
        tests.push(Test::new(name("the_language"), move |world| is_spoken_to(world, dialect)));
        tests.push(Test::new(name("the_options"), move |world| options_arrive(world, dialect)));
        tests.push(Test::new(name("the_empty_input"), move |world| starts_without(world, dialect)));
    }
    tests
}

const GENERATIONS: [(&str, Dialect); 3] =
    [("1_6", Dialect::Plain), ("1_7_to_2_2", Dialect::Json), ("2_3", Dialect::Protobuf)];

/// SHA-256 of "/run/containerd/containerd.sock/NAMESPACE/GROUP", by sha256sum(1).
const DEFAULT_C1: &str = "d25aa4ef11a84e954e74a5bcff06557d0b6ea8d0c00243896f29826694bbd888";
const OTHER_C1: &str = "b0afa66ba599fad3db30f6ddb4faad43c981d6a9bb16d5aaaaabb0d15da270d4";
const DEFAULT_POD: &str = "8141104d8ebc9c2b18f3a613667e2e27712f88b4c7184495d51f8370e92a39f5";

fn spoken(world: &World, dialect: Dialect) -> Bundle {
    let mut bundle = world.container("c1").program(["exit 3"]).lay_out();
    bundle.call.dialect = dialect;
    bundle
}

fn is_spoken_to(world: &World, dialect: Dialect) {
    let container = Container::boot(world, spoken(world, dialect));
    assert_eq!(container.address, format!("unix://{SOCKETS}/{DEFAULT_C1}"));
    container.create().unwrap();
    container.start().unwrap();
    assert_eq!(container.wait().unwrap(), 3);
}

/// The one option that `start` itself acts on tells whether it has been found.
fn options_arrive(world: &World, dialect: Dialect) {
    let mut bundle =
        world.container("c1").options(|options| options.shim_cgroup = "/not/there".into()).lay_out();
    bundle.call.dialect = dialect;
    refuses(&bundle.call.start(), &["cgroup /not/there"]);
    nothing_started();
}

/// Nothing is written, or there isn't even anything to read from.
fn starts_without(world: &World, dialect: Dialect) {
    let mut bundle = spoken(world, dialect);
    if dialect == Dialect::Protobuf {
        // Without parameters, the rest of the call is that of an older one.
        bundle.call.dialect = Dialect::Json;
    }
    bundle.call.input = Some(Vec::new());
    for script in [r#"exec "$@""#, r#"exec "$@" < /dev/null"#, r#"exec "$@" <&-"#] {
        let said = bundle.call.start_in_shell(script);
        assert_eq!(said.address(bundle.call.dialect), format!("unix://{SOCKETS}/{DEFAULT_C1}"));
    }
    assert_eq!(daemons().len(), 1);
    Container::boot(world, bundle).create().unwrap();
}

fn addresses_are_those_of_the_stock_shim(world: &World) {
    let grouped = |id| world.container(id).annotation("io.containerd.runc.v2.group", "pod").boot();
    let containers = [
        (world.container("c1").boot(), DEFAULT_C1),
        (world.container("c1").namespace("other").boot(), OTHER_C1),
        (grouped("c2"), DEFAULT_POD),
    ];
    for (container, name) in containers {
        assert_eq!(container.socket(), Path::new(SOCKETS).join(name));
    }
    assert_eq!((daemons().len(), sockets().len()), (3, 3));
}

fn no_options_are_fine(world: &World) {
    for (id, dialect) in [("c1", Dialect::Plain), ("c2", Dialect::Json), ("c3", Dialect::Protobuf)] {
        let mut bundle = world.container(id).lay_out();
        bundle.call.dialect = dialect;
        bundle.call.options = None;
        Container::boot(world, bundle).create().unwrap();
    }
}

fn garbage_is_no_options(world: &World) {
    let garbage: [&[u8]; 5] = [&[0xff; 40], b"{}\n", &[0x0a, 0xff], &[0; 100_000], "äöü".as_bytes()];
    for (number, garbage) in garbage.into_iter().enumerate() {
        let mut bundle = world.container(&format!("c{number}")).lay_out();
        bundle.call.input = Some(garbage.to_vec());
        Container::boot(world, bundle).create().unwrap();
    }
}

fn options_of_another_shim_are_no_obstacle(world: &World) {
    let foreign = any("type.googleapis.com/kata.v1.Options", &[0xff; 9]);
    for (id, dialect) in [("c1", Dialect::Json), ("c2", Dialect::Protobuf)] {
        let mut bundle = world.container(id).lay_out();
        bundle.call.dialect = dialect;
        bundle.call.options = Some(foreign.clone());
        Container::boot(world, bundle).create().unwrap();
    }
}

/// The first two fields of both messages are text: only what they say tells them apart.
fn options_that_look_like_parameters_are_options(world: &World) {
    for (number, (id, namespace)) in [("c0", "other"), ("other", "default"), ("", "")].into_iter().enumerate()
    {
        let mut bundle = world.container(&format!("c{number}")).lay_out();
        bundle.call.input = Some(any(id, namespace.as_bytes()).write_to_bytes().unwrap());
        Container::boot(world, bundle).create().unwrap();
    }
}

fn parameters_that_name_somebody_else_are_none(world: &World) {
    let folder = world.path("not-here");
    for (number, (id, namespace)) in [("other", "default"), ("c1", "other"), ("", "")].into_iter().enumerate()
    {
        let mut bundle = world.container(&format!("c{number}")).lay_out();
        let mut parameters = bundle.call.parameters();
        (parameters.instance_id, parameters.namespace) = (id.into(), namespace.into());
        parameters.socket_dir = folder.to_str().map(str::to_owned);
        bundle.call.input = Some(parameters.write_to_bytes().unwrap());
        // Answered as the older ones are.
        let container = Container::boot(world, bundle);
        assert!(container.socket().starts_with(SOCKETS), "{}", container.address);
    }
    assert!(!folder.exists());
}

fn the_socket_is_where_the_parameters_say(world: &World) {
    let folder = world.path("some/where");
    for (id, told, expected) in [("c1", folder.to_str().unwrap(), &*folder), ("c2", "", Path::new(SOCKETS))] {
        let mut bundle = world.container(id).lay_out();
        bundle.call.dialect = Dialect::Protobuf;
        bundle.call.socket_folder = Some(told.to_owned());
        let container = Container::boot(world, bundle);
        assert_eq!(container.socket().parent(), Some(expected));
        container.create().unwrap();
    }
}

fn a_bundle_without_a_readable_configuration_is_refused(world: &World) {
    let bundle = world.container("c1").lay_out();
    let configuration = bundle.path.join("config.json");
    for damage in ["{", "7", ""] {
        fs::write(&configuration, damage).unwrap();
        refuses(&bundle.call.start(), &["config.json"]);
    }
    fs::remove_file(configuration).unwrap();
    refuses(&bundle.call.start(), &["config.json"]);
    nothing_started();
}

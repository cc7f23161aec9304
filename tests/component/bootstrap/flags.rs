//! The command line, in the style of Go's `flag` package.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::{daemons, nothing_started, refuses};
use crate::harness::{Bundle, Container, Containerd, Dialect, Said, Test, World, said, shim, tests};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        an_unknown_flag_is_answered_with_the_usage,
        an_unknown_command_is_answered_with_the_usage,
        a_flag_without_its_value_is_named,
        a_switch_that_is_neither_true_nor_false_is_refused,
        start_and_delete_want_a_namespace_and_an_id,
        the_daemon_wants_its_socket,
        the_version_is_told_under_the_name_it_is_asked_by,
        the_usage_is_printed_for_who_asks,
    ];
    for (form, flags) in FORMS {
        let name = format!("bootstrap::flags_with_{form}_are_understood");
        tests.push(Test::new(name, move |world| flags_are_understood(world, flags)));
    }
    tests
}

/// The same call in all the ways that Go's package reads.
const FORMS: [(&str, &[&str]); 4] = [
    ("one_dash", &["-namespace", "default", "-id", "c1", "-address", "ADDRESS", "-publish-binary", "x"]),
    ("two_dashes", &["--namespace", "default", "--id", "c1", "--address", "ADDRESS", "--debug"]),
    ("equals_signs", &["-namespace=default", "--id=c1", "-address=ADDRESS", "-debug=false", "-bundle="]),
    (
        "everything_there_is",
        &["-id=c1", "-debug=1", "-debug-socket", "d", "-address=ADDRESS", "--namespace=default"],
    ),
];

fn flags_are_understood(world: &World, flags: &[&str]) {
    let bundle = world.container("c1").lay_out();
    let flags = flags.iter().map(|flag| flag.replace("ADDRESS", Containerd::address()));
    let mut command = Command::new(shim());
    command.args(flags).arg("start").current_dir(&bundle.path).env_remove("MAX_SHIM_VERSION");
    let started = said(command.env("TTRPC_ADDRESS", Containerd::ttrpc_address()), &[]);
    let address = started.address(Dialect::Plain);
    // The same that containerd's own call is answered with.
    assert_eq!(bundle.call.start().address(bundle.call.dialect), address);
    assert_eq!(daemons().len(), 1);
    let container = Container::at(world, bundle, address);
    container.create().unwrap();
}

#[track_caller]
fn called_with(bundle: &Bundle, arguments: &[&str]) -> Said {
    let said = said(Command::new(shim()).args(arguments).current_dir(&bundle.path), &[]);
    nothing_started();
    said
}

fn an_unknown_flag_is_answered_with_the_usage(world: &World) {
    let bundle = world.container("c1").lay_out();
    let whole = ["-namespace", "default", "-id", "c1", "-address", "/a"];
    for flag in ["-nope", "--nope", "-nope=x"] {
        let said = called_with(&bundle, &[&whole[..], &[flag, "x", "start"]].concat());
        refuses(&said, &["-nope", "-publish-binary PATH"]);
    }
}

fn an_unknown_command_is_answered_with_the_usage(world: &World) {
    let bundle = world.container("c1").lay_out();
    let said = called_with(&bundle, &["-namespace", "default", "-id", "c1", "restart"]);
    refuses(&said, &["restart", "start|delete"]);
}

fn a_flag_without_its_value_is_named(world: &World) {
    let bundle = world.container("c1").lay_out();
    for flag in ["namespace", "id", "address", "publish-binary", "bundle", "socket", "debug-socket"] {
        refuses(&called_with(&bundle, &[&format!("-{flag}")]), &[&format!("-{flag}"), "value"]);
    }
}

fn a_switch_that_is_neither_true_nor_false_is_refused(world: &World) {
    let bundle = world.container("c1").lay_out();
    let said = called_with(&bundle, &["-namespace", "default", "-id", "c1", "-debug=perhaps", "start"]);
    refuses(&said, &["-debug", "perhaps"]);
}

fn start_and_delete_want_a_namespace_and_an_id(world: &World) {
    let bundle = world.container("c1").lay_out();
    for command in ["start", "delete"] {
        for rest in [&["-id", "c1"][..], &["-namespace", "default"], &["-namespace=", "-id", "c1"]] {
            refuses(&called_with(&bundle, &[rest, &[command]].concat()), &[command, "-namespace", "-id"]);
        }
    }
}

/// Whoever calls it by hand, without a command, is told what to do.
fn the_daemon_wants_its_socket(world: &World) {
    let bundle = world.container("c1").lay_out();
    refuses(&called_with(&bundle, &[]), &["-namespace"]);
    refuses(&called_with(&bundle, &["-namespace", "default"]), &["start"]);
}

fn the_version_is_told_under_the_name_it_is_asked_by(world: &World) {
    let version = format!("Version:  {}", env!("CARGO_PKG_VERSION"));
    let drop_in = world.path("containerd-shim-runc-v2");
    symlink(shim(), &drop_in).unwrap();
    for (program, flag) in [(shim(), "-v"), (shim(), "--version"), (drop_in, "-v")] {
        let said = said(Command::new(&program).arg(flag).env_clear(), &[]);
        assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
        let text = String::from_utf8(said.stdout).unwrap();
        let name = program.file_name().unwrap().to_str().unwrap();
        assert_eq!(text.lines().next(), Some(&*format!("{name}:")));
        assert!(text.lines().any(|line| line.trim() == version), "no {version:?} in {text}");
    }
}

fn the_usage_is_printed_for_who_asks(_: &World) {
    for flag in ["-h", "--help"] {
        let said = said(Command::new(shim()).arg(flag), &[]);
        assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
        let text = String::from_utf8(said.stdout).unwrap();
        let flags = ["-namespace", "-id", "-address", "-bundle", "-debug", "-info", "-v", "start|delete"];
        assert!(flags.iter().all(|flag| text.contains(flag)), "{text}");
    }
}

//! What kind of process a shim is, and what it has of whoever started it.

use std::fs;
use std::os::unix::fs::symlink;

use super::daemons;
use crate::harness::{AT_ONCE, Bundle, Container, Test, World, process, said, shim, tests, until};

pub(super) fn tests() -> Vec<Test> {
    tests![
        start_is_over_at_once,
        nothing_that_its_caller_has_open_is_kept,
        streams_that_its_caller_has_closed_do_no_harm,
        the_daemon_leads_a_process_group_of_its_own,
        the_daemon_becomes_the_parent_of_the_container,
        the_daemon_works_in_the_bundle,
        the_daemon_goes_by_the_name_it_was_called_by,
    ]
}

#[track_caller]
pub(super) fn started_in_shell(world: &World, bundle: Bundle, script: &str) -> Container {
    let said = bundle.call.start_in_shell(script);
    let address = said.address(bundle.call.dialect);
    Container::at(world, bundle, address)
}

/// Including that everybody has closed its stdout and stderr.
fn start_is_over_at_once(world: &World) {
    let bundle = world.container("c1").lay_out();
    let said = bundle.call.start();
    assert!(said.took < AT_ONCE, "containerd waits for {:?}", said.took);
    let address = said.address(bundle.call.dialect);
    Container::at(world, bundle, address).create().unwrap();
}

fn nothing_that_its_caller_has_open_is_kept(world: &World) {
    let file = world.path("open");
    fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap();
    // Copies of stdout and stderr, too: if anybody keeps them the answer doesn't end.
    let script = format!(r#"exec 3<{path} 4<{path} 5>&1 6>&2 7<&0 9>>{path}; exec "$@""#);
    let container = started_in_shell(world, world.container("c1").lay_out(), &script);
    let open = process::descriptors(container.shim);
    let kept: Vec<_> =
        open.iter().filter(|(_, target)| target == path || target.starts_with("pipe:")).collect();
    assert!(kept.is_empty(), "{kept:?} of {open:?}");
    for stream in 0..3 {
        assert!(open.contains(&(stream, "/dev/null".to_owned())), "{stream} of {open:?}");
    }
    // Nor does a container get what the shim has.
    container.create().unwrap();
    container.start().unwrap();
    // It has more than its streams until its program runs.
    let open = || process::descriptors(container.init_pid());
    until(&format!("the container has its streams only, now {:?}", open()), || {
        let mut numbers: Vec<u32> = open().into_iter().map(|(number, _)| number).collect();
        numbers.sort_unstable();
        numbers == [0, 1, 2]
    });
}

fn streams_that_its_caller_has_closed_do_no_harm(world: &World) {
    let bundle = world.container("c1").lay_out();
    let said = bundle.call.start_in_shell(r#"exec "$@" <&- 2>&-"#);
    let address = said.address(bundle.call.dialect);
    let container = Container::at(world, bundle, address);
    container.create().unwrap();
    container.start().unwrap();
    let open = process::descriptors(container.shim);
    assert!((0..3).all(|stream| open.contains(&(stream, "/dev/null".to_owned()))), "{open:?}");
}

/// So that a signal to containerd's doesn't reach it.
fn the_daemon_leads_a_process_group_of_its_own(world: &World) {
    let container = world.container("c1").boot();
    assert_eq!(process::group(container.shim), container.shim);
    assert_ne!(process::group(std::process::id()), container.shim);
}

/// The runtime that has made it is gone by then.
fn the_daemon_becomes_the_parent_of_the_container(world: &World) {
    let container = world.container("c1").started();
    assert_eq!(process::parent(container.init_pid()), container.shim);
    // Nobody is the shim's own parent any more.
    assert_eq!(process::parent(container.shim), 1);
}

fn the_daemon_works_in_the_bundle(world: &World) {
    let container = world.container("c1").boot();
    let place = fs::read_link(format!("/proc/{}/cwd", container.shim)).unwrap();
    assert_eq!(place, container.bundle.path);
}

/// By the link with which it takes the stock shim's place, if that was called.
fn the_daemon_goes_by_the_name_it_was_called_by(world: &World) {
    let drop_in = world.path("containerd-shim-runc-v2");
    symlink(shim(), &drop_in).unwrap();
    let bundle = world.container("c1").lay_out();
    let script = format!(r#"shift; exec {} "$@""#, drop_in.display());
    let container = started_in_shell(world, bundle, &script);
    let line = process::command_line(container.shim);
    assert!(line.starts_with(drop_in.to_str().unwrap()), "{line}");
    assert!(line.contains("-namespace default") && line.contains("-id c1"), "{line}");
    assert_eq!(daemons(), [container.shim]);
    // A restarted containerd calls the file itself, whatever became of the link.
    container.create().unwrap();
    let written = fs::read(container.path("shim-binary-path")).unwrap();
    let version = said(std::process::Command::new(String::from_utf8(written).unwrap()).arg("-v"), &[]);
    assert!(version.status.success());
}

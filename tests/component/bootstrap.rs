//! Starting a shim, as every generation of containerd does it, and ending it.
//!
//! The first test is the shortest way through everything: if it fails, look there first.

mod bundle_files;
mod daemon;
mod ends;
mod flags;
mod groups;
mod info;
mod logs;
mod replies;
mod surroundings;

use std::fs;
use std::path::PathBuf;

use crate::harness::{Said, Test, World, process, tests, until};

/// Where the stock shim has its sockets, too.
const SOCKETS: &str = "/run/containerd/s";

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![a_container_runs_from_create_to_delete];
    tests.extend(flags::tests());
    tests.extend(replies::tests());
    tests.extend(daemon::tests());
    tests.extend(surroundings::tests());
    tests.extend(groups::tests());
    tests.extend(bundle_files::tests());
    tests.extend(logs::tests());
    tests.extend(ends::tests());
    tests.extend(info::tests());
    tests
}

fn a_container_runs_from_create_to_delete(world: &World) {
    let c = world.container("c1").program(["exit 3"]).started();
    assert_eq!(c.wait().unwrap(), 3);
    c.delete().unwrap();
    c.expect_events(["create", "start", "exit 3", "delete 3"]);
}

fn sockets() -> Vec<PathBuf> {
    fs::read_dir(SOCKETS).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Every shim that serves, or is about to.
fn daemons() -> Vec<u32> {
    process::with_words(&["containerd-shim-", "-namespace"])
}

/// Checks that it said no, in these words, and to nobody who could take it for an answer.
#[track_caller]
fn refuses(said: &Said, words: &[&str]) {
    assert!(!said.status.success(), "{said:?}");
    assert_eq!(said.stdout, b"", "{said:?}");
    assert!(words.iter().all(|word| said.stderr.contains(word)), "no {words:?} in {said:?}");
}

/// Checks that a start that went wrong has left nothing to connect to and nobody.
#[track_caller]
fn nothing_started() {
    assert!(sockets().is_empty(), "{:?}", sockets());
    until("no shim runs", || daemons().is_empty());
}

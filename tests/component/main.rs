//! Component tests: the real shim, started and called as containerd does it, with an
//! OCI runtime that fails on demand. No root, no containerd, no runc and no CRIU.
//!
//! Each test runs alone, in namespaces of its own and with nothing but its own files to
//! write to, so what it leaves behind is seen (see `harness::isolation`). A test that a
//! machine can't run is reported as ignored, with the reason.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its expectation does"
)]

mod ask;
mod bootstrap;
mod checkpoint;
mod deadlines;
mod events;
mod harness;
mod lifecycle;
mod refusals;
mod restore;
mod shim_death;
mod stdio;

use std::process::ExitCode;

use harness::Test;

fn tests() -> Vec<Test> {
    let rooms = [
        // The slow ones first: the others fill the gaps beside them.
        deadlines::tests(),
        stdio::tests(),
        shim_death::tests(),
        restore::tests(),
        checkpoint::tests(),
        lifecycle::tests(),
        refusals::tests(),
        events::tests(),
        ask::tests(),
        bootstrap::tests(),
    ];
    rooms.into_iter().flatten().collect()
}

fn main() -> ExitCode {
    harness::main(tests)
}

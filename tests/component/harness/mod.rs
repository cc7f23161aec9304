//! The means by which tests act: a containerd that is none, containers made as it would
//! make them, and eyes for what is left behind.

mod binaries;
mod blueprint;
mod client;
mod container;
mod containerd;
mod gate;
mod grpc;
pub(crate) mod image;
pub(crate) mod isolation;
mod leaves;
mod logger;
mod pipes;
pub(crate) mod process;
mod shim;
mod test;
mod wait;
mod world;

use std::process::ExitCode;

pub(crate) use blueprint::{Blueprint, Bundle, Script, Streams};
pub(crate) use client::{Refusal, Version, any, pack, refused};
pub(crate) use container::Container;
pub(crate) use containerd::{Answer, Containerd};
pub(crate) use cryo_protos::ttrpc::Code;
pub(crate) use gate::{Gate, at_gate};
pub(crate) use grpc::{Grpc, Reply};
pub(crate) use leaves::Leaves;
pub(crate) use logger::logger;
pub(crate) use pipes::{Pipe, mkfifo};
pub(crate) use shim::{Call, Dialect, Said, said, shim};
pub(crate) use test::{Test, skip, tests};
pub(crate) use wait::{AT_ONCE, SOON, until, until_within};
pub(crate) use world::World;

/// What this process is: the program that a user started, the first process of a
/// test's namespaces, or the test itself.
pub(crate) fn main(tests: impl Fn() -> Vec<Test>) -> ExitCode {
    match isolation::Role::of_this_process() {
        isolation::Role::Conductor => test::conduct(tests()),
        isolation::Role::Init => isolation::init(),
        isolation::Role::Test(name) => test::run(tests(), &name),
        isolation::Role::Stranger(socket) => process::knock(&socket),
    }
}

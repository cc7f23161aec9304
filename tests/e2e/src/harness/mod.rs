//! The means by which scenarios act: a containerd per slot, clients of it, and eyes
//! for what is left behind.
//!
//! `matrix` says what a scenario is and in which combinations it runs; `trial` runs
//! one of them: it borrows a `slot`, lets the scenario work at its `bench`, tidies up
//! and looks for `leaks`. Everything else is what scenarios are written with.

mod api;
mod bench;
mod blueprint;
pub(crate) mod cgroup;
mod counted;
pub(crate) mod cryo;
mod ctr;
mod daemon;
mod docker;
mod door;
mod failure;
mod fakes;
mod image;
pub(crate) mod kube;
pub(crate) mod leaks;
mod matrix;
mod output;
mod pipes;
mod settings;
mod shim;
pub(crate) mod slot;
mod spec;
mod task;
pub(crate) mod trial;
mod wait;

pub(crate) use api::{Answer, Event, refused};
pub(crate) use bench::Bench;
pub(crate) use blueprint::Blueprint;
pub(crate) use containerd_client::tonic::Code;
pub(crate) use containerd_client::types::v1::Status;
pub(crate) use counted::{Lost, counted};
pub(crate) use ctr::ctr;
pub(crate) use docker::{Attached, Container, Docker, IMAGE as DOCKER_IMAGE};
pub(crate) use door::Door;
pub(crate) use failure::{During, Failure, Outcome, ensure, ensure_eq};
pub(crate) use fakes::{Gate, Victim, fake, record_calls, record_runtime_calls, write_program};
pub(crate) use kube::{ContainerPlan, Kubelet, Pod, PodContainer, cri};
pub(crate) use matrix::{
    Combination, Runtime, Scenario, Skip, Stream, docker_scenario, kube_scenario, scenario,
};
pub(crate) use output::Output;
pub(crate) use pipes::Kind;
pub(crate) use settings::{Settings, Shim, Version, read as read_settings, settings};
pub(crate) use shim::{Refusal, ShimSocket, TaskVersion, bundle_of};
pub(crate) use task::{AT_ONCE, Checkpoint, KILL, TERM, Task, USR1, network_namespace_of};
pub(crate) use wait::{PATIENCE, at_every_moment, eventually, eventually_within, holds_for, patient};

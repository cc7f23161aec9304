//! Docker as its users have it: the real client talking to the slot's dockerd.

mod api;
mod attached;
mod container;
mod daemon;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use api::Api;
pub(crate) use attached::Attached;
pub(crate) use container::Container;
pub(crate) use daemon::Dockerd;
use serde_json::Value;

use super::bench::Bench;
use super::failure::{During, Failure, Outcome};
use super::slot::Slot;
use super::wait::patient;

/// What containers are made from: busybox and the guest.
pub(crate) const IMAGE: &str = "guest";
/// Real programs; big, so it stays once it is there.
pub(super) const WORKLOADS: &str = "workloads";
/// Images that outlast a trial.
const STAYING: [&str; 2] = [IMAGE, WORKLOADS];
/// A container image with them, which `tests/host/host` makes.
const WORKLOADS_TAR: &str = "/workloads.tar";

/// Longer than anything a client asks for; what lasts longer hangs.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

pub(super) fn has_workloads() -> bool {
    Path::new(WORKLOADS_TAR).exists()
}

pub(crate) struct Docker<'b> {
    pub(crate) bench: &'b Bench,
}

impl<'b> Docker<'b> {
    pub(crate) fn at(bench: &'b Bench) -> Self {
        Docker { bench }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bench.slot.command("timeout");
        let seconds = patient(LONGEST).as_secs().to_string();
        command.args(["--foreground", &seconds, "docker"]).args(args);
        command
    }

    /// What a command prints; it has to succeed.
    #[track_caller]
    pub(crate) fn call(&self, args: &[&str]) -> Outcome<String> {
        let output = self.command(args).output().during(|| "docker".into())?;
        let errors = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let status = output.status.code().unwrap_or_default();
            return Err(Failure::new(format!("docker {}: {status}: {}", args.join(" "), errors.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The status that a command ends with, and all it prints.
    #[track_caller]
    pub(crate) fn try_call(&self, args: &[&str]) -> Outcome<(i32, String)> {
        let output = self.command(args).output().during(|| "docker".into())?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
    }

    /// The words by which a command is refused.
    #[track_caller]
    pub(crate) fn refusal(&self, args: &[&str]) -> Outcome<String> {
        match self.try_call(args)? {
            (0, text) => {
                Err(Failure::new(format!("docker {} wasn't refused: {}", args.join(" "), text.trim())))
            }
            (124, text) => Err(Failure::new(format!("docker {} hangs: {text}", args.join(" ")))),
            (_, text) => Ok(text),
        }
    }

    /// A container that runs in the background, with this trial's runtime.
    #[track_caller]
    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Outcome<Container<'_>> {
        self.make(IMAGE, &["run", "-d"], options, command)
    }

    /// One that waits for its start.
    #[track_caller]
    pub(crate) fn create(&self, options: &[&str], command: &[&str]) -> Outcome<Container<'_>> {
        self.make(IMAGE, &["create"], options, command)
    }

    /// One of a real program.
    #[track_caller]
    pub(crate) fn run_workload(&self, options: &[&str], command: &[&str]) -> Outcome<Container<'_>> {
        if self.api().get(&format!("/images/{WORKLOADS}/json")).is_err() {
            self.call(&["import", WORKLOADS_TAR, WORKLOADS])?;
        }
        self.make(WORKLOADS, &["run", "-d"], options, command)
    }

    /// A runtime among the options is the one that counts.
    #[track_caller]
    fn make(&self, image: &str, verb: &[&str], options: &[&str], command: &[&str]) -> Outcome<Container<'_>> {
        let name = self.bench.next_id();
        let runtime = self.bench.runtime().binary();
        let args = [verb, &["--name", &name, "--runtime", runtime], options, &[image], command].concat();
        let id = self.call(&args)?.trim().to_owned();
        Ok(Container::new(self, name, id))
    }

    /// A command in a container of its own, removed afterwards, and what it prints.
    #[track_caller]
    pub(crate) fn output_of(&self, options: &[&str], command: &[&str]) -> Outcome<String> {
        self.call(&[&["run", "--rm"], options, &[IMAGE], command].concat())
    }

    /// A network for this trial alone.
    #[track_caller]
    pub(crate) fn network(&self, options: &[&str]) -> Outcome<String> {
        let name = self.bench.next_id();
        self.call(&[&["network", "create"], options, &[&name]].concat())?;
        Ok(name)
    }

    /// While some containers count.
    #[track_caller]
    pub(crate) fn restart(&self, signal: nix::sys::signal::Signal, counting: &[&Container<'_>]) -> Outcome {
        self.stop(signal)?;
        counting.iter().try_for_each(|container| container.note_what_is_lost())?;
        self.start()
    }

    pub(crate) fn stop(&self, signal: nix::sys::signal::Signal) -> Outcome {
        self.daemon().stop(signal)
    }

    pub(crate) fn start(&self) -> Outcome {
        self.daemon().start_again(&self.bench.slot)
    }

    fn daemon(&self) -> &Dockerd {
        self.bench.slot.dockerd().expect("a scenario with Docker has a slot with Docker")
    }

    fn api(&self) -> Api<'_> {
        Api(&self.bench.slot)
    }

    /// Removes all that a trial may have made.
    pub(crate) fn tidy(&self) -> Outcome {
        let api = self.api();
        for container in list(&api.get("/containers/json?all=true")?) {
            api.delete(&format!("/containers/{}?force=true&v=true", id(container)))?;
        }
        api.post("/networks/prune")?;
        // Named ones too: {"all": ["true"]}.
        api.post("/volumes/prune?filters=%7B%22all%22:%5B%22true%22%5D%7D")?;
        let images = api.get("/images/json")?;
        for tag in list(&images).flat_map(|image| list(&image["RepoTags"])).filter_map(Value::as_str) {
            if !STAYING.iter().any(|name| tag.strip_prefix(name).is_some_and(|tag| tag.starts_with(':'))) {
                api.delete(&format!("/images/{tag}?force=true"))?;
            }
        }
        Ok(())
    }
}

/// Where the one layer of an image lies.
pub(crate) fn layer_of(slot: &Slot, image: &str) -> Option<PathBuf> {
    let answer = Api(slot).get(&format!("/images/{image}/json")).ok()?;
    let upper = answer["GraphDriver"]["Data"]["UpperDir"].as_str()?;
    Path::new(upper).parent().map(Path::to_owned)
}

fn list(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.as_array().into_iter().flatten()
}

fn id(thing: &Value) -> &str {
    thing["Id"].as_str().unwrap_or_default()
}

//! `cryo restore`: a container goes on from a checkpoint in the store, or a second one does.
//!
//! Each container has somebody who looks after it, and it is that one who has to start it:
//! containerd here, Docker by its own command, the kubelet by what a pod says.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use cryo::checkpoint::manifest::Manifest;
use cryo::policy::DOCKER;
use cryo::store::Held;
use serde::Serialize;

use super::answer::{complain, finish, say, tell};
use super::ask::{self, Problem};
use super::find;
use super::place::Shelf;
use super::table::{duration, known_as};

/// The CRI's namespace in containerd.
const KUBERNETES: &str = "k8s.io";
const RUNNING: [&str; 3] = ["running", "paused", "restarting"];

#[derive(Args)]
pub(crate) struct Options {
    /// A checkpoint in the store: its name, its id, or the beginning of its id.
    checkpoint: String,
    /// Make a second container of this id, with the same image and configuration, and a root
    /// file system as it was when the first one was made.
    #[arg(long)]
    id: Option<String>,
    /// Where its output goes: file:///PATH or binary:///PROGRAM. If it isn't said, to where it
    /// went before as long as containerd knows that, and otherwise nowhere.
    #[arg(long, value_name = "URI", value_parser = log_uri)]
    log_uri: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. Fields may be added, none is renamed.
#[derive(Debug, Serialize)]
struct Report<'a> {
    checkpoint: &'a str,
    container: &'a str,
    /// What people call it, if it is the one that was checkpointed.
    called: Option<&'a str>,
    namespace: &'a str,
    /// Milliseconds.
    took: u64,
}

/// A plain path would be a pipe, which somebody has to read.
fn log_uri(text: &str) -> Result<String, String> {
    match ["file:///", "binary:///"].iter().any(|scheme| text.starts_with(scheme)) {
        true => Ok(text.to_owned()),
        false => Err("give file:///PATH or binary:///PROGRAM".to_owned()),
    }
}

pub(crate) fn run(options: &Options) -> ExitCode {
    finish(bring_back(options).map(|()| ExitCode::SUCCESS))
}

fn bring_back(options: &Options) -> Result<(), String> {
    let Shelf { store, .. } = Shelf::open()?;
    let entry = store.find(&options.checkpoint).map_err(|error| error.to_string())?;
    // It stays there as long as this runs.
    let held = entry.hold().map_err(|error| error.to_string())?;
    let name = held.record.name.clone().unwrap_or_else(|| held.id().to_string());
    let manifest = Manifest::read(&held.folder).map_err(|_| {
        format!("nobody knows which container {name} is of, as another shim took it: {}", other_ways(&name))
    })?;
    let begun = Instant::now();
    let container = match manifest.namespace.as_str() {
        DOCKER => through_docker(options, &manifest, &held, &name)?,
        KUBERNETES => {
            return Err(format!(
                "{name} is of a pod's container, and the kubelet starts those: give a pod the annotation cryo.restore-from={name}"
            ));
        }
        _ => through_containerd(options, &manifest, &held, &name)?,
    };
    let took = begun.elapsed();
    let report = Report {
        checkpoint: &name,
        container: &container,
        called: manifest.called.as_deref().filter(|_| container == manifest.container),
        namespace: &manifest.namespace,
        took: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
    if options.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        say(&(text + "\n"));
    } else {
        say(&format!("{container}\n"));
        tell(&in_words(&report, took));
    }
    Ok(())
}

fn in_words(report: &Report<'_>, took: Duration) -> String {
    let short = known_as(report.called, report.container);
    let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    format!("{short} goes on from {}, after {}\n", report.checkpoint, duration(took))
}

fn other_ways(name: &str) -> String {
    format!(
        "make a container that starts from it, with the annotation cryo.restore-from={name} (README has examples)"
    )
}

/// Whichever of this machine's has the container.
fn through_containerd(
    options: &Options,
    manifest: &Manifest,
    held: &Held,
    name: &str,
) -> Result<String, String> {
    let Manifest { container, namespace, terminal, .. } = manifest;
    let image = held.folder.display().to_string();
    let sockets = find::sockets();
    if sockets.is_empty() {
        return Err(
            "no containerd runs here: start it, or say where it listens by CONTAINERD_ADDRESS".to_owned()
        );
    }
    for socket in &sockets {
        let mut words = vec!["-address", socket, "-namespace", namespace, "-id", container, "-image", &image];
        words.extend(options.id.iter().flat_map(|id| ["-new-id", id]));
        words.extend(options.log_uri.iter().flat_map(|uri| ["-log-uri", uri]));
        words.extend(terminal.then_some("-terminal"));
        words.push("restore");
        match ask::shim(&words, || {}) {
            Ok(_) => return Ok(options.id.as_ref().unwrap_or(container).clone()),
            Err(Problem::NoContainer) => {}
            Err(problem) => return Err(problem.into()),
        }
    }
    Err(format!(
        "containerd ({}) has no container {container} in namespace {namespace} any longer: {}",
        sockets.join(", "),
        other_ways(name)
    ))
}

/// Docker restores what is in its own folder of checkpoints: for that long, there is one that
/// names the entry.
fn through_docker(options: &Options, manifest: &Manifest, held: &Held, name: &str) -> Result<String, String> {
    let id = &manifest.container;
    if options.id.is_none() && options.log_uri.is_some() {
        return Err(format!("where the output of {name} goes is Docker's to say: leave out --log-uri"));
    }
    if options.id.is_some() {
        return Err(format!(
            "{name} is of a container of Docker's, which has to make others itself: docker run -d --annotation cryo.restore-from={name} IMAGE"
        ));
    }
    let format = "{{.State.Status}} {{.ResolvConfPath}}";
    let said = ask::docker(&["container", "inspect", "--format", format, "--", id]);
    let said = said.map_err(|problem| without_docker(id, name, &String::from(problem)))?;
    let (status, path) = said.trim().split_once(' ').unwrap_or_default();
    if RUNNING.contains(&status) {
        return Err(format!(
            "container {id} is {status}: end it before it goes on from a checkpoint (docker kill)"
        ));
    }
    // If its network is another container's, so is this file; their folders are neighbours.
    let folder = Path::new(path).parent().map(|folder| folder.with_file_name(id));
    let folder = folder.filter(|folder| folder.is_dir());
    let folder = folder.ok_or_else(|| format!("Docker doesn't say where it keeps container {id}"))?;
    let checkpoint = format!("cryo-{}", held.id());
    let named = Named::make(folder.join("checkpoints"), &checkpoint, manifest, held)?;
    let started = ask::docker(&["start", "--checkpoint", &checkpoint, id]);
    drop(named);
    started.map(|_| id.clone()).map_err(|problem| refused(&String::from(problem)))
}

fn without_docker(id: &str, name: &str, said: &str) -> String {
    let short: String = id.chars().take(12).collect();
    if said.to_lowercase().contains("no such container") {
        return format!("Docker has no container {short} any longer: {}", other_ways(name));
    }
    format!("Docker doesn't tell what became of container {short}: {}", first_line(said))
}

fn refused(said: &str) -> String {
    let line = first_line(said);
    if line.contains("experimental") { format!("{line}: cryo install docker switches that on") } else { line }
}

/// Docker's client says once more what it was asked for.
fn first_line(said: &str) -> String {
    let line = said.lines().next().unwrap_or_default();
    line.trim_start_matches("Error response from daemon: ").to_owned()
}

/// A checkpoint of Docker's that is none but a word of where one is. Goes when dropped.
struct Named(PathBuf);

impl Named {
    fn make(all: PathBuf, name: &str, manifest: &Manifest, held: &Held) -> Result<Named, String> {
        let folder = all.join(name);
        let failed = |error: std::io::Error| format!("cannot write {}: {error}", folder.display());
        // One that a killed command left is as good.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let named = Named(folder.clone());
        let root = held.folder.parent().and_then(Path::parent).unwrap_or(&held.folder);
        manifest.clone().naming(held.id(), root).write(&folder, false).map_err(failed)?;
        Ok(named)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            complain(&format!("{} stays behind: {error}", self.0.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_goes_where_somebody_takes_it() {
        for good in ["file:///var/log/x", "binary:///usr/bin/logger?x=y"] {
            assert_eq!(log_uri(good).unwrap(), good);
        }
        for bad in ["/var/log/x", "file://x", "fifo:///x", ""] {
            assert!(log_uri(bad).unwrap_err().contains("file:///PATH"), "{bad}");
        }
    }

    #[test]
    fn a_docker_that_is_silent_is_told_from_one_that_has_no_such_container() {
        let gone =
            without_docker("0123456789abcdef", "one", "Error response from daemon: No such container: x");
        assert!(
            gone.starts_with("Docker has no container 0123456789ab any longer: make a container"),
            "{gone}"
        );
        let silent = without_docker("0123", "one", "Cannot connect to the Docker daemon. Is it running?");
        assert!(silent.starts_with("Docker doesn't tell") && silent.contains("Cannot connect"), "{silent}");
    }

    #[test]
    fn a_docker_without_experiments_is_told_how_to_get_them() {
        let said = refused(
            "\"--checkpoint\" is only supported on a Docker daemon with experimental features enabled",
        );
        assert!(said.ends_with("cryo install docker switches that on"), "{said}");
        assert_eq!(refused("Error response from daemon: no room\nmore"), "no room");
    }
}

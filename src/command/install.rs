//! `cryo install`: has a daemon start Cryo in place of the stock shim, and undoes it.

mod daemon_json;
mod disk;
mod json;
mod plan;
mod record;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryo::reaper::Reaper;
use rustix::fs::{FlockOperation, flock};

use super::doctor::docker_runs_with;
use super::root::{BIN, Root, SHIM, USUAL_PATH};
use super::run::{self, Said};
use super::unit::Unit;
use super::{Daemon, Install, search};
use plan::Step;
use record::Record;

/// systemd gives a daemon 90 seconds to stop before it kills it.
const RESTART_PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("this changes the system's configuration: run it as root")]
    NotRoot,
    #[error("another cryo install is running: wait for it and run this again")]
    Busy,
    #[error("the shim {SHIM} is neither beside this program nor in PATH: name it with --shim PATH")]
    NoShim,
    #[error("{0} isn't a program that can be run: name the shim's binary with --shim PATH")]
    NotAShim(PathBuf),
    #[error("{0} is there and isn't from this command: move it away and run this again")]
    Foreign(PathBuf),
    #[error(transparent)]
    DaemonJson(#[from] daemon_json::Error),
    #[error("can't {what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("everything is in place, but '{command}' failed ({why}): see journalctl -xe and run it again")]
    Restart { command: String, why: String },
}

impl Error {
    fn at(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::NotRoot,
            _ => Error::Io { what, path, source },
        }
    }
}

pub(crate) fn run(options: &Install, out: &mut dyn Write) -> Result<(), Error> {
    let folder = options.root.as_deref();
    let root = Root::new(folder).map_err(Error::at("use", folder.unwrap_or(Path::new("/"))))?;
    // Looking is free, and whoever puts a package together owns its root.
    if root.is_the_machine() && !options.dry_run && !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let _alone = lock(&root)?;
    let mut record = Record::read(&root).map_err(Error::at("read", record::PATH))?;
    let before = record.clone();
    let daemon = options.daemon;
    let steps = if options.uninstall {
        plan::uninstall(&root, &mut record, daemon)?
    } else {
        let shim = shim(&root, options.shim.as_deref())?;
        let flag = "--experimental";
        let runs_with = root.is_the_machine() && docker_runs_with(flag);
        let flagged = runs_with || Unit::without_ours(&root, Daemon::Docker.unit()).has_flag(flag);
        plan::install(&root, &mut record, daemon, &shim, flagged)?
    };
    if !options.dry_run {
        carry_out(&root, &steps, &before, record, options.uninstall)?;
    }
    let text = told(&root, options, &steps);
    // Nobody reads it any more; what was asked for is done.
    let _ = out.write_all(text.as_bytes());
    if options.restart { restart(&root, daemon, out) } else { Ok(()) }
}

/// Notes first what will be changed, so that the same command can finish what was interrupted.
fn carry_out(
    root: &Root,
    steps: &[Step],
    before: &Record,
    mut record: Record,
    uninstall: bool,
) -> Result<(), Error> {
    let ahead = if uninstall { before.clone() } else { record.with_all_of(before) };
    if ahead != *before {
        ahead.write(root).map_err(Error::at("write", record::PATH))?;
    }
    for step in steps {
        step.carry_out(root).map_err(Error::at("change", &step.path))?;
    }
    if record != ahead { tidy(root, &mut record) } else { Ok(()) }
}

/// One at a time. The root folder is always there, and nobody else locks it.
struct Alone(File);

fn lock(root: &Root) -> Result<Alone, Error> {
    let folder = File::open(root.folder()).map_err(Error::at("open", root.folder()))?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive).map_err(|_| Error::Busy)?;
    Ok(Alone(folder))
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Closing isn't enough: a fork elsewhere may have the descriptor until its exec.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Where the links lead: the path as this machine will see it.
fn shim(root: &Root, named: Option<&Path>) -> Result<PathBuf, Error> {
    let runs = |path: &Path| search::executable(path, root.folder());
    if let Some(path) = named {
        let path = std::path::absolute(path).map_err(Error::at("find", path))?;
        let file = runs(&path).ok_or_else(|| Error::NotAShim(path.clone()))?;
        // Our own link must not lead to itself.
        return Ok(if path.starts_with(BIN) { file } else { path });
    }
    let mut places = Vec::new();
    if root.is_the_machine() {
        let here = std::env::current_exe().ok();
        places.extend(here.and_then(|program| program.parent().map(Path::to_owned)));
        let path = std::env::var("PATH").unwrap_or_default();
        places.extend(path.split(':').filter(|folder| folder.starts_with('/')).map(PathBuf::from));
    }
    places.extend(USUAL_PATH.split(':').map(PathBuf::from));
    let candidates =
        places.into_iter().filter(|folder| folder != Path::new(BIN)).map(|folder| folder.join(SHIM));
    candidates.into_iter().find(|path| runs(path).is_some()).ok_or(Error::NoShim)
}

/// Removes folders of ours that are empty, and the record with the last daemon.
fn tidy(root: &Root, record: &mut Record) -> Result<(), Error> {
    let used = !record.daemons().is_empty();
    if !used {
        disk::remove(root, record::PATH.as_ref()).map_err(Error::at("remove", record::PATH))?;
    }
    let folders = std::mem::take(&mut record.folders);
    let left: Vec<_> = folders.into_iter().rev().filter(|folder| !disk::remove_empty(root, folder)).collect();
    record.folders = left.into_iter().rev().collect();
    if used { record.write(root).map_err(Error::at("write", record::PATH)) } else { Ok(()) }
}

fn told(root: &Root, options: &Install, steps: &[Step]) -> String {
    let mut lines: Vec<_> = steps.iter().map(|step| step.told(options.dry_run)).collect();
    let name = options.daemon.name();
    if steps.is_empty() {
        lines.push(format!("nothing to undo: cryo isn't installed for {name}"));
        return lines.join("\n") + "\n";
    }
    let mut rest = match (options.uninstall, options.daemon) {
        (false, daemon) => advice(root, daemon),
        (true, Daemon::Docker) => {
            vec!["Containers made with `--runtime cryo` won't start any more.".to_owned()]
        }
        (true, Daemon::Containerd) => Vec::new(),
    };
    if !options.restart {
        rest.push(next(root, options, steps.iter().any(Step::changes)));
    }
    if !rest.is_empty() {
        lines.push(String::new());
    }
    lines.extend(rest);
    lines.join("\n") + "\n"
}

fn next(root: &Root, options: &Install, changed: bool) -> String {
    let daemons = plan::serving(root, options.daemon);
    if root.has_systemd() {
        let units: Vec<_> = daemons.iter().map(|daemon| daemon.name()).collect();
        let when = if changed { "To finish:" } else { "If that hasn't been done since the last change:" };
        let until = if options.uninstall && changed { "\nUntil then no container can start." } else { "" };
        return format!("{when} systemctl daemon-reload && systemctl restart {}{until}", units.join(" "));
    }
    match (options.uninstall, options.daemon) {
        (true, _) => {
            "There is no systemd here: restart the daemons without that folder in their PATH. Until then none of them can start a container.".to_owned()
        }
        (false, Daemon::Containerd) => {
            format!("There is no systemd here. To finish, start containerd with: PATH={BIN}:$PATH containerd")
        }
        (false, Daemon::Docker) => format!(
            "There is no systemd here. To finish, start the daemons with that folder first in PATH \
             (only dockerd, where it starts a containerd of its own):\n  \
             PATH={BIN}:$PATH containerd\n  PATH={BIN}:$PATH dockerd"
        ),
    }
}

/// What the user should know before the daemons are restarted.
fn advice(root: &Root, daemon: Daemon) -> Vec<String> {
    let mut lines = Vec::new();
    let daemons = plan::serving(root, daemon);
    if daemons.len() > 1 && root.has_systemd() {
        lines.push(
            "Docker's containers are started by containerd.service, so both daemons find Cryo first.".into(),
        );
    }
    for unit in daemons.iter().map(|daemon| daemon.unit()).filter(|_| root.has_systemd()) {
        if let Some(file) = Unit::without_ours(root, unit).overruled_by(root) {
            lines.push(format!("{} sets PATH for {unit} and wins: put {BIN}: first there.", file.display()));
        }
    }
    match daemon {
        Daemon::Docker => {
            let text = plan::text(root, daemon_json::PATH.as_ref()).ok().flatten().unwrap_or_default();
            if !daemon_json::keeps_containers(&text) {
                lines.push("Restarting Docker stops its containers, as \"live-restore\" isn't set.".into());
            }
        }
        Daemon::Containerd => lines.push(
            "Containers that run keep the shim they have. Kubernetes needs a runtime handler, too: \
             see deploy/containerd/runtime-v3.toml (runtime-v2.toml for containerd 1)."
                .into(),
        ),
    }
    lines
}

/// Only what runs is restarted; what doesn't will notice when it starts.
fn restart(root: &Root, daemon: Daemon, out: &mut dyn Write) -> Result<(), Error> {
    let units: Vec<_> = plan::serving(root, daemon).into_iter().map(Daemon::unit).collect();
    for arguments in [vec!["daemon-reload"], [vec!["try-restart"], units].concat()] {
        let command = format!("systemctl {}", arguments.join(" "));
        let failed = |why: String| Error::Restart { command: command.clone(), why };
        if !root.has_systemd() {
            return Err(failed("there is no systemd here".to_owned()));
        }
        let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let said = event_loop.and_then(|event_loop| {
            event_loop.block_on(async {
                Ok(run::run(Reaper::start()?, "systemctl", &arguments, USUAL_PATH, RESTART_PATIENCE).await)
            })
        });
        match said.map_err(|error| failed(error.to_string()))? {
            Said::Done { status: 0, .. } => {}
            Said::Done { status, errors, .. } => {
                return Err(failed(
                    errors.lines().next().map_or(format!("exit status {status}"), str::to_owned),
                ));
            }
            Said::NotThere => return Err(failed("there is no systemctl".to_owned())),
            Said::Silent(patience) => return Err(failed(format!("no end after {} s", patience.as_secs()))),
        }
        // Nobody reads it any more; it is done all the same.
        let _ = writeln!(out, "ran {command}");
    }
    Ok(())
}

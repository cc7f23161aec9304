//! Processes added to a running container.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Subject;
use super::lifecycle::Live;
use super::{Ended, Error, ExecSnapshot, Status};
use crate::bundle::write_atomically;
use crate::reaper::{Exit, Process};
use crate::runtime::Ends;
use crate::stdio::{ConsoleSocket, Paths, Plan, Streams};

/// How long the rest of an ended process's output may take.
pub(super) const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Exec {
    pub(super) stdio: Paths,
    pub(super) plan: Plan,
    /// JSON as in the OCI specification.
    pub(super) process: Vec<u8>,
    pub(super) stage: Stage,
    pub(super) streams: Option<Streams>,
}

pub(super) enum Stage {
    Added,
    Starting,
    Running(Process),
    Ended(Ended),
    Deleting(Ended),
}

impl Exec {
    pub(super) fn new(process: &[u8], stdio: Paths) -> Result<Exec, Error> {
        let invalid = |error| Error::Invalid(format!("the process to run isn't a JSON object: {error}"));
        let mut process: Map<String, Value> = serde_json::from_slice(process).map_err(invalid)?;
        // The request decides; the description may say otherwise.
        process.insert("terminal".to_owned(), stdio.terminal.into());
        let process = serde_json::to_vec(&process).map_err(invalid)?;
        let plan = Plan::new(&stdio)?;
        Ok(Exec { stdio, plan, process, stage: Stage::Added, streams: None })
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting)
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Running(_))
    }

    pub(super) fn snapshot(&self, container: Status) -> ExecSnapshot {
        let (status, pid, exit) = match &self.stage {
            Stage::Added | Stage::Starting => (Status::Created, 0, None),
            Stage::Running(process) => (running(container), process.pid(), None),
            Stage::Ended(ended) | Stage::Deleting(ended) => (Status::Stopped, ended.pid, Some(ended.exit)),
        };
        ExecSnapshot { status, pid, exit, stdio: self.stdio.clone() }
    }

    pub(super) fn kill(&self, id: &str, signal: u32) -> Result<(), Error> {
        match &self.stage {
            Stage::Added | Stage::Starting => Err(Error::ExecNotStarted(id.to_owned())),
            Stage::Ended(_) | Stage::Deleting(_) => Err(Error::Finished),
            Stage::Running(process) => signal_process(process, signal),
        }
    }

    pub(super) fn end(&mut self, pid: u32, exit: Exit) {
        self.stage = Stage::Ended(Ended { pid, exit });
    }
}

/// A paused container's processes are all paused.
fn running(container: Status) -> Status {
    match container {
        Status::Paused | Status::Pausing => container,
        _ => Status::Running,
    }
}

pub(super) fn signal_process(process: &Process, signal: u32) -> Result<(), Error> {
    let number = i32::try_from(signal).unwrap_or(-1);
    process.signal(number).map_err(|source| match source.raw_os_error() {
        Some(code) if code == rustix::io::Errno::SRCH.raw_os_error() => Error::Finished,
        _ => Error::Signal { pid: process.pid(), source },
    })
}

/// Starts the process; it runs when this returns.
pub(super) async fn start(subject: &Subject, id: &str, plan: &Plan, process: &[u8]) -> Result<Live, Error> {
    let description = subject.bundle.join(format!("{id}.process.json"));
    let pid_file = pid_file(&subject.bundle, id);
    let write = |source| Error::Write { path: description.clone(), source };
    write_atomically(&description, process).map_err(write)?;
    let started = run(subject, plan, &description, &pid_file).await;
    let _ = fs::remove_file(&description);
    started
}

async fn run(subject: &Subject, plan: &Plan, description: &Path, pid_file: &Path) -> Result<Live, Error> {
    let runtime = &subject.runtime;
    let window = runtime.reaper.window();
    if plan.terminal {
        let client = plan.open_for_console(runtime.reaper, &subject.identity).await?;
        let socket = ConsoleSocket::listen(&subject.bundle)?;
        let ends = Ends::Terminal(socket.name());
        let process = runtime.exec(&window, ends, description, pid_file).await?;
        return Ok(Live::on_terminal(process, client, socket).await?);
    }
    let (ends, prepared) = plan.open(runtime.reaper, &subject.identity, subject.io_owner).await?;
    let process = runtime.exec(&window, Ends::Pipes(ends), description, pid_file).await?;
    Ok(Live { process, streams: prepared.connect()? })
}

/// Hands on the rest of its output and forgets it.
pub(super) async fn delete(bundle: &Path, id: &str, streams: Option<Streams>) {
    if let Some(streams) = streams
        && !streams.drain(DRAIN_PATIENCE).await
    {
        tracing::warn!(
            exec = id,
            "somebody still holds the process's output open; the rest of it is dropped"
        );
    }
    let _ = fs::remove_file(pid_file(bundle, id));
}

fn pid_file(bundle: &Path, id: &str) -> std::path::PathBuf {
    bundle.join(format!("{id}.pid"))
}

//! A task of containerd as its client sees it, and processes exec'd in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::types::Descriptor;
use containerd_client::types::v1::{Process, ProcessInfo, Status};
use cryo_protos::runc::CheckpointOptions;
use serde_json::Value;

use super::api::{Answer, Api, DEADLINE, Event, Exit, pack, pack_json};
use super::bench::Bench;
use super::blueprint::Blueprint;
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::pipes::{Kind, Pipes};
use super::spec;
use super::wait::PATIENCE;

pub(crate) const KILL: u32 = 9;
pub(crate) const USR1: u32 = 10;
pub(crate) const TERM: u32 = 15;

pub(crate) struct Task<'b> {
    pub(crate) bench: &'b Bench,
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) blueprint: Blueprint<'b>,
    pub(crate) pipes: Pipes,
    /// The pid that Create answered.
    created_pid: std::sync::OnceLock<u32>,
}

impl<'b> Task<'b> {
    pub(crate) fn new(blueprint: Blueprint<'b>, namespace: String, pipes: Pipes) -> Self {
        let (bench, id) = (blueprint.bench, blueprint.id.clone());
        Task { bench, id, namespace, blueprint, pipes, created_pid: std::sync::OnceLock::new() }
    }

    pub(crate) fn created(&self, pid: u32) {
        // Set once: a task is created once.
        let _ = self.created_pid.set(pid);
    }

    pub(crate) fn created_pid(&self) -> u32 {
        self.created_pid.get().copied().unwrap_or_default()
    }

    pub(crate) fn api(&self) -> Api {
        self.bench.api().in_namespace(&self.namespace)
    }

    pub(crate) fn start(&self) -> Answer<u32> {
        self.api().start(&self.id, "")
    }

    pub(crate) fn state(&self) -> Answer<Process> {
        self.api().state(&self.id, "")
    }

    pub(crate) fn status(&self) -> Answer<Status> {
        let status = self.state()?.status;
        Ok(Status::try_from(status).unwrap_or(Status::Unknown))
    }

    pub(crate) fn pid(&self) -> Answer<u32> {
        Ok(self.state()?.pid)
    }

    pub(crate) fn pids(&self) -> Answer<Vec<ProcessInfo>> {
        self.api().pids(&self.id)
    }

    pub(crate) fn kill(&self, signal: u32) -> Answer<()> {
        self.api().kill(&self.id, "", signal, false)
    }

    /// Waits for the end, and tells the exit status.
    pub(crate) fn wait(&self) -> Answer<u32> {
        Ok(self.api().wait(&self.id, "", PATIENCE)?.status)
    }

    pub(crate) fn delete(&self) -> Answer<Exit> {
        let exit = self.api().delete(&self.id)?;
        self.pipes.close_stdin();
        Ok(exit)
    }

    /// Kills, waits and deletes: for tasks that a scenario is done with.
    #[track_caller]
    pub(crate) fn end(&self) -> Outcome {
        self.kill(KILL)?;
        self.wait()?;
        self.delete()?;
        Ok(())
    }

    pub(crate) fn pause(&self) -> Answer<()> {
        self.api().pause(&self.id)
    }

    pub(crate) fn resume(&self) -> Answer<()> {
        self.api().resume(&self.id)
    }

    pub(crate) fn update(&self, resources: &Value) -> Answer<()> {
        self.api().update(&self.id, pack_json("LinuxResources", resources))
    }

    pub(crate) fn checkpoint(&self, checkpoint: &Checkpoint) -> Answer<Vec<Descriptor>> {
        self.api().checkpoint(&self.id, checkpoint.options.as_ref().map(pack), DEADLINE)
    }

    /// Checkpoints with exit and deletes the task: what remains is the image.
    #[track_caller]
    pub(crate) fn end_as_image(&self) -> Outcome<PathBuf> {
        let image = self.bench.fresh_folder("image")?;
        self.checkpoint(&Checkpoint::into_folder(&image).exit())?;
        let status = self.wait()?;
        self.delete()?;
        if status != 137 {
            return Err(Failure::new(format!("the exit status after a checkpoint is {status}")));
        }
        Ok(image)
    }

    /// Checkpoints and lets it go on.
    #[track_caller]
    pub(crate) fn copy_image(&self) -> Outcome<PathBuf> {
        let image = self.bench.fresh_folder("image")?;
        self.checkpoint(&Checkpoint::into_folder(&image).work_folder(&self.bench.fresh_folder("criu")?))?;
        Ok(image)
    }

    pub(crate) fn stdout(&self) -> &Output {
        self.pipes.stdout.as_ref().expect("the scenario chose a stdio that can be read")
    }

    pub(crate) fn stderr(&self) -> &Output {
        self.pipes.stderr.as_ref().expect("the scenario chose a stdio with a stderr")
    }

    /// Gives EOF, the way clients do.
    #[track_caller]
    pub(crate) fn end_stdin(&self) -> Outcome {
        self.pipes.close_stdin();
        self.api().close_stdin(&self.id, "")?;
        Ok(())
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.bench.slot.daemon().events.of(&self.id)
    }

    #[track_caller]
    pub(crate) fn wait_for_event(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Outcome<usize> {
        self.bench.slot.daemon().events.wait_for(&self.id, what, wanted)
    }

    pub(crate) fn cgroup(&self) -> &str {
        self.blueprint.spec["linux"]["cgroupsPath"].as_str().unwrap_or_default()
    }

    /// Asks a self-checking guest how it is, and waits for the answer it should give.
    #[track_caller]
    pub(crate) fn asks(&self, times: usize, answer: &str) -> Outcome {
        self.kill(USR1)?;
        self.stdout().wait_for_lines(times, answer)
    }

    /// The plan of the same container coming back from `folder`.
    pub(crate) fn again_from(&self, folder: &Path) -> Blueprint<'b> {
        self.blueprint.clone().restoring_folder(folder)
    }

    /// The plan of another container made from an image of this one.
    pub(crate) fn clone_from(&self, folder: &Path) -> Blueprint<'b> {
        self.again_from(folder).id(self.bench.next_id())
    }

    /// Ends it as an image, and asks who came back from there how it is.
    #[track_caller]
    pub(crate) fn comes_back(&self, answer: &str) -> Outcome {
        let image = self.end_as_image()?;
        let again = self.again_from(&image).start()?;
        again.asks(1, answer)?;
        again.end()
    }

    /// The network namespace of its first process.
    pub(crate) fn network_namespace(&self) -> Outcome<PathBuf> {
        network_namespace_of(self.pid()?)
    }

    #[track_caller]
    pub(crate) fn exec(&self, args: &[&str]) -> Outcome<Exec<'_>> {
        self.exec_with(self.bench.stdio(), args)
    }

    /// Adds a process; it waits for its own `start`.
    #[track_caller]
    pub(crate) fn exec_with(&self, kind: Kind, args: &[&str]) -> Outcome<Exec<'_>> {
        let (exec, answer) = self.try_exec(self.bench.next_exec_id(), kind, args)?;
        answer?;
        Ok(exec)
    }

    #[track_caller]
    pub(crate) fn try_exec(&self, id: String, kind: Kind, args: &[&str]) -> Outcome<(Exec<'_>, Answer<()>)> {
        let pipes = Pipes::new(&self.bench.fresh_folder("stdio")?, &kind, &self.bench.guest_outside())?;
        let process = pack_json("Process", &spec::process(args, kind.is_terminal()));
        let answer = self.api().exec(&self.id, &id, pipes.stdio.clone(), process);
        Ok((Exec { task: self, id, pipes }, answer))
    }

    /// Runs a command to its end and returns what it printed.
    #[track_caller]
    pub(crate) fn output_of(&self, args: &[&str]) -> Outcome<String> {
        let exec = self.exec_with(Kind::Fifo, args)?;
        exec.start()?;
        let status = exec.wait()?;
        exec.delete()?;
        exec.stdout().wait_for_end()?;
        if status != 0 {
            return Err(Failure::new(format!("{args:?} ended with {status}: {}", exec.stdout().text())));
        }
        Ok(exec.stdout().text())
    }
}

pub(crate) struct Exec<'t> {
    task: &'t Task<'t>,
    pub(crate) id: String,
    pub(crate) pipes: Pipes,
}

impl Exec<'_> {
    pub(crate) fn start(&self) -> Answer<u32> {
        self.task.api().start(&self.task.id, &self.id)
    }

    pub(crate) fn state(&self) -> Answer<Process> {
        self.task.api().state(&self.task.id, &self.id)
    }

    pub(crate) fn kill(&self, signal: u32) -> Answer<()> {
        self.task.api().kill(&self.task.id, &self.id, signal, false)
    }

    pub(crate) fn wait(&self) -> Answer<u32> {
        Ok(self.task.api().wait(&self.task.id, &self.id, PATIENCE)?.status)
    }

    pub(crate) fn delete(&self) -> Answer<Exit> {
        self.task.api().delete_exec(&self.task.id, &self.id)
    }

    pub(crate) fn resize(&self, height: u32, width: u32) -> Answer<()> {
        self.task.api().resize(&self.task.id, &self.id, height, width)
    }

    pub(crate) fn stdout(&self) -> &Output {
        self.pipes.stdout.as_ref().expect("the scenario chose a stdio that can be read")
    }

    #[track_caller]
    pub(crate) fn end_stdin(&self) -> Outcome {
        self.pipes.close_stdin();
        self.task.api().close_stdin(&self.task.id, &self.id)?;
        Ok(())
    }
}

/// What a client asks for with a checkpoint.
#[derive(Clone)]
pub(crate) struct Checkpoint {
    options: Option<CheckpointOptions>,
}

impl Checkpoint {
    pub(crate) fn into_folder(folder: &Path) -> Self {
        let options = CheckpointOptions { image_path: folder.display().to_string(), ..Default::default() };
        Checkpoint { options: Some(options) }
    }

    pub(crate) fn into_content() -> Self {
        Checkpoint { options: Some(CheckpointOptions::default()) }
    }

    pub(crate) fn without_options() -> Self {
        Checkpoint { options: None }
    }

    pub(crate) fn exit(self) -> Self {
        self.options(|options| options.exit = true)
    }

    pub(crate) fn work_folder(self, folder: &Path) -> Self {
        self.options(|options| options.work_path = folder.display().to_string())
    }

    pub(crate) fn options(mut self, change: impl FnOnce(&mut CheckpointOptions)) -> Self {
        change(self.options.get_or_insert_default());
        self
    }

    /// The options as they travel, for calls that need them apart.
    pub(crate) fn packed(&self) -> Option<prost_types::Any> {
        self.options.as_ref().map(pack)
    }
}

/// How long a question may take to be answered while something else goes on.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(200);

/// What identifies a process's network namespace: net:[number].
pub(crate) fn network_namespace_of(pid: u32) -> Outcome<PathBuf> {
    Ok(std::fs::read_link(format!("/proc/{pid}/ns/net"))?)
}

//! The tasks service, one method per call.

use std::time::Duration;

use containerd_client::services::v1 as wire;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::tonic::transport::Channel;
use containerd_client::types::v1::{Process, ProcessInfo};
use containerd_client::types::{Descriptor, Metric, Mount};
use prost_types::{Any, Timestamp};

use super::{Answer, Api, call, call_within};

/// Where a process's stdin, stdout and stderr go, as the wire has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct CreateTask {
    pub(crate) id: String,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) stdio: Stdio,
    pub(crate) checkpoint: Option<Descriptor>,
    pub(crate) options: Option<Any>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exit {
    pub(crate) status: u32,
    pub(crate) at: Option<Timestamp>,
}

impl Api {
    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    pub(crate) fn create_task(&self, task: CreateTask) -> Answer<u32> {
        let message = wire::CreateTaskRequest {
            container_id: task.id,
            rootfs: task.rootfs,
            stdin: task.stdio.stdin,
            stdout: task.stdio.stdout,
            stderr: task.stdio.stderr,
            terminal: task.stdio.terminal,
            checkpoint: task.checkpoint,
            options: task.options,
            runtime_path: String::new(),
        };
        Ok(call(self.tasks().create(self.request(message)))?.pid)
    }

    /// An empty `exec` means the container's first process, here and below.
    pub(crate) fn start(&self, id: &str, exec: &str) -> Answer<u32> {
        let message = wire::StartRequest { container_id: id.into(), exec_id: exec.into() };
        Ok(call(self.tasks().start(self.request(message)))?.pid)
    }

    /// Gives up after `deadline`, like a client that has lost its patience.
    pub(crate) fn start_within(&self, id: &str, deadline: Duration) -> Answer<u32> {
        let message = wire::StartRequest { container_id: id.into(), exec_id: String::new() };
        Ok(call_within(deadline, self.tasks().start(self.request(message)))?.pid)
    }

    pub(crate) fn state(&self, id: &str, exec: &str) -> Answer<Process> {
        let message = wire::GetRequest { container_id: id.into(), exec_id: exec.into() };
        Ok(call(self.tasks().get(self.request(message)))?.process.unwrap_or_default())
    }

    pub(crate) fn pids(&self, id: &str) -> Answer<Vec<ProcessInfo>> {
        let message = wire::ListPidsRequest { container_id: id.into() };
        Ok(call(self.tasks().list_pids(self.request(message)))?.processes)
    }

    pub(crate) fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Answer<()> {
        let message = wire::KillRequest { container_id: id.into(), exec_id: exec.into(), signal, all };
        call(self.tasks().kill(self.request(message)))
    }

    pub(crate) fn wait(&self, id: &str, exec: &str, deadline: Duration) -> Answer<Exit> {
        let message = wire::WaitRequest { container_id: id.into(), exec_id: exec.into() };
        let answer = call_within(deadline, self.tasks().wait(self.request(message)))?;
        Ok(Exit { status: answer.exit_status, at: answer.exited_at })
    }

    pub(crate) fn delete(&self, id: &str) -> Answer<Exit> {
        let message = wire::DeleteTaskRequest { container_id: id.into() };
        let answer = call(self.tasks().delete(self.request(message)))?;
        Ok(Exit { status: answer.exit_status, at: answer.exited_at })
    }

    pub(crate) fn delete_exec(&self, id: &str, exec: &str) -> Answer<Exit> {
        let message = wire::DeleteProcessRequest { container_id: id.into(), exec_id: exec.into() };
        let answer = call(self.tasks().delete_process(self.request(message)))?;
        Ok(Exit { status: answer.exit_status, at: answer.exited_at })
    }

    pub(crate) fn exec(&self, id: &str, exec: &str, stdio: Stdio, process: Any) -> Answer<()> {
        let message = wire::ExecProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            spec: Some(process),
        };
        call(self.tasks().exec(self.request(message)))
    }

    pub(crate) fn resize(&self, id: &str, exec: &str, height: u32, width: u32) -> Answer<()> {
        let message = wire::ResizePtyRequest { container_id: id.into(), exec_id: exec.into(), width, height };
        call(self.tasks().resize_pty(self.request(message)))
    }

    pub(crate) fn close_stdin(&self, id: &str, exec: &str) -> Answer<()> {
        let message = wire::CloseIoRequest { container_id: id.into(), exec_id: exec.into(), stdin: true };
        call(self.tasks().close_io(self.request(message)))
    }

    pub(crate) fn pause(&self, id: &str) -> Answer<()> {
        let message = wire::PauseTaskRequest { container_id: id.into() };
        call(self.tasks().pause(self.request(message)))
    }

    pub(crate) fn resume(&self, id: &str) -> Answer<()> {
        let message = wire::ResumeTaskRequest { container_id: id.into() };
        call(self.tasks().resume(self.request(message)))
    }

    pub(crate) fn checkpoint(
        &self,
        id: &str,
        options: Option<Any>,
        deadline: Duration,
    ) -> Answer<Vec<Descriptor>> {
        let message = wire::CheckpointTaskRequest {
            container_id: id.into(),
            parent_checkpoint: String::new(),
            options,
        };
        Ok(call_within(deadline, self.tasks().checkpoint(self.request(message)))?.descriptors)
    }

    pub(crate) fn update(&self, id: &str, resources: Any) -> Answer<()> {
        let message = wire::UpdateTaskRequest {
            container_id: id.into(),
            resources: Some(resources),
            annotations: Default::default(),
        };
        call(self.tasks().update(self.request(message)))
    }

    /// Nothing for a task whose shim has no figures: containerd leaves it out.
    pub(crate) fn metrics(&self, id: &str) -> Answer<Vec<Metric>> {
        let message = wire::MetricsRequest { filters: vec![format!("id=={id}")] };
        Ok(call(self.tasks().metrics(self.request(message)))?.metrics)
    }
}

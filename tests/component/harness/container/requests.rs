//! What a client asks of a container: one method per request.

use std::path::Path;

use cryo_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest,
    PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse,
    StateRequest, StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest,
    WaitResponse,
};
use cryo_protos::protobuf::well_known_types::any::Any;
use cryo_protos::runc;
use serde_json::{Value, json};

use super::{Answer, Container};
use crate::harness::client::{any, pack};
use crate::harness::wait::until;

impl Container {
    pub(crate) fn create(&self) -> Answer<CreateTaskResponse> {
        self.client.call("Create", &self.bundle.request)
    }

    pub(crate) fn start(&self) -> Answer<u32> {
        self.start_exec("")
    }

    pub(crate) fn start_exec(&self, exec: &str) -> Answer<u32> {
        let request = StartRequest { id: self.id(), exec_id: exec.to_owned(), ..Default::default() };
        self.client.call("Start", &request).map(|answer: StartResponse| answer.pid)
    }

    pub(crate) fn delete(&self) -> Answer<DeleteResponse> {
        self.delete_exec("")
    }

    pub(crate) fn delete_request(&self) -> DeleteRequest {
        DeleteRequest { id: self.id(), ..Default::default() }
    }

    pub(crate) fn delete_exec(&self, exec: &str) -> Answer<DeleteResponse> {
        let request = DeleteRequest { id: self.id(), exec_id: exec.to_owned(), ..Default::default() };
        self.client.call("Delete", &request)
    }

    /// Adds a process with a program as in [`crate::harness::Blueprint::program`].
    pub(crate) fn exec<const N: usize>(&self, exec: &str, steps: [&str; N]) -> Answer<()> {
        self.exec_with(self.exec_request(exec, &json!({ "args": steps.to_vec(), "cwd": "/" })))
    }

    pub(crate) fn exec_request(&self, exec: &str, process: &Value) -> ExecProcessRequest {
        let spec =
            any("types.containerd.io/opencontainers/runtime-spec/1/Process", process.to_string().as_bytes());
        ExecProcessRequest {
            id: self.id(),
            exec_id: exec.to_owned(),
            spec: Some(spec).into(),
            ..Default::default()
        }
    }

    pub(crate) fn exec_with(&self, request: ExecProcessRequest) -> Answer<()> {
        self.client.call("Exec", &request).map(|_: Empty| ())
    }

    pub(crate) fn state(&self) -> Answer<StateResponse> {
        self.state_of("")
    }

    pub(crate) fn state_of(&self, exec: &str) -> Answer<StateResponse> {
        let request = StateRequest { id: self.id(), exec_id: exec.to_owned(), ..Default::default() };
        self.client.call("State", &request)
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        self.state().unwrap().status.enum_value().unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_until_status(&self, status: Status) {
        until(&format!("{} is {status:?}", self.id()), || self.status() == status);
    }

    pub(crate) fn pids(&self) -> Answer<Vec<u32>> {
        let request = PidsRequest { id: self.id(), ..Default::default() };
        self.client
            .call("Pids", &request)
            .map(|answer: PidsResponse| answer.processes.iter().map(|p| p.pid).collect())
    }

    pub(crate) fn pause(&self) -> Answer<()> {
        let request = PauseRequest { id: self.id(), ..Default::default() };
        self.client.call("Pause", &request).map(|_: Empty| ())
    }

    pub(crate) fn resume(&self) -> Answer<()> {
        let request = ResumeRequest { id: self.id(), ..Default::default() };
        self.client.call("Resume", &request).map(|_: Empty| ())
    }

    pub(crate) fn kill(&self, signal: u32) -> Answer<()> {
        self.kill_exec("", signal)
    }

    pub(crate) fn kill_all(&self, signal: u32) -> Answer<()> {
        let request = KillRequest { id: self.id(), signal, all: true, ..Default::default() };
        self.client.call("Kill", &request).map(|_: Empty| ())
    }

    pub(crate) fn kill_exec(&self, exec: &str, signal: u32) -> Answer<()> {
        let request = KillRequest { id: self.id(), exec_id: exec.to_owned(), signal, ..Default::default() };
        self.client.call("Kill", &request).map(|_: Empty| ())
    }

    pub(crate) fn wait(&self) -> Answer<u32> {
        self.wait_exec("")
    }

    pub(crate) fn wait_exec(&self, exec: &str) -> Answer<u32> {
        let request = WaitRequest { id: self.id(), exec_id: exec.to_owned(), ..Default::default() };
        self.client.call("Wait", &request).map(|answer: WaitResponse| answer.exit_status)
    }

    pub(crate) fn close_stdin(&self) -> Answer<()> {
        let request = CloseIORequest { id: self.id(), stdin: true, ..Default::default() };
        self.client.call("CloseIO", &request).map(|_: Empty| ())
    }

    pub(crate) fn resize(&self, width: u32, height: u32) -> Answer<()> {
        let request = ResizePtyRequest { id: self.id(), width, height, ..Default::default() };
        self.client.call("ResizePty", &request).map(|_: Empty| ())
    }

    pub(crate) fn update(&self, resources: &[u8]) -> Answer<()> {
        let resources = any("types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", resources);
        let request =
            UpdateTaskRequest { id: self.id(), resources: Some(resources).into(), ..Default::default() };
        self.client.call("Update", &request).map(|_: Empty| ())
    }

    pub(crate) fn stats(&self) -> Answer<Any> {
        let request = StatsRequest { id: self.id(), ..Default::default() };
        self.client.call("Stats", &request).map(|answer: StatsResponse| answer.stats.unwrap_or_default())
    }

    pub(crate) fn connect(&self) -> Answer<ConnectResponse> {
        self.client.call("Connect", &ConnectRequest { id: self.id(), ..Default::default() })
    }

    pub(crate) fn shutdown(&self) -> Answer<()> {
        self.client
            .call("Shutdown", &ShutdownRequest { id: self.id(), ..Default::default() })
            .map(|_: Empty| ())
    }

    pub(crate) fn checkpoint(&self, image: &Path, exit: bool) -> Answer<()> {
        self.checkpoint_with(self.checkpoint_request(image, exit))
    }

    pub(crate) fn checkpoint_request(&self, image: &Path, exit: bool) -> CheckpointTaskRequest {
        let options = runc::CheckpointOptions { exit, ..Default::default() };
        CheckpointTaskRequest {
            id: self.id(),
            path: image.to_str().unwrap().to_owned(),
            options: Some(pack(&options)).into(),
            ..Default::default()
        }
    }

    pub(crate) fn checkpoint_with(&self, request: CheckpointTaskRequest) -> Answer<()> {
        self.client.call("Checkpoint", &request).map(|_: Empty| ())
    }
}

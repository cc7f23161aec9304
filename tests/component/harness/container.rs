//! A container as a client sees it: one method per request.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cryo_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskResponse, DeleteRequest,
    DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
    ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse,
    StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use cryo_protos::protobuf::well_known_types::any::Any;
use cryo_protos::runc;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::blueprint::{Bundle, Script, write_script};
use super::client::{Client, Refusal, any, pack};
use super::containerd::Containerd;
use super::process;
use super::shim::{Dialect, Said};
use super::wait::{PATIENCE, until};
use super::world::World;

#[derive(Clone)]
pub(crate) struct Container {
    inner: Arc<Inner>,
    /// The connection this handle asks through.
    client: Client,
}

pub(crate) struct Inner {
    runtime: Handle,
    containerd: Arc<Containerd>,
    pub(crate) bundle: Bundle,
    pub(crate) address: String,
    pub(crate) shim: u32,
    /// containerd has removed the bundle and forgotten it.
    forgotten: AtomicBool,
}

/// A request that isn't answered yet.
pub(crate) struct Pending<T>(JoinHandle<Result<T, Refusal>>);

type Answer<T> = Result<T, Refusal>;

impl Deref for Container {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Container {
    #[track_caller]
    pub(crate) fn boot(world: &World, bundle: Bundle) -> Container {
        let dialect = bundle.call.dialect;
        let address = bundle.call.start().address(dialect);
        Container::at(world, bundle, address)
    }

    /// For a shim that runs already.
    #[track_caller]
    pub(crate) fn at(world: &World, bundle: Bundle, address: String) -> Container {
        // containerd writes it; what `delete` and a restarted containerd look for.
        fs::write(bundle.path.join("bootstrap.json"), json!({ "version": 2, "address": address }).to_string()).unwrap();
        let client = Client::connect(world.runtime(), &address).unwrap();
        let connected: ConnectResponse = client.call("Connect", &ConnectRequest::default()).unwrap();
        let inner = Inner {
            runtime: world.runtime().clone(),
            containerd: world.containerd.clone(),
            bundle,
            address,
            shim: connected.shim_pid,
            forgotten: AtomicBool::new(false),
        };
        let container = Container { inner: Arc::new(inner), client };
        world.note_container(&container);
        container
    }

    /// The same container through a connection of its own.
    #[track_caller]
    pub(crate) fn reconnected(&self) -> Container {
        self.through(Client::connect(&self.runtime, &self.address).unwrap())
    }

    pub(crate) fn through(&self, client: Client) -> Container {
        Container { inner: self.inner.clone(), client }
    }

    pub(crate) fn with_patience(&self, patience: Duration) -> Container {
        self.through(self.client.clone().with_patience(patience))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Asks without waiting for the answer.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Container) -> Answer<T> + Send + 'static,
    ) -> Pending<T> {
        let container = self.clone();
        Pending(std::thread::spawn(move || request(&container)))
    }

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

    /// Adds a process with a program as in [`super::Blueprint::program`].
    pub(crate) fn exec<const N: usize>(&self, exec: &str, steps: [&str; N]) -> Answer<()> {
        self.exec_with(self.exec_request(exec, &json!({ "args": steps.to_vec(), "cwd": "/" })))
    }

    pub(crate) fn exec_request(&self, exec: &str, process: &Value) -> ExecProcessRequest {
        let spec = any("types.containerd.io/opencontainers/runtime-spec/1/Process", process.to_string().as_bytes());
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
        self.client.call("Pids", &request).map(|answer: PidsResponse| answer.processes.iter().map(|p| p.pid).collect())
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
        let request = UpdateTaskRequest { id: self.id(), resources: Some(resources).into(), ..Default::default() };
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
        self.client.call("Shutdown", &ShutdownRequest { id: self.id(), ..Default::default() }).map(|_: Empty| ())
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

impl<T> Pending<T> {
    pub(crate) fn is_answered(&self) -> bool {
        self.0.is_finished()
    }

    #[track_caller]
    pub(crate) fn answer(self) -> Answer<T> {
        self.0.join().unwrap()
    }
}

impl Inner {
    pub(crate) fn id(&self) -> String {
        self.bundle.request.id.clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.bundle.path.join(name)
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Everything containerd was told of it, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        self.containerd.events(&self.id())
    }

    #[track_caller]
    pub(crate) fn wait_for_event(&self, what: &str) {
        self.containerd.wait_for_event(&self.id(), what);
    }

    /// Checks that exactly these were told, once the last of them has been.
    #[track_caller]
    pub(crate) fn expect_events<const N: usize>(&self, expected: [&str; N]) {
        until(&format!("{expected:?}, so far {:?}", self.events()), || {
            self.events().len() >= N || self.events().last().map(String::as_str) == expected.last().copied()
        });
        assert_eq!(self.events(), expected);
    }

    /// What the shim wrote into containerd's log.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&self.bundle.log.lock().unwrap()).into_owned()
    }

    /// Changes what the runtime does from its next call on.
    pub(crate) fn script(&self, change: impl FnOnce(&mut Script)) {
        let mut script = Script::default();
        change(&mut script);
        write_script(&self.bundle.path, &script);
    }

    /// The runtime's calls of one verb, with all arguments.
    pub(crate) fn calls(&self, verb: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let of_verb = calls.lines().filter_map(|line| line.split_once('\t')).filter(|(first, _)| *first == verb);
        of_verb.map(|(_, words)| words.to_owned()).collect()
    }

    pub(crate) fn stdout(&self) -> &super::Pipe {
        self.bundle.stdout.as_ref().expect("this container's stdout is a fifo")
    }

    pub(crate) fn stderr(&self) -> &super::Pipe {
        self.bundle.stderr.as_ref().expect("this container's stderr is a fifo")
    }

    pub(crate) fn stdin(&self) -> &super::Pipe {
        self.bundle.stdin.as_ref().expect("this container's stdin is a fifo")
    }

    /// The pid as the runtime left it.
    #[track_caller]
    pub(crate) fn init_pid(&self) -> u32 {
        fs::read_to_string(self.path("init.pid")).unwrap().trim().parse().unwrap()
    }

    pub(crate) fn shim_is_alive(&self) -> bool {
        process::is_alive(self.shim)
    }

    /// As an administrator or the OOM killer would.
    pub(crate) fn kill_shim(&self) {
        process::kill(self.shim, 9);
        process::wait_for_death(self.shim);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.address.strip_prefix("unix://").unwrap().into()
    }

    /// What containerd does when a shim has died: its `delete`, then the bundle.
    #[track_caller]
    pub(crate) fn delete_after_death(&self) -> Said {
        let said = self.bundle.call.delete();
        self.forget();
        said
    }

    #[track_caller]
    pub(crate) fn forget(&self) {
        if !self.forgotten.swap(true, Ordering::SeqCst) {
            fs::remove_dir_all(&self.bundle.path).unwrap();
        }
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::SeqCst)
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.bundle.call.dialect
    }
}

impl Container {
    /// The end of every test: whatever happened, it can be killed and deleted.
    #[track_caller]
    pub(crate) fn clean_up(&self) {
        if self.is_forgotten() {
            return;
        }
        if !self.shim_is_alive() {
            let said = self.delete_after_death();
            assert!(said.status.success(), "delete failed: {}", said.stderr);
            return;
        }
        let container = self.reconnected();
        if container.state().is_ok() {
            // It may have ended by itself.
            let _ = container.kill_all(9);
            let begun = Instant::now();
            container.wait().unwrap_or_else(|refusal| panic!("after {:?}: {refusal}", begun.elapsed()));
            container.delete().unwrap_or_else(|refusal| panic!("{} can't be deleted: {refusal}", self.id()));
        }
        self.forget();
    }

    /// Once every container of a shim is gone it ends, and takes its socket with it.
    #[track_caller]
    pub(crate) fn expect_shim_gone(&self) {
        // Another one that shared it may have asked before.
        if let Ok(client) = Client::connect(&self.runtime, &self.address) {
            let _ = self.through(client).shutdown();
        }
        super::until_within(PATIENCE, &format!("the shim of {} has ended", self.id()), || !self.shim_is_alive());
        assert!(!self.socket().exists(), "the shim has left its socket");
    }
}

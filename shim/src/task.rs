//! The Task service: each method reads its message, makes one call to the core and
//! writes the answer. Versions 2 and 3 of the service have the same messages.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cryo::checkpoint;
use cryo::container::{Container, Create, Ended, Node};
use cryo::stdio::Paths;
use cryo::store::Store;
use cryo_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest,
    PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest,
    StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest,
    WaitResponse,
};
use cryo_protos::ttrpc::r#async::TtrpcContext;
use cryo_protos::ttrpc::error::get_rpc_status;
use cryo_protos::ttrpc::{Code, Result};
use cryo_protos::{Task, pack, runc};
use tokio::sync::{Notify, watch};

use crate::bundle_files;
use crate::content;
use crate::convert;
use crate::publish::timestamp;
use crate::rest;
use crate::stats;
use crate::status;

#[derive(Clone)]
pub(crate) struct Service(Arc<Shared>);

struct Shared {
    /// containerd's gRPC socket.
    address: String,
    namespace: String,
    node: Node,
    containers: Mutex<HashMap<String, Slot>>,
    shutdown: Notify,
    /// Asked to end while a container was being made.
    is_unwanted: AtomicBool,
}

enum Slot {
    /// Being made: the name is taken, there is nothing to ask yet. Closed when that is over.
    Reserved(watch::Receiver<()>),
    Taken(Container),
}

impl Service {
    pub(crate) fn new(address: &str, namespace: &str, node: Node) -> Service {
        Service(Arc::new(Shared {
            address: address.to_owned(),
            namespace: namespace.to_owned(),
            node,
            containers: Mutex::default(),
            shutdown: Notify::new(),
            is_unwanted: AtomicBool::new(false),
        }))
    }

    /// Resolves when containerd has asked the shim to end.
    pub(crate) async fn ended(&self) {
        self.0.shutdown.notified().await;
    }

    pub(crate) fn log_containers(&self) {
        for (id, slot) in self.slots().iter() {
            match slot {
                Slot::Reserved(_) => tracing::info!(id, "container is being made"),
                Slot::Taken(container) => {
                    let now = container.snapshot();
                    tracing::info!(id, status = ?now.status, pid = now.pid, execs = now.execs.len(), "container");
                }
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn container(&self, id: &str) -> Result<Container> {
        match self.slots().get(id) {
            Some(Slot::Taken(container)) => Ok(container.clone()),
            _ => Err(status::no_container()),
        }
    }

    fn reserve(&self, id: &str) -> Result<Reservation> {
        let mut slots = self.slots();
        if slots.contains_key(id) {
            return Err(get_rpc_status(Code::ALREADY_EXISTS, format!("container {id} already exists")));
        }
        let (made, wait) = watch::channel(());
        slots.insert(id.to_owned(), Slot::Reserved(wait));
        Ok(Reservation { service: self.clone(), id: id.to_owned(), _made: made })
    }

    /// The container, also if it is still being made: who deletes it mustn't miss it.
    async fn container_once_made(&self, id: &str) -> Result<Container> {
        loop {
            let mut wait = match self.slots().get(id) {
                Some(Slot::Taken(container)) => return Ok(container.clone()),
                Some(Slot::Reserved(wait)) => wait.clone(),
                None => return Err(status::no_container()),
            };
            // Fails when it is over.
            while wait.changed().await.is_ok() {}
        }
    }

    fn release(&self, id: &str) {
        let mut slots = self.slots();
        slots.remove(id);
        if slots.is_empty() && self.0.is_unwanted.load(Ordering::Relaxed) {
            self.0.shutdown.notify_one();
        }
    }
}

/// Gives the name back unless the container was made.
struct Reservation {
    service: Service,
    id: String,
    _made: watch::Sender<()>,
}

impl Reservation {
    fn take(self, container: Container) {
        self.service.slots().insert(self.id.clone(), Slot::Taken(container));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let is_reserved = matches!(self.service.slots().get(&self.id), Some(Slot::Reserved(_)));
        if is_reserved {
            self.service.release(&self.id);
        }
    }
}

#[async_trait]
impl Task for Service {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        let reservation = self.reserve(&request.id)?;
        self.0.is_unwanted.store(false, Ordering::Relaxed);
        let options = request.options.into_option().unwrap_or_default();
        let options = convert::create_options(&options).map_err(status::invalid)?;
        let bundle = PathBuf::from(&request.bundle);
        bundle_files::write(&bundle, &options).map_err(status::internal)?;
        // Older containerds don't hand the path on under every name of ours.
        let checkpoint =
            convert::path(&request.checkpoint).or_else(|| convert::path(&options.criu_image_path));
        let create = Create {
            namespace: self.0.namespace.clone(),
            id: request.id,
            bundle,
            rootfs: convert::mounts(request.rootfs),
            stdio: paths(request.stdin, request.stdout, request.stderr, request.terminal),
            checkpoint,
            options: convert::core_options(&options, &self.0.namespace),
        };
        let node = self.0.node.clone();
        // A task of its own: if containerd gives up waiting, the container is still
        // known here, and what was begun ends as it should.
        let made = tokio::spawn(async move {
            let container = Container::create(create, node).await?;
            tokio::spawn(rest::between(container.changes()));
            let pid = container.snapshot().pid;
            reservation.take(container);
            Ok(pid)
        });
        let pid = made.await.map_err(status::internal)?.map_err(status::of)?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Result<StartResponse> {
        let container = self.container(&request.id)?;
        let started = match exec(request.exec_id) {
            None => container.start().await,
            Some(exec) => container.start_exec(exec).await,
        };
        let pid = started.map_err(status::of)?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Result<DeleteResponse> {
        let container = self.container_once_made(&request.id).await?;
        let ended = match exec(request.exec_id) {
            Some(exec) => container.delete_exec(exec).await.map_err(status::of)?,
            None => {
                let service = self.clone();
                // A task of its own: the id is free again even if nobody awaits that.
                let deleted = tokio::spawn(async move {
                    let ended = container.delete().await?;
                    service.release(&request.id);
                    Ok(ended)
                });
                deleted.await.map_err(status::internal)?.map_err(status::of)?
            }
        };
        let Ended { pid, exit } = ended;
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let stdio = paths(request.stdin, request.stdout, request.stderr, request.terminal);
        let process = request.spec.into_option().unwrap_or_default().value;
        container.exec(request.exec_id, process, stdio).await.map_err(status::of)?;
        Ok(Empty::default())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Result<StateResponse> {
        let now = self.container(&request.id)?.snapshot();
        let (state, pid, exit, stdio) = match now.execs.get(&request.exec_id) {
            Some(exec) => (exec.status, exec.pid, exec.exit, &exec.stdio),
            None if request.exec_id.is_empty() => (now.status, now.pid, now.exit, &now.stdio),
            None => return Err(no_exec(&request.exec_id)),
        };
        Ok(StateResponse {
            // The id of the process that was asked about.
            id: exec(request.exec_id.clone()).unwrap_or(request.id),
            exec_id: request.exec_id,
            bundle: now.bundle.to_string_lossy().into_owned(),
            pid,
            status: convert::status(state).into(),
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            terminal: stdio.terminal,
            exit_status: exit.map(|exit| exit.status).unwrap_or_default(),
            exited_at: exit.map(|exit| timestamp(exit.at)).unwrap_or_default(),
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Result<PidsResponse> {
        let now = self.container(&request.id)?.snapshot();
        let mut pids = match &now.cgroup {
            Some(cgroup) if now.exit.is_none() => cgroup.processes().map_err(status::internal)?,
            _ => Vec::new(),
        };
        if pids.is_empty() {
            // containerd takes an empty list after its restart for a shim without a
            // container, and throws away what was only stopped or not yet restored.
            pids.push(now.pid);
        }
        let info = |pid| -> Result<ProcessInfo> {
            let exec = now.execs.iter().find(|(_, exec)| exec.pid == pid && exec.exit.is_none());
            let details =
                exec.map(|(id, _)| runc::ProcessDetails { exec_id: id.clone(), ..Default::default() });
            let info = details.map(|details| pack(&details)).transpose().map_err(status::internal)?;
            Ok(ProcessInfo { pid, info: info.into(), ..Default::default() })
        };
        let processes = pids.into_iter().map(info).collect::<Result<_>>()?;
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Result<Empty> {
        self.container(&request.id)?.pause().await.map_err(status::of)?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Result<Empty> {
        self.container(&request.id)?.resume().await.map_err(status::of)?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: CheckpointTaskRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let options = convert::checkpoint_options(request.options.as_ref()).map_err(status::invalid)?;
        let policy = container.policy(&self.0.node.policy).await.map_err(status::of)?;
        let image = PathBuf::from(request.path);
        if checkpoint::is_temporary(&image) {
            let Shared { address, namespace, .. } = &*self.0;
            content::make_room(address, namespace, &request.id).await.map_err(status::held)?;
        }
        // Older containerds don't hand it on under every name of ours.
        let wanted = options.image.filter(|image| Store::wanted(&policy.store().path, image).is_some());
        let checkpoint = checkpoint::Request {
            image: wanted.unwrap_or(image),
            exit: options.exit.unwrap_or_else(|| policy.exits_after_checkpoint(&self.0.namespace)),
            work: options.work,
            options: options.criu.for_dump(&policy),
            policy,
        };
        container.checkpoint(checkpoint).await.map_err(status::of)?;
        Ok(Empty::default())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        match exec(request.exec_id) {
            None => container.kill(request.signal, request.all).await,
            Some(exec) => container.kill_exec(exec, request.signal).await,
        }
        .map_err(status::of)?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let size = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let (columns, rows) = (size(request.width), size(request.height));
        container.resize(exec(request.exec_id), columns, rows).await.map_err(status::of)?;
        Ok(Empty::default())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        container.close_stdin(exec(request.exec_id)).await.map_err(status::of)?;
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let resources = request.resources.into_option().unwrap_or_default().value;
        container.update(resources).await.map_err(status::of)?;
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Result<WaitResponse> {
        let container = self.container(&request.id)?;
        let exit = container.wait(exec(request.exec_id).as_deref()).await.map_err(status::of)?;
        Ok(WaitResponse { exit_status: exit.status, exited_at: timestamp(exit.at), ..Default::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Result<StatsResponse> {
        let now = self.container(&request.id)?.snapshot();
        let gone = || get_rpc_status(Code::NOT_FOUND, "cgroup does not exist");
        let cgroup = now.cgroup.as_ref().ok_or_else(gone)?;
        let stats = cgroup.stats().map_err(|error| match error {
            cryo::cgroup::Error::Gone { .. } => gone(),
            other => status::internal(other),
        })?;
        let stats = stats::pack_stats(stats).map_err(status::internal)?;
        Ok(StatsResponse { stats: Some(stats).into(), ..Default::default() })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Result<ConnectResponse> {
        let task_pid = self.container(&request.id).map(|container| container.snapshot().pid);
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task_pid.unwrap_or_default(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Result<Empty> {
        // Whoever has a container here may still need it, whatever `now` says.
        let slots = self.slots();
        if slots.is_empty() {
            self.0.shutdown.notify_one();
        }
        // Whoever gave up waiting for a container asks but once.
        let is_made = slots.values().any(|slot| matches!(slot, Slot::Reserved(_)));
        self.0.is_unwanted.store(is_made, Ordering::Relaxed);
        Ok(Empty::default())
    }
}

fn exec(id: String) -> Option<String> {
    (!id.is_empty()).then_some(id)
}

fn no_exec(id: &str) -> cryo_protos::ttrpc::Error {
    get_rpc_status(Code::NOT_FOUND, format!("process does not exist {id}"))
}

fn paths(stdin: String, stdout: String, stderr: String, terminal: bool) -> Paths {
    Paths { stdin, stdout, stderr, terminal }
}

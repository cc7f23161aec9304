//! The one task that owns a container: it takes the next request or the next thing
//! that happened, changes the phase, tells the outside and answers.
//!
//! The order that others rely on is kept here, by construction:
//! - whatever takes time runs beside the driver and comes back as a [`Done`];
//! - while a change of the container is under way, the end of its first process isn't
//!   looked at, so Started comes before Exited however quick it was;
//! - the first process's end is told last: first the rest of the container is killed
//!   if nothing else does it, then its exec'd processes end, then an OOM kill is told;
//! - the snapshot is published before a request is answered.

mod begin;
mod ending;
mod message;
mod outcome;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::exec::Exec;
use super::lifecycle::{Init, Live, New};
use super::state::{Ask, Phase, Verdict, admit};
use super::{Change, Ended, Error, Node, Reply, Snapshot, Status, Subject};
use crate::cgroup::{Cgroup, OomWatch};
use crate::event::{Event, Notice};
use crate::reaper::{Exit, Process};
use crate::runtime::Abort;
use crate::stdio::{OpenOutputs, Paths, Streams};
use crate::{checkpoint, restore};
use ending::Ending;
use message::Done;
pub(super) use message::Request;

/// How long a thaw may take: the kernel needs no time for it worth mentioning.
const THAW_PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Driver {
    subject: Arc<Subject>,
    node: Node,
    phase: Phase,
    /// The first process, or before a restore the anchor that stands for it.
    process: Option<Process>,
    streams: Option<Streams>,
    /// What Start will bring back.
    awaited: Option<Box<restore::Prepared>>,
    /// Until it has streams, or is known not to get any.
    outputs: Option<OpenOutputs>,
    /// What the first process ran before the container's program: the runtime's own.
    maker: Option<Vec<u8>>,
    /// The process is an anchor: the runtime knows of no container yet.
    anchored: bool,
    /// Kept open for as long as the runtime may look at it.
    network: Option<restore::Network>,
    cgroup: Option<Cgroup>,
    oom: Option<OomWatch>,
    execs: BTreeMap<String, Exec>,
    /// The first process has ended, and what has to happen before that is told.
    ending: Option<Ending>,
    exit: Option<Exit>,
    /// Why a start failed, for those who ask later.
    failure: Option<String>,
    last_pid: u32,
    /// What a client sees while something is under way.
    resting: Status,
    /// Calls off the checkpoint or restore that is under way.
    abort: Abort,
    parked: VecDeque<Request>,
    work: JoinSet<Done>,
    publish: watch::Sender<Arc<Snapshot>>,
    deleted: bool,
}

impl Driver {
    pub(super) fn new(new: New, node: Node) -> (Driver, watch::Receiver<Arc<Snapshot>>) {
        let subject = new.subject;
        let (publish, snapshot) = watch::channel(Arc::new(Snapshot {
            status: Status::Created,
            pid: 0,
            exit: None,
            stdio: subject.paths.clone(),
            bundle: subject.bundle.clone(),
            cgroup: None,
            execs: BTreeMap::new(),
        }));
        let mut driver = Driver {
            subject,
            node,
            phase: Phase::Created,
            process: None,
            streams: None,
            awaited: None,
            outputs: None,
            maker: None,
            anchored: false,
            network: None,
            cgroup: None,
            oom: None,
            execs: BTreeMap::new(),
            ending: None,
            exit: None,
            failure: None,
            last_pid: 0,
            resting: Status::Created,
            abort: Abort::default(),
            parked: VecDeque::new(),
            work: JoinSet::new(),
            publish,
            deleted: false,
        };
        match new.init {
            Init::Made(live) => {
                driver.maker = live.process.program();
                driver.live(live);
            }
            Init::Awaited(mut prepared) => {
                driver.outputs = prepared.outputs.take();
                driver.phase = Phase::Restorable;
                driver.watch(prepared.anchor.clone());
                driver.anchored = true;
                driver.awaited = Some(prepared);
            }
        }
        driver.tell(Event::Created {
            pid: driver.last_pid,
            bundle: driver.subject.bundle.clone(),
            rootfs: new.rootfs,
            stdio: driver.subject.paths.clone(),
            checkpoint: new.checkpoint,
        });
        driver.publish();
        (driver, snapshot)
    }

    pub(super) fn subject(&self) -> Arc<Subject> {
        self.subject.clone()
    }

    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while !self.deleted {
            tokio::select! {
                biased;
                Some(done) = self.work.join_next(), if !self.work.is_empty() => {
                    self.done(done.unwrap_or(Done::Lost));
                }
                Some(kills) = next_oom(&mut self.oom) => self.tell_oom(kills),
                Some(request) = requests.recv() => self.receive(request),
                else => break,
            }
            self.settle();
        }
        tracing::debug!(id = self.subject.id, "container is gone");
    }

    fn receive(&mut self, request: Request) {
        match request {
            // The client that parked it has given up.
            request if request.is_abandoned() => {}
            Request::Exec { .. } => self.gate(Ask::AddExec, request),
            Request::StartExec { .. } => self.gate(Ask::StartExec, request),
            Request::Start { .. } => self.gate(Ask::Start, request),
            Request::Checkpoint { .. } => self.gate(Ask::Checkpoint, request),
            Request::Kill { .. } => self.gate(Ask::Kill, request),
            Request::Delete { .. } => self.gate(Ask::Delete, request),
            Request::Change { ref change, .. } => self.gate(change.ask(), request),
            Request::KillExec { id, signal, reply } => {
                let result = self.exec(&id).and_then(|exec| exec.kill(&id, signal));
                self.answer(reply, result);
            }
            Request::Resize { exec, columns, rows, reply } => {
                let result = self.streams(exec.as_deref()).and_then(|streams| match streams {
                    Some(streams) => streams.resize(columns, rows).map_err(Error::from),
                    None => Ok(()),
                });
                self.answer(reply, result);
            }
            Request::CloseStdin { exec, reply } => {
                let streams = self.streams(exec.as_deref());
                let result = streams.map(|streams| streams.into_iter().for_each(Streams::close_stdin));
                self.answer(reply, result);
            }
            Request::DeleteExec { id, reply } => self.delete_exec(id, reply),
        }
    }

    fn gate(&mut self, ask: Ask, request: Request) {
        match admit(self.phase, ask) {
            // A process that is half way into the container would be frozen there, and a
            // dump would know nothing of it.
            Verdict::Go if freezes(ask) && self.execs.values().any(Exec::is_starting) => {
                self.parked.push_back(request);
            }
            Verdict::Go => self.begin(request),
            Verdict::Wait => self.parked.push_back(request),
            Verdict::Gone => request.refuse(Error::Finished),
            Verdict::Refuse(refusal) => {
                let failed = self.failure.clone().filter(|_| ask == Ask::Start);
                let error = failed.map_or(Error::Refused(refusal), Error::Failed);
                request.refuse(error);
            }
        }
    }

    fn begin(&mut self, request: Request) {
        match request {
            Request::Start { reply } => self.start(reply),
            Request::Exec { id, process, stdio, reply } => {
                let result = self.add_exec(id, &process, stdio);
                self.answer(reply, result);
            }
            Request::StartExec { id, reply } => self.start_exec(id, reply),
            Request::Change { change, reply } => self.change(change, reply),
            Request::Checkpoint { checkpoint, reply } => self.checkpoint(checkpoint, reply),
            Request::Kill { signal, all, reply } => self.kill(signal, all, reply),
            Request::Delete { reply } => self.delete(reply),
            other => self.receive(other),
        }
    }

    /// Takes over a first process that is there.
    fn live(&mut self, live: Live) {
        self.watch(live.process.clone());
        self.streams = Some(live.streams);
        self.cgroup = self.subject.cgroup(live.process.pid());
        self.oom = self.cgroup.as_ref().and_then(|cgroup| {
            let failed = |error| tracing::warn!(%error, "no OOM events for this container");
            cgroup.watch_oom().map_err(failed).ok()
        });
    }

    fn watch(&mut self, process: Process) {
        let pid = process.pid();
        self.last_pid = pid;
        self.process = Some(process.clone());
        self.spawn(async move {
            let exit = process.exited().await;
            Done::Exited { exec: None, pid, exit }
        });
    }

    /// Nothing but questions and kills is answered while one of these lasts.
    fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Changing | Phase::Checkpointing | Phase::Deleting)
    }

    fn exec(&self, id: &str) -> Result<&Exec, Error> {
        self.execs.get(id).ok_or_else(|| Error::NoExec(id.to_owned()))
    }

    fn streams(&mut self, exec: Option<&str>) -> Result<Option<&mut Streams>, Error> {
        let Some(id) = exec else { return Ok(self.streams.as_mut()) };
        let exec = self.execs.get_mut(id).ok_or_else(|| Error::NoExec(id.to_owned()))?;
        Ok(exec.streams.as_mut())
    }

    fn spawn(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.spawn(work);
    }

    fn tell(&self, event: Event) {
        // Without anybody to listen the shim is on its way out.
        let _ = self.node.events.send(Notice {
            at: SystemTime::now(),
            container: self.subject.id.clone(),
            event,
        });
    }

    fn tell_oom(&self, kills: u64) {
        // The event says that memory ran out, not how often.
        if kills > 0 {
            self.tell(Event::OutOfMemory);
        }
    }

    fn answer<T>(&mut self, reply: Reply<T>, result: Result<T, Error>) {
        self.publish();
        // Whoever asked may have gone; the next one who asks sees what is so.
        let _ = reply.send(result);
    }

    fn publish(&self) {
        let status = self.status();
        let cgroup = self.cgroup.clone();
        self.publish.send_modify(|snapshot| {
            let new = Snapshot {
                status,
                pid: self.last_pid,
                exit: self.exit,
                stdio: self.subject.paths.clone(),
                bundle: self.subject.bundle.clone(),
                cgroup,
                execs: self.execs.iter().map(|(id, exec)| (id.clone(), exec.snapshot(status))).collect(),
            };
            *snapshot = Arc::new(new);
        });
    }

    fn status(&self) -> Status {
        match self.phase {
            _ if self.exit.is_some() => Status::Stopped,
            Phase::Created | Phase::Restorable | Phase::Starting => Status::Created,
            Phase::Running => Status::Running,
            Phase::Paused => Status::Paused,
            Phase::Changing | Phase::Checkpointing => self.resting,
            Phase::Stopped | Phase::Deleting => Status::Stopped,
        }
    }
}

fn freezes(ask: Ask) -> bool {
    matches!(ask, Ask::Pause | Ask::Checkpoint)
}

async fn next_oom(oom: &mut Option<OomWatch>) -> Option<u64> {
    let next = match oom {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    };
    if next.is_none() {
        *oom = None;
    }
    next
}

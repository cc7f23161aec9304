//! A container, as others hold it: requests go to the task that owns it, questions are
//! answered from the snapshot it publishes and wait for nothing.
//!
//! Dropping a handle, or the future that awaits an answer, changes nothing: what was
//! begun is finished or rolled back, and the next one who asks learns which.

mod annotated;
mod driver;
mod exec;
mod lifecycle;
pub mod state;
mod subject;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::cgroup::{self, Cgroup};
use crate::docker::{Restarted, Stops};
use crate::event::Events;
use crate::journal::Journal;
use crate::mount::{self, Mount};
use crate::outside::Outside;
use crate::policy::{self, NotAllowed, Policy};
use crate::reaper::{Exit, Reaper};
use crate::stdio::{self, Paths};
use crate::{bundle, checkpoint, outside, restore, runtime};
use driver::Request;
pub use lifecycle::{Live, clean_up};
pub(crate) use lifecycle::{claim_cgroup, is_occupied, is_shared, remove_unfinished};
use state::{Ask, Refusal};
pub use subject::Subject;

/// Requests that may wait for the owner. Clients wait for answers, so more than a few
/// are never there; a flood makes the flooder wait.
const REQUESTS: usize = 64;

/// What the client said when it asked for a container.
#[derive(Clone, Debug)]
pub struct Create {
    pub namespace: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: Vec<Mount>,
    pub stdio: Paths,
    /// Come back from this image instead of starting afresh.
    pub checkpoint: Option<PathBuf>,
    pub options: Options,
}

/// How a container is run, as the client's options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Missing if the client leaves it to the node.
    pub runtime: Option<PathBuf>,
    pub runtime_root: PathBuf,
    pub systemd_cgroup: bool,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// Who owns the container's pipes.
    pub io_owner: Option<(u32, u32)>,
    /// Where the client wants CRIU's restore log.
    pub restore_work: Option<PathBuf>,
}

/// What belongs to the node, not to one container.
#[derive(Clone, Debug)]
pub struct Node {
    pub reaper: Reaper,
    pub events: Events,
    pub journal: Journal,
    /// Where the node's owner says what annotations may ask for.
    pub policy: PathBuf,
    pub stops: Stops,
    pub outside: Outside,
}

#[derive(Clone, Debug)]
pub struct Container {
    requests: mpsc::Sender<Request>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    subject: Arc<Subject>,
}

/// What is so at this moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub status: Status,
    /// 0 if there is no process: before a restore, or after a failed one.
    pub pid: u32,
    pub exit: Option<Exit>,
    pub stdio: Paths,
    pub bundle: PathBuf,
    pub cgroup: Option<Cgroup>,
    pub execs: BTreeMap<String, ExecSnapshot>,
}

#[derive(Clone, Debug)]
pub struct ExecSnapshot {
    pub status: Status,
    pub pid: u32,
    pub exit: Option<Exit>,
    pub stdio: Paths,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Pausing,
    Paused,
    Stopped,
}

/// How something ended that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub pid: u32,
    pub exit: Exit,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("cannot start the container: {0}")]
    Failed(String),
    #[error("process already finished")]
    Finished,
    #[error("process does not exist {0}")]
    NoExec(String),
    #[error("id {0} already exists")]
    ExecExists(String),
    #[error("process {0} isn't started")]
    ExecNotStarted(String),
    #[error("cannot {ask} process {exec}: it {is}")]
    ExecState { ask: &'static str, exec: String, is: &'static str },
    #[error("the container is gone")]
    Gone,
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Policy(#[from] policy::Error),
    #[error(transparent)]
    Restarted(#[from] Restarted),
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    #[error(transparent)]
    Unclear(#[from] annotated::Error),
    #[error(transparent)]
    Outside(#[from] outside::Error),
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Mount(#[from] mount::Error),
    #[error(transparent)]
    Stdio(#[from] stdio::Error),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    #[error(transparent)]
    Restore(#[from] restore::Error),
    #[error("cannot signal process {pid}: {source}")]
    Signal { pid: u32, source: std::io::Error },
}

impl Container {
    /// Makes a container. It is complete, or nothing is left of it.
    pub async fn create(create: Create, node: Node) -> Result<Container, Error> {
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let (answer, created) = oneshot::channel();
        // A task of its own, so that it ends well even if nobody awaits it any more.
        tokio::spawn(async move {
            match lifecycle::create(create, &node).await {
                Ok(new) => {
                    let (driver, snapshot) = driver::Driver::new(new, node);
                    let subject = driver.subject();
                    // Alive even if the asker has left: it may come back and delete it.
                    let _ = answer.send(Ok(Container { requests, snapshot, subject }));
                    driver.run(receiver).await;
                }
                Err(error) => {
                    let _ = answer.send(Err(error));
                }
            }
        });
        created.await.unwrap_or(Err(Error::Gone))
    }

    /// What holds for it at this moment.
    pub async fn policy(&self, node_file: &Path) -> Result<Policy, Error> {
        Ok(lifecycle::in_force(&self.subject.spec.annotations, node_file).await?)
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Hears of every change, until it is gone.
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// Waits for the end of the container, or of one of its exec'd processes.
    pub async fn wait(&self, exec: Option<&str>) -> Result<Exit, Error> {
        let mut snapshot = self.snapshot.clone();
        loop {
            let ended = match exec {
                None => snapshot.borrow_and_update().exit,
                Some(id) => {
                    let now = snapshot.borrow_and_update();
                    now.execs.get(id).ok_or_else(|| Error::NoExec(id.to_owned()))?.exit
                }
            };
            match ended {
                Some(exit) => return Ok(exit),
                None => snapshot.changed().await.map_err(|_| Error::Gone)?,
            }
        }
    }

    pub async fn start(&self) -> Result<u32, Error> {
        self.ask(|reply| Request::Start { reply }).await
    }

    /// Adds a process, to be started later. `process` is JSON as in the OCI
    /// specification.
    pub async fn exec(&self, id: String, process: Vec<u8>, stdio: Paths) -> Result<(), Error> {
        self.ask(|reply| Request::Exec { id, process, stdio, reply }).await
    }

    pub async fn start_exec(&self, id: String) -> Result<u32, Error> {
        self.ask(|reply| Request::StartExec { id, reply }).await
    }

    pub async fn pause(&self) -> Result<(), Error> {
        self.ask(|reply| Request::Change { change: Change::Pause, reply }).await
    }

    pub async fn resume(&self) -> Result<(), Error> {
        self.ask(|reply| Request::Change { change: Change::Resume, reply }).await
    }

    /// `resources` is JSON as in the OCI specification.
    pub async fn update(&self, resources: Vec<u8>) -> Result<(), Error> {
        self.ask(|reply| Request::Change { change: Change::Update(resources), reply }).await
    }

    pub async fn checkpoint(&self, checkpoint: checkpoint::Request) -> Result<(), Error> {
        let checkpoint = Box::new(checkpoint);
        self.ask(|reply| Request::Checkpoint { checkpoint, reply }).await
    }

    pub async fn kill(&self, signal: u32, all: bool) -> Result<(), Error> {
        self.ask(|reply| Request::Kill { signal, all, reply }).await
    }

    pub async fn kill_exec(&self, id: String, signal: u32) -> Result<(), Error> {
        self.ask(|reply| Request::KillExec { id, signal, reply }).await
    }

    pub async fn resize(&self, exec: Option<String>, columns: u16, rows: u16) -> Result<(), Error> {
        self.ask(|reply| Request::Resize { exec, columns, rows, reply }).await
    }

    pub async fn close_stdin(&self, exec: Option<String>) -> Result<(), Error> {
        self.ask(|reply| Request::CloseStdin { exec, reply }).await
    }

    pub async fn delete(&self) -> Result<Ended, Error> {
        self.ask(|reply| Request::Delete { reply }).await
    }

    pub async fn delete_exec(&self, id: String) -> Result<Ended, Error> {
        self.ask(|reply| Request::DeleteExec { id, reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Error::Gone)?;
        answer.await.unwrap_or(Err(Error::Gone))
    }
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the runtime changes about a container as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Pause,
    Resume,
    Update(Vec<u8>),
}

impl Change {
    fn ask(&self) -> Ask {
        match self {
            Change::Pause => Ask::Pause,
            Change::Resume => Ask::Resume,
            Change::Update(_) => Ask::Update,
        }
    }
}

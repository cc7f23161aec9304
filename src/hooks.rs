//! The node's own programs at stages of a checkpoint or restore.
//!
//! Those between CRIU's first and last step are run when CRIU calls our binary: it asks
//! here, by a socket, and CRIU goes on when it has heard that the hooks went well. A hook
//! that fails or takes too long ends the operation: after a checkpoint the container
//! runs on, of a restore nothing is left. Only what comes last can't be called off.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::bundle::Socket;
use crate::container::Subject;
use crate::criu;
use crate::message;
use crate::operation::aside;
use crate::pages::{self, check::Check};
use crate::policy::{Hook, Policy, Stage};
use crate::runtime::hook;

/// Set for the runtime, and handed on by it and by CRIU to our binary.
pub const SOCKET_VARIABLE: &str = "CRYO_HOOKS_SOCKET";
const SOCKET: &str = "hooks.sock";
/// Those at which CRIU calls our binary.
const CALLED: [Stage; 4] = [Stage::PostDump, Stage::SetupNamespaces, Stage::PostRestore, Stage::PreResume];
/// Room for one that is named with its program.
const SHOWN_PATH: usize = 80;
const GO_ON: u8 = 1;

#[derive(Clone, Debug, thiserror::Error)]
#[error("hook {name} ({program}) failed at {stage}: {problem}")]
pub struct Error {
    name: String,
    program: String,
    stage: &'static str,
    problem: String,
}

/// Those that one operation has.
#[derive(Clone, Debug)]
pub struct Hooks {
    chosen: Vec<Hook>,
    image: PathBuf,
}

/// For CRIU's calls.
pub struct Calls<'a> {
    hooks: &'a Hooks,
    subject: &'a Subject,
    socket: Option<Socket>,
    failed: OnceLock<Error>,
    /// Of memory that CRIU is restoring; has to be done before anything runs.
    check: Mutex<Option<Check>>,
    damage: OnceLock<pages::Error>,
}

impl Hooks {
    pub fn new(policy: &Policy, image: &Path) -> Hooks {
        Hooks { chosen: policy.hooks().to_vec(), image: image.to_owned() }
    }

    /// The same for an image that is still written elsewhere.
    pub fn of_image(&self, folder: &Path) -> Hooks {
        Hooks { chosen: self.chosen.clone(), image: folder.to_owned() }
    }

    pub fn any_at(&self, stage: Stage) -> bool {
        self.chosen.iter().any(|hook| hook.stages.contains(&stage))
    }

    /// Runs those of a stage, one after the other, until one fails.
    pub async fn run(&self, stage: Stage, subject: &Subject, pid: Option<u32>) -> Result<(), Error> {
        for hook in self.chosen.iter().filter(|hook| hook.stages.contains(&stage)) {
            self.run_one(hook, stage, subject, pid).await.map_err(|problem| Error {
                name: hook.name.clone(),
                program: message::cut(&hook.path.display().to_string(), SHOWN_PATH),
                stage: stage.name(),
                problem,
            })?;
            tracing::info!(hook = hook.name, stage = stage.name(), "has run");
        }
        Ok(())
    }

    async fn run_one(
        &self,
        hook: &Hook,
        stage: Stage,
        subject: &Subject,
        pid: Option<u32>,
    ) -> Result<(), String> {
        let mut command = Command::new(&hook.path);
        command.args(&hook.args).current_dir(&subject.bundle);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(hook.env.iter().filter_map(|variable| variable.split_once('=')));
        command.env("CRYO_STAGE", stage.name()).env("CRYO_IMAGE", &self.image);
        let state = hook::state(subject, status(stage), pid);
        hook::run(subject.runtime.reaper, command, &state, hook.timeout).await
    }

    /// Ready for what CRIU will ask. Nothing is resumed if a check finds damage.
    pub fn listen<'a>(&'a self, subject: &'a Subject, check: Option<Check>) -> io::Result<Calls<'a>> {
        let is_called = check.is_some() || CALLED.iter().any(|stage| self.any_at(*stage));
        let socket = is_called.then(|| Socket::listen(&subject.bundle, SOCKET)).transpose()?;
        let check = Mutex::new(check);
        Ok(Calls { hooks: self, subject, socket, failed: OnceLock::new(), check, damage: OnceLock::new() })
    }
}

impl Calls<'_> {
    /// What our binary finds them by, if there are any to run.
    pub fn place(&self) -> Option<PathBuf> {
        self.socket.as_ref().map(Socket::place)
    }

    /// Does some work, and runs the hooks that CRIU asks for meanwhile.
    pub async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let Some(socket) = &self.socket else { return work.await };
        let answer = async {
            loop {
                // One that can't be understood ends CRIU's work, not ours.
                if let Ok((stream, _)) = socket.listener.accept().await
                    && let Err(error) = self.answer(stream).await
                {
                    tracing::warn!(%error, "CRIU asked for hooks and can't be answered");
                }
            }
        };
        tokio::select! {
            done = work => done,
            () = answer => unreachable!("it listens for ever"),
        }
    }

    /// Which hook has ended the work.
    pub fn failure(&self) -> Option<Error> {
        self.failed.get().cloned()
    }

    /// What the check has found.
    pub fn damage(&mut self) -> Option<pages::Error> {
        self.damage.take()
    }

    /// What hasn't been asked for is told now.
    pub async fn await_check(&self) -> Result<(), pages::Error> {
        let check = self.check.lock().unwrap_or_else(PoisonError::into_inner).take();
        match check {
            Some(check) => aside(move || check.wait()).await,
            None => Ok(()),
        }
    }

    async fn answer(&self, stream: UnixStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut question = String::new();
        stream.read_line(&mut question).await?;
        let (stage, pid) = question.trim().split_once(' ').unwrap_or_default();
        let Some(stage) = CALLED.into_iter().find(|called| called.name() == stage) else {
            return stream.write_all(&[GO_ON]).await;
        };
        // Without an answer CRIU gives up.
        if stage == Stage::PostRestore
            && let Err(damage) = self.await_check().await
        {
            let _ = self.damage.set(damage);
            return Ok(());
        }
        match self.hooks.run(stage, self.subject, pid.parse().ok()).await {
            Ok(()) => stream.write_all(&[GO_ON]).await,
            Err(error) => {
                // The first one is the reason for whatever follows.
                let _ = self.failed.set(error);
                Ok(())
            }
        }
    }
}

/// For our binary when CRIU calls it. Opened before anything else, because from inside a
/// container the socket can't be found.
pub struct Question<'a> {
    action: &'a str,
    stream: std::os::unix::net::UnixStream,
}

impl<'a> Question<'a> {
    /// None if no hook can run then.
    pub fn open(action: &'a str) -> io::Result<Option<Question<'a>>> {
        let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else { return Ok(None) };
        if !CALLED.iter().any(|stage| stage.name() == action) {
            return Ok(None);
        }
        let stream = std::os::unix::net::UnixStream::connect(socket)?;
        Ok(Some(Question { action, stream }))
    }

    /// Waits for the hooks' end, and whether they went well.
    pub fn ask(mut self) -> io::Result<()> {
        writeln!(self.stream, "{} {}", self.action, criu::first_process()?)?;
        let answer = self.stream.read_exact(&mut [0]);
        answer.map_err(|_| io::Error::other(format!("a hook failed at {}", self.action)))
    }
}

/// In the words of the OCI runtime specification.
fn status(stage: Stage) -> &'static str {
    match stage {
        Stage::PreRestore | Stage::SetupNamespaces => "creating",
        Stage::PostRestore | Stage::PreResume => "created",
        Stage::PostDump => "paused",
        Stage::PreDump | Stage::PostResume => "running",
    }
}

//! Running one command of an OCI runtime: its stdio, its log, its deadline.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::{Cause, last_words};
use super::orphan::Orphan;
use super::widow;
use super::{Error, Runtime};
use crate::hooks;
use crate::reaper::{Exit, Process, Reaper};
use crate::restore::{guard, held};
use crate::stdio::ChildEnds;
use crate::sys;

/// Between SIGTERM and SIGKILL, when a command has overstayed.
const GRACE: Duration = Duration::from_secs(2);
/// After SIGKILL: a process that hangs in the kernel doesn't even hear that.
const DEATH_PATIENCE: Duration = Duration::from_secs(10);
/// What is told by them is meant for one command.
const OWN_VARIABLES: [&str; 5] = [
    hooks::SOCKET_VARIABLE,
    held::SOCKET_VARIABLE,
    guard::BUNDLE_VARIABLE,
    guard::NAME_VARIABLE,
    guard::SHIM_VARIABLE,
];
/// Enough for any error; a runtime that prints more is cut off.
const OUTPUT_BYTES: u64 = 256 << 10;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Lets somebody else call a running command off.
#[derive(Clone, Debug)]
pub struct Abort(watch::Sender<bool>);

impl Default for Abort {
    fn default() -> Self {
        Abort(watch::Sender::new(false))
    }
}

impl Abort {
    pub fn abort(&self) {
        self.0.send_replace(true);
    }

    pub fn is_aborted(&self) -> bool {
        *self.0.borrow()
    }

    /// Does some work, unless it is called off.
    pub(crate) async fn unless<T>(
        &self,
        verb: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        tokio::select! {
            done = work => Ok(done),
            () = self.aborted() => Err(Error::Aborted { verb }),
        }
    }

    async fn aborted(&self) {
        // The sender is `self`, so the channel can't be closed.
        let _ = self.0.subscribe().wait_for(|aborted| *aborted).await;
    }
}

/// One command line, not yet run.
pub(super) struct Call<'a> {
    runtime: &'a Runtime,
    verb: &'static str,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    stdio: Option<ChildEnds>,
    input: Option<Vec<u8>>,
    has_criu: bool,
    has_own_mounts: bool,
    deadline: Duration,
    grace: Duration,
    abort: Abort,
}

impl<'a> Call<'a> {
    pub(super) fn new(runtime: &'a Runtime, verb: &'static str, deadline: Duration) -> Self {
        Call {
            runtime,
            verb,
            arguments: Vec::new(),
            environment: Vec::new(),
            stdio: None,
            input: None,
            has_criu: false,
            has_own_mounts: false,
            deadline,
            grace: GRACE,
            abort: Abort::default(),
        }
    }

    pub(super) fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn option(self, name: &str, value: impl AsRef<Path>) -> Self {
        self.arg(name).arg(value.as_ref())
    }

    pub(super) fn flag(self, name: &str, wanted: bool) -> Self {
        if wanted { self.arg(name) } else { self }
    }

    pub(super) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Hands the command the ends of a container's streams.
    pub(super) fn stdio(mut self, ends: Option<ChildEnds>) -> Self {
        self.stdio = ends;
        self
    }

    pub(super) fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = Some(bytes);
        self
    }

    /// It runs CRIU, which can be called off.
    pub(super) fn with_criu(mut self, abort: &Abort) -> Self {
        self.abort = abort.clone();
        self.has_criu = true;
        self
    }

    /// What it mounts for itself and unmounts again reaches nobody.
    pub(super) fn with_own_mounts(mut self) -> Self {
        self.has_own_mounts = true;
        self
    }

    /// Killed at once when its time is up.
    pub(super) fn without_grace(mut self) -> Self {
        self.grace = Duration::ZERO;
        self
    }

    pub(super) async fn run(self) -> Result<(), Error> {
        let Call { runtime, verb, .. } = self;
        let files = |source| Error::Files { verb, source };
        let log = Log::create(&runtime.bundle, verb).map_err(files)?;
        let mut output = memory_for_output().map_err(files)?;
        let mut command = self.command(&log, &output).map_err(files)?;
        let process = runtime
            .reaper
            .spawn(&mut command)
            .map_err(|source| Error::Spawn { binary: runtime.binary.clone(), source })?;
        // The command holds the container's ends of the pipes.
        drop(command);
        let has_criu = self.has_criu;
        let note = has_criu.then(|| Orphan::note(&runtime.bundle, &process));
        let exit = self.wait(&process).await;
        drop(note);
        let exit = exit?;
        if exit.status == 0 {
            return Ok(());
        }
        let output = written(&mut output).map_err(files)?;
        if has_criu {
            // CRIU must not go on after the runtime that asked for it has failed.
            signal_group(&process, Signal::KILL);
        }
        let message = last_words(&log.read(), &output, || format!("exit status {}", exit.status));
        Err(Error::Failed { verb, cause: Cause::of(&message), message })
    }

    fn command(&self, log: &Log, output: &File) -> io::Result<Command> {
        let runtime = self.runtime;
        let mut command = Command::new(&runtime.binary);
        command.arg("--root").arg(&runtime.root);
        command.arg("--log").arg(&log.0).args(["--log-format", "json"]);
        if runtime.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(self.verb).args(&self.arguments);
        // Of a variable that has a meaning for our binary, only what is said here counts.
        for name in OWN_VARIABLES {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Wrappers around runc rely on the bundle as working directory.
        command.current_dir(&runtime.bundle);
        // A group of its own, so that it can be killed with everything it started.
        command.process_group(0);
        if self.has_own_mounts {
            sys::with_own_mounts(&mut command);
        }
        let (stdin, stdout, stderr) = match &self.stdio {
            Some(ends) => (
                ends.stdin.as_ref().map(OwnedFd::try_clone).transpose()?.map(Stdio::from),
                ends.stdout.try_clone()?.into(),
                ends.stderr.try_clone()?.into(),
            ),
            None => {
                let input = self.input.as_deref().map(memory_with).transpose()?;
                let (stdout, stderr) = (output.try_clone()?, output.try_clone()?);
                (input.map(Stdio::from), Stdio::from(stdout), Stdio::from(stderr))
            }
        };
        command.stdin(stdin.unwrap_or_else(Stdio::null)).stdout(stdout).stderr(stderr);
        Ok(command)
    }

    async fn wait(self, process: &Process) -> Result<Exit, Error> {
        let Call { verb, deadline: after, grace, has_criu, .. } = self;
        let abort = self.abort.clone();
        // Our copies of the container's ends must not keep its pipes open.
        drop(self);
        let error = tokio::select! {
            exit = timeout(after, process.exited()) => match exit {
                Ok(exit) => return Ok(exit),
                Err(_) => Error::TimedOut { verb, after },
            },
            () = abort.aborted() => Error::Aborted { verb },
            () = widow::found(process.pid()), if has_criu => Error::CriuDied { verb },
        };
        kill_group(process, grace).await;
        Err(error)
    }
}

/// Ends a command and everything it started: politely, then not.
pub(super) async fn kill_group(process: &Process, grace: Duration) {
    if !grace.is_zero() {
        signal_group(process, Signal::TERM);
        let _ = timeout(grace, process.exited()).await;
    }
    // Its children may have ignored what it obeyed.
    signal_group(process, Signal::KILL);
    if timeout(DEATH_PATIENCE, process.exited()).await.is_err() {
        tracing::warn!(pid = process.pid(), "a command was killed and is still there");
    }
}

pub(super) fn signal_group(process: &Process, signal: Signal) {
    // All of them may have ended by themselves.
    let _ = Pid::from_raw(process.pid().cast_signed()).map(|group| kill_process_group(group, signal));
}

/// One log file per command: a shared one would show old errors for new.
struct Log(std::path::PathBuf);

impl Log {
    fn create(bundle: &Path, verb: &str) -> io::Result<Log> {
        let path = bundle.join(format!("log-{verb}-{}.json", NEXT.fetch_add(1, Ordering::Relaxed)));
        File::create(&path)?;
        Ok(Log(path))
    }

    fn read(&self) -> String {
        File::open(&self.0).and_then(|mut file| read(&mut file, OUTPUT_BYTES)).unwrap_or_default()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// How a command ended, and what it printed.
pub struct Answer {
    pub status: u32,
    pub text: String,
    pub errors: String,
}

/// Ends it with everything it started, if nobody waits for it any more.
pub(super) struct KilledUnlessEnded<'a>(pub(super) Option<&'a Process>);

impl Drop for KilledUnlessEnded<'_> {
    fn drop(&mut self) {
        if let Some(process) = self.0 {
            signal_group(process, Signal::KILL);
        }
    }
}

/// Runs a command to its end and keeps what it prints. Nothing if its time is up; it is
/// killed then, with everything it started.
pub async fn capture(
    reaper: Reaper,
    command: &mut Command,
    deadline: Duration,
) -> io::Result<Option<Answer>> {
    let [mut output, mut errors] = [memory_for_output()?, memory_for_output()?];
    command.process_group(0).stdout(output.try_clone()?).stderr(errors.try_clone()?);
    let process = reaper.spawn(command)?;
    let mut unwanted = KilledUnlessEnded(Some(&process));
    let ended = timeout(deadline, process.exited()).await;
    unwanted.0 = None;
    let Ok(exit) = ended else {
        kill_group(&process, Duration::ZERO).await;
        return Ok(None);
    };
    Ok(Some(Answer { status: exit.status, text: written(&mut output)?, errors: written(&mut errors)? }))
}

/// Asks a runtime something that has nothing to do with a container.
pub(super) async fn ask(
    reaper: Reaper,
    binary: &Path,
    question: &'static str,
    deadline: Duration,
) -> Result<Answer, Error> {
    let mut command = Command::new(binary);
    command.arg(question).stdin(Stdio::null());
    let answer = capture(reaper, &mut command, deadline)
        .await
        .map_err(|source| Error::Spawn { binary: binary.to_owned(), source })?;
    answer.ok_or(Error::TimedOut { verb: question, after: deadline })
}

/// Output goes to memory, not to a pipe: nobody has to read along, and a stray that
/// keeps it open keeps nobody waiting. Nobody can write more than we are ready to read.
fn memory_for_output() -> io::Result<File> {
    let memory = memfd_create("output", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, OUTPUT_BYTES)?;
    fcntl_add_seals(&memory, SealFlags::GROW)?;
    Ok(memory.into())
}

pub(super) fn memory_with(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// What a command has written to memory: all who write share our place in it.
fn written(memory: &mut File) -> io::Result<String> {
    let end = memory.stream_position()?;
    memory.seek(SeekFrom::Start(0))?;
    read(memory, end)
}

fn read(file: &mut File, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn runtime(bundle: &Path, script: &str) -> Runtime {
        let (source, binary) = (bundle.join("source"), bundle.join("runtime"));
        std::fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
        // Another process writes it: a fork elsewhere in this one could hold a
        // descriptor of ours for a moment, and the kernel runs no file open for writing.
        let reaper = Reaper::start().unwrap();
        let mut install = Command::new("install");
        assert_eq!(reaper.spawn(install.args([&source, &binary])).unwrap().exited().await.status, 0);
        Runtime {
            binary,
            root: "/root-dir".into(),
            bundle: bundle.to_owned(),
            id: "c1".into(),
            systemd_cgroup: true,
            reaper,
        }
    }

    #[tokio::test]
    async fn arguments_input_and_output_reach_their_places() {
        let bundle = tempfile::tempdir().unwrap();
        let runtime = runtime(bundle.path(), r#"{ echo "$@"; pwd; cat; } > said"#).await;
        let call = Call::new(&runtime, "update", Duration::from_secs(9)).option("--resources", "-");
        call.input(b"{}".to_vec()).run().await.unwrap();
        let output = std::fs::read_to_string(bundle.path().join("said")).unwrap();
        let log = output.split_whitespace().nth(3).unwrap().to_owned();
        assert!(log.starts_with(bundle.path().to_str().unwrap()));
        let expected = format!(
            "--root /root-dir --log {log} --log-format json --systemd-cgroup update --resources -\n{}\n{{}}",
            bundle.path().display()
        );
        assert_eq!(output, expected);
        assert!(!Path::new(&log).exists());
    }

    #[tokio::test]
    async fn the_log_explains_a_failure() {
        let bundle = tempfile::tempdir().unwrap();
        let script = r#"echo '{"level":"error","msg":"container does not exist"}' >> "$4"; exit 1"#;
        let runtime = runtime(bundle.path(), script).await;
        let error = Call::new(&runtime, "kill", Duration::from_secs(9)).run().await.unwrap_err();
        assert_eq!(error.cause(), Cause::NoContainer);
        assert_eq!(error.to_string(), "OCI runtime kill failed: container does not exist");
    }

    #[tokio::test]
    async fn a_command_that_ignores_sigterm_is_killed_with_its_children() {
        let bundle = tempfile::tempdir().unwrap();
        let script = r#"trap '' TERM; sleep 1000 & echo $! > child; wait; sleep 1000"#;
        let runtime = runtime(bundle.path(), script).await;
        let error = Call::new(&runtime, "start", Duration::from_millis(300)).run().await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        let child = std::fs::read_to_string(bundle.path().join("child")).unwrap();
        while Path::new(&format!("/proc/{}", child.trim())).exists() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_command_that_was_called_off_ends_at_once() {
        let bundle = tempfile::tempdir().unwrap();
        let runtime = runtime(bundle.path(), "sleep 1000").await;
        let abort = Abort::default();
        let call = Call::new(&runtime, "checkpoint", Duration::from_secs(1000)).with_criu(&abort);
        abort.abort();
        assert!(matches!(call.run().await.unwrap_err(), Error::Aborted { .. }));
    }

    #[tokio::test]
    async fn a_runtime_that_is_missing_is_named() {
        let bundle = tempfile::tempdir().unwrap();
        let mut runtime = runtime(bundle.path(), "").await;
        runtime.binary = "no-such-runtime".into();
        let error = Call::new(&runtime, "start", Duration::from_secs(1)).run().await.unwrap_err();
        assert!(error.to_string().contains("no-such-runtime"), "{error}");
    }
}

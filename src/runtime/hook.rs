//! Programs that are run around a container's life and hear of its state, as the OCI runtime
//! specification says.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::command::{KilledUnlessEnded, kill_group, memory_with};
use crate::container::Subject;
use crate::message;
use crate::reaper::{Process, Reaper};

/// If the specification says nothing. A hook may set up a network.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of what it prints, the end says why it failed.
const SHOWN: usize = 160;
const KEPT_BYTES: usize = 4096;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    pub path: PathBuf,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<u64>,
}

/// What a hook is told, in the words of the specification. One that is being made has no
/// process yet.
pub fn state(subject: &Subject, status: &str, pid: Option<u32>) -> Vec<u8> {
    let Subject { spec, bundle, id, .. } = subject;
    let mut state = json!({
        "ociVersion": spec.oci_version,
        "id": id,
        "status": status,
        "bundle": bundle,
        "annotations": spec.annotations,
    });
    if let Some(pid) = pid {
        state["pid"] = pid.into();
    }
    state.to_string().into_bytes()
}

#[derive(Debug, thiserror::Error)]
#[error("hook {} failed: {problem}", path.display())]
pub struct Error {
    path: PathBuf,
    problem: String,
}

impl Hook {
    /// Runs it with the container's state, JSON, as its input.
    pub async fn run(&self, reaper: Reaper, bundle: &Path, state: &[u8]) -> Result<(), Error> {
        use std::os::unix::process::CommandExt;

        let mut command = Command::new(&self.path);
        if let Some((name, arguments)) = self.args.split_first() {
            command.arg0(name).args(arguments);
        }
        command.env_clear().envs(self.env.iter().filter_map(|variable| variable.split_once('=')));
        command.current_dir(bundle);
        let patience = self.timeout.map_or(PATIENCE, Duration::from_secs);
        let ended = run(reaper, command, state, patience).await;
        ended.map_err(|problem| Error { path: self.path.clone(), problem })
    }
}

/// Runs a program to its end with some input, and says what went wrong. It is killed, with
/// everything it started, if its time is up or nobody waits for it any more.
pub async fn run(
    reaper: Reaper,
    mut command: Command,
    input: &[u8],
    patience: Duration,
) -> Result<(), String> {
    use std::os::unix::process::CommandExt;

    let begin = || -> io::Result<(Process, pipe::Receiver)> {
        let (output, theirs) = io::pipe()?;
        command.process_group(0).stdin(Stdio::from(memory_with(input)?));
        command.stdout(theirs.try_clone()?).stderr(theirs);
        let process = reaper.spawn(&mut command)?;
        rustix::io::ioctl_fionbio(&output, true)?;
        Ok((process, pipe::Receiver::from_owned_fd(OwnedFd::from(output))?))
    };
    let (process, output) = { begin }().map_err(|error| error.to_string())?;
    drop(command);
    let mut unwanted = KilledUnlessEnded(Some(&process));
    let mut last = Vec::new();
    let exit = tokio::select! {
        exit = timeout(patience, process.exited()) => exit,
        never = keep_last(&output, &mut last) => match never {},
    };
    unwanted.0 = None;
    let Ok(exit) = exit else {
        kill_group(&process, Duration::ZERO).await;
        return Err(format!("it took longer than {} s", patience.as_secs()));
    };
    if exit.status == 0 {
        return Ok(());
    }
    read_on(&output, &mut last);
    let text = String::from_utf8_lossy(&last);
    let words = text.lines().rev().map(message::shown).find(|line| !line.is_empty());
    let words = words.map_or_else(|| "it printed nothing".to_owned(), |line| message::cut(&line, SHOWN));
    Err(format!("exit status {}: {words}", exit.status))
}

/// A program must not wait for a reader, however much it prints. Its end isn't told by the
/// pipe's: what it leaves behind may keep that open.
async fn keep_last(output: &pipe::Receiver, last: &mut Vec<u8>) -> std::convert::Infallible {
    loop {
        match output.readable().await {
            Ok(()) if read_on(output, last) => {}
            _ => std::future::pending().await,
        }
    }
}

/// Whether there may be more later.
fn read_on(output: &pipe::Receiver, last: &mut Vec<u8>) -> bool {
    let mut bytes = [0; KEPT_BYTES];
    loop {
        match output.try_read(&mut bytes) {
            Ok(0) => return false,
            Ok(count) => {
                last.extend_from_slice(&bytes[..count]);
                last.drain(..last.len().saturating_sub(KEPT_BYTES));
            }
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<u64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, env: vec!["WORD=blue".to_owned()], timeout }
    }

    #[tokio::test]
    async fn a_hook_reads_the_state_in_its_own_environment() {
        let bundle = tempfile::tempdir().unwrap();
        let reaper = Reaper::start().unwrap();
        let hook = hook("{ cat; echo $WORD; env | grep -c CARGO; } > said; true", None);
        hook.run(reaper, bundle.path(), b"{}").await.unwrap();
        assert_eq!(std::fs::read_to_string(bundle.path().join("said")).unwrap(), "{}blue\n0\n");
    }

    #[tokio::test]
    async fn a_hook_that_fails_or_stays_is_named_with_the_reason() {
        let bundle = tempfile::tempdir().unwrap();
        let reaper = Reaper::start().unwrap();
        let error =
            hook("echo no route >&2; exit 3", None).run(reaper, bundle.path(), b"").await.unwrap_err();
        assert_eq!(error.to_string(), "hook /bin/sh failed: exit status 3: no route");
        let error = hook("exec sleep 1000", Some(0)).run(reaper, bundle.path(), b"").await.unwrap_err();
        assert_eq!(error.to_string(), "hook /bin/sh failed: it took longer than 0 s");
    }

    #[tokio::test]
    async fn a_hook_may_print_as_much_as_it_likes() {
        let bundle = tempfile::tempdir().unwrap();
        let reaper = Reaper::start().unwrap();
        let much = "head -c 3000000 /dev/zero | tr '\\0' x";
        hook(much, None).run(reaper, bundle.path(), b"").await.unwrap();
        let script = format!("{much}; echo; echo 'last \x1b[2Jword'; exit 1");
        let error = hook(&script, None).run(reaper, bundle.path(), b"").await.unwrap_err();
        assert_eq!(error.to_string(), "hook /bin/sh failed: exit status 1: last [2Jword");
    }

    #[tokio::test]
    async fn what_a_hook_leaves_behind_keeps_nobody_waiting() {
        let bundle = tempfile::tempdir().unwrap();
        let reaper = Reaper::start().unwrap();
        hook("sleep 1000 & echo $! >pid", Some(5)).run(reaper, bundle.path(), b"").await.unwrap();
        let pid: i32 = std::fs::read_to_string(bundle.path().join("pid")).unwrap().trim().parse().unwrap();
        let left = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(left, rustix::process::Signal::KILL).expect("it isn't ours to end");
    }

    #[tokio::test]
    async fn a_hook_that_nobody_waits_for_is_killed() {
        let bundle = tempfile::tempdir().unwrap();
        let reaper = Reaper::start().unwrap();
        let hook = hook("echo $$ >pid.new; mv pid.new pid; exec sleep 1000", None);
        let file = bundle.path().join("pid");
        let begun = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            result = hook.run(reaper, bundle.path(), b"") => panic!("{result:?}"),
            () = begun => {}
        }
        let pid = std::fs::read_to_string(file).unwrap();
        let process = format!("/proc/{}", pid.trim());
        for _ in 0..1000 {
            if !Path::new(&process).exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{process} is still there");
    }
}

//! Programs that a specification wants run around a container's start, as the OCI runtime
//! specification says.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use super::command::{kill_group, memory_for_output, memory_with, written};
use crate::reaper::Reaper;

/// If the specification says nothing. A hook may set up a network.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    pub path: PathBuf,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<u64>,
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
        let failed = |problem: String| Error { path: self.path.clone(), problem };
        let mut output = memory_for_output().map_err(|error| failed(error.to_string()))?;
        let mut command = self.command(bundle, state, &output).map_err(|error| failed(error.to_string()))?;
        let process = reaper.spawn(&mut command).map_err(|error| failed(error.to_string()))?;
        let patience = self.timeout.map_or(PATIENCE, Duration::from_secs);
        let Ok(exit) = timeout(patience, process.exited()).await else {
            kill_group(&process, Duration::ZERO).await;
            return Err(failed(format!("it took longer than {} s", patience.as_secs())));
        };
        if exit.status == 0 {
            return Ok(());
        }
        let said = written(&mut output).unwrap_or_default();
        Err(failed(format!("exit status {}: {}", exit.status, said.trim())))
    }

    fn command(&self, bundle: &Path, state: &[u8], output: &std::fs::File) -> io::Result<Command> {
        use std::os::unix::process::CommandExt;

        let mut command = Command::new(&self.path);
        if let Some((name, arguments)) = self.args.split_first() {
            command.arg0(name).args(arguments);
        }
        command.env_clear().envs(self.env.iter().filter_map(|variable| variable.split_once('=')));
        command.current_dir(bundle).process_group(0);
        command.stdin(Stdio::from(memory_with(state)?));
        command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        Ok(command)
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
}

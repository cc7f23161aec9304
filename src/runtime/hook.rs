//! Programs that a specification wants run around a container's start, as the OCI runtime
//! specification says.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use super::command::{Answer, capture, memory_with};
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
        let patience = self.timeout.map_or(PATIENCE, Duration::from_secs);
        let mut command = self.command(bundle, state).map_err(|error| failed(error.to_string()))?;
        match capture(reaper, &mut command, patience).await {
            Err(error) => Err(failed(error.to_string())),
            Ok(None) => Err(failed(format!("it took longer than {} s", patience.as_secs()))),
            Ok(Some(Answer { status: 0, .. })) => Ok(()),
            Ok(Some(Answer { status, text, errors })) => {
                Err(failed(format!("exit status {status}: {}", format!("{text}{errors}").trim())))
            }
        }
    }

    fn command(&self, bundle: &Path, state: &[u8]) -> io::Result<Command> {
        use std::os::unix::process::CommandExt;

        let mut command = Command::new(&self.path);
        if let Some((name, arguments)) = self.args.split_first() {
            command.arg0(name).args(arguments);
        }
        command.env_clear().envs(self.env.iter().filter_map(|variable| variable.split_once('=')));
        command.current_dir(bundle).stdin(Stdio::from(memory_with(state)?));
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

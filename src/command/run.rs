//! Other programs, each with a deadline: none of them may keep us waiting.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use cryo::reaper::Reaper;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::timeout;

/// More than any of them has to say.
const OUTPUT_BYTES: u64 = 1 << 20;

/// How a program ended and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Done { status: u32, output: String, errors: String },
    NotThere,
    Silent(Duration),
}

impl Said {
    /// What it said, if it succeeded.
    pub(crate) fn output(&self) -> Option<&str> {
        match self {
            Said::Done { status: 0, output, .. } => Some(output),
            _ => None,
        }
    }
}

/// Runs one program to its end, or to the deadline.
pub(crate) async fn run(
    reaper: Reaper,
    program: &str,
    arguments: &[&str],
    path: &str,
    deadline: Duration,
) -> Said {
    match attempt(reaper, program, arguments, path, deadline).await {
        Ok(said) => said,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Said::NotThere,
        Err(error) => Said::Done { status: 127, output: String::new(), errors: error.to_string() },
    }
}

async fn attempt(
    reaper: Reaper,
    program: &str,
    arguments: &[&str],
    path: &str,
    deadline: Duration,
) -> io::Result<Said> {
    let [mut output, mut errors] = [memory()?, memory()?];
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path).env("LC_ALL", "C").process_group(0);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(errors.try_clone()?);
    let process = reaper.spawn(&mut command)?;
    let Ok(exit) = timeout(deadline, process.exited()).await else {
        // It may have ended this very moment.
        let _ = Pid::from_raw(process.pid().cast_signed()).map(|pid| kill_process_group(pid, Signal::KILL));
        return Ok(Said::Silent(deadline));
    };
    Ok(Said::Done { status: exit.status, output: written(&mut output)?, errors: written(&mut errors)? })
}

/// Memory and not a pipe: a child that outlives the program keeps nobody waiting.
fn memory() -> io::Result<File> {
    let memory = memfd_create("output", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, OUTPUT_BYTES)?;
    fcntl_add_seals(&memory, SealFlags::GROW)?;
    Ok(memory.into())
}

fn written(memory: &mut File) -> io::Result<String> {
    let end = memory.stream_position()?;
    memory.rewind()?;
    let mut bytes = Vec::new();
    memory.take(end).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_hangs_is_left_behind() {
        let reaper = Reaper::start().unwrap();
        let second = Duration::from_secs(60);
        let path = "/usr/bin:/bin";
        let said = run(reaper, "sh", &["-c", "echo out; echo err >&2; exit 3"], path, second).await;
        assert_eq!(said, Said::Done { status: 3, output: "out\n".into(), errors: "err\n".into() });
        let short = Duration::from_millis(50);
        assert_eq!(run(reaper, "sleep", &["1000"], path, short).await, Said::Silent(short));
        assert_eq!(run(reaper, "no-such-program", &[], path, second).await, Said::NotThere);
    }
}

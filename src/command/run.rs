//! Other programs, each with a deadline: none of them may keep us waiting.

use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use cryo::reaper::Reaper;
use cryo::runtime::{Answer, capture};

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

/// The same for those who do nothing else meanwhile.
pub(crate) fn run_now(program: &str, arguments: &[&str], path: &str, deadline: Duration) -> io::Result<Said> {
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    event_loop.block_on(async { Ok(run(Reaper::start()?, program, arguments, path, deadline).await) })
}

async fn attempt(
    reaper: Reaper,
    program: &str,
    arguments: &[&str],
    path: &str,
    deadline: Duration,
) -> io::Result<Said> {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null());
    Ok(match capture(reaper, &mut command, deadline).await? {
        Some(Answer { status, text, errors }) => Said::Done { status, output: text, errors },
        None => Said::Silent(deadline),
    })
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

//! `binary://` stdio: a program of the client's reads both streams and keeps them.
//!
//! It gets them as descriptors 3 and 4 and says through descriptor 5 that it is ready:
//! by closing it, or under `binary-v2://` by writing a byte first.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command as Program, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::{Error, decoded, relay};
use crate::reaper::{Process, Reaper};

const READY_PATIENCE: Duration = Duration::from_secs(30);
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Loggers have ten seconds to write out what they have; two more are ours.
const STOP_PATIENCE: Duration = Duration::from_secs(12);

/// Whose output it is; loggers learn it from their environment.
#[derive(Clone, Debug)]
pub struct Identity {
    pub namespace: String,
    pub id: String,
}

#[derive(Clone, Debug)]
pub(super) struct Command {
    program: PathBuf,
    arguments: Vec<OsString>,
    says_ready: bool,
}

pub(super) struct Logger(Process);

impl Command {
    /// From what follows the scheme: a path, and arguments as a query.
    pub(super) fn new(rest: &str, says_ready: bool) -> Command {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut arguments = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            arguments.push(unquoted(key));
            if !value.is_empty() {
                arguments.push(unquoted(value));
            }
        }
        Command { program: decoded(path).into(), arguments, says_ready }
    }
}

/// In a query, unlike in a path, a plus is a space.
fn unquoted(text: &str) -> OsString {
    decoded(&text.replace('+', " ")).into()
}

impl Logger {
    pub(super) async fn start(
        command: &Command,
        reaper: Reaper,
        identity: &Identity,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<Logger, Error> {
        let failed = |source| Error::Logger { path: command.program.clone(), source };
        // If the logger dies, somebody else has to read, or the container gets stuck.
        let spare = [stdout.try_clone().map_err(failed)?, stderr.try_clone().map_err(failed)?];
        let (ready, says_ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        let mut program = Program::new(&command.program);
        program
            .args(&command.arguments)
            .env("CONTAINER_ID", &identity.id)
            .env("CONTAINER_NAMESPACE", &identity.namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .fd_mappings(vec![
                FdMapping { parent_fd: stdout, child_fd: 3 },
                FdMapping { parent_fd: stderr, child_fd: 4 },
                FdMapping { parent_fd: says_ready, child_fd: 5 },
            ])
            .map_err(|error| failed(io::Error::other(error)))?;
        // What it has in hand is the container's last words, whatever becomes of us.
        let process = reaper.spawn_surviving(&mut program).map_err(failed)?;
        // The command owns our side of the descriptors.
        drop(program);
        command.wait_until_ready(ready, &process).await?;
        tokio::spawn(stand_in(process.clone(), spare));
        Ok(Logger(process))
    }

    /// Lets it write out what it has, and waits until it is done.
    pub(super) async fn stop(self) {
        let Logger(process) = self;
        // Its streams have ended; most loggers end with them, and all have what was written.
        if timeout(END_PATIENCE, process.exited()).await.is_ok() {
            return;
        }
        if process.signal(15).is_ok() && timeout(STOP_PATIENCE, process.exited()).await.is_err() {
            tracing::warn!(pid = process.pid(), "logger ignores SIGTERM and is killed");
            let _ = process.signal(9);
        }
    }
}

impl Command {
    async fn wait_until_ready(&self, ready: OwnedFd, process: &Process) -> Result<(), Error> {
        let problem = match timeout(READY_PATIENCE, first_byte(ready)).await {
            Ok(Ok(count)) if count > 0 || !self.says_ready => return Ok(()),
            Ok(Ok(_)) => "ended before it was ready",
            Ok(Err(_)) => "can't be heard",
            Err(_) => "isn't ready after 30 s",
        };
        let _ = process.signal(9);
        Err(Error::NotReady { path: self.program.clone(), problem })
    }
}

async fn first_byte(ready: OwnedFd) -> io::Result<usize> {
    let mut ready = tokio::net::unix::pipe::Receiver::from_owned_fd(ready)?;
    match ready.read(&mut [0]).await {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
        other => other,
    }
}

/// Reads on after a logger's death, so that the container neither blocks nor dies.
async fn stand_in(logger: Process, spare: [OwnedFd; 2]) {
    logger.exited().await;
    let [stdout, stderr] = spare;
    tokio::join!(relay::from_dead_reader(stdout), relay::from_dead_reader(stderr));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_arguments() {
        let command = Command::new("/bin/log%20er?-v&name=a+b%26c&flag=", false);
        assert_eq!(command.program, PathBuf::from("/bin/log er"));
        assert_eq!(command.arguments, ["-v", "name", "a b&c", "flag"]);
    }

    async fn start(script: &str, says_ready: bool) -> Result<(Logger, OwnedFd, OwnedFd), Error> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let ((out_read, out), (err_read, err)) = (pipe(), pipe());
        let command =
            Command { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()], says_ready };
        let identity = Identity { namespace: "ns".into(), id: "c1".into() };
        let logger = Logger::start(&command, Reaper::start().unwrap(), &identity, out_read, err_read).await?;
        Ok((logger, out, err))
    }

    #[tokio::test]
    async fn a_logger_gets_both_streams_and_knows_whose_they_are() {
        use std::io::Write;
        let kept = tempfile::NamedTempFile::new().unwrap();
        let script = format!(
            "exec 5>&-; {{ echo $CONTAINER_NAMESPACE/$CONTAINER_ID; cat <&3; cat <&4; }} > {}",
            kept.path().display()
        );
        let (logger, out, err) = start(&script, false).await.unwrap();
        std::fs::File::from(out).write_all(b"out\n").unwrap();
        std::fs::File::from(err).write_all(b"err\n").unwrap();
        logger.0.exited().await;
        assert_eq!(std::fs::read_to_string(kept.path()).unwrap(), "ns/c1\nout\nerr\n");
    }

    #[tokio::test]
    async fn a_second_version_logger_that_dies_early_is_reported() {
        let Err(error) = start("exit 1", true).await else { panic!("started") };
        assert!(error.to_string().contains("ended before it was ready"), "{error}");
        assert!(start("printf x >&5; exec 5>&-; cat <&3", true).await.is_ok());
    }

    #[tokio::test]
    async fn output_flows_on_after_the_loggers_death() {
        use std::io::Write;
        let (logger, out, _err) = start("exec 5>&-; sleep 100", false).await.unwrap();
        logger.0.signal(9).unwrap();
        let flood = tokio::task::spawn_blocking(move || {
            std::fs::File::from(out).write_all(&vec![0; 1 << 20]).unwrap();
        });
        timeout(Duration::from_secs(5), flood).await.unwrap().unwrap();
    }
}

//! A `docker` command whose streams a scenario holds in its hands.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::pty::{Winsize, openpty};

use super::super::failure::{During, Failure, Outcome};
use super::super::output::Output;
use super::super::wait::eventually;
use super::Docker;

pub(crate) struct Attached {
    process: Mutex<Child>,
    stdin: Mutex<Option<File>>,
    pub(crate) output: Output,
    errors: Option<Output>,
}

impl Attached {
    #[track_caller]
    pub(crate) fn by_pipes(docker: &Docker<'_>, args: &[&str]) -> Outcome<Self> {
        let mut command = docker.bench.slot.command("docker");
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().during(|| "docker".into())?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err(Failure::new("a command without pipes"));
        };
        Ok(Attached {
            process: Mutex::new(process),
            stdin: Mutex::new(Some(File::from(OwnedFd::from(stdin)))),
            output: Output::follow(File::from(OwnedFd::from(stdout))),
            errors: Some(Output::follow(File::from(OwnedFd::from(stderr)))),
        })
    }

    #[track_caller]
    pub(crate) fn by_terminal(docker: &Docker<'_>, args: &[&str], rows: u16, columns: u16) -> Outcome<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let ends = openpty(Some(&size), None)?;
        let mut command = docker.bench.slot.command("setsid");
        command.args(["--ctty", "docker"]).args(args);
        command.stdin(ends.slave.try_clone()?).stdout(ends.slave.try_clone()?).stderr(ends.slave);
        let process = command.spawn().during(|| "docker".into())?;
        // The command would hold the other end open for as long as it isn't dropped.
        drop(command);
        let master = File::from(ends.master);
        Ok(Attached {
            process: Mutex::new(process),
            stdin: Mutex::new(Some(master.try_clone()?)),
            output: Output::follow(master),
            errors: None,
        })
    }

    #[track_caller]
    pub(crate) fn write(&self, bytes: &[u8]) -> Outcome {
        match self.stdin.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(stdin) => stdin.write_all(bytes).during(|| "writing to docker".into()),
            None => Err(Failure::new("its stdin is closed")),
        }
    }

    pub(crate) fn close_stdin(&self) {
        *self.stdin.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits for its end and all it says, and tells its exit status.
    #[track_caller]
    pub(crate) fn wait(&self) -> Outcome<i32> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = eventually("docker ends", || process.try_wait().ok().flatten());
        let ended =
            ended.map_err(|_| Failure::new(format!("docker hangs after {:?}", self.output.text())))?;
        if let Some(errors) = &self.errors {
            errors.wait_for_end()?;
        }
        Ok(ended.code().unwrap_or(-1))
    }

    pub(crate) fn errors(&self) -> String {
        self.errors.as_ref().map(Output::text).unwrap_or_default()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended by itself.
        let _ = process.kill();
        let _ = process.wait();
    }
}

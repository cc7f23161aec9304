//! A process's stdin, stdout and stderr as a client of containerd makes them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;

use super::api::Stdio;
use super::failure::{During, Failure, Outcome};
use super::output::Output;
use super::wait::eventually;

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fifo,
    /// A fifo whose reader reads nothing until told to go on.
    StuckFifo,
    Terminal,
    StuckTerminal,
    Null,
    File(PathBuf),
    /// A logger of ours that stores what comes in this file.
    Logger(PathBuf),
    /// A logger that can't be started.
    MissingLogger,
}

impl Kind {
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Kind::Terminal | Kind::StuckTerminal)
    }
}

pub(crate) struct Pipes {
    pub(crate) stdio: Stdio,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
    stdin_path: Option<PathBuf>,
    stdin: Mutex<Option<File>>,
}

impl Pipes {
    /// Makes the fifos in `folder` and opens their reading ends. `logger` is the
    /// program for [`Kind::Logger`].
    pub(crate) fn new(folder: &Path, kind: &Kind, logger: &Path) -> Outcome<Self> {
        let mut pipes = Pipes {
            stdio: Stdio::default(),
            stdout: None,
            stderr: None,
            stdin_path: None,
            stdin: Mutex::new(None),
        };
        match kind {
            Kind::Null => {}
            Kind::File(path) => {
                pipes.stdio.stdout = format!("file://{}", path.display());
                pipes.stdio.stderr.clone_from(&pipes.stdio.stdout);
            }
            Kind::Logger(path) => {
                pipes.stdio.stdout = format!("binary://{}?logger={}", logger.display(), path.display());
                pipes.stdio.stderr.clone_from(&pipes.stdio.stdout);
            }
            Kind::MissingLogger => pipes.stdio.stdout = "binary:///usr/bin/no-such-logger".into(),
            Kind::Fifo | Kind::StuckFifo | Kind::Terminal | Kind::StuckTerminal => {
                fs::create_dir_all(folder)?;
                let stuck = matches!(kind, Kind::StuckFifo | Kind::StuckTerminal);
                let stdin = fifo(folder, "stdin")?;
                let stdout = fifo(folder, "stdout")?;
                pipes.stdio.stdin = stdin.display().to_string();
                pipes.stdio.stdout = stdout.display().to_string();
                pipes.stdin_path = Some(stdin);
                pipes.stdout = Some(Output::read(&stdout, stuck)?);
                if kind.is_terminal() {
                    pipes.stdio.terminal = true;
                } else {
                    let stderr = fifo(folder, "stderr")?;
                    pipes.stdio.stderr = stderr.display().to_string();
                    pipes.stderr = Some(Output::read(&stderr, stuck)?);
                }
            }
        }
        Ok(pipes)
    }

    /// The same fifos with the same readers, for a task that comes back.
    pub(crate) fn again(&self) -> Self {
        Pipes {
            stdio: self.stdio.clone(),
            stdout: self.stdout.clone(),
            stderr: self.stderr.clone(),
            stdin_path: self.stdin_path.clone(),
            stdin: Mutex::new(None),
        }
    }

    #[track_caller]
    pub(crate) fn write(&self, bytes: &[u8]) -> Outcome {
        let mut stdin = self.stdin.lock().map_err(|_| Failure::new("a writer panicked"))?;
        if stdin.is_none() {
            let path = self.stdin_path.as_ref().ok_or_else(|| Failure::new("no stdin was asked for"))?;
            // Refused until the shim has opened its end.
            let open = || OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(path).ok();
            *stdin = Some(eventually("the shim opens stdin", open)?);
        }
        match stdin.as_mut() {
            Some(file) => file.write_all(bytes).during(|| "writing to stdin".into()),
            None => Ok(()),
        }
    }

    /// Closes the client's end of stdin; the shim's own is closed by CloseIO.
    pub(crate) fn close_stdin(&self) {
        if let Ok(mut stdin) = self.stdin.lock() {
            *stdin = None;
        }
    }
}

fn fifo(folder: &Path, name: &str) -> Outcome<PathBuf> {
    let path = folder.join(name);
    nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o700)).during(|| path.display().to_string())?;
    Ok(path)
}

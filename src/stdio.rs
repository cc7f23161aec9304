//! Where a process's bytes come from and go to.
//!
//! A [`Plan`] is what the client asked for, understood. [`Plan::open`] opens the
//! client's ends and makes a pipe for each stream: the process always gets pipes, even
//! where the client wants no output, because a pipe is what a restore can plug into
//! another reader. [`Prepared::connect`] then starts to copy, and [`Prepared::console`]
//! does the same for a terminal. The same plan serves create, exec and restore.

mod console;
mod fifo;
mod logger;
mod relay;
mod unread;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::task::JoinSet;

use crate::reaper::Reaper;
pub use console::{Console, ConsoleSocket};
use fifo::{Input, KeptOpen};
pub use logger::Identity;
use logger::Logger;
use relay::Output;
pub use unread::unread_stdin;

/// What the client named, word for word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open {stream} {}: {source}", path.display())]
    Open { stream: &'static str, path: PathBuf, source: io::Error },
    #[error("unknown scheme in stdout URI {0:?}: give a fifo's path, file://, binary:// or binary-v2://")]
    Scheme(String),
    #[error("cannot start logger {}: {source}", path.display())]
    Logger { path: PathBuf, source: io::Error },
    #[error("logger {} {problem}", path.display())]
    NotReady { path: PathBuf, problem: &'static str },
    #[error("cannot set up the terminal: {0}")]
    Console(io::Error),
    #[error("cannot make a pipe: {0}")]
    Pipe(#[from] io::Error),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Null,
    /// A fifo, or a file the client made beforehand.
    Path(PathBuf),
    /// A file of ours to append to, for both streams.
    File(PathBuf),
}

/// What the client asked for, understood.
#[derive(Clone, Debug)]
pub struct Plan {
    stdin: Option<PathBuf>,
    outputs: Outputs,
    pub terminal: bool,
}

#[derive(Clone, Debug)]
enum Outputs {
    Copied { stdout: Target, stderr: Target },
    Logged(logger::Command),
}

/// The ends that the process gets.
#[derive(Debug)]
pub struct ChildEnds {
    /// Nothing means /dev/null: some programs tell it from an empty pipe.
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Opened, but nothing flows yet.
pub struct Prepared {
    stdin: Option<(Input, OwnedFd)>,
    outputs: Vec<(OwnedFd, Output)>,
    logger: Option<Logger>,
}

/// The client's ends of what a process will write, open until it does.
///
/// A client that comes back meanwhile (dockerd, after a crash) opens its own ends anew. Only
/// a writer that goes away tells it that nothing will come; without one it waits for ever.
#[derive(Default)]
pub struct OpenOutputs(Vec<Output>);

/// Streams that flow. Dropping it cuts them.
#[derive(Default)]
pub struct Streams {
    keep_stdin: Option<KeptOpen>,
    stdin: JoinSet<()>,
    outputs: JoinSet<()>,
    logger: Option<Logger>,
    console: Option<Console>,
}

impl Plan {
    pub fn new(paths: &Paths) -> Result<Plan, Error> {
        let stdin = Some(&paths.stdin).filter(|path| !path.is_empty()).map(PathBuf::from);
        let outputs = match paths.stdout.split_once("://") {
            None | Some(("fifo", _)) => {
                Outputs::Copied { stdout: target(&paths.stdout), stderr: target(&paths.stderr) }
            }
            Some(("file", path)) => {
                let file = Target::File(decoded(path).into());
                Outputs::Copied { stdout: file.clone(), stderr: file }
            }
            Some(("binary", rest)) => Outputs::Logged(logger::Command::new(rest, false)),
            Some(("binary-v2", rest)) => Outputs::Logged(logger::Command::new(rest, true)),
            Some(_) => return Err(Error::Scheme(paths.stdout.clone())),
        };
        Ok(Plan { stdin, outputs, terminal: paths.terminal })
    }

    /// Opens the client's ends and a pipe per stream, owned by `owner` if given.
    pub async fn open(
        &self,
        reaper: Reaper,
        identity: &Identity,
        owner: Option<(u32, u32)>,
    ) -> Result<(ChildEnds, Prepared), Error> {
        let mut stdin = None;
        let mut child_stdin = None;
        if let Some(path) = &self.stdin {
            let (read, write) = pipe(owner)?;
            stdin = Some((Input::open(path)?, write));
            child_stdin = Some(read);
        }
        let (stdout_read, stdout) = pipe(owner)?;
        let (stderr_read, stderr) = pipe(owner)?;
        let prepared = match &self.outputs {
            Outputs::Copied { stdout: to, stderr: errors_to } => {
                let outputs = vec![
                    (stdout_read, Output::open("stdout", to)?),
                    (stderr_read, Output::open("stderr", errors_to)?),
                ];
                Prepared { stdin, outputs, logger: None }
            }
            Outputs::Logged(command) => {
                let logger = Logger::start(command, reaper, identity, stdout_read, stderr_read).await?;
                Prepared { stdin, outputs: Vec::new(), logger: Some(logger) }
            }
        };
        Ok((ChildEnds { stdin: child_stdin, stdout, stderr }, prepared))
    }

    /// Opens the client's ends of the outputs and leaves them open.
    pub fn keep_outputs_open(&self) -> Result<OpenOutputs, Error> {
        let Outputs::Copied { stdout, stderr } = &self.outputs else { return Ok(OpenOutputs::default()) };
        // A terminal has one stream of output.
        let stderr = if self.terminal { &Target::Null } else { stderr };
        let of_client = |(_, target): &(_, &Target)| matches!(target, Target::Path(_));
        let outputs = [("stdout", stdout), ("stderr", stderr)].into_iter().filter(of_client);
        Ok(OpenOutputs(
            outputs.map(|(stream, target)| Output::open(stream, target)).collect::<Result<_, _>>()?,
        ))
    }

    /// Opens the client's ends for a process on a terminal. A terminal has one stream
    /// of output, which goes where stdout goes.
    pub async fn open_for_console(&self, reaper: Reaper, identity: &Identity) -> Result<ForConsole, Error> {
        let stdin = self.stdin.as_deref().map(Input::open).transpose()?;
        match &self.outputs {
            Outputs::Copied { stdout, .. } => {
                Ok(ForConsole { stdin, output: Output::open("stdout", stdout)?, logger: None })
            }
            Outputs::Logged(command) => {
                let ((stdout, write), (stderr, _)) = (pipe(None)?, pipe(None)?);
                let logger = Logger::start(command, reaper, identity, stdout, stderr).await?;
                let output = Output::Fifo(relay::writer(write)?);
                Ok(ForConsole { stdin, output, logger: Some(logger) })
            }
        }
    }
}

/// The client's ends for a process on a terminal.
pub struct ForConsole {
    stdin: Option<Input>,
    output: Output,
    logger: Option<Logger>,
}

impl ForConsole {
    pub fn connect(self, console: Console) -> Streams {
        let mut streams =
            Streams { console: Some(console.clone()), logger: self.logger, ..Streams::default() };
        if let Some(input) = self.stdin {
            streams.keep_stdin = Some(input.keep);
            streams.stdin.spawn(relay::into_console(input.fifo, console.clone()));
        }
        streams.outputs.spawn(relay::from_console(console, self.output));
        streams
    }
}

impl Prepared {
    /// Gives the process what it had been sent before and not read.
    pub fn fill_stdin(&self, unread: &[u8]) -> Result<(), Error> {
        match &self.stdin {
            Some((_, pipe)) if !unread.is_empty() => Ok(unread::fill(pipe, unread)?),
            _ => Ok(()),
        }
    }

    /// Starts copying; call it once the process has its ends.
    pub fn connect(self) -> Result<Streams, Error> {
        let mut streams = Streams { logger: self.logger, ..Streams::default() };
        if let Some((input, pipe)) = self.stdin {
            streams.keep_stdin = Some(input.keep);
            streams.stdin.spawn(relay::into_pipe(input.fifo, relay::writer(pipe)?));
        }
        for (pipe, output) in self.outputs {
            streams.outputs.spawn(relay::from_pipe(relay::reader(pipe)?, output));
        }
        Ok(streams)
    }
}

impl Drop for OpenOutputs {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Output::end);
    }
}

impl Streams {
    /// The process reads the end of its input once the client has closed its side too.
    pub fn close_stdin(&mut self) {
        self.keep_stdin = None;
    }

    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        match &self.console {
            Some(console) => console.resize(columns, rows).map_err(Error::Console),
            None => Ok(()),
        }
    }

    /// Waits until every byte written has been handed on, or for `patience` at most:
    /// a process that left the container may hold the pipes for ever. Says whether
    /// everything got through.
    pub async fn drain(mut self, patience: Duration) -> bool {
        self.close_stdin();
        self.stdin.abort_all();
        let outputs = &mut self.outputs;
        let drained = async { while outputs.join_next().await.is_some() {} };
        let complete = tokio::time::timeout(patience, drained).await.is_ok();
        if let Some(logger) = self.logger {
            logger.stop().await;
        }
        complete
    }
}

fn target(path: &str) -> Target {
    match path.strip_prefix("fifo://").unwrap_or(path) {
        "" => Target::Null,
        path => Target::Path(path.into()),
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn pipe(owner: Option<(u32, u32)>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    if let Some((user, group)) = owner {
        // One inode has both ends.
        std::os::unix::fs::fchown(&read, Some(user), Some(group))?;
    }
    Ok((read, write))
}

fn open_error(stream: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Open { stream, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::io::{Read, Write};
    use tokio::net::unix::pipe;

    fn paths(stdin: &str, stdout: &str, stderr: &str) -> Paths {
        Paths { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into(), terminal: false }
    }

    fn identity() -> Identity {
        Identity { namespace: "ns".into(), id: "id".into() }
    }

    fn fifo(dir: &tempfile::TempDir, name: &str) -> String {
        let path = dir.path().join(name);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn an_unknown_scheme_is_named() {
        let error = Plan::new(&paths("", "tcp://x", "")).unwrap_err();
        assert!(error.to_string().contains("tcp://x"));
    }

    #[tokio::test]
    async fn a_missing_fifo_is_named() {
        let plan = Plan::new(&paths("", "/nowhere/out", "")).unwrap();
        let opened = plan.open_for_console(Reaper::start().unwrap(), &identity()).await;
        let Err(error) = opened else { panic!("opened") };
        assert!(error.to_string().contains("stdout /nowhere/out"), "{error}");
    }

    #[tokio::test]
    async fn the_last_byte_before_the_end_gets_through() {
        let dir = tempfile::tempdir().unwrap();
        let out = fifo(&dir, "out");
        // Like every client, it opens its end before the process is made.
        let reader = pipe::OpenOptions::new().open_receiver(&out).unwrap().into_blocking_fd().unwrap();
        let plan = Plan::new(&paths("", &out, "")).unwrap();
        let reaper = Reaper::start().unwrap();
        let (child, prepared) = plan.open(reaper, &identity(), None).await.unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            std::fs::File::from(reader).read_to_end(&mut text).unwrap();
            text
        });
        let streams = prepared.connect().unwrap();
        let text = vec![b'x'; 300_000];
        let writer = std::thread::spawn(move || {
            std::fs::File::from(child.stdout).write_all(&text).unwrap();
        });
        drop(child.stderr);
        while !writer.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(streams.drain(Duration::from_secs(5)).await);
        assert_eq!(reader.join().unwrap().len(), 300_000);
    }

    #[tokio::test]
    async fn both_streams_append_to_one_file_whose_folder_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("logs/a b.log");
        let uri = format!("file://{}/logs/a%20b.log", dir.path().display());
        let reaper = Reaper::start().unwrap();
        for _ in 0..2 {
            let plan = Plan::new(&paths("", &uri, "")).unwrap();
            let (child, prepared) = plan.open(reaper, &identity(), None).await.unwrap();
            let streams = prepared.connect().unwrap();
            std::fs::File::from(child.stdout).write_all(b"out\n").unwrap();
            std::fs::File::from(child.stderr).write_all(b"err\n").unwrap();
            assert!(streams.drain(Duration::from_secs(5)).await);
        }
        assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 4);
    }

    #[tokio::test]
    async fn input_ends_only_after_it_was_closed() {
        let dir = tempfile::tempdir().unwrap();
        let input = fifo(&dir, "in");
        let plan = Plan::new(&paths(&input, "", "")).unwrap();
        let reaper = Reaper::start().unwrap();
        let (child, prepared) = plan.open(reaper, &identity(), None).await.unwrap();
        let mut streams = prepared.connect().unwrap();
        std::fs::OpenOptions::new().write(true).open(&input).unwrap().write_all(b"one\n").unwrap();
        let mut stdin = std::fs::File::from(child.stdin.unwrap());
        let (mut stdin, line) = tokio::task::spawn_blocking(move || {
            let mut line = [0; 4];
            stdin.read_exact(&mut line).unwrap();
            (stdin, line)
        })
        .await
        .unwrap();
        assert_eq!(&line, b"one\n");
        let rest = tokio::task::spawn_blocking(move || stdin.read(&mut [0; 8]).unwrap());
        assert!(!rest.is_finished());
        streams.close_stdin();
        assert_eq!(rest.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_is_stuck_delays_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (stuck, free) = (fifo(&dir, "stuck"), fifo(&dir, "free"));
        let _reader = std::fs::OpenOptions::new().read(true).write(true).open(&stuck).unwrap();
        let plan = Plan::new(&paths("", &stuck, &free)).unwrap();
        let (child, prepared) = plan.open(Reaper::start().unwrap(), &identity(), None).await.unwrap();
        let _streams = prepared.connect().unwrap();
        let flood = std::thread::spawn(move || {
            let _ = std::fs::File::from(child.stdout).write_all(&vec![0; 8 << 20]);
        });
        let mut answer = std::fs::File::open(&free).unwrap();
        std::fs::File::from(child.stderr).write_all(b"ok").unwrap();
        let text = tokio::task::spawn_blocking(move || {
            let mut text = [0; 2];
            answer.read_exact(&mut text).unwrap();
            text
        });
        assert_eq!(&text.await.unwrap(), b"ok");
        assert!(!flood.is_finished());
    }
}

//! Copying bytes from one end to the other.
//!
//! From pipe to pipe by splice, so that the bytes stay in the kernel. A copy waits when
//! its reader is slow and holds up nothing else; it ends at the end of its input.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep};

use super::{Console, Error, Target, open_error};

/// As much as a pipe can hold by default, and more where somebody enlarged it.
const SPLICE_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 8 << 10;
/// Much longer than it takes on a machine that is busy.
const LATE_CLIENTS: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

pub(super) enum Output {
    /// Opened for reading as well: a client that goes away never breaks the writer,
    /// what it didn't read waits for the next one.
    Fifo(pipe::Sender),
    File(File),
    Null(File),
}

impl Output {
    pub(super) fn open(stream: &'static str, target: &Target) -> Result<Output, Error> {
        match target {
            Target::Null => Ok(Output::Null(null()?)),
            Target::Path(path) => Output::open_path(path).map_err(open_error(stream, path)),
            Target::File(path) => append(path, true).map(Output::File).map_err(open_error(stream, path)),
        }
    }

    fn open_path(path: &Path) -> io::Result<Output> {
        if !std::fs::metadata(path)?.file_type().is_fifo() {
            return append(path, false).map(Output::File);
        }
        let sender = pipe::OpenOptions::new().read_write(true).open_sender(path)?;
        // More room means fewer turns between the three processes involved. Refused
        // when the user's pipes have used up their allowance, which is fine.
        let _ = rustix::pipe::fcntl_setpipe_size(&sender, SPLICE_BYTES);
        Ok(Output::Fifo(sender))
    }

    /// containerd's clients open their end in the background, where nothing says that they
    /// are done when they call us. Whoever comes when all was said and the pipe is closed again
    /// would wait for ever: so it stays open for a while if nobody reads.
    pub(super) fn end(self) {
        let Output::Fifo(fifo) = self else { return };
        // As a writer alone we are told whether anybody reads.
        let Ok(writer) = pipe::OpenOptions::new().open_sender(format!("/proc/self/fd/{}", fifo.as_raw_fd()))
        else {
            return;
        };
        drop(fifo);
        if !is_read(&writer) {
            tokio::spawn(async move {
                let until = Instant::now() + LATE_CLIENTS;
                while !is_read(&writer) && Instant::now() < until {
                    sleep(BETWEEN_LOOKS).await;
                }
            });
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::Fifo(fifo) => fifo.write_all(bytes).await,
            Output::File(file) => file.write_all(bytes),
            Output::Null(_) => Ok(()),
        }
    }
}

fn is_read(writer: &pipe::Sender) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut waited = [PollFd::new(writer, PollFlags::empty())];
    // One that can't be asked is none to wait for.
    poll(&mut waited, Some(&now)).is_err() || !waited[0].revents().contains(PollFlags::ERR)
}

fn null() -> io::Result<File> {
    File::options().write(true).open("/dev/null")
}

fn append(path: &Path, create: bool) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|_| create) {
        std::fs::create_dir_all(folder)?;
    }
    // A pipe nobody reads would hold us up.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options().append(true).create(create).mode(0o644).custom_flags(flags).open(path)
}

pub(super) fn reader(pipe: OwnedFd) -> io::Result<pipe::Receiver> {
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe, SPLICE_BYTES);
    pipe::Receiver::from_owned_fd(pipe)
}

pub(super) fn writer(pipe: OwnedFd) -> io::Result<pipe::Sender> {
    pipe::Sender::from_owned_fd(pipe)
}

/// What a process writes, to where the client wants it.
pub(super) async fn from_pipe(mut from: pipe::Receiver, mut to: Output) {
    let result = match &mut to {
        Output::Fifo(fifo) => splice_to_pipe(&from, fifo).await,
        Output::Null(null) => discard(&from, null).await,
        Output::File(file) => copy_to_file(&mut from, file).await,
    };
    if let Err(error) = result {
        tracing::warn!(%error, "output is lost from here on");
        // Read on, so that the process isn't stuck or killed for what its client lost.
        if let Ok(null) = null() {
            let _ = discard(&from, &null).await;
        }
    }
    to.end();
}

/// What the client sends, to the process. Ends quietly when the process has gone.
pub(super) async fn into_pipe(from: pipe::Receiver, to: pipe::Sender) {
    if let Err(error) = splice_to_pipe(&from, &to).await
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        tracing::warn!(%error, "input is lost from here on");
    }
}

pub(super) async fn from_console(console: Console, mut to: Output) {
    let mut buffer = [0; BUFFER_BYTES];
    while let Ok(count @ 1..) = console.read(&mut buffer).await {
        if let Err(error) = to.write(&buffer[..count]).await {
            tracing::warn!(%error, "output is lost from here on");
            let Ok(null) = null() else { return };
            to = Output::Null(null);
        }
        consume_budget().await;
    }
    to.end();
}

pub(super) async fn into_console(mut from: pipe::Receiver, console: Console) {
    let mut buffer = [0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if console.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn splice_to_pipe(from: &pipe::Receiver, to: &pipe::Sender) -> io::Result<()> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        match splice(from, None, to, None, SPLICE_BYTES, flags) {
            Ok(0) => return Ok(()),
            Ok(_) => consume_budget().await,
            Err(rustix::io::Errno::INTR) => {}
            // Either end may be the one that isn't ready, or that was a moment ago.
            Err(rustix::io::Errno::AGAIN) => match ready(from, to)? {
                (false, _) => wait_readable(from).await?,
                (true, false) => wait_writable(to).await?,
                (true, true) => consume_budget().await,
            },
            Err(error) => return Err(error.into()),
        }
    }
}

/// Splices into something that never waits.
async fn discard(from: &pipe::Receiver, to: &File) -> io::Result<()> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        match splice(from, None, to, None, SPLICE_BYTES, flags) {
            Ok(0) => return Ok(()),
            Ok(_) => consume_budget().await,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_readable(from).await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The kernel doesn't splice into files opened for appending.
async fn copy_to_file(from: &mut pipe::Receiver, to: &mut File) -> io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
        consume_budget().await;
    }
}

/// Whether there is something to read and room to write it to. What is ready now won't
/// be announced again, so nobody must wait for it.
fn ready(from: &pipe::Receiver, to: &pipe::Sender) -> io::Result<(bool, bool)> {
    let mut fds = [PollFd::new(from, PollFlags::IN), PollFd::new(to, PollFlags::OUT)];
    match poll(&mut fds, Some(&Timespec::default())) {
        Err(rustix::io::Errno::INTR) => return Ok((true, true)),
        polled => polled?,
    };
    Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty()))
}

/// Tells tokio that the end isn't ready, whatever it thought, and waits until it is.
async fn wait_readable(from: &pipe::Receiver) -> io::Result<()> {
    let _ = from.try_io(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    from.readable().await
}

async fn wait_writable(to: &pipe::Sender) -> io::Result<()> {
    let _ = to.try_io(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    to.writable().await
}

/// Moves what already waits in a pipe to nowhere; used when its reader died.
pub(super) async fn from_dead_reader(pipe: OwnedFd) {
    let (Ok(from), Ok(null)) = (reader(pipe), null()) else { return };
    let _ = discard(&from, &null).await;
}

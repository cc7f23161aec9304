//! Heavy work with memory, in a process of its own: this binary under another verb, for as long
//! as the work lasts. So the shim stays small, and containers go first. The kernel ends it with
//! the shim, unless nobody waits for it.
//!
//! It is told by its input what it needs to know, as JSON, and prints what has come of it, or
//! why nothing has.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::setpriority_process;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use crate::checkpoint::manifest::now;
use crate::pages::compress::{Shrinking, Shrunk};
use crate::pages::follow::Follower;
use crate::pages::{Error, Expected, memory};
use crate::reaper::{Process, Reaper};
use crate::store::{self, Id, Store, Which};
use crate::sys;

/// As the first argument of our own binary: be a helper.
pub const ARGUMENT: &str = "memory";
const SHRINK: &str = "shrink";
const UNPACK: &str = "unpack";
const PACK: &str = "pack";
const SHARE: &str = "share";
const WRITE_BACK: &str = "write-back";
/// A client waits, but containers come before it.
const NICENESS: i32 = 5;
/// Nobody waits.
const IN_THE_BACKGROUND: i32 = 19;
/// Of what it prints: a line for each of so many processes as no container has.
const MOST_OUTPUT: u64 = 64 << 20;

/// One that works. Killed if nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct Helper {
    process: Process,
    input: pipe::Sender,
    output: pipe::Receiver,
}

/// Why nothing has come of it, in words.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

/// Told by the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Other = 1,
    /// The memory isn't what it was.
    Damage = 3,
    /// The disk.
    Full = 4,
}

/// Sizes of pages files.
pub(crate) type Sizes = BTreeMap<String, u64>;
/// What has become of them.
pub(crate) type Shrinkage = BTreeMap<String, Shrunk>;

impl Helper {
    /// Compresses memory that is being written into a folder, also while it is written. What is
    /// smaller then goes to the other folder. Has to be told how big the files have become.
    pub(crate) fn to_shrink(reaper: Reaper, folder: &Path, into: &Path) -> io::Result<Helper> {
        Helper::start(reaper, [SHRINK.as_ref(), folder.as_os_str(), into.as_os_str()])
    }

    /// Writes memory that a folder keeps in another form as it was into another folder. Has to
    /// be told what it was.
    pub(crate) fn to_unpack(reaper: Reaper, folder: &Path, packs: &Path, into: &Path) -> io::Result<Helper> {
        Helper::start(reaper, [UNPACK.as_ref(), folder.as_os_str(), packs.as_os_str(), into.as_os_str()])
    }

    fn start<const N: usize>(reaper: Reaper, words: [&OsStr; N]) -> io::Result<Helper> {
        let ((theirs, input), (output, their_output)) = (io::pipe()?, io::pipe()?);
        let mut command = Command::new("/proc/self/exe");
        command.arg(ARGUMENT).args(words).current_dir("/");
        command.stdin(theirs).stdout(their_output).stderr(Stdio::null());
        let process = reaper.spawn(&mut command)?;
        for end in [input.as_fd(), output.as_fd()] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        let input = pipe::Sender::from_owned_fd(OwnedFd::from(input))?;
        Ok(Helper { process, input, output: pipe::Receiver::from_owned_fd(OwnedFd::from(output))? })
    }

    /// What it needs to know.
    pub(crate) async fn tell(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(what)?;
        text.push(b'\n');
        match self.input.write_all(&text).await {
            // Why it has ended already, its answer tells.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            told => told,
        }
    }

    /// Gives up.
    pub(crate) async fn end(self) {
        let _ = self.process.signal(9);
        self.process.exited().await;
    }

    /// What has come of it, or why nothing has.
    pub(crate) async fn answer<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        let mut said = Vec::new();
        let read = (&mut self.output).take(MOST_OUTPUT).read_to_end(&mut said).await;
        let exit = self.process.exited().await;
        read.map_err(Problem::other)?;
        if exit.status == 0 {
            return serde_json::from_slice(&said).map_err(Problem::other);
        }
        let kinds = [Kind::Other, Kind::Damage, Kind::Full];
        match kinds.into_iter().find(|kind| *kind as u32 == exit.status && !said.is_empty()) {
            Some(kind) => Err(Problem { text: String::from_utf8_lossy(&said).into_owned(), kind }),
            None => Err(Problem::other(format!("the process that did it ended with status {}", exit.status))),
        }
    }
}

/// Packs what is older in a store.
pub(crate) fn pack(store: &Path, than: Duration) -> io::Result<()> {
    by_itself([PACK.as_ref(), store.as_os_str(), than.as_secs().to_string().as_ref()])
}

/// Has an entry of a store share what it can.
pub(crate) fn share(store: &Path, entry: &Id) -> io::Result<()> {
    by_itself([SHARE.as_ref(), store.as_os_str(), entry.as_str().as_ref()])
}

/// Has an entry of a store written to the disk.
pub(crate) fn write_back(store: &Path, entry: &Id) -> io::Result<()> {
    by_itself([WRITE_BACK.as_ref(), store.as_os_str(), entry.as_str().as_ref()])
}

/// A process that may outlive the shim, as it may take minutes.
fn by_itself<const N: usize>(words: [&OsStr; N]) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).args(words).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Whoever collects strays will collect it.
    sys::with_old_limit(&mut command).spawn().map(drop)
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It has ended already, if it was waited for.
        let _ = self.process.signal(9);
    }
}

impl Problem {
    fn other(error: impl ToString) -> Problem {
        Problem { text: error.to_string(), kind: Kind::Other }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let kind = match &error {
            Error::Damaged { .. } => Kind::Damage,
            error if error.is_no_space() => Kind::Full,
            _ => Kind::Other,
        };
        Problem { text: error.in_image(), kind }
    }
}

/// What the helper does: its whole life.
pub fn run(arguments: &[String]) -> ExitCode {
    // If it is refused, containers wait longer.
    let _ = setpriority_process(None, NICENESS);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        [SHRINK, folder, into] => shrink(folder.as_ref(), into.as_ref()),
        [UNPACK, folder, packs, into] => unpack(folder.as_ref(), packs.as_ref(), into.as_ref()),
        [PACK, store, seconds] => pack_older(store.as_ref(), seconds),
        [SHARE, store, entry] => {
            in_the_background(store.as_ref(), entry, |store, id| store.share(id).map(drop))
        }
        [WRITE_BACK, store, entry] => in_the_background(store.as_ref(), entry, Store::write_back),
        _ => Err(Problem::other("a helper has to know what to do")),
    };
    let (said, status) = match done {
        Ok(said) => (said, 0),
        Err(Problem { text, kind }) => (text, kind as u8),
    };
    // Whoever doesn't listen any more doesn't need it.
    let _ = io::stdout().write_all(said.as_bytes());
    ExitCode::from(status)
}

fn shrink(folder: &Path, into: &Path) -> Result<String, Problem> {
    let follower = Follower::<Shrinking>::start(folder, into.to_owned())?;
    let sizes: Sizes = told()?;
    let shrunk = follower.finish(&sizes)?;
    // All of it travels the same way.
    for (name, _) in shrunk.iter().filter(|(_, shrunk)| !shrunk.is_compressed && folder != into) {
        memory::copy(&folder.join(name), &into.join(name))?;
    }
    text(&shrunk)
}

fn unpack(folder: &Path, packs: &Path, into: &Path) -> Result<String, Problem> {
    let expected: BTreeMap<String, Expected> = told()?;
    memory::put_together(folder, packs, into, &expected)?;
    text(&())
}

/// Nobody hears what has come of it: what couldn't be packed is tried again the next time.
fn pack_older(store: &Path, seconds: &str) -> Result<String, Problem> {
    let _ = setpriority_process(None, IN_THE_BACKGROUND);
    let than = Duration::from_secs(seconds.parse().map_err(Problem::other)?);
    let store = Store::open_again(store).map_err(Problem::other)?;
    store.pack(&Which::Older { than, now: now() }).map_err(Problem::other)?;
    Ok(String::new())
}

fn in_the_background(
    store: &Path,
    entry: &str,
    work: impl FnOnce(&Store, &Id) -> Result<(), store::Error>,
) -> Result<String, Problem> {
    let _ = setpriority_process(None, IN_THE_BACKGROUND);
    let id = Id::parse(entry).ok_or_else(|| Problem::other("this is no checkpoint's id"))?;
    let store = Store::open_again(store).map_err(Problem::other)?;
    work(&store, &id).map_err(Problem::other)?;
    Ok(String::new())
}

fn told<T: DeserializeOwned>() -> Result<T, Problem> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(Problem::other)?;
    serde_json::from_str(&line).map_err(Problem::other)
}

fn text(done: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(done).map_err(Problem::other)
}

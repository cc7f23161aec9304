//! What is made of memory while CRIU is still writing it, from the page cache and in a thread
//! of its own, so that it is ready when the dump is: digests, with a note of zero pages, or
//! something [else](Made).
//!
//! inotify says which files are open, and is only a hint: whatever it misses is read at the
//! end. It isn't asked for every write, which would cost a writer of single pages half its
//! speed. Files may only grow, as those of CRIU do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::process::setpriority_process;
use rustix::thread::gettid;

use super::digest::Digester;
use super::file::{PIECE, is_pages, is_read_once, open_plain, read_exactly};
use super::zeros::{Finder, Runs};
use super::{Error, PAGE, reading};

/// What is read at once while a file still grows. The rest is read when it is closed.
const STEP: u64 = 1 << 20;
/// The container stands still as long as CRIU writes: whatever both need is CRIU's first.
const NICENESS: i32 = 15;
/// Between looks at how far files have grown.
const PAUSE: Duration = Duration::from_millis(5);

/// What is made of a file while it grows, from its beginning to its end.
pub trait Made: Send + Sized + 'static {
    /// So much is shown at once, at most.
    const PIECE: u64;
    /// What all of them have to know.
    type Plan: Clone + Send + 'static;
    type Whole;

    fn begin(plan: &Self::Plan, path: &Path) -> Self;

    /// As long as a file may grow, it is shown in multiples of this.
    fn step(is_closed: bool) -> u64;

    fn extend(
        &mut self,
        file: &File,
        path: &Path,
        range: Range<u64>,
        piece: &mut Vec<u8>,
    ) -> Result<(), Error>;

    /// All of it was shown.
    fn finish(self, file: &File, path: &Path, size: u64) -> Result<Self::Whole, Error>;
}

/// A file that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    pub size: u64,
    pub digest: String,
    pub zeros: Runs,
}

/// Follows the `pages-*.img` of a folder until it is dropped or told how they ended.
#[derive(Debug)]
pub struct Follower<M: Made> {
    folder: PathBuf,
    plan: M::Plan,
    stop: OwnedFd,
    thread: Option<JoinHandle<Progress<M>>>,
}

type Progress<M> = BTreeMap<String, Growing<M>>;

impl<M: Made> Follower<M> {
    pub fn start(folder: &Path, plan: M::Plan) -> Result<Follower<M>, Error> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| reading(folder)(error.into()))?;
        let stopped = stop.try_clone().map_err(reading(folder))?;
        let watch = watch(folder);
        let (owned, its_plan) = (folder.to_owned(), plan.clone());
        let follow = move || {
            let _ = setpriority_process(Some(gettid()), NICENESS);
            watch.map_or_else(|_| Progress::new(), |watch| follow(&owned, &its_plan, &watch, &stopped))
        };
        let thread = std::thread::Builder::new().name("cryo-follow".to_owned()).spawn(follow);
        let thread = Some(thread.map_err(reading(folder))?);
        Ok(Follower { folder: folder.to_owned(), plan, stop, thread })
    }

    /// Reads what hasn't been read yet of the files with these sizes.
    pub fn finish(mut self, sizes: &BTreeMap<String, u64>) -> Result<BTreeMap<String, M::Whole>, Error> {
        let mut progress = self.join();
        let finish = |(name, size): (&String, &u64)| {
            let path = self.folder.join(name);
            let growing = progress.remove(name).unwrap_or_else(|| Growing::begin(&self.plan, &path));
            Ok((name.clone(), growing.finish(&path, *size)?))
        };
        sizes.iter().map(finish).collect()
    }

    fn join(&mut self) -> Progress<M> {
        // Only a descriptor that isn't ours could refuse it.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl<M: Made> Drop for Follower<M> {
    fn drop(&mut self) {
        self.join();
    }
}

/// Fails on a node that has used up its watches, for instance.
fn watch(folder: &Path) -> rustix::io::Result<OwnedFd> {
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, folder, WatchFlags::CREATE | WatchFlags::CLOSE_WRITE)?;
    Ok(watch)
}

fn follow<M: Made>(folder: &Path, plan: &M::Plan, watch: &OwnedFd, stop: &OwnedFd) -> Progress<M> {
    let mut progress = Progress::new();
    let mut open = BTreeSet::new();
    let mut piece = Vec::new();
    loop {
        wait(&[watch, stop], if open.is_empty() { None } else { Some(PAUSE) });
        if is_ready(stop) {
            return progress;
        }
        let closed = look(watch, &mut open);
        let files = open.iter().map(|name| (name, false)).chain(closed.iter().map(|name| (name, true)));
        for (name, is_closed) in files {
            let path = folder.join(name);
            let growing = progress.entry(name.clone()).or_insert_with(|| Growing::begin(plan, &path));
            // What goes wrong here goes wrong at the end again, and is told then.
            let _ = growing.catch_up(&path, is_closed, &mut piece, stop);
        }
    }
}

/// Notes which files are open, and tells which have been closed.
fn look(watch: &OwnedFd, open: &mut BTreeSet<String>) -> BTreeSet<String> {
    let mut closed = BTreeSet::new();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    while let Ok(event) = events.next() {
        let name = event.file_name().and_then(|name| name.to_str().ok()).filter(|name| is_pages(name));
        let Some(name) = name.map(str::to_owned) else { continue };
        if event.events().contains(ReadFlags::CLOSE_WRITE) {
            open.remove(&name);
            closed.insert(name);
        } else {
            open.insert(name);
        }
    }
    closed
}

fn wait(fds: &[&OwnedFd], timeout: Option<Duration>) -> bool {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    loop {
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.is_ok_and(|ready| ready > 0),
        }
    }
}

fn is_ready(fd: &OwnedFd) -> bool {
    wait(&[fd], Some(Duration::ZERO))
}

/// A file that is read as far as it is written.
#[derive(Debug)]
struct Growing<M> {
    /// Device and inode, known once something has been read.
    identity: Option<(u64, u64)>,
    read: u64,
    made: M,
}

impl<M: Made> Growing<M> {
    fn begin(plan: &M::Plan, path: &Path) -> Growing<M> {
        Growing { identity: None, read: 0, made: M::begin(plan, path) }
    }

    fn catch_up(
        &mut self,
        path: &Path,
        is_closed: bool,
        piece: &mut Vec<u8>,
        stop: &OwnedFd,
    ) -> Result<(), Error> {
        let (file, size) = self.open(path)?;
        let end = size - size % M::step(is_closed);
        while self.read < end && !is_ready(stop) {
            self.read_piece(&file, path, piece, end)?;
        }
        Ok(())
    }

    fn finish(mut self, path: &Path, size: u64) -> Result<M::Whole, Error> {
        let changed = |problem| Error::Changed { path: path.to_owned(), problem };
        let (file, now) = self.open(path)?;
        if now != size || self.read > size {
            return Err(changed("it has another size than it should"));
        }
        let mut piece = Vec::new();
        while self.read < size {
            self.read_piece(&file, path, &mut piece, size)?;
        }
        self.made.finish(&file, path, size)
    }

    fn open(&mut self, path: &Path) -> Result<(File, u64), Error> {
        let file = open_plain(path)?;
        is_read_once(&file);
        let metadata = file.metadata().map_err(reading(path))?;
        let changed = |problem| Err(Error::Changed { path: path.to_owned(), problem });
        let identity = (metadata.dev(), metadata.ino());
        match self.identity.get_or_insert(identity) {
            known if *known != identity => changed("another file has its name now"),
            _ if metadata.len() < self.read => {
                // It may grow again, and wouldn't show what has happened.
                self.identity = Some((0, 0));
                changed("it has become shorter")
            }
            _ => Ok((file, metadata.len())),
        }
    }

    fn read_piece(&mut self, file: &File, path: &Path, piece: &mut Vec<u8>, end: u64) -> Result<(), Error> {
        let next = end.min(self.read + M::PIECE);
        self.made.extend(file, path, self.read..next, piece)?;
        self.read = next;
        Ok(())
    }
}

/// The digest of a file, and where it is zero.
#[derive(Debug, Default)]
pub struct Summing {
    digester: Digester,
    zeros: Finder,
}

impl Made for Summing {
    const PIECE: u64 = PIECE as u64;
    type Plan = ();
    type Whole = Followed;

    fn begin((): &(), _path: &Path) -> Summing {
        Summing::default()
    }

    fn step(is_closed: bool) -> u64 {
        if is_closed { PAGE as u64 } else { STEP }
    }

    fn extend(
        &mut self,
        file: &File,
        path: &Path,
        range: Range<u64>,
        piece: &mut Vec<u8>,
    ) -> Result<(), Error> {
        piece.resize((range.end - range.start) as usize, 0);
        read_exactly(file, path, piece, range.start)?;
        self.digester.update(piece);
        self.zeros.look(piece);
        Ok(())
    }

    fn finish(self, _file: &File, _path: &Path, size: u64) -> Result<Followed, Error> {
        Ok(Followed { size, digest: self.digester.finish(), zeros: self.zeros.into_runs() })
    }
}

#[cfg(test)]
mod tests;

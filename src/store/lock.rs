//! Locks that die with their holder (flock), and who holds one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, major, minor, open};
use rustix::io::Errno;

/// Between two looks at a lock that somebody holds: as long as a change takes.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Shared,
    Alone,
}

/// Held as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock(File);

#[derive(Debug)]
pub(crate) enum Failure {
    /// And by whom.
    Held(String),
    Io(io::Error),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        match failure {
            Failure::Held(by) => io::Error::other(format!("{by} has locked it")),
            Failure::Io(error) => error,
        }
    }
}

impl Lock {
    /// A file that is made if it is missing. One on a read-only disk can be locked, too.
    pub(crate) fn file(path: &Path) -> io::Result<File> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = open(path, flags | OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o600));
        let opened = match made {
            Err(Errno::ROFS) => open(path, flags | OFlags::RDONLY, Mode::empty()),
            made => made,
        };
        Ok(File::from(opened?))
    }

    pub(crate) fn folder(path: &Path) -> io::Result<File> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        Ok(File::from(open(path, flags, Mode::empty())?))
    }

    /// Waits that long for others to be done.
    pub(crate) fn take(file: File, how: How, patience: Duration) -> Result<Lock, Failure> {
        let deadline = Instant::now() + patience;
        let operation = match how {
            How::Shared => FlockOperation::NonBlockingLockShared,
            How::Alone => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Lock(file)),
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => return Err(Failure::Held(holder(&file))),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Failure::Io(error.into())),
            }
        }
    }

    /// Whether the path still leads to what is locked.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let same =
            |ours: fs::Metadata, there: fs::Metadata| (ours.dev(), ours.ino()) == (there.dev(), there.ino());
        self.0.metadata().is_ok_and(|ours| fs::symlink_metadata(path).is_ok_and(|there| same(ours, there)))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing isn't enough: a fork elsewhere may have the descriptor until its exec.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// In words. The kernel's list calls some file systems by other numbers than stat does.
fn holder(file: &File) -> String {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let process = file.metadata().ok().and_then(|metadata| {
        let inode = format!("{:02x}:{:02x}:{}", major(metadata.dev()), minor(metadata.dev()), metadata.ino());
        process_of(&locks, &inode)
    });
    let Some(process) = process else { return "another process".to_owned() };
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    match name.trim() {
        "" => format!("process {process}"),
        name => format!("process {process} ({})", crate::message::shown(name)),
    }
}

/// From lines like `5: FLOCK  ADVISORY  WRITE 1234 fe:00:262146 0 EOF`.
fn process_of(locks: &str, inode: &str) -> Option<u32> {
    let held = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut held = held.filter(|words| words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&inode));
    held.find_map(|words| words[4].parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(path: &Path, how: How) -> Result<Lock, Failure> {
        Lock::take(Lock::file(path).unwrap(), how, Duration::ZERO)
    }

    #[test]
    fn many_may_share_a_lock_and_one_may_have_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (one, two) = (take(&path, How::Shared).unwrap(), take(&path, How::Shared).unwrap());
        assert!(matches!(take(&path, How::Alone), Err(Failure::Held(_))));
        drop((one, two));
        let _alone = take(&path, How::Alone).unwrap();
        assert!(take(&path, How::Shared).is_err());
    }

    #[test]
    fn the_holder_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let _alone = take(&path, How::Alone).unwrap();
        let Err(Failure::Held(by)) = take(&path, How::Alone) else { panic!("it is held") };
        let us = format!("process {} (", std::process::id());
        assert!(by.starts_with(&us) || by == "another process", "{by}");
    }

    #[test]
    fn the_kernels_list_of_locks_is_understood() {
        let locks = "1: POSIX  ADVISORY  WRITE 77 fe:00:5 0 EOF\n2: FLOCK  ADVISORY  READ 1234 fe:00:5 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 99 fe:00:5 0 EOF\n3: nonsense\n";
        assert_eq!(process_of(locks, "fe:00:5"), Some(1234));
        assert_eq!(process_of(locks, "fe:00:6"), None);
    }
}

//! From an image into a folder: all of it, or nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fstat, ftruncate, futimens,
    linkat, mkdirat, mknodat, openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::Limits;
use super::tree::{Entry, Kind, content_of, copy, decoded, list_of};
use crate::within::{NO_LINKS, WITHIN, itself, place};

/// A path, written as in a URL, and a list of pieces.
const LONGEST_LINE: u64 = 1 << 20;
/// What tells that somebody else has something there.
const THEIRS: [Errno; 4] = [Errno::EXIST, Errno::NOTDIR, Errno::LOOP, Errno::XDEV];

/// What was made in a folder.
pub(super) struct Placed {
    folder: OwnedFd,
    /// Each with its number: by its name it may be somebody else's by now. What is in a folder
    /// comes after it.
    made: BTreeMap<PathBuf, u64>,
}

pub(super) fn tree(folder: OwnedFd, image: &Path, name: &str, limits: &Limits) -> io::Result<Placed> {
    let mut list = BufReader::new(File::open(list_of(image, name))?);
    let content = match File::open(content_of(image, name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened?),
    };
    let mut placed = Placed { folder, made: BTreeMap::new() };
    let mut load = || {
        while let Some(entry) = next(&mut list)? {
            limits.check()?;
            placed.make(&entry, content.as_ref(), limits)?;
        }
        Ok(())
    };
    match load() {
        Ok(()) => Ok(placed),
        Err(error) => {
            placed.remove();
            Err(error)
        }
    }
}

fn next(list: &mut impl BufRead) -> io::Result<Option<Entry>> {
    let mut line = Vec::new();
    if list.take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

impl Placed {
    pub(super) fn remove(self) {
        for (path, number) in self.made.iter().rev() {
            // What can't be removed has been taken over by somebody.
            let _ = self.remove_own(path, *number);
        }
    }

    fn remove_own(&self, path: &Path, number: u64) -> io::Result<()> {
        let (above, name) = place(&self.folder, path)?;
        let found = statat(&above, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if found.st_ino != number {
            return Ok(());
        }
        let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        Ok(unlinkat(&above, name, if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() })?)
    }

    fn make(&mut self, entry: &Entry, content: Option<&File>, limits: &Limits) -> io::Result<()> {
        let path = decoded(&entry.path);
        let (above, name) = match place(&self.folder, &path) {
            Err(error) if is_theirs(&error) => return Ok(()),
            found => found?,
        };
        let made = match &entry.kind {
            Kind::Folder => mkdirat(&above, name, Mode::RWXU),
            Kind::File { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let made = openat2(&above, name, flags, Mode::RUSR | Mode::WUSR, WITHIN);
                return match made {
                    Err(error) if THEIRS.contains(&error) => Ok(()),
                    made => self.fill(path, entry, File::from(made?), content, limits),
                };
            }
            Kind::Link { to } => {
                let first = decoded(to);
                // Only if the first name is one that was made here.
                if !self.made.contains_key(&first) {
                    return Ok(());
                }
                let (of_first, first) = place(&self.folder, &first)?;
                linkat(&of_first, first, &above, name, AtFlags::empty())
            }
            Kind::Symlink { to } => symlinkat(decoded(to), &above, name),
            Kind::Fifo => mknodat(&above, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0),
        };
        match made {
            Err(error) if THEIRS.contains(&error) => return Ok(()),
            made => made?,
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat2(&above, name, flags, Mode::empty(), WITHIN.difference(NO_LINKS))?;
        let found = fstat(&opened)?;
        self.made.insert(path, found.st_ino);
        let kind = FileType::from_raw_mode(found.st_mode);
        // Whoever has put something else there meanwhile keeps it as it is.
        match (&entry.kind, kind) {
            (Kind::Folder, FileType::Directory) | (Kind::Fifo, FileType::Fifo) => {
                own(&opened, entry)?;
                fs::set_permissions(itself(&opened), Permissions::from_mode(entry.mode))
            }
            (Kind::Symlink { .. }, FileType::Symlink) => own(&opened, entry),
            _ => Ok(()),
        }
    }

    fn fill(
        &mut self,
        path: PathBuf,
        entry: &Entry,
        made: File,
        content: Option<&File>,
        limits: &Limits,
    ) -> io::Result<()> {
        self.made.insert(path, fstat(&made)?.st_ino);
        let Kind::File { size, pieces } = &entry.kind else { return Ok(()) };
        ftruncate(&made, *size)?;
        for piece in pieces {
            let content = content.ok_or(io::ErrorKind::UnexpectedEof)?;
            copy((content, piece.at), (&made, piece.from), piece.length, limits)?;
        }
        own(&made, entry)?;
        made.set_permissions(Permissions::from_mode(entry.mode))?;
        let (tv_sec, tv_nsec) = entry.modified;
        let modified = Timespec { tv_sec, tv_nsec };
        Ok(futimens(&made, &Timestamps { last_access: modified, last_modification: modified })?)
    }
}

fn own(made: &impl AsFd, entry: &Entry) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    Ok(chownat(made, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?)
}

fn is_theirs(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| THEIRS.contains(&errno))
}

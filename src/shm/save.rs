//! From a folder into an image.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat2, readlinkat};
use rustix::io::Errno;

use super::Limits;
use super::tree::{Entry, Kind, Piece, content_of, copy, encoded, list_of};
use crate::sparse::Spans;
use crate::within::{FOLDER, NO_LINKS, WITHIN, itself};

/// More is no shared memory; each takes some memory here.
const MOST_ENTRIES: usize = 100_000;
/// What tells that others are changing it.
const CHANGED: [Errno; 6] =
    [Errno::NOENT, Errno::LOOP, Errno::NOTDIR, Errno::INVAL, Errno::XDEV, Errno::NXIO];
/// The kernel's limit: nothing with a longer path could be opened at a restore, either.
const LONGEST_PATH: usize = 4095;

/// Whether there was anything.
pub(super) fn tree(folder: OwnedFd, image: &Path, name: &str, limits: &Limits) -> io::Result<bool> {
    let found = fstatfs(&folder)?;
    let most = found.f_blocks.saturating_mul(u64::try_from(found.f_bsize).unwrap_or_default());
    let mut saving = Saving {
        folder,
        list: None,
        list_at: list_of(image, name),
        count: 0,
        names: HashMap::new(),
        content: None,
        content_at: content_of(image, name),
        end: 0,
        most,
        limits,
    };
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        saving.folder(&path, &mut left)?;
    }
    let Some(mut list) = saving.list else { return Ok(false) };
    list.flush()?;
    Ok(true)
}

struct Saving<'a> {
    folder: OwnedFd,
    /// Made when there is something to put there.
    list: Option<BufWriter<File>>,
    list_at: PathBuf,
    count: usize,
    /// Of files that have several, the first.
    names: HashMap<u64, String>,
    content: Option<File>,
    content_at: PathBuf,
    /// Of what is in it.
    end: u64,
    /// All that can be there at once.
    most: u64,
    limits: &'a Limits,
}

impl Saving<'_> {
    fn folder(&mut self, path: &Path, left: &mut Vec<PathBuf>) -> io::Result<()> {
        // From the top, as it will be opened at a restore.
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let opened = match openat2(&self.folder, here, FOLDER, Mode::empty(), WITHIN) {
            Err(error) if CHANGED.contains(&error) => return Ok(()),
            opened => opened?,
        };
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            self.limits.check()?;
            let path = path.join(name);
            if path.as_os_str().len() > LONGEST_PATH {
                continue;
            }
            let Some((found, kind)) = self.entry(&opened, name, &path)? else { continue };
            if matches!(kind, Kind::Folder) {
                left.push(path.clone());
            }
            self.note(&path, &found, kind)?;
        }
        Ok(())
    }

    /// None if it is gone, or nothing that can be kept; sockets are CRIU's.
    fn entry(&mut self, above: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<Option<(Stat, Kind)>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match openat2(above, name, flags, Mode::empty(), WITHIN.difference(NO_LINKS)) {
            Err(error) if CHANGED.contains(&error) => return Ok(None),
            opened => opened?,
        };
        // Only what it is now decides: by its name it may be a device in a moment.
        let found = fstat(&opened)?;
        let kind = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::Fifo => Kind::Fifo,
            FileType::Symlink => {
                Kind::Symlink { to: encoded(readlinkat(&opened, "", Vec::new())?.as_bytes()) }
            }
            FileType::RegularFile => match self.names.get(&found.st_ino) {
                Some(first) => Kind::Link { to: first.clone() },
                None => {
                    if found.st_nlink > 1 {
                        self.names.insert(found.st_ino, encoded(path.as_os_str().as_bytes()));
                    }
                    let size = found.st_size.unsigned_abs();
                    Kind::File { size, pieces: self.pieces(&File::open(itself(&opened))?, size)? }
                }
            },
            _ => return Ok(None),
        };
        Ok(Some((found, kind)))
    }

    fn note(&mut self, path: &Path, found: &Stat, kind: Kind) -> io::Result<()> {
        self.count += 1;
        if self.count > MOST_ENTRIES {
            return Err(io::Error::other(format!("it has more than {MOST_ENTRIES} files")));
        }
        let entry = Entry {
            path: encoded(path.as_os_str().as_bytes()),
            mode: found.st_mode & 0o7777,
            uid: found.st_uid,
            gid: found.st_gid,
            modified: (found.st_mtime, i64::try_from(found.st_mtime_nsec).unwrap_or_default()),
            kind,
        };
        let list = match &mut self.list {
            Some(list) => list,
            none => none.insert(BufWriter::new(File::create(&self.list_at)?)),
        };
        serde_json::to_writer(&mut *list, &entry)?;
        list.write_all(b"\n")
    }

    /// Of what was there when it was opened.
    fn pieces(&mut self, file: &File, size: u64) -> io::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        for span in Spans::of(file, size) {
            let Range { start: from, end } = span?;
            let length = end - from;
            if self.end + length > self.most {
                return Err(io::Error::other("others write to it all the while"));
            }
            let to = match &self.content {
                Some(to) => to,
                None => self.content.insert(File::create(&self.content_at)?),
            };
            copy((file, from), (to, self.end), length, self.limits)?;
            pieces.push(Piece { from, length, at: self.end });
            self.end += length;
        }
        Ok(pieces)
    }
}

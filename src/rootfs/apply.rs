//! From a layer into a root file system that nobody uses yet.
//!
//! All of it is looked through before anything is changed. Then what is gone goes, the rest is
//! made, and last of all folders get their times. Nothing is remembered from one member to the
//! next, so that an archive can't be too long for the memory.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Timestamps, Uid, XattrFlags, chownat, fstatvfs, ftruncate,
    futimens, linkat, makedev, mkdirat, mknodat, openat2, setxattr, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::member::{self, Entry, Kind};
use crate::message::{cut, shown};
use crate::tape::{self, Head, Source, Tape};
use crate::within::{FOLDER, NO_LINKS, WITHIN, itself, place};

/// What no file system that a container is given has as many of.
const MOST_MEMBERS: u64 = 20_000_000;
const BUFFER: usize = 1 << 20;
const SHOWN: usize = 80;
const MEGABYTE: u64 = 1 << 20;
/// Of a path that isn't there, or leads through something else than folders.
const ABSENT: [Errno; 4] = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::XDEV];

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("'{name}' in it {problem}")]
    Hostile { name: String, problem: &'static str },
    #[error("{needed} MB are needed at least, and {free} MB are free")]
    Full { needed: u64, free: u64 },
    #[error("{needed} files are needed and there is room for {free}")]
    TooMany { needed: u64, free: u64 },
    #[error("/{name}: {source}")]
    Io { name: String, source: io::Error },
}

/// Puts back what is in a layer. Devices are made only for a container that could make them
/// itself.
pub fn apply(layer: &File, root: OwnedFd, devices: bool) -> Result<(), Problem> {
    let mut tree = Tree { root, devices, buffer: vec![0; BUFFER] };
    tree.check_room(layer)?;
    each(layer, |entry, _, _| match entry.kind {
        Kind::Gone => tree.remove(&entry.path),
        Kind::Opaque => tree.empty(&entry.path),
        _ => Ok(()),
    })?;
    each(layer, |entry, head, content| tree.make(entry, head, content))?;
    each(layer, |entry, _, _| if entry.kind == Kind::Folder { tree.date(entry) } else { Ok(()) })
}

type Content = Tape<Source>;

fn each(
    layer: &File,
    mut act: impl FnMut(&Entry, &Head, &mut Content) -> io::Result<()>,
) -> Result<(), Problem> {
    let reading = |source| Problem::Io { name: super::FILE.to_owned(), source };
    let mut members = Tape::of_file(layer).map_err(reading)?;
    while let Some(head) = members.next().map_err(Problem::of)? {
        let name = || cut(&shown(&String::from_utf8_lossy(&head.name())), SHOWN);
        let entry = member::entry(&head).map_err(|problem| Problem::Hostile { name: name(), problem })?;
        act(&entry, &head, &mut members).map_err(|error| Problem::about(name(), error))?;
    }
    Ok(())
}

struct Tree {
    root: OwnedFd,
    devices: bool,
    buffer: Vec<u8>,
}

impl Tree {
    /// Whether there is room for all of it, and every member is one.
    fn check_room(&self, layer: &File) -> Result<(), Problem> {
        let disk = fstatvfs(&self.root).map_err(|error| Problem::about(String::new(), error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let (mut members, mut bytes) = (0, 0u64);
        each(layer, |entry, head, _| {
            members += 1;
            bytes = bytes.saturating_add(head.size());
            let is_device = matches!(entry.kind, Kind::Device { .. });
            let refuse = |problem| Err(io::Error::other(Refused(problem)));
            match () {
                // Nobody looks for the end of what is compressed to next to nothing.
                () if bytes > free => Err(io::ErrorKind::StorageFull.into()),
                () if members > MOST_MEMBERS => refuse("is one of too many"),
                () if is_device && !self.devices => refuse("is a device, and the container may make none"),
                () => Ok(()),
            }
        })
        .map_err(|problem| match problem {
            _ if bytes > free => Problem::Full { needed: bytes.div_ceil(MEGABYTE), free: free / MEGABYTE },
            problem => problem,
        })?;
        // Some don't count.
        if disk.f_files > 0 && members > disk.f_favail {
            return Err(Problem::TooMany { needed: members, free: disk.f_favail });
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, here, FOLDER, Mode::empty(), WITHIN)
    }

    /// Whatever it is; that nothing is there is fine.
    fn remove(&self, path: &Path) -> io::Result<()> {
        let (above, name) = match place(&self.root, path) {
            Err(error) if is_absent(&error) => return Ok(()),
            found => found?,
        };
        match unlinkat(&above, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => {
                self.empty(path)?;
                Ok(unlinkat(&above, name, AtFlags::REMOVEDIR)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is in a folder goes; what is none stays.
    fn empty(&self, path: &Path) -> io::Result<()> {
        let mut left = vec![path.to_owned()];
        let mut below: Vec<PathBuf> = Vec::new();
        while let Some(folder) = left.pop() {
            let opened = match self.open(&folder) {
                Err(error) if ABSENT.contains(&error) => return Ok(()),
                opened => opened?,
            };
            let names: Vec<_> = Dir::read_from(&opened)?.collect::<Result<_, _>>()?;
            for name in names.iter().map(|entry| entry.file_name()) {
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                match unlinkat(&opened, name, AtFlags::empty()) {
                    Err(Errno::ISDIR) => {
                        use std::os::unix::ffi::OsStrExt;
                        let folder = folder.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                        left.push(folder.clone());
                        below.push(folder);
                    }
                    done => done?,
                }
            }
        }
        // The deepest came last.
        for folder in below.iter().rev() {
            let (above, name) = place(&self.root, folder)?;
            unlinkat(&above, name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    fn make(&mut self, entry: &Entry, head: &Head, content: &mut Content) -> io::Result<()> {
        let is_root = entry.path.as_os_str().is_empty();
        match &entry.kind {
            Kind::Gone | Kind::Opaque | Kind::Nothing => return Ok(()),
            Kind::Folder if is_root => return adorn(&self.root, entry),
            _ if is_root => return Err(io::Error::other(Refused("is the root, and no folder"))),
            _ => {}
        }
        self.make_above(&entry.path)?;
        let (above, name) = place(&self.root, &entry.path)?;
        if entry.kind == Kind::Folder && self.open(&entry.path).is_ok() {
            return adorn(&self.open(&entry.path)?, entry);
        }
        self.remove(&entry.path)?;
        match &entry.kind {
            Kind::File | Kind::Sparse { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat2(&above, name, flags, Mode::RUSR | Mode::WUSR, WITHIN)?;
                let file = File::from(file);
                self.fill(&file, entry, head, content)?;
                let file = OwnedFd::from(file);
                adorn(&file, entry)?;
                return Ok(futimens(&file, &times(entry))?);
            }
            Kind::Link(first) => {
                let (of_first, first) = place(&self.root, first)?;
                // Its owner and all else are those of the first.
                return Ok(linkat(&of_first, first, &above, name, AtFlags::empty())?);
            }
            Kind::Folder => mkdirat(&above, name, Mode::RWXU)?,
            Kind::Symlink(to) => symlinkat(to, &above, name)?,
            Kind::Fifo => mknodat(&above, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
            Kind::Device { kind, major, minor } => {
                mknodat(&above, name, *kind, Mode::RUSR | Mode::WUSR, makedev(*major, *minor))?;
            }
            Kind::Gone | Kind::Opaque | Kind::Nothing => return Ok(()),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat2(&above, name, flags, Mode::empty(), WITHIN.difference(NO_LINKS))?;
        adorn(&made, entry)?;
        Ok(utimensat(&above, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Folders on the way that the layer doesn't mention.
    fn make_above(&self, path: &Path) -> io::Result<()> {
        let Some(above) = path.parent() else { return Ok(()) };
        match self.open(above) {
            Err(Errno::NOENT) => {}
            Err(error) if ABSENT.contains(&error) => {
                return Err(io::Error::other(Refused("leads through what is no folder")));
            }
            opened => return opened.map(drop).map_err(io::Error::from),
        }
        self.make_above(above)?;
        let (folder, name) = place(&self.root, above)?;
        Ok(mkdirat(&folder, name, Mode::from_raw_mode(0o755))?)
    }

    fn fill(&mut self, file: &File, entry: &Entry, head: &Head, content: &mut Content) -> io::Result<()> {
        let Kind::Sparse { size } = entry.kind else { return self.copy(content, file, 0, head.size()) };
        let (spans, read) = member::spans(content, size)?;
        let data = spans.iter().fold(read, |sum, (_, length)| sum.saturating_add(*length));
        if data != head.size() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        ftruncate(file, size)?;
        spans.iter().try_for_each(|(from, length)| self.copy(content, file, *from, *length))
    }

    fn copy(&mut self, content: &mut impl Read, file: &File, from: u64, length: u64) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let most = usize::try_from(length - done).unwrap_or(BUFFER).min(BUFFER);
            content.read_exact(&mut self.buffer[..most])?;
            file.write_all_at(&self.buffer[..most], from + done)?;
            done += most as u64;
        }
        Ok(())
    }

    /// What was made in a folder has changed its time.
    fn date(&self, entry: &Entry) -> io::Result<()> {
        match self.open(&entry.path) {
            // A later member took its place.
            Err(error) if ABSENT.contains(&error) => Ok(()),
            opened => Ok(futimens(opened?, &times(entry))?),
        }
    }
}

/// Owner before permissions, which a change of owner takes away in part.
fn adorn(made: &OwnedFd, entry: &Entry) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    chownat(made, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
    if matches!(entry.kind, Kind::Symlink(_)) {
        return Ok(());
    }
    fs::set_permissions(itself(made), Permissions::from_mode(entry.mode))?;
    for (name, value) in &entry.attributes {
        setxattr(itself(made), name.as_os_str(), value, XattrFlags::empty())?;
    }
    Ok(())
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps { last_access: entry.modified, last_modification: entry.modified }
}

fn is_absent(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| ABSENT.contains(&errno))
}

/// What a member wants that it doesn't get.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(&'static str);

impl Problem {
    fn of(error: tape::Error) -> Problem {
        match error {
            tape::Error::Io(source) => Problem::Io { name: super::FILE.to_owned(), source },
            tape::Error::Cut | tape::Error::NoTar(_) => Problem::Damaged(error.to_string()),
        }
    }

    fn about(name: String, error: io::Error) -> Problem {
        if let Some(Refused(problem)) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return Problem::Hostile { name, problem };
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Problem::Damaged("it is cut short".to_owned()),
            io::ErrorKind::InvalidData => Problem::Damaged(format!("'{name}' isn't what it says it is")),
            _ => Problem::Io { name, source: error },
        }
    }
}

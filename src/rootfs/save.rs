//! From an overlay's upper folder into a layer.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fstat, getxattr, listxattr, open, openat2, readlinkat};
use rustix::io::Errno;
use tar::EntryType;

use super::member::{OPAQUE, WHITEOUT, is_carried};
use super::write::{MOST_SPANS, Member, Tape};
use super::{FILE, Layer, Overlay};
use crate::message::{cut, shown};
use crate::pages::digest::Digester;
use crate::sparse::Spans;
use crate::within::{FOLDER, NO_LINKS, WITHIN, itself};

const BUFFER: usize = 1 << 20;
/// What stands before a file: its own header, and a PAX header with its content.
const HEADERS: u64 = 3 * 512;
/// Of what is left out, so many are named.
const MOST_NAMES: usize = 16;
const LONGEST_NAME: usize = 80;
/// As the kernel has them.
const LONGEST_LIST: usize = 1 << 16;
const LONGEST_VALUE: usize = 1 << 16;
/// Files with several names, which are remembered until the end.
const MOST_LINKED: usize = 1_000_000;
/// Folders that are still to be measured. It is a shim that measures, and it has to stay small.
const MOST_FOLDERS: usize = 10_000;
/// Of attributes, all together: readers take a megabyte of what stands before a file.
const MOST_ATTRIBUTES: usize = 1 << 19;

/// Writes what was changed into an image's folder. The container has to stand still.
pub fn save(overlay: &Overlay, image: &Path) -> io::Result<Layer> {
    let flags = FOLDER.union(OFlags::NOFOLLOW);
    let upper = open(&overlay.upper, flags, Mode::empty())?;
    let out = File::options().write(true).create(true).truncate(true).mode(0o600).open(image.join(FILE))?;
    let out = Digested { out, digester: Digester::default(), bytes: 0 };
    let mut saving = Saving {
        upper,
        own: if overlay.for_users { "user.overlay." } else { "trusted.overlay." },
        tape: Tape::new(BufWriter::with_capacity(BUFFER, out)),
        names: HashMap::new(),
        files: 0,
        left_out: Vec::new(),
    };
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        saving.folder(&path, &mut left).map_err(|error| named(&path, error))?;
    }
    let Saving { tape, files, left_out, .. } = saving;
    let Digested { digester, bytes, .. } =
        tape.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(Layer { bytes, files, digest: digester.finish(), left_out })
}

/// What a layer will take; at least, if there is no time to look at all of it, or too much.
pub fn bytes(overlay: &Overlay, until: Instant) -> u64 {
    let mut left = vec![overlay.upper.clone()];
    let mut sum: u64 = 0;
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if Instant::now() > until {
                return sum;
            }
            let Ok(found) = entry.metadata() else { continue };
            sum = sum.saturating_add(HEADERS);
            if !found.is_dir() {
                // All names of a file are met, and its content is copied once.
                sum = sum.saturating_add(found.blocks().saturating_mul(512) / found.nlink().max(1));
            } else if left.len() < MOST_FOLDERS {
                left.push(entry.path());
            }
        }
    }
    sum
}

struct Saving<W: Write> {
    upper: OwnedFd,
    /// How the overlay's own attributes begin.
    own: &'static str,
    tape: Tape<W>,
    /// Of files that have several, the first.
    names: HashMap<u64, PathBuf>,
    files: u64,
    left_out: Vec<String>,
}

impl<W: Write> Saving<W> {
    fn folder(&mut self, path: &Path, left: &mut Vec<PathBuf>) -> io::Result<()> {
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let opened = openat2(&self.upper, here, FOLDER, Mode::empty(), WITHIN)?;
        let found = fstat(&opened)?;
        let names = self.attributes(&opened)?;
        self.tape.folder(&Member { path: here, found: &found, attributes: carried(&opened, &names)? })?;
        let opaque = names.into_iter().find(|name| name.strip_prefix(self.own) == Some("opaque"));
        if let Some(name) = opaque
            && value(&opened, &name)?.as_deref() == Some(b"y")
        {
            self.tape.whiteout(&path.join(OPAQUE))?;
        }
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let path = path.join(name);
            if self.entry(&opened, name, &path).map_err(|error| named(&path, error))? {
                left.push(path);
            }
        }
        Ok(())
    }

    /// Tells whether it is a folder.
    fn entry(&mut self, above: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat2(above, name, flags, Mode::empty(), WITHIN.difference(NO_LINKS))?;
        let found = fstat(&opened)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::CharacterDevice && found.st_rdev == 0 {
            self.files += 1;
            let mark = [WHITEOUT.as_bytes(), name.as_bytes()].concat();
            self.tape.whiteout(&path.with_file_name(OsStr::from_bytes(&mark)))?;
            return Ok(false);
        }
        let problem = match kind {
            _ if name.as_bytes().starts_with(WHITEOUT.as_bytes()) => {
                "its name says in layers that it is gone"
            }
            FileType::Socket => "layers have no sockets; who listens makes it again",
            FileType::Directory => return Ok(true),
            _ => {
                self.files += 1;
                self.file(&opened, &found, kind, path)?;
                return Ok(false);
            }
        };
        if self.left_out.len() < MOST_NAMES {
            self.left_out.push(format!("{}: {problem}", name_of(path)));
        }
        Ok(false)
    }

    fn file(&mut self, opened: &OwnedFd, found: &Stat, kind: FileType, path: &Path) -> io::Result<()> {
        // A link has none that an image carries.
        let names = if kind == FileType::Symlink { Vec::new() } else { self.attributes(opened)? };
        let member = Member { path, found, attributes: carried(opened, &names)? };
        if found.st_nlink > 1 {
            if let Some(first) = self.names.get(&found.st_ino) {
                return self.tape.link(&member, first);
            }
            if self.names.len() >= MOST_LINKED {
                return Err(io::Error::other("more than a million files have several names"));
            }
            self.names.insert(found.st_ino, path.to_owned());
        }
        match kind {
            FileType::RegularFile => {
                let (file, size) = (File::open(itself(opened))?, found.st_size.unsigned_abs());
                let spans = Spans::of(&file, size).take(MOST_SPANS + 1).collect::<io::Result<Vec<_>>>()?;
                self.tape.file(&member, &file, size, &spans)
            }
            FileType::Symlink => {
                let to = readlinkat(opened, "", Vec::new())?;
                self.tape.symlink(&member, OsStr::from_bytes(to.as_bytes()))
            }
            FileType::CharacterDevice => self.tape.node(&member, EntryType::Char),
            FileType::BlockDevice => self.tape.node(&member, EntryType::Block),
            FileType::Fifo => self.tape.node(&member, EntryType::Fifo),
            _ => Err(io::Error::other("it is nothing that Linux knows")),
        }
    }

    /// Their names. What an overlay keeps in other folders can't be read from here.
    fn attributes(&self, opened: &OwnedFd) -> io::Result<Vec<String>> {
        let mut list = vec![0; LONGEST_LIST];
        let length = match listxattr(itself(opened), &mut list) {
            Err(Errno::OPNOTSUPP) => 0,
            length => length?,
        };
        let names = list[..length].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
        let names: Vec<_> = names.map(str::to_owned).collect();
        let elsewhere = |name: &String| matches!(name.strip_prefix(self.own), Some("metacopy" | "redirect"));
        match names.iter().find(|name| elsewhere(name)) {
            None => Ok(names),
            Some(name) => {
                Err(io::Error::other(format!("a part of it is elsewhere, says the overlay ({name})")))
            }
        }
    }
}

fn carried(opened: &OwnedFd, names: &[String]) -> io::Result<Vec<(String, Vec<u8>)>> {
    let (mut attributes, mut sum) = (Vec::new(), 0);
    for name in names.iter().filter(|name| is_carried(name)) {
        let Some(value) = value(opened, name)? else { continue };
        sum += name.len() + value.len();
        if sum > MOST_ATTRIBUTES {
            return Err(io::Error::other("it has too many attributes"));
        }
        attributes.push((name.clone(), value));
    }
    Ok(attributes)
}

fn value(opened: &OwnedFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; LONGEST_VALUE];
    match getxattr(itself(opened), name, &mut value) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    // Named already.
    if error.get_ref().is_some_and(|inner| inner.is::<Named>()) {
        return error;
    }
    io::Error::new(error.kind(), Named(name_of(path), error))
}

/// What went wrong with one file.
#[derive(Debug, thiserror::Error)]
#[error("/{0}: {1}")]
struct Named(String, io::Error);

fn name_of(path: &Path) -> String {
    cut(&shown(&path.to_string_lossy()), LONGEST_NAME)
}

/// What passes is summed up on its way.
struct Digested {
    out: File,
    digester: Digester,
    bytes: u64,
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digester.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

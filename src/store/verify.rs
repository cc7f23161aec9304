//! Whether an entry is what it was: every file is there, and says what it said. Reads
//! everything, in little memory.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, openat};

use super::entry::Held;
use super::lock::Lock;
use super::record::{self, Content};
use super::{Error, disk, packs_beside};
use crate::pages::digest::{self, Digester};
use crate::pages::is_pages;
use crate::pages::memory::{self, stands_for};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    Good,
    Missing,
    Size {
        is: u64,
        was: u64,
    },
    /// Of the right size, and with something else in it.
    Changed,
    /// It isn't one of the entry's files.
    Extra,
    NoPlainFile,
    Unreadable(String),
    /// Only a later version knows how to check it.
    UnknownDigest,
}

#[derive(Clone, Debug)]
pub struct Report {
    /// By name, in its order.
    pub files: Vec<(String, Checked)>,
}

impl Checked {
    pub fn is_damage(&self) -> bool {
        !matches!(self, Checked::Good | Checked::UnknownDigest)
    }
}

impl Report {
    pub fn is_good(&self) -> bool {
        !self.files.iter().any(|(_, checked)| checked.is_damage())
    }
}

impl Held {
    /// Tells of each file how many more bytes of it were read.
    pub fn verify(&self, mut progress: impl FnMut(&str, u64)) -> Result<Report, Error> {
        let failed = Error::at(&self.folder);
        let folder = Lock::folder(&self.folder).map_err(&failed)?;
        let there = disk::names(&self.folder).map_err(&failed)?;
        let known = &self.record.files;
        let is_extra = |name: &&String| {
            let plain = stands_for(name).unwrap_or(name);
            *name != record::FILE_NAME && !known.contains_key(plain)
        };
        let mut files: Vec<_> =
            there.iter().filter(is_extra).map(|name| (name.clone(), Checked::Extra)).collect();
        for (name, content) in known {
            let checked = match open(&folder, name) {
                Ok(file) => check(&file, content, |bytes| progress(name, bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let checked = self.check_packed(name, content);
                    progress(name, content.size);
                    Ok(checked)
                }
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                    Ok(Checked::NoPlainFile)
                }
                Err(error) => Err(error),
            };
            files
                .push((name.clone(), checked.unwrap_or_else(|error| Checked::Unreadable(error.to_string()))));
        }
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Report { files })
    }
}

impl Held {
    /// A file that isn't there as it is.
    fn check_packed(&self, name: &str, content: &Content) -> Checked {
        let is_packed = is_pages(name) && memory::form(&self.folder, name).is_some();
        match memory::check(&self.folder, &packs_beside(&self.folder), name, &content.expected()) {
            Ok(()) if is_packed => Checked::Good,
            Ok(()) => Checked::Missing,
            Err(error) => Checked::Unreadable(error.in_image()),
        }
    }
}

/// Neither follows a link nor waits at a pipe.
fn open(folder: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(File::from(openat(folder, name, flags, Mode::empty())?))
}

fn check(file: &File, content: &Content, progress: impl FnMut(u64)) -> io::Result<Checked> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Checked::NoPlainFile);
    }
    if metadata.len() != content.size {
        return Ok(Checked::Size { is: metadata.len(), was: content.size });
    }
    let Some(digester) = Digester::like(&content.digest) else { return Ok(Checked::UnknownDigest) };
    let same = digest::of(file, digester, progress)? == content.digest;
    Ok(if same { Checked::Good } else { Checked::Changed })
}

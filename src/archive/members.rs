//! The members of a checkpoint's archive: plain files and folders within bounds.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::{Component, Path};

use tar::EntryType;

use super::import::Error;
use crate::tape::{Head, MOST_NAME, Tape};

/// What an archive may still hold. Shared by all layers of one.
pub(super) struct Room {
    bytes: Cell<u64>,
    members: Cell<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Relative, without `.` and `..`; empty for the archive's own root.
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) is_folder: bool,
}

/// Also a reader, of the member that [`Members::next`] returned last.
pub(super) struct Members<'a, R> {
    tape: Tape<R>,
    room: &'a Room,
}

impl Room {
    pub(super) fn new(bytes: u64, members: u32) -> Room {
        Room { bytes: Cell::new(bytes), members: Cell::new(members) }
    }

    fn take(&self, name: &str, size: u64) -> Result<(), Error> {
        let members = self.members.get().checked_sub(1).ok_or(Error::TooMany)?;
        let bytes = self.bytes.get();
        let rest = bytes.checked_sub(size).ok_or_else(|| Error::too_big(name, size, bytes))?;
        self.members.set(members);
        self.bytes.set(rest);
        Ok(())
    }
}

impl<'a, R: Read> Members<'a, R> {
    pub(super) fn new(input: R, room: &'a Room) -> Members<'a, R> {
        Members { tape: Tape::new(input), room }
    }

    /// The next member; nothing at the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Error> {
        let Some(head) = self.tape.next()? else { return Ok(None) };
        let member = member(&head)?;
        self.room.take(&member.name, member.size)?;
        Ok(Some(member))
    }

    /// What comes after the last member.
    pub(super) fn read_to_end(&mut self) -> Result<(), Error> {
        Ok(self.tape.read_to_end()?)
    }
}

impl<R: Read> Read for Members<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tape.read(buffer)
    }
}

fn member(head: &Head) -> Result<Member, Error> {
    let raw = head.name();
    let shown = String::from_utf8_lossy(&raw);
    let hostile = |problem| Error::hostile(&shown, problem);
    if head.records(b"GNU.sparse.").next().is_some() {
        return Err(hostile("is a sparse member"));
    }
    let is_folder = match head.kind() {
        EntryType::Directory => true,
        // Before there was a type for them, folders were files with such names.
        EntryType::Regular | EntryType::Continuous => raw.ends_with(b"/"),
        EntryType::Link | EntryType::Symlink => return Err(hostile("is a link")),
        EntryType::Char | EntryType::Block => return Err(hostile("is a device")),
        EntryType::Fifo => return Err(hostile("is a pipe")),
        EntryType::GNUSparse => return Err(hostile("is a sparse member")),
        _ => return Err(hostile("is no plain file")),
    };
    let name = plain(&raw).map_err(hostile)?;
    if is_folder && head.size() > 0 {
        return Err(hostile("is a folder with content"));
    }
    Ok(Member { name, size: head.size(), is_folder })
}

/// A name that leads nowhere but below the folder it is unpacked in.
fn plain(raw: &[u8]) -> Result<String, &'static str> {
    let name = std::str::from_utf8(raw).map_err(|_| "has a name that isn't text")?;
    if name.len() as u64 > MOST_NAME || name.chars().any(char::is_control) {
        return Err("has a name that no checkpoint's file has");
    }
    let mut parts = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            Component::CurDir => {}
            Component::ParentDir => return Err("leads out of its folder"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute path"),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests;

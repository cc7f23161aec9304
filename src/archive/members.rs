//! The members of a tar archive that anybody may have made.
//!
//! The `tar` crate parses headers; walking from one to the next is done here, because the
//! crate reads a long name or a PAX header into memory however big it claims to be.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, Read};
use std::path::{Component, Path};

use tar::{EntryType, Header, PaxExtensions};

use super::import::Error;

const BLOCK: usize = 512;
const MOST_NAME: u64 = 4096;
/// As much as Go's reader takes.
const MOST_PAX: u64 = 1 << 20;
/// A name, a link's name, and one PAX header of either kind.
const MOST_EXTENSIONS: u32 = 4;

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
    input: R,
    room: &'a Room,
    left: u64,
    padding: u64,
}

/// What stands before a member's own header.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    count: u32,
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
        Members { input, room, left: 0, padding: 0 }
    }

    /// The next member; nothing at the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Error> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return if extensions.count == 0 { Ok(None) } else { Err(Error::Cut) };
            };
            let kind = header.entry_type();
            if !kind.is_gnu_longname() && !is_pax(kind) {
                return self.member(&header, extensions).map(Some);
            }
            extensions.count += 1;
            if extensions.count > MOST_EXTENSIONS {
                return Err(Error::NoTar("a member has too many headers"));
            }
            self.extension(&header, &mut extensions)?;
        }
    }

    /// What comes after the last member: padding and the checksum of a compression, which
    /// is checked by reading it.
    pub(super) fn read_to_end(&mut self) -> Result<(), Error> {
        let rest = (&mut self.input).take(MOST_PAX);
        io::copy(&mut { rest }, &mut io::sink()).map_err(Error::reading).map(drop)
    }

    fn skip_rest(&mut self) -> Result<(), Error> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink()).map_err(Error::reading)?;
        (self.left, self.padding) = (0, 0);
        if skipped == rest { Ok(()) } else { Err(Error::Cut) }
    }

    /// Nothing at the mark that ends an archive.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let mut header = Header::new_old();
        self.input.read_exact(header.as_mut_bytes()).map_err(Error::reading)?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum counts its own field as spaces.
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let expected = sum(bytes) - sum(&bytes[148..156]) + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(expected) {
            return Err(Error::NoTar("a member's header isn't one"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, header: &Header, extensions: &mut Extensions) -> Result<(), Error> {
        let (kind, size) = (header.entry_type(), size(header)?);
        let most = if kind.is_gnu_longname() { MOST_NAME } else { MOST_PAX };
        if size > most {
            return Err(Error::NoTar("a member's header is far too large"));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        io::copy(self, &mut bytes).map_err(Error::reading)?;
        if kind.is_gnu_longname() {
            let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            extensions.name = Some(name.to_owned());
        } else if kind.is_pax_local_extensions() {
            extensions.add(&bytes)?;
        }
        Ok(())
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> Result<Member, Error> {
        let raw = extensions.name.map_or_else(|| header.path_bytes(), Cow::Owned);
        let shown = String::from_utf8_lossy(&raw);
        let hostile = |problem| Error::hostile(&shown, problem);
        let is_folder = match header.entry_type() {
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
        let size = extensions.size.map_or_else(|| size(header), Ok)?;
        if is_folder && size > 0 {
            return Err(hostile("is a folder with content"));
        }
        self.room.take(&name, size)?;
        self.begin(size);
        Ok(Member { name, size, is_folder })
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }
}

impl<R: Read> Read for Members<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl Extensions {
    fn add(&mut self, pax: &[u8]) -> Result<(), Error> {
        for extension in PaxExtensions::new(pax) {
            let extension = extension.map_err(|_| Error::NoTar("a member's PAX header isn't one"))?;
            let value = extension.value_bytes();
            match extension.key_bytes() {
                b"path" => self.name = Some(value.to_owned()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.size =
                        Some(size.filter(is_sane).ok_or(Error::NoTar("a member's size is no number"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    let name = self.name.as_deref().unwrap_or(value);
                    return Err(Error::hostile(&String::from_utf8_lossy(name), "is a sparse member"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_pax(kind: EntryType) -> bool {
    kind.is_pax_local_extensions() || kind.is_pax_global_extensions()
}

fn size(header: &Header) -> Result<u64, Error> {
    header.entry_size().ok().filter(is_sane).ok_or(Error::NoTar("a member's size is no number"))
}

/// No file is larger, and with padding it is still a number.
fn is_sane(size: &u64) -> bool {
    *size <= i64::MAX as u64
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

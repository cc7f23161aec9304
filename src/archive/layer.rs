//! Writing one layer: a tar archive that is the same whenever it is written from the same files.

use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use super::export::Error;

const BUFFER: usize = 1 << 18;
const BLOCK: u64 = 512;
const ZEROES: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// Opens a file at its beginning; called once for every pass.
pub(super) type Open<'a> = Box<dyn Fn() -> io::Result<Box<dyn Read>> + 'a>;

pub(super) enum Content<'a> {
    Folder,
    Bytes(&'a [u8]),
    File { size: u64, open: Open<'a> },
}

pub(super) struct Member<'a> {
    pub(super) name: String,
    pub(super) content: Content<'a>,
}

/// A tar archive whose members all have the same owner and time.
pub(super) struct Tape<W: Write> {
    builder: Builder<W>,
    /// Seconds since 1970.
    time: u64,
}

impl Member<'_> {
    pub(super) fn size(&self) -> u64 {
        match &self.content {
            Content::Folder => 0,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { size, .. } => *size,
        }
    }
}

impl<W: Write> Tape<W> {
    pub(super) fn new(out: W, time: u64) -> Tape<W> {
        Tape { builder: Builder::new(out), time }
    }

    pub(super) fn member(&mut self, member: &Member<'_>, advance: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let (kind, mode) = match member.content {
            Content::Folder => (EntryType::Directory, 0o700),
            _ => (EntryType::Regular, 0o600),
        };
        self.header(&member.name, member.size(), kind, mode)?;
        match &member.content {
            Content::Folder => Ok(()),
            Content::Bytes(bytes) => self.bytes(bytes),
            Content::File { size, open } => {
                let failed = |source| Error::Read { name: member.name.clone(), source };
                let mut file = open().map_err(failed)?;
                self.file(&member.name, *size, &mut *file, advance)
            }
        }
    }

    /// A member whose content the caller writes next, and ends by [`Tape::pad`].
    pub(super) fn begin(&mut self, name: &str, size: u64) -> Result<&mut W, Error> {
        self.header(name, size, EntryType::Regular, 0o600)?;
        Ok(self.builder.get_mut())
    }

    pub(super) fn pad(&mut self, size: u64) -> Result<(), Error> {
        let padding = size.next_multiple_of(BLOCK) - size;
        let padding = ZEROES.get(..usize::try_from(padding).unwrap_or(0)).unwrap_or_default();
        self.builder.get_mut().write_all(padding).map_err(Error::Write)
    }

    pub(super) fn finish(self) -> Result<W, Error> {
        self.builder.into_inner().map_err(Error::Write)
    }

    fn header(&mut self, name: &str, size: u64, kind: EntryType, mode: u32) -> Result<(), Error> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(self.time);
        header.set_uid(0);
        header.set_gid(0);
        self.builder.append_data(&mut header, name, io::empty()).map_err(Error::Write)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.builder.get_mut().write_all(bytes).map_err(Error::Write)?;
        self.pad(bytes.len() as u64)
    }

    fn file(
        &mut self,
        name: &str,
        size: u64,
        file: &mut dyn Read,
        advance: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let failed = |source| Error::Read { name: name.to_owned(), source };
        let mut buffer = vec![0; BUFFER];
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let read = file.read(&mut buffer[..length]).map_err(failed)?;
            if read == 0 {
                return Err(Error::Changed);
            }
            self.builder.get_mut().write_all(&buffer[..read]).map_err(Error::Write)?;
            advance(read as u64);
            left -= read as u64;
        }
        if file.read(&mut buffer[..1]).map_err(failed)? > 0 {
            return Err(Error::Changed);
        }
        self.pad(size)
    }
}

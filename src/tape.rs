//! The members of a tar archive that anybody may have made, one after the other.
//!
//! The `tar` crate knows what a header says. Walking from one to the next is done here,
//! because the crate reads a long name or a PAX header into memory however big it claims to
//! be, and ends a record of a PAX header at the first newline, which may well be in an
//! attribute's value.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use tar::{EntryType, Header};

use crate::compressed;

pub(crate) const BLOCK: usize = 512;
/// Of a member, and of what a link leads to; no path that can be opened is longer.
pub(crate) const MOST_NAME: u64 = 4096;
/// As much as Go's reader takes.
const MOST_PAX: u64 = 1 << 20;
/// A name, a link's name, and one PAX header of either kind.
const MOST_EXTENSIONS: u32 = 4;
const BUFFER: usize = 1 << 17;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Io(io::Error),
    #[error("it is cut short")]
    Cut,
    #[error("{0}")]
    NoTar(&'static str),
}

/// Also a reader, of the member that [`Tape::next`] returned last.
pub(crate) struct Tape<R> {
    input: R,
    skip: fn(&mut R, u64) -> io::Result<()>,
    left: u64,
    padding: u64,
}

/// A key of a PAX header, and its value.
type Record = (Vec<u8>, Vec<u8>);

/// What is said about a member before its content.
pub(crate) struct Head {
    header: Header,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: u64,
    records: Vec<Record>,
}

/// What stands before a member's own header.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Vec<Record>,
    count: u32,
}

impl<R: Read> Tape<R> {
    pub(crate) fn new(input: R) -> Tape<R> {
        Tape { input, skip: read_over, left: 0, padding: 0 }
    }

    /// The next member; nothing at the archive's end.
    pub(crate) fn next(&mut self) -> Result<Option<Head>, Error> {
        let mut extensions = Extensions::default();
        loop {
            let rest = self.left + self.padding;
            (self.skip)(&mut self.input, rest).map_err(reading)?;
            (self.left, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                return if extensions.count == 0 { Ok(None) } else { Err(Error::Cut) };
            };
            let kind = header.entry_type();
            if !kind.is_gnu_longname() && !kind.is_gnu_longlink() && !is_pax(kind) {
                return self.member(header, extensions).map(Some);
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
    pub(crate) fn read_to_end(&mut self) -> Result<(), Error> {
        let rest = (&mut self.input).take(MOST_PAX);
        io::copy(&mut { rest }, &mut io::sink()).map_err(reading).map(drop)
    }

    /// Nothing at the mark that ends an archive.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let mut header = Header::new_old();
        self.input.read_exact(header.as_mut_bytes()).map_err(reading)?;
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
        let most = if is_pax(kind) { MOST_PAX } else { MOST_NAME };
        if size > most {
            return Err(Error::NoTar("a member's header is far too large"));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        io::copy(self, &mut bytes).map_err(reading)?;
        let text = || Some(bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_owned());
        if kind.is_gnu_longname() {
            extensions.name = text();
        } else if kind.is_gnu_longlink() {
            extensions.link = text();
        } else if kind.is_pax_local_extensions() {
            extensions.records.extend(records(&bytes)?);
        }
        Ok(())
    }

    fn member(&mut self, header: Header, extensions: Extensions) -> Result<Head, Error> {
        let Extensions { name, link, records, count: _ } = extensions;
        let mut head = Head { size: size(&header)?, header, name, link, records };
        if let Some(size) = head.number(b"size")? {
            head.size = size;
        }
        self.begin(head.size);
        Ok(head)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }
}

/// What can be read more than once: a file, that may be compressed.
pub(crate) enum Source {
    /// What isn't read of it isn't looked at.
    Plain(BufReader<File>),
    Compressed(Box<dyn Read>),
}

impl Source {
    /// From its beginning.
    pub(crate) fn of(file: &File) -> io::Result<Source> {
        let mut file = file.try_clone()?;
        file.rewind()?;
        let is_plain = !compressed::is_compressed(&file)?;
        Ok(match is_plain {
            true => Source::Plain(BufReader::with_capacity(BUFFER, file)),
            false => Source::Compressed(compressed::opened(file)?),
        })
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(file) => file.read(buffer),
            Source::Compressed(content) => content.read(buffer),
        }
    }
}

impl Tape<Source> {
    pub(crate) fn of_file(file: &File) -> io::Result<Tape<Source>> {
        Ok(Tape { skip: pass_over, ..Tape::new(Source::of(file)?) })
    }
}

fn pass_over(input: &mut Source, bytes: u64) -> io::Result<()> {
    match input {
        Source::Plain(file) => leap_over(file, bytes),
        Source::Compressed(content) => read_over(content, bytes),
    }
}

fn read_over<R: Read>(input: &mut R, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut input.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn leap_over(input: &mut BufReader<File>, bytes: u64) -> io::Result<()> {
    let left = input.get_ref().metadata()?.len().saturating_sub(input.stream_position()?);
    let step = i64::try_from(bytes).ok().filter(|_| bytes <= left).ok_or(io::ErrorKind::UnexpectedEof)?;
    input.seek_relative(step)
}

impl<R: Read> Read for Tape<R> {
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

impl Head {
    pub(crate) fn kind(&self) -> EntryType {
        self.header.entry_type()
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Of its content in the archive.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn name(&self) -> Cow<'_, [u8]> {
        match self.record(b"path").or(self.name.as_deref()) {
            Some(name) => Cow::Borrowed(name),
            None => self.header.path_bytes(),
        }
    }

    /// What a link leads to.
    pub(crate) fn link(&self) -> Cow<'_, [u8]> {
        match self.record(b"linkpath").or(self.link.as_deref()) {
            Some(link) => Cow::Borrowed(link),
            None => self.header.link_name_bytes().unwrap_or_default(),
        }
    }

    /// Of the last record of that name.
    pub(crate) fn record(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.records.iter().rev().find(|(found, _)| found == key);
        found.map(|(_, value)| value.as_slice())
    }

    /// Those whose names begin so, without that.
    pub(crate) fn records<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.records
            .iter()
            .filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_slice())))
    }

    pub(crate) fn number(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        let Some(value) = self.record(key) else { return Ok(None) };
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        number.filter(is_sane).map(Some).ok_or(Error::NoTar("a member's size or owner is no number"))
    }
}

fn records(pax: &[u8]) -> Result<Vec<Record>, Error> {
    let (mut records, mut rest) = (Vec::new(), pax);
    // Some fill the block with zeroes.
    while !rest.is_empty() && rest[0] != 0 {
        let (record, after) = record(rest).ok_or(Error::NoTar("a member's PAX header isn't one"))?;
        records.push(record);
        rest = after;
    }
    Ok(records)
}

/// `LENGTH KEY=VALUE` and a newline; the length is that of all of it.
fn record(pax: &[u8]) -> Option<(Record, &[u8])> {
    let blank = pax.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&pax[..blank]).ok()?.parse().ok()?;
    let (whole, rest) = pax.split_at_checked(length)?;
    let said = whole.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = said.iter().position(|byte| *byte == b'=')?;
    Some(((said[..equals].to_owned(), said[equals + 1..].to_owned()), rest))
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

fn reading(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Cut,
        _ => Error::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_pax_header_may_hold_anything() {
        let pax = b"20 SCHILY.xattr.a=\n\n13 path=x\xff y\n\0\0";
        let found = records(pax).unwrap();
        assert_eq!(found[0], (b"SCHILY.xattr.a".to_vec(), b"\n".to_vec()));
        assert_eq!(found[1], (b"path".to_vec(), b"x\xff y".to_vec()));
        for bad in [&b"x"[..], b"5 a=b", b"7 a=bc", b"5 a=b\n", b"4 ab\n", b"999999999 a=b\n", b"0 a=b\n"] {
            assert!(records(bad).is_err(), "{bad:?}");
        }
    }
}

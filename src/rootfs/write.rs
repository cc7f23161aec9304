//! Members of a layer, as they are written: in the form of ustar, with a PAX header for all
//! that doesn't fit into it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::Stat;
use tar::{Builder, EntryType, Header};

use super::member::XATTR;
use crate::tape::BLOCK;

const BUFFER: u64 = 1 << 20;
/// The greatest number that seven octal digits can say.
const MOST_OCTAL: u64 = 0o7_777_777;
/// The same for a size, with eleven.
const MOST_SIZE: u64 = 0o77_777_777_777;
/// A few holes aren't worth a form that not everybody reads.
const LEAST_HOLES: u64 = 64 << 10;
/// All of them are read before the content.
pub(super) const MOST_SPANS: usize = 1 << 18;

pub(super) struct Tape<W: Write> {
    builder: Builder<W>,
}

type Records = Vec<(String, Vec<u8>)>;

/// What everything has, whatever it is.
pub(super) struct Member<'a> {
    pub(super) path: &'a Path,
    pub(super) found: &'a Stat,
    pub(super) attributes: Vec<(String, Vec<u8>)>,
}

impl<W: Write> Tape<W> {
    pub(super) fn new(out: W) -> Tape<W> {
        Tape { builder: Builder::new(out) }
    }

    pub(super) fn folder(&mut self, member: &Member<'_>) -> io::Result<()> {
        let mut name = member.path.as_os_str().as_bytes().to_vec();
        name.push(b'/');
        self.begin(&name, EntryType::Directory, member, 0, Records::new(), |_| Ok(()))
    }

    /// The content is what the spans cover.
    pub(super) fn file(
        &mut self,
        member: &Member<'_>,
        file: &File,
        size: u64,
        spans: &[Range<u64>],
    ) -> io::Result<()> {
        let data = spans.iter().fold(0, |sum, span| sum + span.end - span.start);
        let name = member.path.as_os_str().as_bytes();
        if size - data < LEAST_HOLES || spans.len() > MOST_SPANS {
            self.begin(name, EntryType::Regular, member, size, Records::new(), |_| Ok(()))?;
            self.copy(file, &(0..size))?;
            return self.pad(size);
        }
        let map = map(spans, size);
        let numbers = [("major", 1), ("minor", 0), ("realsize", size)];
        let record =
            |(key, number): (&str, u64)| (format!("GNU.sparse.{key}"), number.to_string().into_bytes());
        let mut records: Records = numbers.into_iter().map(record).collect();
        records.push(("GNU.sparse.name".to_owned(), name.to_owned()));
        // Whoever doesn't know this form unpacks it into a folder that nobody uses.
        let place = [b"GNUSparseFile.0/", member.path.file_name().unwrap_or_default().as_bytes()].concat();
        let stored = map.len() as u64 + data;
        self.begin(&place, EntryType::Regular, member, stored, records, |_| Ok(()))?;
        self.builder.get_mut().write_all(&map)?;
        spans.iter().try_for_each(|span| self.copy(file, span))?;
        self.pad(stored)
    }

    pub(super) fn link(&mut self, member: &Member<'_>, first: &Path) -> io::Result<()> {
        let name = member.path.as_os_str().as_bytes();
        self.linking(name, EntryType::Link, member, first.as_os_str().as_bytes())
    }

    pub(super) fn symlink(&mut self, member: &Member<'_>, to: &OsStr) -> io::Result<()> {
        let name = member.path.as_os_str().as_bytes();
        self.linking(name, EntryType::Symlink, member, to.as_bytes())
    }

    /// A device or a pipe.
    pub(super) fn node(&mut self, member: &Member<'_>, kind: EntryType) -> io::Result<()> {
        let (name, device) = (member.path.as_os_str().as_bytes(), member.found.st_rdev);
        self.begin(name, kind, member, 0, Records::new(), |header| {
            if kind == EntryType::Fifo {
                return Ok(());
            }
            header.set_device_major(rustix::fs::major(device))?;
            header.set_device_minor(rustix::fs::minor(device))
        })
    }

    /// Says that something is no longer there.
    pub(super) fn whiteout(&mut self, path: &Path) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        (header.as_old_mut().uid, header.as_old_mut().gid) = (*b"0000000\0", *b"0000000\0");
        header.set_mtime(0);
        header.set_size(0);
        self.write(path.as_os_str().as_bytes(), &mut header, Records::new())
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.builder.into_inner()
    }

    fn linking(&mut self, name: &[u8], kind: EntryType, member: &Member<'_>, to: &[u8]) -> io::Result<()> {
        let mut records = Records::new();
        if to.len() > 100 {
            records.push(("linkpath".to_owned(), to.to_owned()));
        }
        self.begin(name, kind, member, 0, records, |header| {
            let field = &mut header.as_old_mut().linkname;
            let fits = to.len().min(field.len());
            field[..fits].copy_from_slice(&to[..fits]);
            Ok(())
        })
    }

    fn begin(
        &mut self,
        name: &[u8],
        kind: EntryType,
        member: &Member<'_>,
        size: u64,
        mut records: Records,
        set: impl FnOnce(&mut Header) -> io::Result<()>,
    ) -> io::Result<()> {
        let found = member.found;
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(found.st_mode & 0o7777);
        let mut number = |key: &str, number: u64, most: u64| {
            if number > most {
                records.push((key.to_owned(), number.to_string().into_bytes()));
            }
            number.min(most)
        };
        header.set_uid(number("uid", found.st_uid.into(), MOST_OCTAL));
        header.set_gid(number("gid", found.st_gid.into(), MOST_OCTAL));
        header.set_size(number("size", size, MOST_SIZE));
        header.set_mtime(found.st_mtime.try_into().unwrap_or_default());
        records.push(("mtime".to_owned(), time(found)));
        let named = |(name, value): &(String, Vec<u8>)| (format!("{XATTR}{name}"), value.clone());
        records.extend(member.attributes.iter().map(named));
        set(&mut header)?;
        self.write(name, &mut header, records)
    }

    fn write(&mut self, name: &[u8], header: &mut Header, mut records: Records) -> io::Result<()> {
        let field = &mut header.as_old_mut().name;
        let fits = name.len().min(field.len());
        field[..fits].copy_from_slice(&name[..fits]);
        if fits < name.len() {
            records.push(("path".to_owned(), name.to_owned()));
        }
        header.set_cksum();
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(records)?;
        self.builder.get_mut().write_all(header.as_bytes())
    }

    fn copy(&mut self, file: &File, span: &Range<u64>) -> io::Result<()> {
        let mut buffer = vec![0; usize::try_from((span.end - span.start).min(BUFFER)).unwrap_or_default()];
        let mut at = span.start;
        while at < span.end {
            let most = usize::try_from((span.end - at).min(BUFFER)).unwrap_or_default();
            let read = file.read_at(&mut buffer[..most], at)?;
            if read == 0 {
                return Err(io::Error::other("somebody makes it shorter all the while"));
            }
            self.builder.get_mut().write_all(&buffer[..read])?;
            at += read as u64;
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let zeroes = [0; BLOCK];
        self.builder.get_mut().write_all(&zeroes[..usize::try_from(padding).unwrap_or_default()])
    }
}

/// Where the data of a sparse file belongs: numbers in lines, in whole blocks.
fn map(spans: &[Range<u64>], size: u64) -> Vec<u8> {
    // By the last one, be it empty, some know where the file ends.
    let ends_in_hole = spans.last().is_none_or(|last| last.end < size);
    let last = ends_in_hole.then_some(size..size);
    let mut text = format!("{}\n", spans.len() + usize::from(ends_in_hole));
    for span in spans.iter().cloned().chain(last) {
        text += &format!("{}\n{}\n", span.start, span.end - span.start);
    }
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Seconds since 1970 with a fraction, as PAX has them.
fn time(found: &Stat) -> Vec<u8> {
    let nanoseconds = i128::from(found.st_mtime) * 1_000_000_000 + i128::from(found.st_mtime_nsec);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let magnitude = nanoseconds.unsigned_abs();
    format!("{sign}{}.{:09}", magnitude / 1_000_000_000, magnitude % 1_000_000_000).into_bytes()
}

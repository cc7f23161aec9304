//! Members of a layer, as they are read. Whoever wrote them may have meant harm: nothing here
//! is believed but what can be said of a file in the container's own root file system.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::Timespec;
use tar::EntryType;

use super::write::MOST_SPANS;
use crate::tape::{BLOCK, Head, MOST_NAME};

/// Before the name of what is no longer there.
pub(super) const WHITEOUT: &str = ".wh.";
/// In a folder in which nothing is there any more that isn't in this layer.
pub(super) const OPAQUE: &str = ".wh..wh..opq";
/// What other tools have used such names for.
const RESERVED: &str = ".wh..wh.";
pub(super) const XATTR: &str = "SCHILY.xattr.";
const LONGEST_PART: usize = 255;
/// Those that the kernel gives no other meaning than a container could give them, too.
const CARRIED: [&str; 5] =
    ["user.", "trusted.", "security.capability", "system.posix_acl_access", "system.posix_acl_default"];
/// Of overlays below or above this one.
const OVERLAYS: [&str; 2] = ["trusted.overlay.", "user.overlay."];

/// What is said of one file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// From the root; empty for the root itself.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: Timespec,
    pub(super) attributes: Vec<(OsString, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    /// Its content begins with where its data belongs.
    Sparse {
        size: u64,
    },
    /// Another name of a file.
    Link(PathBuf),
    Symlink(OsString),
    Device {
        kind: rustix::fs::FileType,
        major: u32,
        minor: u32,
    },
    Fifo,
    /// What had this path is gone.
    Gone,
    /// So is what was in this folder.
    Opaque,
    /// Nothing for us.
    Nothing,
}

/// Why a member isn't trusted.
pub(super) type Problem = &'static str;

pub(super) fn entry(head: &Head) -> Result<Entry, Problem> {
    let header = head.header();
    let sparse = head.record(b"GNU.sparse.major").is_some();
    let name = head.name();
    let raw = if sparse { head.record(b"GNU.sparse.name").unwrap_or_default() } else { &name };
    let (path, marked) = place(raw)?;
    let kind = marked.map_or_else(|| kind(head, sparse), Ok)?;
    if head.size() > 0 && !matches!(kind, Kind::File | Kind::Sparse { .. } | Kind::Nothing) {
        return Err("has content, and is no file");
    }
    let owner = |key: &[u8], said: std::io::Result<u64>| {
        let number = head.number(key).map_err(|_| "has an owner that is none")?;
        let number = number.map_or(said, Ok).map_err(|_| "has an owner that is none")?;
        u32::try_from(number).map_err(|_| "has an owner that is none")
    };
    Ok(Entry {
        path,
        kind,
        mode: header.mode().map_err(|_| "has no permissions")? & 0o7777,
        uid: owner(b"uid", header.uid())?,
        gid: owner(b"gid", header.gid())?,
        modified: modified(head).ok_or("has a time that is none")?,
        attributes: attributes(head)?,
    })
}

fn kind(head: &Head, sparse: bool) -> Result<Kind, Problem> {
    let device = |kind| {
        let number =
            |said: std::io::Result<Option<u32>>| said.ok().flatten().ok_or("is a device without a number");
        let header = head.header();
        let (major, minor) = (number(header.device_major())?, number(header.device_minor())?);
        // An overlay would take that one for its own mark.
        if (major, minor) == (0, 0) { Err("is no device") } else { Ok(Kind::Device { kind, major, minor }) }
    };
    match head.kind() {
        EntryType::Regular | EntryType::Continuous if sparse => {
            let is_read = [(&b"GNU.sparse.major"[..], 1), (b"GNU.sparse.minor", 0)];
            if is_read.iter().any(|(key, number)| head.number(key).ok().flatten() != Some(*number)) {
                return Err("is sparse in a way that isn't read");
            }
            let size = head.number(b"GNU.sparse.realsize").ok().flatten();
            size.map(|size| Kind::Sparse { size }).ok_or("is sparse and has no size")
        }
        EntryType::Regular | EntryType::Continuous if head.name().ends_with(b"/") => Ok(Kind::Folder),
        EntryType::Regular | EntryType::Continuous => Ok(Kind::File),
        EntryType::Directory => Ok(Kind::Folder),
        EntryType::Link => match place(&head.link())? {
            (path, None) if !path.as_os_str().is_empty() => Ok(Kind::Link(path)),
            _ => Err("is a link to nothing that can be linked"),
        },
        EntryType::Symlink => {
            let to = head.link();
            let fits = !to.is_empty() && to.len() as u64 <= MOST_NAME && !to.contains(&0);
            if fits {
                Ok(Kind::Symlink(OsString::from_vec(to.into_owned())))
            } else {
                Err("is a link to nothing")
            }
        }
        EntryType::Char => device(rustix::fs::FileType::CharacterDevice),
        EntryType::Block => device(rustix::fs::FileType::BlockDevice),
        EntryType::Fifo => Ok(Kind::Fifo),
        _ => Err("is no file of a kind that layers have"),
    }
}

/// A path that leads nowhere but below the root, and what a marked name says of it.
fn place(raw: &[u8]) -> Result<(PathBuf, Option<Kind>), Problem> {
    if raw.starts_with(b"/") {
        return Err("has an absolute path");
    }
    if raw.len() as u64 >= MOST_NAME {
        return Err("has too long a path");
    }
    let parts = raw.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let (mut path, mut marked) = (PathBuf::new(), None);
    for part in parts {
        if marked.is_some() {
            return Err("lies in what it says is gone");
        }
        if part == b".." {
            return Err("leads out of the root file system");
        }
        if part.len() > LONGEST_PART || part.contains(&0) {
            return Err("has a name that no file has");
        }
        if part == OPAQUE.as_bytes() {
            marked = Some(Kind::Opaque);
        } else if part.starts_with(RESERVED.as_bytes()) {
            marked = Some(Kind::Nothing);
        } else if let Some(gone) = part.strip_prefix(WHITEOUT.as_bytes()) {
            if matches!(gone, b"" | b"." | b"..") {
                return Err("names nothing that could be gone");
            }
            path.push(OsStr::from_bytes(gone));
            marked = Some(Kind::Gone);
        } else {
            path.push(OsStr::from_bytes(part));
        }
    }
    Ok((path, marked))
}

/// Whether an attribute travels.
pub(super) fn is_carried(name: &str) -> bool {
    CARRIED.iter().any(|carried| name.starts_with(carried))
        && !OVERLAYS.iter().any(|own| name.starts_with(own))
        && !name.contains('=')
}

fn attributes(head: &Head) -> Result<Vec<(OsString, Vec<u8>)>, Problem> {
    let mut attributes = Vec::new();
    for (name, value) in head.records(XATTR.as_bytes()) {
        // An overlay would take them for its own marks.
        if OVERLAYS.iter().any(|own| name.starts_with(own.as_bytes())) {
            return Err("has an attribute that belongs to overlays");
        }
        if std::str::from_utf8(name).is_ok_and(is_carried) {
            attributes.push((OsString::from_vec(name.to_owned()), value.to_owned()));
        }
    }
    Ok(attributes)
}

fn modified(head: &Head) -> Option<Timespec> {
    let Some(text) = head.record(b"mtime") else {
        return Some(Timespec { tv_sec: i64::try_from(head.header().mtime().ok()?).ok()?, tv_nsec: 0 });
    };
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (is_before, digits) = whole.strip_prefix('-').map_or((false, whole), |digits| (true, digits));
    if !is_digits(digits) || !is_digits(fraction) {
        return None;
    }
    let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (seconds, nanoseconds): (i64, i64) = (digits.parse().ok()?, nine.parse().ok()?);
    Some(match is_before {
        false => Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
        true if nanoseconds == 0 => Timespec { tv_sec: -seconds, tv_nsec: 0 },
        // The kernel counts the fraction forwards.
        true => Timespec { tv_sec: (-seconds).checked_sub(1)?, tv_nsec: 1_000_000_000 - nanoseconds },
    })
}

/// Where the data of a sparse file belongs, from the beginning of its content. Says how much
/// of that this was.
pub(super) fn spans(content: &mut impl std::io::Read, size: u64) -> std::io::Result<(Vec<(u64, u64)>, u64)> {
    let mut numbers = Numbers { content, block: [0; BLOCK], at: BLOCK, read: 0 };
    let count = numbers.next()?;
    let garbled = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    if count > MOST_SPANS as u64 + 1 {
        return Err(garbled());
    }
    let (mut spans, mut end) = (Vec::new(), 0);
    for _ in 0..count {
        let (from, length) = (numbers.next()?, numbers.next()?);
        let to = from.checked_add(length).filter(|to| from >= end && *to <= size);
        end = to.ok_or_else(garbled)?;
        spans.push((from, length));
    }
    Ok((spans, numbers.read))
}

/// Decimal numbers in lines, in whole blocks.
struct Numbers<'a, R> {
    content: &'a mut R,
    block: [u8; BLOCK],
    at: usize,
    read: u64,
}

impl<R: std::io::Read> Numbers<'_, R> {
    fn next(&mut self) -> std::io::Result<u64> {
        let garbled = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let (mut number, mut digits): (u64, u32) = (0, 0);
        loop {
            if self.at == BLOCK {
                self.content.read_exact(&mut self.block)?;
                (self.at, self.read) = (0, self.read + BLOCK as u64);
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' if digits > 0 => return Ok(number),
                b'0'..=b'9' => {
                    let longer = number.checked_mul(10).and_then(|ten| ten.checked_add((byte - b'0').into()));
                    (number, digits) = (longer.ok_or_else(garbled)?, digits + 1);
                }
                _ => return Err(garbled()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for (raw, path) in [("a/b", "a/b"), ("./a//b/", "a/b"), ("./", ""), ("a/.wh", "a/.wh")] {
            assert_eq!(place(raw.as_bytes()).unwrap(), (path.into(), None), "{raw}");
        }
        for (raw, path, kind) in [
            ("a/.wh.b", "a/b", Kind::Gone),
            ("a/.wh..wh..opq", "a", Kind::Opaque),
            (".wh..wh.plnk", "", Kind::Nothing),
        ] {
            assert_eq!(place(raw.as_bytes()).unwrap(), (path.into(), Some(kind)), "{raw}");
        }
        let long = "x".repeat(256);
        for raw in ["/a", "..", "a/../b", ".wh.", ".wh..", ".wh...", ".wh.a/b", "a\0", &long] {
            assert!(place(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn spans_are_read_in_whole_blocks_and_lie_one_after_the_other() {
        let padded = |text: &str| {
            let mut block = text.as_bytes().to_vec();
            block.resize(block.len().next_multiple_of(BLOCK), 0);
            block
        };
        let read = |text: &str| spans(&mut &padded(text)[..], 1000);
        assert_eq!(read("2\n0\n10\n990\n10\n").unwrap(), (vec![(0, 10), (990, 10)], 512));
        assert_eq!(read("0\n").unwrap(), (vec![], 512));
        for bad in
            ["", "x", "1\n0\n", "1\n\n1\n", "2\n0\n10\n5\n10\n", "1\n999\n2\n", "1\n-1\n2\n", "99999999999\n"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
        let most = u64::MAX;
        assert!(read(&format!("1\n{most}\n{most}\n")).is_err());
    }

    #[test]
    fn attributes_of_overlays_stay_behind() {
        for carried in ["user.x", "security.capability", "system.posix_acl_access", "trusted.x"] {
            assert!(is_carried(carried), "{carried}");
        }
        for left in [
            "trusted.overlay.opaque",
            "user.overlay.whiteout",
            "security.selinux",
            "security.ima",
            "user.a=b",
        ] {
            assert!(!is_carried(left), "{left}");
        }
    }
}

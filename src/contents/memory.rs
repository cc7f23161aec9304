//! A process's memory by mapping, and the words that it was started with.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use prost::Message;
use serde::{Serialize, Serializer};

use super::files::File;
use super::{Pages, first};

const MM: u32 = 0x5749_2820;
/// Longer command lines and environments aren't shown.
const MOST_WORDS: u64 = 4 << 20;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(uint64, tag = "8")]
    pub(super) arguments_start: u64,
    #[prost(uint64, tag = "9")]
    pub(super) arguments_end: u64,
    #[prost(uint64, tag = "10")]
    pub(super) environment_start: u64,
    #[prost(uint64, tag = "11")]
    pub(super) environment_end: u64,
    #[prost(uint32, tag = "12")]
    pub(super) executable: u32,
    #[prost(message, repeated, tag = "14")]
    pub(super) areas: Vec<Area>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Area {
    #[prost(uint64, tag = "1")]
    pub(super) start: u64,
    #[prost(uint64, tag = "2")]
    pub(super) end: u64,
    #[prost(uint64, tag = "3")]
    pub(super) offset: u64,
    /// A file's number, or that of shared memory.
    #[prost(uint64, tag = "4")]
    pub(super) object: u64,
    #[prost(uint32, tag = "5")]
    pub(super) protection: u32,
    #[prost(uint32, tag = "6")]
    pub(super) flags: u32,
    #[prost(uint32, tag = "7")]
    pub(super) status: u32,
}

const SHARED: u32 = 1;
const GROWS_DOWN: u32 = 0x100;
/// CRIU's words for what a mapping is, with ours; the first that fits holds.
const KINDS: [(u32, MappingKind); 11] = [
    (1 << 2, MappingKind::Vsyscall),
    (1 << 3, MappingKind::Vdso),
    (1 << 12, MappingKind::Vvar),
    (1 << 5, MappingKind::Heap),
    (1 << 1, MappingKind::Stack),
    (1 << 14, MappingKind::Memfd),
    (1 << 10, MappingKind::SystemV),
    (1 << 11, MappingKind::Socket),
    (1 << 13, MappingKind::AsynchronousIo),
    (1 << 8, MappingKind::SharedAnonymous),
    (1 << 6 | 1 << 7, MappingKind::File),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MappingKind {
    Anonymous,
    AsynchronousIo,
    File,
    Heap,
    Memfd,
    SharedAnonymous,
    Socket,
    Stack,
    SystemV,
    Vdso,
    Vsyscall,
    Vvar,
}

#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// Bytes that are mapped.
    pub(crate) mapped: u64,
    /// Bytes of its own whose content is in the image.
    pub(crate) dumped: u64,
    pub(crate) mappings: Vec<Mapping>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mapping {
    /// Addresses are texts like 0x7f0012345000: not every reader of JSON takes such numbers.
    #[serde(serialize_with = "hexadecimal")]
    pub(crate) start: u64,
    #[serde(serialize_with = "hexadecimal")]
    pub(crate) end: u64,
    /// As in /proc/PID/maps: `rw-p`, `r-xs`.
    pub(crate) permissions: String,
    pub(crate) kind: MappingKind,
    pub(crate) path: Option<String>,
    /// Where in the file, or in the shared memory, it begins.
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Bytes whose content is in the image. The others are zero, or as the file has them.
    pub(crate) dumped: u64,
    /// CRIU's number for memory that others may have mapped, too.
    pub(crate) shared: Option<u64>,
}

/// What `mm-PID.img` tells.
pub(super) struct Found {
    pub(super) memory: Memory,
    pub(super) executable: u32,
    pub(super) arguments: (u64, u64),
    pub(super) environment: (u64, u64),
}

pub(super) fn read(
    folder: &Path,
    pid: u32,
    pages: &Pages,
    files: &BTreeMap<u32, Rc<File>>,
) -> io::Result<Option<Found>> {
    let Some(entry) = first::<Entry>(folder, &format!("mm-{pid}.img"), MM)? else { return Ok(None) };
    let mut shared = BTreeMap::new();
    let mut mappings = Vec::new();
    for area in &entry.areas {
        let mut mapping = Mapping::of(area, pages, files);
        if let Some(id) = mapping.shared {
            let pages = match shared.entry(id) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(Pages::open(folder, &format!("shmem-{id}"))?)
                }
            };
            mapping.dumped = pages.bytes_within(area.offset, area.offset.saturating_add(mapping.size));
        }
        mappings.push(mapping);
    }
    let mapped = mappings.iter().fold(0u64, |sum, mapping| sum.saturating_add(mapping.size));
    Ok(Some(Found {
        memory: Memory { mapped, dumped: pages.bytes(), mappings },
        executable: entry.executable,
        arguments: (entry.arguments_start, entry.arguments_end),
        environment: (entry.environment_start, entry.environment_end),
    }))
}

/// Texts that end with a zero each, as a program's arguments lie in its memory.
pub(super) fn strings(pages: &Pages, (start, end): (u64, u64)) -> Option<Vec<String>> {
    let length = end.checked_sub(start).filter(|length| *length <= MOST_WORDS)?;
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    pages.read(start, &mut bytes).ok()??;
    // A program may have written over them to be shown by another name.
    let used = bytes.trim_ascii_end().iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    Some(bytes[..used].split(|byte| *byte == 0).filter(|_| used > 0).map(text).collect())
}

impl Mapping {
    fn of(area: &Area, pages: &Pages, files: &BTreeMap<u32, Rc<File>>) -> Mapping {
        let kind = KINDS.into_iter().find(|(bits, _)| area.status & bits != 0);
        let kind = match kind {
            Some((_, kind)) => kind,
            None if area.flags & GROWS_DOWN != 0 => MappingKind::Stack,
            None => MappingKind::Anonymous,
        };
        let of_file = matches!(kind, MappingKind::File | MappingKind::Memfd);
        let of_all = matches!(kind, MappingKind::SharedAnonymous | MappingKind::SystemV);
        let file = u32::try_from(area.object).ok().and_then(|id| files.get(&id)).filter(|_| of_file);
        Mapping {
            start: area.start,
            end: area.end,
            permissions: permissions(area),
            kind,
            path: file.and_then(|file| file.path.clone()),
            offset: area.offset,
            size: area.end.saturating_sub(area.start),
            dumped: pages.bytes_within(area.start, area.end),
            shared: of_all.then_some(area.object).or_else(|| file?.memory.map(u64::from)),
        }
    }

    /// What it is, for people.
    pub(crate) fn what(&self) -> String {
        self.path.clone().unwrap_or_else(|| format!("[{}]", self.kind.name()))
    }
}

impl MappingKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            MappingKind::Anonymous => "anonymous",
            MappingKind::AsynchronousIo => "asynchronous I/O",
            MappingKind::File => "file",
            MappingKind::Heap => "heap",
            MappingKind::Memfd => "memfd",
            MappingKind::SharedAnonymous => "shared anonymous",
            MappingKind::Socket => "socket",
            MappingKind::Stack => "stack",
            MappingKind::SystemV => "System V shared memory",
            MappingKind::Vdso => "vdso",
            MappingKind::Vsyscall => "vsyscall",
            MappingKind::Vvar => "vvar",
        }
    }
}

fn permissions(area: &Area) -> String {
    let letter = |bit: u32, letter| if area.protection & bit == 0 { '-' } else { letter };
    let kind = if area.flags & SHARED == 0 { 'p' } else { 's' };
    [letter(1, 'r'), letter(2, 'w'), letter(4, 'x'), kind].into_iter().collect()
}

fn hexadecimal<S: Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{address:#x}"))
}

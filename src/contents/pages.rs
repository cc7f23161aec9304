//! The pages of one address space, or of one piece of shared memory: where they are mapped,
//! and where their content lies in the image.

use std::fs;
use std::io;
use std::path::Path;

use cryo::criu::messages::{MOST_LISTED, Messages};
use cryo::pages::memory::{Memory, form};
use cryo::store::packs_beside;
use prost::Message;

const PAGEMAP: u32 = 0x5608_4025;
/// CRIU's flags: the content is in an older image that this one continues, or in this one.
const IN_PARENT: u32 = 1;
const PRESENT: u32 = 4;
pub(crate) const PAGE: u64 = 4096;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Head {
    #[prost(uint32, tag = "1")]
    pub(super) pages: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(uint64, tag = "1")]
    pub(super) address: u64,
    /// By an older CRIU.
    #[prost(uint32, tag = "2")]
    pub(super) few: u32,
    #[prost(bool, optional, tag = "3")]
    pub(super) in_parent: Option<bool>,
    #[prost(uint32, optional, tag = "4")]
    pub(super) flags: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) count: Option<u64>,
}

/// Pages whose content lies one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u64,
    end: u64,
    /// In the file of pages; nowhere if an older image has them.
    offset: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// Ascending, none overlaps the next.
    runs: Vec<Run>,
    /// Missing if the file is elsewhere.
    content: Option<Memory>,
}

impl Pages {
    /// Of a process, or (as `shmem-ID`) of shared memory. Who has none has no such file.
    pub(crate) fn open(folder: &Path, whose: &str) -> io::Result<Pages> {
        let path = folder.join(format!("pagemap-{whose}.img"));
        let mut messages = match Messages::<Entry>::open(&path, PAGEMAP, MOST_LISTED) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pages::default()),
            messages => messages?,
        };
        let head: Head = messages.head()?;
        let runs = runs(messages)?;
        let name = format!("pages-{}.img", head.pages);
        let content = match form(folder, &name) {
            None => None,
            Some(_) => Some(Memory::open(folder, &name, &packs_beside(folder)).map_err(other)?),
        };
        Ok(Pages { runs, content })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// How much of a range the image holds.
    pub(crate) fn bytes_within(&self, start: u64, end: u64) -> u64 {
        self.within(start, end).map(|run| run.end - run.start).sum()
    }

    /// The parts of a range that the image holds.
    pub(crate) fn ranges_within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        self.within(start, end).map(|run| (run.start, run.end))
    }

    fn within(&self, start: u64, end: u64) -> impl Iterator<Item = Run> {
        let first = self.runs.partition_point(|run| run.end <= start);
        // The range may be damaged, too, and end before it begins.
        let end = end.max(start);
        self.runs[first..].iter().take_while(move |run| run.start < end).map(move |run| Run {
            start: run.start.max(start),
            end: run.end.min(end),
            offset: run.offset.map(|offset| offset + start.saturating_sub(run.start)),
        })
    }

    /// What lay at an address; nothing if some of it isn't in this image.
    pub(crate) fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<Option<()>> {
        let Some(content) = &self.content else { return Ok(None) };
        let Some(end) = address.checked_add(buffer.len() as u64) else { return Ok(None) };
        let mut at = address;
        for run in self.within(address, end) {
            let (true, Some(offset)) = (run.start == at, run.offset) else { return Ok(None) };
            let from = usize::try_from(run.start - address).unwrap_or(usize::MAX);
            let to = usize::try_from(run.end - address).unwrap_or(usize::MAX);
            let Some(part) = buffer.get_mut(from..to) else { return Ok(None) };
            content.read_exact_at(part, offset).map_err(other)?;
            at = run.end;
        }
        Ok((at == end).then_some(()))
    }
}

/// Bytes of memory that processes share.
pub(super) fn shared(folder: &Path) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let whose = name.to_str().and_then(|name| name.strip_prefix("pagemap-")?.strip_suffix(".img"));
        if let Some(whose) = whose.filter(|whose| whose.starts_with("shmem-")) {
            bytes = bytes.saturating_add(Pages::open(folder, whose)?.bytes());
        }
    }
    Ok(bytes)
}

fn runs(entries: impl Iterator<Item = io::Result<Entry>>) -> io::Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut offset: u64 = 0;
    for entry in entries {
        let entry = entry?;
        let length = entry.count.unwrap_or(entry.few.into()).checked_mul(PAGE);
        let end = length.and_then(|length| entry.address.checked_add(length));
        let after = length.and_then(|length| offset.checked_add(length));
        let (Some(end), Some(after)) = (end, after) else { return Err(bad("pages beyond all memory")) };
        if runs.last().is_some_and(|last| last.end > entry.address) {
            return Err(bad("pages in no order"));
        }
        let in_parent = entry.in_parent == Some(true);
        let flags = entry.flags.unwrap_or(if in_parent { IN_PARENT } else { PRESENT });
        let present = flags & PRESENT != 0;
        if present || flags & IN_PARENT != 0 {
            runs.push(Run { start: entry.address, end, offset: present.then_some(offset) });
        }
        if present {
            offset = after;
        }
    }
    Ok(runs)
}

fn other(error: cryo::pages::Error) -> io::Error {
    io::Error::other(error.in_image())
}

fn bad(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its memory can't be right: {problem}"))
}

//! How much of the memory changed, page by page.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::things::named;
use crate::contents::{Contents, Mapping, PAGE, Pages, Process};

/// What is read at once of either image.
const CHUNK: u64 = 64 * PAGE;

/// In bytes, of whole pages. What isn't in an image is zero, or as a file has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Amount {
    /// In both images, with another content.
    pub(super) changed: u64,
    /// In the newer one alone.
    pub(super) new: u64,
    /// In the older one alone.
    pub(super) gone: u64,
    /// In both, but one image lacks the content: it is elsewhere.
    pub(super) unknown: u64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct MemoryChange {
    #[serde(flatten)]
    pub(super) total: Amount,
    /// Those whose memory differs.
    pub(super) processes: Vec<ProcessChange>,
}

#[derive(Debug, Serialize)]
pub(super) struct ProcessChange {
    pub(super) pid: u32,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) total: Amount,
    /// None if only one of the checkpoints has the process.
    pub(super) mappings: Vec<MappingChange>,
}

#[derive(Debug, Serialize)]
pub(super) struct MappingChange {
    /// `7f0012345000-7f0012346000`, or `fd 7` for memory that is open and not mapped.
    pub(super) place: String,
    pub(super) what: String,
    #[serde(flatten)]
    pub(super) amount: Amount,
}

impl Amount {
    fn add(&mut self, other: Amount) {
        let pairs = [
            (&mut self.changed, other.changed),
            (&mut self.new, other.new),
            (&mut self.gone, other.gone),
            (&mut self.unknown, other.unknown),
        ];
        for (sum, more) in pairs {
            *sum = sum.saturating_add(more);
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        *self == Amount::default()
    }
}

impl MemoryChange {
    pub(super) fn is_same(&self) -> bool {
        self.total.is_nothing()
    }

    fn add(&mut self, process: &Process, total: Amount, mappings: Vec<MappingChange>) {
        if !total.is_nothing() {
            self.total.add(total);
            self.processes.push(ProcessChange { pid: process.pid, name: named(process), total, mappings });
        }
    }
}

type Side<'a> = (&'a Path, &'a Contents);

pub(super) fn compare((old_folder, old): Side<'_>, (new_folder, new): Side<'_>) -> io::Result<MemoryChange> {
    let mut found = MemoryChange::default();
    let mut compared = BTreeSet::new();
    for process in &new.processes {
        let before = old.processes.iter().find(|before| before.pid == process.pid);
        let Some(before) = before else {
            let new = process.memory.as_ref().map_or(0, |memory| memory.dumped);
            found.add(process, Amount { new, ..Amount::default() }, Vec::new());
            continue;
        };
        let mut pair = Pair { old_folder, new_folder, compared: &mut compared };
        let mappings = pair.compare(before, process)?;
        let mut total = Amount::default();
        mappings.iter().for_each(|mapping| total.add(mapping.amount));
        found.add(process, total, mappings);
    }
    for process in &old.processes {
        if new.processes.iter().all(|after| after.pid != process.pid) {
            let gone = process.memory.as_ref().map_or(0, |memory| memory.dumped);
            found.add(process, Amount { gone, ..Amount::default() }, Vec::new());
        }
    }
    Ok(found)
}

/// One process in two images.
struct Pair<'a> {
    old_folder: &'a Path,
    new_folder: &'a Path,
    /// Shared memory of the newer image that counts already.
    compared: &'a mut BTreeSet<u64>,
}

impl Pair<'_> {
    fn compare(&mut self, old: &Process, new: &Process) -> io::Result<Vec<MappingChange>> {
        let old_pages = Pages::open(self.old_folder, &old.pid.to_string())?;
        let new_pages = Pages::open(self.new_folder, &new.pid.to_string())?;
        let (before, after) = (mappings(old), mappings(new));
        let mut changes = Vec::new();
        for mapping in after {
            let amount = match mapping.shared {
                Some(id) => {
                    let same = before.iter().find(|before| before.start == mapping.start);
                    self.shared(same.and_then(|before| before.shared), id)?
                }
                None => within(&old_pages, &new_pages, (mapping.start, mapping.end))?,
            };
            changes.extend(MappingChange::of(addresses(mapping), mapping.what(), amount));
        }
        let mut covered: Vec<_> = after.iter().map(|mapping| (mapping.start, mapping.end)).collect();
        covered.sort_unstable();
        for mapping in before.iter().filter(|mapping| mapping.shared.is_none()) {
            let parts = uncovered((mapping.start, mapping.end), &covered);
            let gone = parts.into_iter().map(|(start, end)| old_pages.bytes_within(start, end)).sum();
            let amount = Amount { gone, ..Amount::default() };
            changes.extend(MappingChange::of(addresses(mapping), mapping.what(), amount));
        }
        changes.extend(self.files(old, new)?);
        Ok(changes)
    }

    /// Memory that others may have, too, all of it: it counts for the first one.
    fn shared(&mut self, old: Option<u64>, new: u64) -> io::Result<Amount> {
        if !self.compared.insert(new) {
            return Ok(Amount::default());
        }
        let open = |folder, id| Pages::open(folder, &format!("shmem-{id}"));
        let old = old.map(|old| open(self.old_folder, old)).transpose()?.unwrap_or_default();
        within(&old, &open(self.new_folder, new)?, (0, u64::MAX))
    }

    /// Of files in memory that nobody need have mapped.
    fn files(&mut self, old: &Process, new: &Process) -> io::Result<Vec<MappingChange>> {
        let mut changes = Vec::new();
        for open in &new.files {
            let Some(id) = open.file.memory else { continue };
            let before = old.files.iter().find(|before| before.fd == open.fd);
            let before = before.and_then(|before| before.file.memory);
            let amount = self.shared(before.map(u64::from), id.into())?;
            changes.extend(MappingChange::of(format!("fd {}", open.fd), open.file.what(), amount));
        }
        Ok(changes)
    }
}

impl MappingChange {
    fn of(place: String, what: String, amount: Amount) -> Option<MappingChange> {
        (!amount.is_nothing()).then_some(MappingChange { place, what, amount })
    }
}

fn addresses(mapping: &Mapping) -> String {
    format!("{:x}-{:x}", mapping.start, mapping.end)
}

fn mappings(process: &Process) -> &[Mapping] {
    process.memory.as_ref().map_or(&[], |memory| &memory.mappings)
}

/// The parts of a range that none of the others, which ascend, has something of.
fn uncovered((start, end): (u64, u64), by: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut parts = Vec::new();
    let mut at = start;
    let first = by.partition_point(|(_, its_end)| *its_end <= start);
    for (its_start, its_end) in by[first..].iter().take_while(|(its_start, _)| *its_start < end) {
        if *its_start > at {
            parts.push((at, *its_start));
        }
        at = at.max(*its_end);
    }
    if at < end {
        parts.push((at, end));
    }
    parts
}

/// What both images have of a range.
fn within(old: &Pages, new: &Pages, (start, end): (u64, u64)) -> io::Result<Amount> {
    let mut amount = Amount::default();
    let mut both = 0u64;
    let mut before = old.ranges_within(start, end).peekable();
    for (from, to) in new.ranges_within(start, end) {
        while before.next_if(|(_, its_end)| *its_end <= from).is_some() {}
        while let Some((its_start, its_end)) = before.peek().copied().filter(|(its_start, _)| *its_start < to)
        {
            let common = (its_start.max(from), its_end.min(to));
            both += common.1 - common.0;
            amount.add(contents(old, new, common)?);
            if its_end > to {
                break;
            }
            before.next();
        }
    }
    amount.new = new.bytes_within(start, end) - both;
    amount.gone = old.bytes_within(start, end) - both;
    Ok(amount)
}

/// Of pages that both images have.
fn contents(old: &Pages, new: &Pages, (start, end): (u64, u64)) -> io::Result<Amount> {
    let mut amount = Amount::default();
    let mut at = start;
    while at < end {
        let length = CHUNK.min(end - at);
        let mut buffers = [0, 1].map(|_| vec![0; usize::try_from(length).unwrap_or_default()]);
        let [before, after] = &mut buffers;
        match (old.read(at, before)?, new.read(at, after)?) {
            (Some(()), Some(())) => {
                let pages = before.chunks(PAGE as usize).zip(after.chunks(PAGE as usize));
                amount.changed += pages.filter(|(before, after)| before != after).count() as u64 * PAGE;
            }
            _ => amount.unknown += length,
        }
        at += length;
    }
    Ok(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_no_longer_is_found_between_what_is() {
        let by = [(0, 2), (4, 6), (8, 20)];
        assert_eq!(uncovered((1, 10), &by), [(2, 4), (6, 8)]);
        assert_eq!(uncovered((2, 4), &by), [(2, 4)]);
        assert_eq!(uncovered((5, 6), &by), []);
        assert_eq!(uncovered((19, 30), &by), [(20, 30)]);
        assert_eq!(uncovered((3, 1), &by), []);
    }
}

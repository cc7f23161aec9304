//! Where the frames of a compressed file begin: the table at its end, in zstd's seekable format,
//! which other readers skip.

use std::fs::File;
use std::path::Path;

use super::CHUNK;
use crate::pages::file::read_exactly;
use crate::pages::{Error, damaged, reading};

const SKIPPABLE: u32 = 0x184d_2a5e;
const MAGIC: u32 = 0x8f92_eab1;
const HEAD: usize = 8;
const FOOT: usize = 9;
const ENTRY: usize = 8;
/// 4 TiB of memory, and 32 MiB for their table.
const MOST_FRAMES: u64 = 1 << 22;

/// The lengths of frames, compressed and plain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    lengths: Vec<(u32, u32)>,
}

pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) compressed: usize,
    pub(super) content: usize,
}

impl Table {
    pub(super) fn add(&mut self, compressed: u32, content: u32) {
        self.lengths.push((compressed, content));
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let count = self.lengths.len() as u32;
        let mut bytes = SKIPPABLE.to_le_bytes().to_vec();
        bytes.extend((count * ENTRY as u32 + FOOT as u32).to_le_bytes());
        for (compressed, content) in &self.lengths {
            bytes.extend(compressed.to_le_bytes());
            bytes.extend(content.to_le_bytes());
        }
        bytes.extend(count.to_le_bytes());
        // No checksums of frames: the whole file has one.
        bytes.push(0);
        bytes.extend(MAGIC.to_le_bytes());
        bytes
    }

    /// The table of a file.
    pub fn read(file: &File, path: &Path) -> Result<Table, Error> {
        let wrong = || damaged(path, "its table of frames is wrong");
        let whole = file.metadata().map_err(reading(path))?.len();
        let mut foot = [0; FOOT];
        read_exactly(file, path, &mut foot, whole.checked_sub(FOOT as u64).ok_or_else(wrong)?)?;
        let count = foot.first_chunk().map_or(0, |count| u64::from(u32::from_le_bytes(*count)));
        let length = count.min(MOST_FRAMES) * ENTRY as u64 + (HEAD + FOOT) as u64;
        let start = whole.checked_sub(length).ok_or_else(wrong)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| wrong())?];
        read_exactly(file, path, &mut bytes, start)?;
        let entries = bytes.get(HEAD..bytes.len() - FOOT).ok_or_else(wrong)?;
        let pair = |entry: &[u8; ENTRY]| {
            let number = u64::from_le_bytes(*entry);
            (number as u32, (number >> 32) as u32)
        };
        let table = Table { lengths: entries.as_chunks().0.iter().map(pair).collect() };
        if table.to_bytes() == bytes && table.fits(start) { Ok(table) } else { Err(wrong()) }
    }

    /// Of the file before it was compressed.
    pub fn size(&self) -> u64 {
        self.lengths.iter().map(|(_, content)| u64::from(*content)).sum()
    }

    /// Whether the frames are those of a file that we have compressed.
    fn fits(&self, compressed: u64) -> bool {
        let sum = self.lengths.iter().map(|(length, _)| u64::from(*length)).sum::<u64>();
        let most = zstd::zstd_safe::compress_bound(CHUNK as usize);
        let is_short = |length: u32| length as usize <= most;
        let last = self.lengths.len().saturating_sub(1);
        let is_chunk = |(number, (_, content)): (usize, &(u32, u32))| match u64::from(*content) {
            CHUNK => true,
            rest => number == last && (1..CHUNK).contains(&rest),
        };
        sum == compressed
            && self.lengths.iter().all(|(length, _)| is_short(*length))
            && self.lengths.iter().enumerate().all(is_chunk)
    }

    pub(super) fn frames(&self) -> Vec<Place> {
        let mut offset = 0;
        let place = |(compressed, content): &(u32, u32)| {
            let place = Place { offset, compressed: *compressed as usize, content: *content as usize };
            offset += u64::from(*compressed);
            place
        };
        self.lengths.iter().map(place).collect()
    }
}

//! A pack file: pages in groups, each group compressed if that pays, and read by its number.
//!
//! ```text
//! "cryopack"  version u32
//! groups of 64 pages, the last one of fewer: each a zstd frame, or plain if it is as long
//! length of each group, u32
//! hash of each page, 16 bytes: the beginning of its BLAKE3
//! pages u32   BLAKE3 of the lengths and of the hashes, 32 bytes each   "cryopack"
//! ```
//! Numbers have their lowest byte first. The pages themselves have no checksum but their
//! hashes: whoever puts a file together again compares the digest of the whole.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use zstd::bulk::{Compressor, Decompressor};

use crate::pages::file::{PIECE, create, is_done_with, open_plain, read_exactly, unfinished};
use crate::pages::{Error, PAGE, damaged, reading, writing};

const MAGIC: &[u8; 8] = b"cryopack";
const VERSION: u32 = 1;
const HEAD: u64 = 12;
const FOOT: usize = 4 + 2 * 32 + 8;
const GROUP: usize = 64;
pub(super) const GROUP_BYTES: usize = GROUP * PAGE;
const LEVEL: i32 = 1;
/// 1 TiB of pages, whose lengths take 32 MiB of memory.
const MOST_PAGES: u32 = 1 << 28;

/// Enough of a page's BLAKE3 that no two pages share it, and none can be made that do.
pub(super) type Hash = [u8; 16];

pub(super) fn hash(page: &[u8]) -> Hash {
    let hash = blake3::hash(page);
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// One that is being written, under a name that shows it.
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    compressor: Compressor<'static>,
    group: Vec<u8>,
    frame: Vec<u8>,
    lengths: Vec<u8>,
    hashes: Vec<u8>,
    offset: u64,
    is_complete: bool,
}

impl Writer {
    pub(super) fn create(path: &Path) -> Result<Writer, Error> {
        let file = create(&unfinished(path))?;
        file.write_all_at(MAGIC, 0)
            .and_then(|()| file.write_all_at(&VERSION.to_le_bytes(), MAGIC.len() as u64))
            .map_err(writing(path))?;
        Ok(Writer {
            path: path.to_owned(),
            file,
            compressor: Compressor::new(LEVEL).map_err(writing(path))?,
            group: Vec::with_capacity(GROUP_BYTES),
            frame: vec![0; zstd::zstd_safe::compress_bound(GROUP_BYTES)],
            lengths: Vec::new(),
            hashes: Vec::new(),
            offset: HEAD,
            is_complete: false,
        })
    }

    pub(super) fn pages(&self) -> u32 {
        (self.hashes.len() / size_of::<Hash>()) as u32
    }

    /// Tells the page's slot.
    pub(super) fn add(&mut self, page: &[u8], hash: Hash) -> Result<u32, Error> {
        let slot = self.pages();
        if slot == MOST_PAGES {
            return Err(Error::TooBig(self.path.clone()));
        }
        self.group.extend_from_slice(page);
        self.hashes.extend_from_slice(&hash);
        if self.group.len() == GROUP_BYTES {
            self.flush()?;
        }
        Ok(slot)
    }

    fn flush(&mut self) -> Result<(), Error> {
        let length = self.compressor.compress_to_buffer(&self.group, &mut self.frame[..]);
        let length = length.map_err(writing(&self.path))?;
        // Reading what is plain costs nothing; a sixteenth less isn't worth more.
        let pays = length < self.group.len() - self.group.len() / 16;
        let stored = if pays { &self.frame[..length] } else { &self.group[..] };
        self.file.write_all_at(stored, self.offset).map_err(writing(&self.path))?;
        self.offset += stored.len() as u64;
        self.lengths.extend((stored.len() as u32).to_le_bytes());
        self.group.clear();
        Ok(())
    }

    /// It is on the disk under its name when this returns, but for the folder's entry. Tells its size.
    pub(super) fn finish(mut self) -> Result<u64, Error> {
        if !self.group.is_empty() {
            self.flush()?;
        }
        let mut index = Vec::with_capacity(self.lengths.len() + self.hashes.len() + FOOT);
        index.extend_from_slice(&self.lengths);
        index.extend_from_slice(&self.hashes);
        index.extend_from_slice(&self.pages().to_le_bytes());
        index.extend_from_slice(blake3::hash(&self.lengths).as_bytes());
        index.extend_from_slice(blake3::hash(&self.hashes).as_bytes());
        index.extend_from_slice(MAGIC);
        let written = self.file.write_all_at(&index, self.offset).and_then(|()| self.file.sync_data());
        written.and_then(|()| fs::rename(unfinished(&self.path), &self.path)).map_err(writing(&self.path))?;
        self.is_complete = true;
        is_done_with(&self.file);
        Ok(self.offset + index.len() as u64)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_complete {
            // Somebody else removes it, if not we.
            let _ = fs::remove_file(unfinished(&self.path));
        }
    }
}

/// One that is read.
pub(super) struct Reader {
    path: PathBuf,
    file: File,
    /// Where each group begins, and behind them where the last one ends.
    groups: Vec<u64>,
    pages: u32,
    hashes_checksum: [u8; 32],
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Reader, Error> {
        let file = open_plain(path)?;
        let size = file.metadata().map_err(reading(path))?.len();
        let mut head = [0; HEAD as usize];
        read_exactly(&file, path, &mut head, 0)?;
        let version = head.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if !head.starts_with(MAGIC) {
            return Err(damaged(path, "it is no pack"));
        }
        if version > VERSION {
            return Err(Error::Future { path: path.to_owned(), version });
        }
        let foot_at = size.checked_sub(FOOT as u64).ok_or_else(|| damaged(path, "it ends too early"))?;
        let mut foot = [0; FOOT];
        read_exactly(&file, path, &mut foot, foot_at)?;
        let foot = Foot::parse(&foot).filter(|_| version == VERSION);
        let foot = foot.ok_or_else(|| damaged(path, "its end isn't that of a pack"))?;
        Reader::with(path, file, &foot, foot_at)
    }

    fn with(path: &Path, file: File, foot: &Foot, foot_at: u64) -> Result<Reader, Error> {
        let wrong = || damaged(path, "its index is wrong");
        let lengths = 4 * u64::from(foot.pages).div_ceil(GROUP as u64);
        let index = lengths + u64::from(foot.pages) * size_of::<Hash>() as u64;
        let index_at = foot_at.checked_sub(index).ok_or_else(wrong)?;
        let mut bytes = vec![0; usize::try_from(lengths).map_err(|_| wrong())?];
        read_exactly(&file, path, &mut bytes, index_at)?;
        if blake3::hash(&bytes).as_bytes() != &foot.lengths {
            return Err(wrong());
        }
        let mut groups = vec![HEAD];
        for length in bytes.as_chunks().0 {
            let length = u32::from_le_bytes(*length);
            let end = groups.last().map(|start| start + u64::from(length));
            groups.extend(end.filter(|_| length as usize <= GROUP_BYTES));
        }
        let whole = groups.len() == bytes.len() / 4 + 1 && groups.last() == Some(&index_at);
        let reader =
            Reader { path: path.to_owned(), file, groups, pages: foot.pages, hashes_checksum: foot.hashes };
        if whole { Ok(reader) } else { Err(wrong()) }
    }

    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The group that a slot lies in, and where in it the slot begins.
    pub(super) fn place(slot: u64) -> (usize, usize) {
        let group = GROUP as u64;
        ((slot / group) as usize, (slot % group) as usize * PAGE)
    }

    /// The pages of one group, in a buffer of their size.
    pub(super) fn group(
        &self,
        number: usize,
        decompressor: &mut Decompressor<'_>,
        frame: &mut Vec<u8>,
        pages: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let wrong = || damaged(&self.path, format!("its group {number} can't be read"));
        let [start, end] = *self.groups.get(number..number + 2).ok_or_else(wrong)? else {
            return Err(wrong());
        };
        let count = (self.pages as usize - number * GROUP).min(GROUP);
        let length = (end - start) as usize;
        pages.resize(count * PAGE, 0);
        if length == pages.len() {
            return read_exactly(&self.file, &self.path, pages, start);
        }
        frame.resize(length, 0);
        read_exactly(&self.file, &self.path, frame, start)?;
        match decompressor.decompress_to_buffer(frame, &mut pages[..]) {
            Ok(got) if got == pages.len() => Ok(()),
            _ => Err(wrong()),
        }
    }

    /// Shows the hash of each page, in order. They were right only if this ends well.
    pub(super) fn hashes(&self, mut show: impl FnMut(Hash)) -> Result<(), Error> {
        let mut offset = self.groups.last().copied().unwrap_or(HEAD) + 4 * (self.groups.len() as u64 - 1);
        let mut left = self.pages as usize * size_of::<Hash>();
        let mut piece = vec![0; PIECE];
        let mut hasher = blake3::Hasher::new();
        while left > 0 {
            let room = left.min(PIECE);
            read_exactly(&self.file, &self.path, &mut piece[..room], offset)?;
            hasher.update(&piece[..room]);
            piece[..room].as_chunks().0.iter().for_each(|hash| show(*hash));
            offset += room as u64;
            left -= room;
        }
        let right = hasher.finalize().as_bytes() == &self.hashes_checksum;
        if right { Ok(()) } else { Err(damaged(&self.path, "the hashes of its pages are wrong")) }
    }
}

/// Whether all of a pack is as it was written.
pub fn check(path: &Path) -> Result<(), Error> {
    let reader = Reader::open(path)?;
    let mut hashes = Vec::new();
    reader.hashes(|hash| hashes.push(hash))?;
    let mut decompressor = Decompressor::new().map_err(reading(path))?;
    let (mut frame, mut pages) = (Vec::new(), Vec::new());
    for (number, hashes) in hashes.chunks(GROUP).enumerate() {
        reader.group(number, &mut decompressor, &mut frame, &mut pages)?;
        if pages.chunks(PAGE).zip(hashes).any(|(page, expected)| hash(page) != *expected) {
            return Err(damaged(path, format!("a page in its group {number} isn't what it was")));
        }
    }
    Ok(())
}

struct Foot {
    pages: u32,
    lengths: [u8; 32],
    hashes: [u8; 32],
}

impl Foot {
    fn parse(bytes: &[u8; FOOT]) -> Option<Foot> {
        let (pages, rest) = bytes.split_first_chunk()?;
        let (lengths, rest) = rest.split_first_chunk()?;
        let (hashes, magic) = rest.split_first_chunk()?;
        let pages = u32::from_le_bytes(*pages);
        (magic == MAGIC && pages <= MOST_PAGES).then_some(Foot { pages, lengths: *lengths, hashes: *hashes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u32) -> Vec<u8> {
        let mut page = vec![number as u8; PAGE];
        page[..4].copy_from_slice(&number.to_le_bytes());
        if number % 100 < 64 {
            // Groups of these don't compress.
            let mut noise = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
            noise.fill(&mut page[4..]);
        }
        page
    }

    fn sample(path: &Path, count: u32) {
        let mut writer = Writer::create(path).unwrap();
        for number in 0..count {
            let page = page(number);
            assert_eq!(writer.add(&page, hash(&page)).unwrap(), number);
        }
        assert_eq!(writer.finish().unwrap(), fs::metadata(path).unwrap().len());
    }

    fn read_all(path: &Path) -> Result<Vec<u8>, Error> {
        let reader = Reader::open(path)?;
        let mut all = Vec::new();
        let mut decompressor = Decompressor::new().unwrap();
        for number in 0..reader.groups.len() - 1 {
            let mut pages = Vec::new();
            reader.group(number, &mut decompressor, &mut Vec::new(), &mut pages)?;
            all.extend(pages);
        }
        check(path)?;
        Ok(all)
    }

    #[test]
    fn pages_come_back_whether_they_compress_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pack");
        for count in [1, 64, 65, 300] {
            sample(&path, count);
            assert_eq!(read_all(&path).unwrap(), (0..count).flat_map(page).collect::<Vec<_>>());
        }
        assert!(fs::metadata(&path).unwrap().len() < 280 * PAGE as u64);
    }

    #[test]
    fn truncation_and_flipped_bits_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pack");
        sample(&path, 130);
        let good = fs::read(&path).unwrap();
        let index = good.len() - FOOT - 130 * 16 - 3 * 4;
        let places = (0..HEAD as usize)
            .chain((index..good.len()).step_by(3))
            .chain((0..index).step_by(good.len() / 40));
        for at in places {
            fs::write(&path, &good[..at]).unwrap();
            assert!(read_all(&path).is_err(), "cut at {at}");
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(read_all(&path).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn huge_counts_are_refused_before_memory_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pack");
        sample(&path, 10);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - FOOT;
        for count in [u32::MAX, MOST_PAGES, 11, 9, 0] {
            bytes[at..at + 4].copy_from_slice(&count.to_le_bytes());
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(Reader::open(&path), Err(Error::Damaged { .. })), "{count}");
        }
    }

    #[test]
    fn one_that_was_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(&folder.path().join("a.pack")).unwrap();
        writer.add(&[1; PAGE], [0; 16]).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

//! What two files have in common takes room once, where the file system can do that: at once,
//! and both stay what they are. The kernel compares the bytes itself, so nothing can go wrong
//! but that something takes room twice.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ioctl_ficlone, open};

use super::file::{PIECE, is_read_once, open_plain};
use super::zeros::is_zero;
use super::{Error, PAGE, digest, reading, writing};
use crate::sys;

/// A file in many pieces is slow to read: less than this isn't worth a piece.
const LEAST: usize = 16;
/// What the kernel takes at once.
const MOST: u64 = 16 << 20;
/// 8 GiB of pages, whose hashes take about 100 MiB of memory.
const MOST_PAGES: usize = 2 << 20;

type Hash = [u8; 16];

/// Whether files in a folder can share something. Leaves nothing there.
pub fn is_possible(folder: &Path) -> bool {
    let unnamed = || {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        open(folder, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    };
    let (Ok(one), Ok(other)) = (unnamed(), unnamed()) else { return false };
    let written = std::os::unix::fs::FileExt::write_all_at(&one, &[1; PAGE], 0);
    written.is_ok() && ioctl_ficlone(&other, &one).is_ok()
}

/// Has a newer file share what an older one has, too. Tells how many bytes that are.
pub fn share(older: &Path, newer: &Path) -> Result<u64, Error> {
    let known = Known::of(older)?;
    let (from, to) = (open_plain(older)?, File::options().read(true).write(true).open(newer));
    let to = to.map_err(writing(newer))?;
    let mut shared = 0;
    let mut run: Option<Run> = None;
    pages(&to, newer, |number, hash| {
        let next = hash.and_then(|hash| match run {
            Some(run) if known.is_at(run.from + run.count, &hash) => Some(run.from + run.count),
            _ => known.pages.get(&hash).map(|page| *page as usize),
        });
        match (&mut run, next) {
            (Some(run), Some(next)) if next == run.from + run.count => run.count += 1,
            (_, next) => {
                let begun = next.map(|from| Run { from, to: number, count: 1 });
                if let Some(ended) = std::mem::replace(&mut run, begun) {
                    shared += ended.share(&from, &to).map_err(writing(newer))?;
                }
            }
        }
        Ok(())
    })?;
    if let Some(ended) = run {
        shared += ended.share(&from, &to).map_err(writing(newer))?;
    }
    Ok(shared)
}

/// Pages that are the same in both files.
#[derive(Clone, Copy)]
struct Run {
    from: usize,
    to: usize,
    count: usize,
}

impl Run {
    fn share(self, from: &File, to: &File) -> std::io::Result<u64> {
        if self.count < LEAST {
            return Ok(0);
        }
        let bytes = |pages: usize| (pages * PAGE) as u64;
        let (mut done, mut shared) = (0, 0);
        while done < bytes(self.count) {
            let length = MOST.min(bytes(self.count) - done);
            shared += sys::share_range((from, bytes(self.from) + done), (to, bytes(self.to) + done), length)?;
            done += length;
        }
        Ok(shared)
    }
}

/// What an older file has, and where.
struct Known {
    hashes: Vec<Hash>,
    pages: HashMap<Hash, u32>,
}

impl Known {
    fn of(path: &Path) -> Result<Known, Error> {
        let mut known = Known { hashes: Vec::new(), pages: HashMap::new() };
        pages(&open_plain(path)?, path, |number, hash| {
            if number < MOST_PAGES {
                known.hashes.push(hash.unwrap_or_default());
                hash.map(|hash| known.pages.entry(hash).or_insert(number as u32));
            }
            Ok(())
        })?;
        Ok(known)
    }

    fn is_at(&self, page: usize, hash: &Hash) -> bool {
        self.hashes.get(page) == Some(hash)
    }
}

/// Shows each whole page's number, and its hash if it isn't zero: that is a hole.
fn pages(
    file: &File,
    path: &Path,
    mut show: impl FnMut(usize, Option<Hash>) -> Result<(), Error>,
) -> Result<(), Error> {
    is_read_once(file);
    let whole = file.metadata().map_err(reading(path))?.len() / PAGE as u64;
    let (mut piece, mut number) = (vec![0; PIECE], 0);
    while (number as u64) < whole {
        let got = digest::read_some(file, path, &mut piece, (number * PAGE) as u64)?;
        let read = piece[..got].chunks_exact(PAGE);
        if read.len() == 0 {
            return Ok(());
        }
        for page in read {
            let hash = blake3::hash(page);
            show(
                number,
                (!is_zero(page)).then(|| hash.as_bytes().first_chunk().copied().unwrap_or_default()),
            )?;
            number += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn noise(pages: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; pages * PAGE];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn files_stay_what_they_are_and_share_what_they_can() {
        let folder = tempfile::tempdir().unwrap();
        let (older, newer) = (folder.path().join("older"), folder.path().join("newer"));
        let common = noise(200, 1);
        let old = [&common[..], &vec![0; 20 * PAGE], &noise(30, 2)].concat();
        let new =
            [&noise(3, 3)[..], &common, &noise(20, 4), &vec![0; 40 * PAGE], &noise(30, 2), &[7; 99]].concat();
        fs::write(&older, &old).unwrap();
        fs::write(&newer, &new).unwrap();
        File::open(&newer).unwrap().sync_all().unwrap();
        match (is_possible(folder.path()), share(&older, &newer)) {
            (true, shared) => assert_eq!(shared.unwrap(), (230 * PAGE) as u64),
            (false, shared) => assert!(matches!(shared, Err(Error::Write { .. }))),
        }
        assert!(fs::read(&older).unwrap() == old && fs::read(&newer).unwrap() == new);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

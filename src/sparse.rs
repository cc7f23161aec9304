//! What of a file is data: the rest are holes, which read as zeroes and take no room.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// From one span to the next, up to a size; as they are when they are asked for.
pub(crate) struct Spans<'a> {
    file: &'a File,
    at: u64,
    size: u64,
}

impl Spans<'_> {
    pub(crate) fn of(file: &File, size: u64) -> Spans<'_> {
        Spans { file, at: 0, size }
    }

    fn seek(&self, to: SeekFrom) -> io::Result<u64> {
        match seek(self.file, to) {
            Err(Errno::NXIO) => Ok(self.size),
            found => Ok(found?.min(self.size)),
        }
    }

    fn find(&mut self) -> io::Result<Range<u64>> {
        let start = self.seek(SeekFrom::Data(self.at))?;
        self.at = self.seek(SeekFrom::Hole(start))?.max(start);
        Ok(start..self.at)
    }
}

impl Iterator for Spans<'_> {
    type Item = io::Result<Range<u64>>;

    fn next(&mut self) -> Option<io::Result<Range<u64>>> {
        if self.at >= self.size {
            return None;
        }
        let found = self.find();
        if found.is_err() {
            self.at = self.size;
        }
        Some(found).filter(|found| found.as_ref().map_or(true, |span| !span.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_are_left_out() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let spans = || Spans::of(&file, 1 << 20).collect::<io::Result<Vec<_>>>().unwrap();
        assert_eq!(spans(), []);
        file.write_all_at(b"x", 0).unwrap();
        file.write_all_at(b"y", (1 << 20) - 1).unwrap();
        let found = spans();
        assert!(found.len() == 2 && found[0].start == 0 && found[1].end == 1 << 20, "{found:?}");
        assert!(Spans::of(&file, 0).next().is_none());
    }
}

//! Pages that are all zero: found on the way, and turned into holes, which cost nothing.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{Error, PAGE, writing};

/// 16 MiB of memory at most, whatever the file is like; zeros after these stay as they are.
const MOST_RUNS: usize = 1 << 20;

/// Bytes from the first to behind the last, in order, all of them zero.
pub type Runs = Vec<Range<u64>>;

/// Is shown a file from its beginning to its end, and notes which pages are zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Finder {
    runs: Runs,
    offset: u64,
}

impl Finder {
    /// Whole pages, but for the end of the file, which isn't noted if it is less than one.
    pub(super) fn look(&mut self, bytes: &[u8]) {
        for page in bytes.chunks(PAGE) {
            let next = self.offset + page.len() as u64;
            if page.len() == PAGE && is_zero(page) {
                self.note(self.offset..next);
            }
            self.offset = next;
        }
    }

    fn note(&mut self, page: Range<u64>) {
        let count = self.runs.len();
        match self.runs.last_mut() {
            Some(last) if last.end == page.start => last.end = page.end,
            _ if count < MOST_RUNS => self.runs.push(page),
            _ => {}
        }
    }

    pub(super) fn into_runs(self) -> Runs {
        self.runs
    }
}

/// Not by comparing with zeros: the `memcmp` of static binaries goes byte by byte.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    let mut lines = words.chunks(16);
    lines.all(|line| line.iter().fold(0, |any, word| any | u128::from_ne_bytes(*word)) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// Where pages are that aren't zero: neighbours come together.
pub(crate) fn data(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (number, page) in bytes.chunks(PAGE).enumerate().filter(|(_, page)| !is_zero(page)) {
        let start = number * PAGE;
        match spans.last_mut() {
            Some(last) if last.end == start => last.end += page.len(),
            _ => spans.push(start..start + page.len()),
        }
    }
    spans
}

/// Turns zeros into holes; what is read from the file stays the same. Tells how many bytes
/// they are: none where the file system has no holes.
///
/// The runs have to be this very file's, and nobody may have written to it since.
pub fn punch(path: &Path, size: u64, zeros: &[Range<u64>]) -> Result<u64, Error> {
    if zeros.is_empty() {
        return Ok(0);
    }
    let file = File::options().write(true).open(path).map_err(writing(path))?;
    if file.metadata().map_err(writing(path))?.len() != size {
        return Err(Error::Changed { path: path.to_owned(), problem: "it has another size" });
    }
    let mut freed = 0;
    for run in zeros {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&file, flags, run.start, run.end - run.start) {
            Ok(()) => freed += run.end - run.start,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(freed),
            Err(error) => return Err(writing(path)(error.into())),
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_single_bit_makes_a_page_no_zero_page() {
        let mut page = vec![0; PAGE];
        assert!(is_zero(&page));
        for at in [0, 1, 255, 256, 2048, PAGE - 1] {
            page[at] = 0x10;
            assert!(!is_zero(&page), "{at}");
            page[at] = 0;
        }
        assert!(is_zero(&[]) && is_zero(&[0; 17]) && !is_zero(&[0, 0, 1]));
    }

    #[test]
    fn neighbours_become_one_run_and_the_end_of_a_file_none() {
        let mut finder = Finder::default();
        finder.look(&[0; 2 * PAGE]);
        finder.look(&[0; PAGE]);
        finder.look(&[1; PAGE]);
        finder.look(&[0; PAGE + 100]);
        let page = PAGE as u64;
        assert_eq!(finder.into_runs(), [0..3 * page, 4 * page..5 * page]);
    }

    #[test]
    fn holes_take_no_space_and_read_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages-1.img");
        let mut content = vec![0; 64 * PAGE];
        content[7 * PAGE] = 7;
        content.extend_from_slice(&[9; 10]);
        fs::write(&path, &content).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let mut finder = Finder::default();
        finder.look(&content);
        let before = fs::metadata(&path).unwrap().blocks();
        let freed = punch(&path, content.len() as u64, &finder.into_runs()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        assert!(freed == 0 || fs::metadata(&path).unwrap().blocks() < before);
    }

    #[test]
    fn a_file_of_another_size_isnt_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages-1.img");
        fs::write(&path, [1; PAGE]).unwrap();
        let punched = punch(&path, 2 * PAGE as u64, &[Range { start: 0, end: PAGE as u64 }]);
        assert!(matches!(punched, Err(Error::Changed { .. })));
        assert_eq!(fs::read(&path).unwrap(), [1; PAGE]);
    }
}

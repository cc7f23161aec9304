//! Whether memory is what it was, while CRIU restores it: a thread reads the files from
//! beginning to end, which is also what brings them into the page cache for CRIU.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::digest::{Digester, read_some};
use super::file::{PIECE, is_read_once, open_plain};
use super::{Error, Expected, damaged, reading};

/// Ends when it has read everything, found damage, or is dropped.
#[derive(Debug)]
pub struct Check {
    cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Check {
    pub fn start(folder: &Path, expected: BTreeMap<String, Expected>) -> Result<Check, Error> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (owned, watched) = (folder.to_owned(), cancelled.clone());
        let check = move || check(&owned, &expected, &|| watched.load(Ordering::Relaxed));
        let thread = std::thread::Builder::new().name("cryo-check".to_owned()).spawn(check);
        Ok(Check { cancelled, thread: Some(thread.map_err(reading(folder))?) })
    }

    /// `wait` would return at once.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The first damage found, or none.
    pub fn wait(mut self) -> Result<(), Error> {
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(Err(Error::Cancelled))
    }

    pub fn cancel(self) {}
}

impl Drop for Check {
    fn drop(&mut self) {
        // Whatever it has found, nobody wants to know any more, nor waits for its end.
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// The same at once, by the calling thread.
pub fn check(
    folder: &Path,
    expected: &BTreeMap<String, Expected>,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let mut piece = vec![0; PIECE];
    expected
        .iter()
        .try_for_each(|(name, expected)| check_file(&folder.join(name), expected, &mut piece, is_cancelled))
}

fn check_file(
    path: &Path,
    expected: &Expected,
    piece: &mut [u8],
    is_cancelled: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let unknown = || damaged(path, "the digest noted for it is of no known kind");
    let mut digester = Digester::like(&expected.digest).ok_or_else(unknown)?;
    let file = open_plain(path)?;
    is_read_once(&file);
    let size = file.metadata().map_err(reading(path))?.len();
    if size != expected.size {
        return Err(damaged(path, format!("it has {size} bytes instead of {}", expected.size)));
    }
    let mut offset = 0;
    while offset < size {
        if is_cancelled() {
            return Err(Error::Cancelled);
        }
        let got = read_some(&file, path, piece, offset)?;
        if got == 0 {
            return Err(damaged(path, "it ends too early"));
        }
        digester.update(&piece[..got]);
        offset += got as u64;
    }
    if digester.finish() != expected.digest {
        return Err(damaged(path, "its content has another digest"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::digest;
    use std::fs;
    use std::os::unix::fs::FileExt;

    fn image() -> (tempfile::TempDir, BTreeMap<String, Expected>) {
        let folder = tempfile::tempdir().unwrap();
        let mut expected = BTreeMap::new();
        for (name, size) in [("pages-1.img", 3 * PIECE + 7), ("pages-2.img", 0), ("core-1.img", 100)] {
            let path = folder.path().join(name);
            fs::write(&path, vec![3; size]).unwrap();
            let digest = digest::of_file(&path).unwrap();
            expected.insert(name.to_owned(), Expected { size: size as u64, digest });
        }
        (folder, expected)
    }

    #[test]
    fn good_files_are_good() {
        let (folder, expected) = image();
        Check::start(folder.path(), expected).unwrap().wait().unwrap();
    }

    #[test]
    fn a_flipped_bit_is_damage_and_named() {
        let (folder, expected) = image();
        let file = fs::File::options().write(true).open(folder.path().join("pages-1.img")).unwrap();
        file.write_all_at(&[2], 3 * PIECE as u64 + 6).unwrap();
        let error = Check::start(folder.path(), expected).unwrap().wait().unwrap_err();
        assert!(matches!(&error, Error::Damaged { path, .. } if path.ends_with("pages-1.img")), "{error}");
    }

    #[test]
    fn another_size_a_missing_file_and_an_unknown_digest_are_told() {
        let (folder, mut expected) = image();
        fs::write(folder.path().join("core-1.img"), [3; 101]).unwrap();
        let error = check(folder.path(), &expected, &|| false).unwrap_err();
        assert!(error.to_string().contains("101 bytes instead of 100"), "{error}");
        fs::remove_file(folder.path().join("core-1.img")).unwrap();
        assert!(matches!(check(folder.path(), &expected, &|| false), Err(Error::Read { .. })));
        expected.get_mut("core-1.img").unwrap().digest = "md5:00".to_owned();
        assert!(matches!(check(folder.path(), &expected, &|| false), Err(Error::Damaged { .. })));
    }

    #[test]
    fn one_that_is_cancelled_says_nothing_of_the_files() {
        let (folder, expected) = image();
        assert!(matches!(check(folder.path(), &expected, &|| true), Err(Error::Cancelled)));
        Check::start(folder.path(), expected).unwrap().cancel();
    }
}

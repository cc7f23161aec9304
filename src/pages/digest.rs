//! Digests of files: BLAKE3 for big ones, since it is several times as fast as SHA-256,
//! which is read, too.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::Digest;

use super::file::{PIECE, is_read_once, open_plain, read_exactly};
use super::{Error, reading};

const BLAKE3: &str = "blake3:";
const SHA256: &str = "sha256:";

/// Makes a digest from what it is shown.
#[derive(Clone, Debug)]
pub enum Digester {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

impl Default for Digester {
    fn default() -> Digester {
        Digester::Blake3(Box::default())
    }
}

impl Digester {
    /// One of the same kind as a digest; none if the kind isn't known.
    pub fn like(digest: &str) -> Option<Digester> {
        let known = [(BLAKE3, Digester::default()), (SHA256, Digester::Sha256(sha2::Sha256::default()))];
        let found = known.into_iter().find(|(kind, _)| digest.starts_with(kind));
        found.map(|(_, digester)| digester)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Digester::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Digester::Sha256(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> String {
        match self {
            Digester::Blake3(hasher) => text(BLAKE3, hasher.finalize().as_bytes()),
            Digester::Sha256(hasher) => text(SHA256, &hasher.finalize()),
        }
    }
}

/// How a BLAKE3 hash is written.
pub(super) fn blake3_text(hash: &[u8; 32]) -> String {
    text(BLAKE3, hash)
}

fn text(kind: &str, hash: &[u8]) -> String {
    let mut text = kind.to_owned();
    for byte in hash {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The BLAKE3 of a whole file.
pub fn of_file(path: &Path) -> Result<String, Error> {
    let file = open_plain(path)?;
    is_read_once(&file);
    of(&file, Digester::default(), |_| {}).map_err(reading(path))
}

/// The digest of a whole file. Tells how many bytes were read, each time some were.
pub fn of(file: &File, mut digester: Digester, mut progress: impl FnMut(u64)) -> io::Result<String> {
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    loop {
        let got = read_at(file, &mut piece, offset)?;
        if got == 0 {
            return Ok(digester.finish());
        }
        digester.update(&piece[..got]);
        offset += got as u64;
        progress(got as u64);
    }
}

/// Goes on with a part of a file.
pub(super) fn add(
    digester: &mut Digester,
    file: &File,
    path: &Path,
    range: Range<u64>,
    piece: &mut Vec<u8>,
) -> Result<(), Error> {
    piece.resize(PIECE, 0);
    let mut offset = range.start;
    while offset < range.end {
        let room = usize::try_from(range.end - offset).map_or(PIECE, |left| left.min(PIECE));
        read_exactly(file, path, &mut piece[..room], offset)?;
        digester.update(&piece[..room]);
        offset += room as u64;
    }
    Ok(())
}

/// As much as there is, but at the end of a file nothing.
pub(super) fn read_some(file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> Result<usize, Error> {
    read_at(file, bytes, offset).map_err(reading(path))
}

fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn digests_are_those_that_other_programs_print() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages-1.img");
        fs::write(&path, "").unwrap();
        let empty = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(of_file(&path).unwrap(), empty);
        let mut sha = Digester::like("sha256:").unwrap();
        sha.update(b"abc");
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha.finish(), abc);
        assert!(Digester::like("md5:00").is_none());
        fs::write(&path, "abc").unwrap();
        let mut read = 0;
        let same = of(&File::open(&path).unwrap(), Digester::like(abc).unwrap(), |count| read += count);
        assert_eq!((same.unwrap().as_str(), read), (abc, 3));
    }

    #[test]
    fn pieces_make_the_same_digest_as_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages-1.img");
        let content: Vec<u8> = (0..2 * PIECE + 77).map(|i| ((i * 31) >> 3) as u8).collect();
        fs::write(&path, &content).unwrap();
        assert_eq!(of_file(&path).unwrap(), blake3_text(blake3::hash(&content).as_bytes()));
    }

    #[test]
    fn links_and_pipes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(matches!(of_file(&link), Err(Error::Read { .. })));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(of_file(&pipe), Err(Error::Damaged { .. })));
    }
}

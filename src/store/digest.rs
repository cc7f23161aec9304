//! Digests of whole files: BLAKE3 for what is big, SHA-256 where others made them.

use std::fs::File;
use std::io::{self, Read};

use sha2::Digest as _;

/// Small enough for the processor's own memory, and for a shim's.
const BUFFER_BYTES: usize = 128 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Blake3,
    Sha256,
}

impl Kind {
    /// Of a digest as text; none if it is of a kind that isn't known.
    pub(super) fn of(digest: &str) -> Option<Kind> {
        match digest.split_once(':')?.0 {
            "blake3" => Some(Kind::Blake3),
            "sha256" => Some(Kind::Sha256),
            _ => None,
        }
    }
}

enum Hasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

/// Tells how many bytes were read, each time some were.
pub(super) fn of(mut file: &File, kind: Kind, mut read: impl FnMut(u64)) -> io::Result<String> {
    let mut hasher = match kind {
        Kind::Blake3 => Hasher::Blake3(Box::default()),
        Kind::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let bytes = match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.text()),
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match &mut hasher {
            Hasher::Blake3(hasher) => drop(hasher.update(bytes)),
            Hasher::Sha256(hasher) => hasher.update(bytes),
        }
        read(bytes.len() as u64);
    }
}

impl Hasher {
    fn text(self) -> String {
        match self {
            Hasher::Blake3(hasher) => format!("blake3:{}", hasher.finalize()),
            Hasher::Sha256(hasher) => {
                let digits = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                format!("sha256:{digits}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_have_the_digests_that_others_give_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes = vec![7; 3 * BUFFER_BYTES + 5];
        fs::write(&path, &bytes).unwrap();
        let mut read = 0;
        let sha256 = of(&File::open(&path).unwrap(), Kind::Sha256, |count| read += count).unwrap();
        assert_eq!(sha256, crate::checkpoint::manifest::digest(&bytes));
        assert_eq!(read, bytes.len() as u64);
        let blake3 = of(&File::open(&path).unwrap(), Kind::Blake3, |_| {}).unwrap();
        assert_eq!(blake3, format!("blake3:{}", blake3::hash(&bytes)));
        assert_eq!((Kind::of(&sha256), Kind::of(&blake3)), (Some(Kind::Sha256), Some(Kind::Blake3)));
        assert_eq!(Kind::of("md5:00"), None);
    }
}

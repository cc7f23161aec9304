//! The SHA-256 of what passes, as OCI names its blobs.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// What a blob's descriptor says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    /// `sha256:` and 64 digits.
    pub(super) digest: String,
    pub(super) size: u64,
}

impl Sum {
    pub(super) fn of(bytes: &[u8]) -> Sum {
        Sum { digest: digest(Sha256::new_with_prefix(bytes)), size: bytes.len() as u64 }
    }
}

/// A reader or writer that keeps the sum of what went through.
pub(super) struct Summed<T> {
    inner: T,
    hash: Sha256,
    size: u64,
}

impl<T> Summed<T> {
    pub(super) fn new(inner: T) -> Summed<T> {
        Summed { inner, hash: Sha256::new(), size: 0 }
    }

    pub(super) fn finish(self) -> (T, Sum) {
        (self.inner, Sum { digest: digest(self.hash), size: self.size })
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.pass(&buffer[..read]);
        Ok(read)
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.pass(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn digest(hash: Sha256) -> String {
    let mut text = String::from("sha256:");
    for byte in hash.finalize() {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::manifest;

    #[test]
    fn readers_and_writers_sum_up_alike() {
        let mut writer = Summed::new(Vec::new());
        writer.write_all(b"some").unwrap();
        writer.write_all(b"thing").unwrap();
        let (bytes, written) = writer.finish();
        let mut reader = Summed::new(&bytes[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish().1, written);
        assert_eq!(written, Sum { digest: manifest::digest(b"something"), size: 9 });
        assert_eq!(Sum::of(b"something"), written);
    }
}

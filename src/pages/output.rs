//! A pages file that is written from its beginning to its end: holes where it is zero, its
//! digest made on the way, and never longer than it has to be.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::digest::Digester;
use super::file::{create, unfinished};
use super::zeros;
use super::{Error, Expected, damaged, writing};

pub(super) struct Output {
    path: PathBuf,
    new: PathBuf,
    /// None if only the digest is wanted.
    file: Option<File>,
    expected: Expected,
    digester: Digester,
    written: u64,
}

impl Output {
    /// It gets its name when it is complete.
    pub(super) fn create(path: &Path, expected: Expected) -> Result<Output, Error> {
        let mut output = Output::nowhere(path, expected)?;
        let file = output.file.insert(create(&output.new)?);
        // Told before anything is written, if it is too long for the file system.
        file.set_len(output.expected.size).map_err(writing(path))?;
        Ok(output)
    }

    /// Writes nothing: only tells whether it would be right.
    pub(super) fn nowhere(path: &Path, expected: Expected) -> Result<Output, Error> {
        let unknown = || damaged(path, "the digest noted for it is of no known kind");
        let digester = Digester::like(&expected.digest).ok_or_else(unknown)?;
        let (path, new) = (path.to_owned(), unfinished(path));
        Ok(Output { path, new, file: None, expected, digester, written: 0 })
    }

    /// Bytes to come.
    pub(super) fn left(&self) -> u64 {
        self.expected.size - self.written
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() as u64 > self.left() {
            return Err(damaged(&self.path, format!("it is longer than {} bytes", self.expected.size)));
        }
        self.digester.update(bytes);
        if let Some(file) = &self.file {
            for span in zeros::data(bytes) {
                let offset = self.written + span.start as u64;
                file.write_all_at(&bytes[span], offset).map_err(writing(&self.path))?;
            }
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), Error> {
        if self.left() > 0 {
            return Err(damaged(&self.path, format!("it ends after {} bytes", self.written)));
        }
        if std::mem::take(&mut self.digester).finish() != self.expected.digest {
            return Err(damaged(&self.path, "its content has another digest"));
        }
        if self.file.is_some() {
            fs::rename(&self.new, &self.path).map_err(writing(&self.path))?;
            self.file = None;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Somebody else removes it, if not we.
            let _ = fs::remove_file(&self.new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PAGE;
    use std::os::unix::fs::MetadataExt;

    fn expected(content: &[u8]) -> Expected {
        let mut digester = Digester::default();
        digester.update(content);
        Expected { size: content.len() as u64, digest: digester.finish() }
    }

    #[test]
    fn zeros_become_holes_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages-1.img");
        let mut content = vec![0; 1000 * PAGE + 5];
        content[500 * PAGE..501 * PAGE].fill(5);
        let mut output = Output::create(&path, expected(&content)).unwrap();
        content.chunks(64 * PAGE).for_each(|piece| output.write(piece).unwrap());
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 < content.len() as u64 / 10);
    }

    #[test]
    fn what_is_too_long_too_short_or_wrong_never_gets_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages-1.img");
        let expected = expected(&[1; 100]);
        let mut long = Output::create(&path, expected.clone()).unwrap();
        long.write(&[1; 60]).unwrap();
        assert!(matches!(long.write(&[1; 41]), Err(Error::Damaged { .. })));
        drop(long);
        for wrong in [&[1; 99][..], &[2; 100]] {
            let mut output = Output::create(&path, expected.clone()).unwrap();
            output.write(wrong).unwrap();
            assert!(matches!(output.finish(), Err(Error::Damaged { .. })));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

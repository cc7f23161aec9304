//! A folder that is being filled from an archive. Whatever fails, it is left empty.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, open, openat, unlinkat};

use super::import::Error;
use crate::pages::digest::Digester;
use crate::pages::{PAGE, zeros};

const BUFFER: usize = 64 * PAGE;

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub size: u64,
    /// `blake3:` and 64 digits.
    pub digest: String,
}

/// By their names.
pub type Files = BTreeMap<String, Stored>;

pub(super) struct Draft {
    path: PathBuf,
    folder: OwnedFd,
    /// What may still be written.
    room: u64,
    /// To be removed if the rest fails.
    made: Vec<String>,
    buffer: Vec<u8>,
}

impl Draft {
    pub(super) fn open(path: &Path, room: u64) -> Result<Draft, Error> {
        let failed = |source| Error::Folder { path: path.to_owned(), source };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let folder = open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let draft = Draft { path: path.to_owned(), folder, room, made: Vec::new(), buffer: vec![0; BUFFER] };
        if fs::read_dir(draft.place()).map_err(failed)?.next().is_some() {
            return Err(Error::NotEmpty(path.to_owned()));
        }
        Ok(draft)
    }

    /// A path to the folder that was opened.
    pub(super) fn place(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.folder.as_raw_fd()).into()
    }

    /// Writes a new file, with holes where there are only zeroes.
    pub(super) fn write(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<Stored, Error> {
        let most = self.room;
        self.room = most.checked_sub(size).ok_or_else(|| Error::too_big(name, size, most))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::EXIST) => return Err(Error::hostile(name, "is there twice")),
            Err(error) => return Err(self.failed(name, error.into())),
        };
        self.made.push(name.to_owned());
        let (mut digester, mut at) = (Digester::default(), 0);
        while at < size {
            let length = usize::try_from(size - at).unwrap_or(BUFFER).min(BUFFER);
            let bytes = &mut self.buffer[..length];
            content.read_exact(bytes).map_err(Error::reading)?;
            digester.update(bytes);
            for span in zeros::data(bytes) {
                let offset = at + span.start as u64;
                file.write_all_at(&bytes[span], offset).map_err(|source| Error::Write {
                    path: self.path.clone(),
                    name: name.to_owned(),
                    source,
                })?;
            }
            at += length as u64;
        }
        file.set_len(size).map_err(|source| self.failed(name, source))?;
        Ok(Stored { size, digest: digester.finish() })
    }

    /// Everything is there and was checked.
    pub(super) fn keep(mut self) {
        self.made.clear();
    }

    fn failed(&self, name: &str, source: io::Error) -> Error {
        Error::Write { path: self.path.clone(), name: name.to_owned(), source }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for name in &self.made {
            if let Err(error) = unlinkat(&self.folder, name, AtFlags::empty()) {
                tracing::warn!(%error, name, folder = %self.path.display(), "a part of an import stays behind");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn zeroes_are_holes_and_the_rest_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        for tail in [0, 1, PAGE - 1] {
            let mut bytes = vec![0; 256 * PAGE + tail];
            for page in [0, 1, 63, 64, 130] {
                bytes[page * PAGE + 7] = 1;
            }
            let mut draft = Draft::open(folder.path(), u64::MAX).unwrap();
            let stored = draft.write("file", bytes.len() as u64, &mut &bytes[..]).unwrap();
            let path = folder.path().join("file");
            assert!(fs::read(&path).unwrap() == bytes);
            let metadata = fs::metadata(&path).unwrap();
            assert!(metadata.blocks() * 512 < 64 * PAGE as u64, "{} blocks", metadata.blocks());
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            assert_eq!(stored.digest, format!("blake3:{}", blake3::hash(&bytes).to_hex()));
        }
    }

    #[test]
    fn what_fails_leaves_the_folder_empty() {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = Draft::open(folder.path(), 100).unwrap();
        draft.write("whole", 10, &mut &[1; 10][..]).unwrap();
        assert!(matches!(draft.write("short", 10, &mut &[1; 9][..]), Err(Error::Cut)));
        assert!(matches!(draft.write("whole", 1, &mut &[1][..]), Err(Error::Hostile { .. })));
        assert!(matches!(draft.write("big", 80, &mut io::repeat(1)), Err(Error::TooBig { .. })));
        drop(draft);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_lead_nobody_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        let inside = folder.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let mut draft = Draft::open(&inside, 100).unwrap();
        symlink(&victim, inside.join("file")).unwrap();
        assert!(draft.write("file", 1, &mut &[1][..]).is_err());
        assert!(!victim.exists());
        symlink(&inside, folder.path().join("link")).unwrap();
        assert!(matches!(Draft::open(&folder.path().join("link"), 1), Err(Error::Folder { .. })));
    }

    #[test]
    fn a_folder_with_something_in_it_is_not_filled() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "").unwrap();
        assert!(matches!(Draft::open(folder.path(), 1), Err(Error::NotEmpty(_))));
    }
}

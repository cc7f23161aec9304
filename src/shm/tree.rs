//! A folder in memory as two files of an image: a list of what is in it, and the content of
//! its files, without their holes.
//!
//! Containers may write to the folder meanwhile, and must not lead us out of it: no name is
//! ever looked up through a link or a mount.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
    chownat, fchmod, fstat, ftruncate, futimens, linkat, mkdirat, mknodat, openat2, readlinkat, seek, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const BUFFER: usize = 1 << 20;

/// Names are written as in a URL: they may have any bytes.
#[derive(Serialize, Deserialize)]
struct Entry {
    path: String,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Kind {
    Folder,
    File {
        size: u64,
        pieces: Vec<Piece>,
    },
    /// Another name of a file that came before.
    Link {
        to: String,
    },
    Symlink {
        to: String,
    },
    Fifo,
}

/// Of a file, and where it lies in the content.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Piece {
    from: u64,
    length: u64,
    at: u64,
}

/// Whether there was anything.
pub(super) fn save(folder: &OwnedFd, image: &Path, name: &str) -> io::Result<bool> {
    let mut saving = Saving { entries: Vec::new(), names: HashMap::new(), content: None, image, name };
    saving.folder(folder, Path::new(""))?;
    if saving.entries.is_empty() {
        return Ok(false);
    }
    let list = BufWriter::new(File::create(list_of(image, name))?);
    serde_json::to_writer(list, &saving.entries)?;
    Ok(true)
}

/// All of it, or nothing.
pub(super) fn load(folder: &OwnedFd, image: &Path, name: &str) -> io::Result<()> {
    let entries: Vec<Entry> = serde_json::from_reader(BufReader::new(File::open(list_of(image, name))?))?;
    let content = match File::open(content_of(image, name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened?),
    };
    let mut made = Vec::new();
    let loaded = entries.iter().try_for_each(|entry| {
        let path = decoded(&entry.path);
        match make(folder, &path, entry, content.as_ref()) {
            // Somebody else's.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => {
                made.push(path);
                result
            }
        }
    });
    if loaded.is_err() {
        for path in made.iter().rev() {
            // What somebody has put there meanwhile stays.
            let _ = remove(folder, path);
        }
    }
    loaded
}

struct Saving<'a> {
    entries: Vec<Entry>,
    /// Of files that have several.
    names: HashMap<u64, String>,
    content: Option<(File, u64)>,
    image: &'a Path,
    name: &'a str,
}

impl Saving<'_> {
    fn folder(&mut self, folder: &OwnedFd, path: &Path) -> io::Result<()> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = path.join(OsString::from_vec(name.to_bytes().to_vec()));
            match self.entry(folder, name, &path) {
                // It was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, folder: &OwnedFd, name: &std::ffi::CStr, path: &Path) -> io::Result<()> {
        let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let open = |flags: OFlags| openat2(folder, name, flags, Mode::empty(), WITHIN);
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let inner = open(FOLDER)?;
                self.note(path, &found, Kind::Folder);
                self.folder(&inner, path)
            }
            FileType::RegularFile => {
                let text = encoded(path.as_os_str().as_bytes());
                if found.st_nlink > 1
                    && let Some(first) = self.names.insert(found.st_ino, text.clone())
                {
                    self.names.insert(found.st_ino, first.clone());
                    self.note(path, &found, Kind::Link { to: first });
                    return Ok(());
                }
                let file = File::from(open(OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK)?);
                let found = fstat(&file)?;
                let pieces = self.content(&file)?;
                let size = found.st_size.unsigned_abs();
                self.note(path, &found, Kind::File { size, pieces });
                Ok(())
            }
            FileType::Symlink => {
                let to = encoded(readlinkat(folder, name, Vec::new())?.as_bytes());
                self.note(path, &found, Kind::Symlink { to });
                Ok(())
            }
            FileType::Fifo => {
                self.note(path, &found, Kind::Fifo);
                Ok(())
            }
            // Sockets are CRIU's.
            _ => Ok(()),
        }
    }

    fn note(&mut self, path: &Path, found: &Stat, kind: Kind) {
        self.entries.push(Entry {
            path: encoded(path.as_os_str().as_bytes()),
            mode: found.st_mode & 0o7777,
            uid: found.st_uid,
            gid: found.st_gid,
            modified: (found.st_mtime, i64::try_from(found.st_mtime_nsec).unwrap_or_default()),
            kind,
        });
    }

    fn content(&mut self, file: &File) -> io::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut from = 0;
        loop {
            from = match seek(file, SeekFrom::Data(from)) {
                Err(Errno::NXIO) => return Ok(pieces),
                found => found?,
            };
            let length = seek(file, SeekFrom::Hole(from))? - from;
            if self.content.is_none() {
                self.content = Some((File::create(content_of(self.image, self.name))?, 0));
            }
            let Some((content, end)) = &mut self.content else { return Ok(pieces) };
            let piece = Piece { from, length, at: *end };
            copy(file, from, content, piece.at, length)?;
            pieces.push(piece);
            *end += length;
            from += length;
        }
    }
}

fn make(folder: &OwnedFd, path: &Path, entry: &Entry, content: Option<&File>) -> io::Result<()> {
    let (above, name) = place(folder, path)?;
    let Entry { uid, gid, .. } = entry;
    let mode = Mode::from_raw_mode(entry.mode);
    let owned = |created: BorrowedFd<'_>| {
        chownat(created, "", Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)), AtFlags::EMPTY_PATH)
    };
    let opened = |flags: OFlags| openat2(&above, name, flags | OFlags::CLOEXEC, Mode::empty(), WITHIN);
    match &entry.kind {
        Kind::Folder => {
            mkdirat(&above, name, Mode::RWXU)?;
            let made = opened(FOLDER)?;
            owned(made.as_fd())?;
            fchmod(&made, mode)?;
        }
        Kind::File { size, pieces } => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let made = File::from(openat2(&above, name, flags, Mode::RUSR | Mode::WUSR, WITHIN)?);
            ftruncate(&made, *size)?;
            for piece in pieces {
                let content = content.ok_or(io::ErrorKind::UnexpectedEof)?;
                copy(content, piece.at, &made, piece.from, piece.length)?;
            }
            owned(made.as_fd())?;
            fchmod(&made, mode)?;
            let (tv_sec, tv_nsec) = entry.modified;
            let modified = Timespec { tv_sec, tv_nsec };
            futimens(&made, &Timestamps { last_access: modified, last_modification: modified })?;
        }
        Kind::Link { to } => {
            let first = decoded(to);
            let (of_first, first) = place(folder, &first)?;
            linkat(&of_first, first, &above, name, AtFlags::empty())?;
        }
        Kind::Symlink { to } => {
            symlinkat(decoded(to), &above, name)?;
            owned(opened(OFlags::PATH | OFlags::NOFOLLOW)?.as_fd())?;
        }
        Kind::Fifo => {
            mknodat(&above, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            let made = opened(OFlags::RDONLY | OFlags::NONBLOCK)?;
            owned(made.as_fd())?;
            fchmod(&made, mode)?;
        }
    }
    Ok(())
}

fn remove(folder: &OwnedFd, path: &Path) -> io::Result<()> {
    let (above, name) = place(folder, path)?;
    match unlinkat(&above, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => Ok(unlinkat(&above, name, AtFlags::REMOVEDIR)?),
        removed => Ok(removed?),
    }
}

/// The folder that something is in, and its name there.
fn place<'a>(folder: &OwnedFd, path: &'a Path) -> io::Result<(OwnedFd, &'a std::ffi::OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((openat2(folder, above, FOLDER, Mode::empty(), WITHIN)?, name))
}

/// If it ends before, it has become shorter meanwhile.
fn copy(from: &File, mut at: u64, to: &File, mut to_at: u64, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(BUFFER).min(BUFFER)];
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
        let read = from.read_at(&mut buffer[..most], at)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..read], to_at)?;
        let read = read as u64;
        (at, to_at, left) = (at + read, to_at + read, left - read);
    }
    Ok(())
}

fn list_of(image: &Path, name: &str) -> PathBuf {
    image.join(format!("{name}.json"))
}

fn content_of(image: &Path, name: &str) -> PathBuf {
    image.join(format!("{name}.data"))
}

fn encoded(bytes: &[u8]) -> String {
    percent_encode(bytes, NON_ALPHANUMERIC).to_string()
}

fn decoded(text: &str) -> PathBuf {
    OsString::from_vec(percent_decode_str(text).collect()).into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use tempfile::{TempDir, tempdir};

    use super::*;

    fn opened(folder: &TempDir) -> OwnedFd {
        OwnedFd::from(File::open(folder.path()).unwrap())
    }

    fn saved(folder: &TempDir) -> TempDir {
        let image = tempdir().unwrap();
        assert!(save(&opened(folder), image.path(), "shm").unwrap());
        image
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let (old, new) = (tempdir().unwrap(), tempdir().unwrap());
        let at = |name: &str| old.path().join(name);
        fs::create_dir_all(at("deep/er")).unwrap();
        let odd = OsString::from_vec(b"deep/b\xffd %41".to_vec());
        fs::write(old.path().join(&odd), "odd").unwrap();
        let sparse = File::create(at("deep/sparse")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        sparse.write_all_at(b"far", 500_000).unwrap();
        fs::hard_link(at("deep/sparse"), at("second")).unwrap();
        fs::set_permissions(at("deep"), fs::Permissions::from_mode(0o1770)).unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        mknodat(opened(&old), "pipe", FileType::Fifo, Mode::RUSR, 0).unwrap();

        load(&opened(&new), saved(&old).path(), "shm").unwrap();
        let at = |name: &str| new.path().join(name);
        assert_eq!(fs::read(new.path().join(&odd)).unwrap(), b"odd");
        let sparse = fs::metadata(at("deep/sparse")).unwrap();
        assert_eq!((sparse.len(), sparse.nlink()), (1 << 20, 2));
        assert!(sparse.blocks() * 512 < 1 << 19, "{} blocks", sparse.blocks());
        assert_eq!(&fs::read(at("second")).unwrap()[500_000..500_004], b"far\0");
        assert_eq!(fs::metadata(at("deep")).unwrap().mode() & 0o7777, 0o1770);
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(FileType::from_raw_mode(fs::metadata(at("pipe")).unwrap().mode()), FileType::Fifo);
        assert!(at("deep/er").is_dir());
        assert_eq!(sparse.mtime_nsec(), fs::metadata(old.path().join("second")).unwrap().mtime_nsec());
    }

    #[test]
    fn an_empty_folder_leaves_nothing() {
        let (empty, image) = (tempdir().unwrap(), tempdir().unwrap());
        assert!(!save(&opened(&empty), image.path(), "shm").unwrap());
        assert_eq!(fs::read_dir(image.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_there_stays_and_what_fails_leaves_nothing() {
        let (old, new) = (tempdir().unwrap(), tempdir().unwrap());
        fs::create_dir(old.path().join("a")).unwrap();
        fs::write(old.path().join("a/file"), "ours").unwrap();
        fs::write(old.path().join("b"), "ours").unwrap();
        let image = saved(&old);
        fs::create_dir(new.path().join("a")).unwrap();
        fs::write(new.path().join("a/file"), "theirs").unwrap();
        load(&opened(&new), image.path(), "shm").unwrap();
        assert_eq!(fs::read(new.path().join("a/file")).unwrap(), b"theirs");
        assert_eq!(fs::read(new.path().join("b")).unwrap(), b"ours");

        let other = tempdir().unwrap();
        let list = fs::read_to_string(image.path().join("shm.json")).unwrap();
        let broken = list.replace("\"path\":\"b\"", "\"path\":\"none%2Fb\"");
        fs::write(image.path().join("shm.json"), broken).unwrap();
        assert!(load(&opened(&other), image.path(), "shm").is_err());
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_made_outside() {
        let (folder, outside, image) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
        symlink(outside.path(), folder.path().join("out")).unwrap();
        let absolute = outside.path().join("file");
        for path in ["out/file", "../file", "..", absolute.to_str().unwrap(), ""] {
            let path = encoded(path.as_bytes());
            let list = format!(
                r#"[{{"path":"{path}","mode":420,"uid":0,"gid":0,"modified":[0,0],"kind":"file","size":1,"pieces":[]}}]"#
            );
            fs::write(image.path().join("shm.json"), list).unwrap();
            assert!(load(&opened(&folder), image.path(), "shm").is_err(), "{path}");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{path}");
        }
    }
}

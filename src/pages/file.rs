//! Files of memory pages: which they are, and how they are opened and published.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, Mode, OFlags, fadvise, open};

use super::{Error, damaged, reading, writing};

/// Of one read: fits the second level of every processor's cache.
pub(super) const PIECE: usize = 256 << 10;
/// Of a file that isn't complete. Whoever finds one that nobody holds may remove it.
pub(super) const UNFINISHED: &str = "new";

pub(crate) fn is_pages(name: &str) -> bool {
    name.starts_with("pages-") && name.ends_with(".img")
}

/// The names in a folder that a test picks, in order.
pub(super) fn names(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(reading(folder))? {
        let name = entry.map_err(reading(folder))?.file_name();
        found.extend(name.to_str().filter(|name| wanted(name)).map(str::to_owned));
    }
    found.sort_unstable();
    Ok(found)
}

/// Opens a plain file, and nothing that a link leads to or at which a reader waits.
pub(super) fn open_plain(path: &Path) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty()).map_err(|error| reading(path)(error.into()))?);
    if !file.metadata().map_err(reading(path))?.is_file() {
        return Err(damaged(path, "it is no plain file"));
    }
    Ok(file)
}

/// The whole of a file that has to be small.
pub(super) fn read_within(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let file = open_plain(path)?;
    let size = file.metadata().map_err(reading(path))?.len();
    let fits = usize::try_from(size).ok().filter(|_| size <= most);
    let mut bytes = vec![0; fits.ok_or_else(|| damaged(path, "it is far too large"))?];
    read_exactly(&file, path, &mut bytes, 0)?;
    Ok(bytes)
}

pub(super) fn read_exactly(file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> Result<(), Error> {
    file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(path, "it ends too early"),
        _ => reading(path)(error),
    })
}

/// Where a file is written before it gets its name.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    with_suffix(path, UNFINISHED)
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_owned();
    path.as_mut_os_string().push(".");
    path.as_mut_os_string().push(suffix);
    path
}

/// For the owner alone; what an earlier attempt has left there is replaced.
pub(super) fn create(path: &Path) -> Result<File, Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(writing(path)(error)),
        _ => {}
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| writing(path)(error.into()))?;
    Ok(File::from(file))
}

/// Small files: on the disk under its name when this returns, but for the folder's entry.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let new = unfinished(path);
    let file = create(&new)?;
    let written = file.write_all_at(bytes, 0).and_then(|()| file.sync_data());
    let published = written.and_then(|()| fs::rename(&new, path)).map_err(writing(path));
    if published.is_err() {
        let _ = fs::remove_file(&new);
    }
    published
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(writing(folder))
}

pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(writing(path)(error)),
        _ => Ok(()),
    }
}

/// Read once, from the beginning to the end. Only advice: what it fails with doesn't matter.
pub(super) fn is_read_once(file: &File) {
    let _ = fadvise(file, 0, None, Advice::Sequential);
    // What is read for a digest shan't push out what containers use (Linux 6.3).
    let _ = fadvise(file, 0, None, Advice::NoReuse);
}

/// The newest checkpoint may need the memory that this one's file takes in the page cache.
pub(super) fn is_done_with(file: &File) {
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

//! Steps on the disk: each done or not done after a loss of power.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The kernel counts blocks in this unit, whatever the file system does.
const BLOCK: u64 = 512;

pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(folder)
}

pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a whole file, and it is on the disk; its name isn't yet.
pub(super) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Moves something to another folder: when this returns it is there for good.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    [to, from].into_iter().filter_map(Path::parent).try_for_each(sync)
}

/// What is gone already is no failure, nor what another process removes meanwhile.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    loop {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(folder) {
                Ok(_) => {}
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            },
            done => return done,
        }
    }
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// What a file or a folder with all below takes on the disk: holes take nothing. What
/// vanishes meanwhile takes nothing either.
pub(super) fn bytes(path: &Path) -> io::Result<u64> {
    let measured = || {
        let metadata = fs::symlink_metadata(path)?;
        let mut bytes = metadata.blocks() * BLOCK;
        if metadata.is_dir() {
            for entry in fs::read_dir(path)? {
                bytes += self::bytes(&entry?.path())?;
            }
        }
        Ok(bytes)
    };
    measured().or_else(|error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(0),
        _ => Err(error),
    })
}

/// Names in a folder, sorted; none if it isn't there.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names = entries.map(name).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_takes_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("hole")).unwrap();
        file.set_len(1 << 30).unwrap();
        assert!(bytes(folder.path()).unwrap() < 1 << 20);
        fs::write(folder.path().join("full"), vec![1; 1 << 20]).unwrap();
        sync(&folder.path().join("full")).unwrap();
        assert!(bytes(folder.path()).unwrap() >= 1 << 20);
    }

    #[test]
    fn what_is_gone_already_can_be_removed_and_takes_no_room() {
        let gone = Path::new("/nowhere/at/all");
        assert!(remove_file(gone).is_ok() && remove_folder(gone).is_ok());
        assert_eq!(bytes(gone).unwrap(), 0);
        assert_eq!(names(gone).unwrap().len(), 0);
    }
}

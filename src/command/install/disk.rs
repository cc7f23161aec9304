//! Files and links, each changed in one step: there is the old one or the new one, never half.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::command::root::Root;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Content {
    Text(String),
    Link(PathBuf),
}

/// What is there. A configuration file that is a link is what the link leads to.
pub(super) fn look(root: &Root, path: &Path) -> io::Result<Option<Content>> {
    let real = root.at(path);
    let metadata = match fs::symlink_metadata(&real) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !is_configuration(path) {
        // Something else in a link's place isn't ours, whatever it says.
        let link = metadata.is_symlink().then(|| fs::read_link(real)).transpose()?;
        return Ok(Some(link.map_or_else(|| Content::Text(String::new()), Content::Link)));
    }
    Ok(Some(Content::Text(fs::read_to_string(behind(root, path)?)?)))
}

/// Writes beside the file and renames, so that everybody sees the old text or the new one.
/// A file that is there keeps its mode and its owner.
pub(super) fn write(root: &Root, path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let real = behind(root, path)?;
    make_folder(&real)?;
    let old = fs::metadata(&real).ok();
    let new = beside(&real);
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(&new)?;
    if let Some(old) = old {
        use std::os::unix::fs::MetadataExt;
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &real)?;
    sync_folder(&real)
}

pub(super) fn link(root: &Root, path: &Path, target: &Path) -> io::Result<()> {
    let real = root.at(path);
    make_folder(&real)?;
    let new = beside(&real);
    remove_file(&new)?;
    symlink(target, &new)?;
    fs::rename(&new, &real)?;
    sync_folder(&real)
}

/// Removes a file, and what an interrupted write left beside it.
pub(super) fn remove(root: &Root, path: &Path) -> io::Result<()> {
    let real = root.at(path);
    remove_file(&beside(&real))?;
    remove_file(&real)?;
    if real.parent().is_some_and(Path::exists) { sync_folder(&real) } else { Ok(()) }
}

/// Whether the folder is gone now.
pub(super) fn remove_empty(root: &Root, folder: &Path) -> bool {
    let removed = fs::remove_dir(root.at(folder));
    removed.map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true)
}

/// Links to shims are what they are; everything else we write is text.
fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json" || extension == "conf")
}

/// The file to be written: a link that somebody made for it stays.
fn behind(root: &Root, path: &Path) -> io::Result<PathBuf> {
    let real = root.at(path);
    if !fs::symlink_metadata(&real).is_ok_and(|metadata| metadata.is_symlink()) {
        return Ok(real);
    }
    let target = real.canonicalize()?;
    if !target.starts_with(root.folder()) {
        return Err(io::Error::other("it is a link that leads out of the root folder"));
    }
    Ok(target)
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.cryo-new"))
}

fn make_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// A rename is on the disk when its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

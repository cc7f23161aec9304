//! Files and links, each changed in one step: there is the old one or the new one, never half.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use cryo::checkpoint::manifest::digest;
use serde::{Deserialize, Serialize};

use crate::command::root::Root;

const LEADS_OUT: &str = "a link in it leads out of the root folder";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Content {
    Text(String),
    Link(PathBuf),
    /// By its digest; nothing if it is no file.
    Program(String),
}

impl Content {
    pub(super) fn into_text(self) -> Option<String> {
        match self {
            Content::Text(text) => Some(text),
            Content::Link(_) | Content::Program(_) => None,
        }
    }
}

/// What is there. A configuration file that is a link is what the link leads to.
pub(super) fn look(root: &Root, path: &Path) -> io::Result<Option<Content>> {
    let real = inside(root, path)?;
    let metadata = match fs::symlink_metadata(&real) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if is_configuration(path) {
        return Ok(Some(Content::Text(fs::read_to_string(behind(root, path)?)?)));
    }
    Ok(Some(if metadata.is_symlink() {
        Content::Link(fs::read_link(real)?)
    } else if metadata.is_file() {
        Content::Program(digest(&fs::read(real)?))
    } else {
        Content::Program(String::new())
    }))
}

/// Writes beside the file and renames, so that everybody sees the old content or the new one.
/// A file that is there keeps its mode and its owner.
pub(super) fn write(root: &Root, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
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
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, &real)?;
    sync_folder(&real)
}

pub(super) fn link(root: &Root, path: &Path, target: &Path) -> io::Result<()> {
    let real = inside(root, path)?;
    make_folder(&real)?;
    let new = beside(&real);
    remove_file(&new)?;
    symlink(target, &new)?;
    fs::rename(&new, &real)?;
    sync_folder(&real)
}

/// Removes a file, and what an interrupted write left beside it.
pub(super) fn remove(root: &Root, path: &Path) -> io::Result<()> {
    let real = inside(root, path)?;
    remove_file(&beside(&real))?;
    remove_file(&real)?;
    if real.parent().is_some_and(Path::exists) { sync_folder(&real) } else { Ok(()) }
}

/// Whether the folder is gone now.
pub(super) fn remove_empty(root: &Root, folder: &Path) -> bool {
    let removed = fs::remove_dir(root.at(folder));
    removed.map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true)
}

/// Links to shims and programs are what they are; everything else we write is text.
fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["json", "conf", "toml"].iter().any(|text| extension == *text))
}

/// Where a path of the machine is, unless one of its folders is a link to somewhere else.
fn inside(root: &Root, path: &Path) -> io::Result<PathBuf> {
    let real = root.at(path);
    let folder = real.ancestors().skip(1).find_map(|folder| folder.canonicalize().ok());
    match folder {
        Some(folder) if !folder.starts_with(root.folder()) => Err(io::Error::other(LEADS_OUT)),
        _ => Ok(real),
    }
}

/// The file to be written: a link that somebody made for it stays.
fn behind(root: &Root, path: &Path) -> io::Result<PathBuf> {
    let real = inside(root, path)?;
    if !fs::symlink_metadata(&real).is_ok_and(|metadata| metadata.is_symlink()) {
        return Ok(real);
    }
    let target = real.canonicalize()?;
    if !target.starts_with(root.folder()) {
        return Err(io::Error::other(LEADS_OUT));
    }
    Ok(target)
}

/// What will have the file's name in one step.
pub(super) fn beside(path: &Path) -> PathBuf {
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

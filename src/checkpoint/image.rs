//! The folder that holds a checkpoint.
//!
//! Flat, because some clients can't carry folders. It is sealed, or it is rubbish that
//! the next operation removes; one without our manifest was made by somebody else and
//! is judged by CRIU's inventory. A new image never touches an older one in the same
//! place before it is complete.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use super::is_temporary;
use super::manifest::{self, Manifest};
use super::seal::is_sealed;
use crate::cgroup::nested;
use crate::criu::images;
use crate::pages::is_pages;
use crate::pages::memory::{self, stands_for};
use crate::rootfs;
use crate::store::{self, Held, Id};

/// Where a dump goes while the place it is meant for holds an older image.
const STAGING_PREFIX: &str = ".cryo-";
/// Written by runc and crun beside CRIU's files: what the first process had as its streams.
const DESCRIPTORS_FILE: &str = "descriptors.json";
/// What it had been sent and not read yet.
pub(super) const UNREAD_FILE: &str = "cryo-stdin";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("checkpoint path {} must be absolute and without '..'", .0.display())]
    Path(PathBuf),
    #[error("cannot use checkpoint folder {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("{} holds no checkpoint: {problem}", path.display())]
    Foreign { path: PathBuf, problem: String },
    #[error("the checkpoint in {} was never completed: take it again", .0.display())]
    Unsealed(PathBuf),
    #[error("the checkpoint in {} is damaged: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("{} isn't trusted with a checkpoint: '{name}' in it is {what}, only plain files of root's may be there", path.display())]
    Hostile { path: PathBuf, name: String, what: &'static str },
    #[error("checkpoint folder {} can be changed by others: it has to be root's, and writable for nobody else", .0.display())]
    Open(PathBuf),
    #[error("the data of the checkpoint in {} is in the store of node {node} as {entry}, and not here: write it to a file with cryo export there, and read that with cryo import here", path.display())]
    Elsewhere { path: PathBuf, entry: Id, node: String },
    #[error("the data of the checkpoint in {} was removed from this node's store, where it was {entry}: take it again", path.display())]
    Removed { path: PathBuf, entry: Id },
    #[error("cannot use the checkpoint in {}: {problem}", path.display())]
    Store { path: PathBuf, problem: Box<store::Error> },
    #[error("{} is in use by another checkpoint or restore: wait for that, or choose another folder", .0.display())]
    Busy(PathBuf),
}

/// An image that is being made.
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    folder: PathBuf,
    /// The topmost folder that we had to make.
    made: Option<PathBuf>,
    /// Nobody else writes there, or restores from there, as long as this is held.
    _lock: OwnedFd,
}

/// An image that can be restored. Holds its folder open: what was checked is what is
/// used, wherever the path leads later.
#[derive(Debug)]
pub struct Image {
    pub path: PathBuf,
    pub folder: OwnedFd,
    /// Missing if somebody else took the checkpoint.
    pub manifest: Option<Manifest>,
    /// The store's, if the folder that the path names only says where it is. It stays there as
    /// long as this lives.
    pub held: Option<Held>,
}

impl Staging {
    /// Makes room for a new image at a path of the client's.
    pub fn begin(target: &Path) -> Result<Staging, Error> {
        check_path(target)?;
        let made = topmost_missing(target);
        let begun = Staging::make_room(target, made.is_some());
        match begun {
            Ok((folder, lock)) => Ok(Staging { target: target.to_owned(), folder, made, _lock: lock }),
            Err(error) => {
                remove_made(made.as_deref(), target);
                Err(error)
            }
        }
    }

    fn make_room(target: &Path, missing: bool) -> Result<(PathBuf, OwnedFd), Error> {
        let failed = |source| Error::Folder { path: target.to_owned(), source };
        if missing {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(target).map_err(failed)?;
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let opened = open(target, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        check_folder(&opened, target)?;
        lock(&opened, target, FlockOperation::NonBlockingLockExclusive)?;
        remove_rubbish(target).map_err(failed)?;
        // What a restore would refuse must not become the only copy of a container.
        check_entries(target, target)?;
        // Memory of the container is in it: nobody else looks at it even half made.
        let private = fs::metadata(target).map_err(failed)?.mode() & 0o077 == 0;
        if private && fs::read_dir(target).map_err(failed)?.next().is_none() {
            return Ok((target.to_owned(), opened));
        }
        let folder = target.join(format!("{STAGING_PREFIX}{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        Ok((folder, opened))
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Puts the sealed image where the client wants it, in place of an older one.
    pub fn publish(self) -> Result<(), Error> {
        if self.folder == self.target {
            return Ok(());
        }
        publish(&self.folder, &self.target)
            .map_err(|source| Error::Folder { path: self.target.clone(), source })
    }

    /// Leaves the place as it was.
    pub fn discard(self) {
        let discard = || {
            if self.folder != self.target {
                return fs::remove_dir_all(&self.folder);
            }
            names(&self.folder)?.iter().try_for_each(|name| fs::remove_file(self.folder.join(name)))?;
            // If its client has given up, containerd has tried to remove it before.
            if is_temporary(&self.folder) { fs::remove_dir(&self.folder) } else { Ok(()) }
        };
        if let Err(error) = discard() {
            tracing::warn!(%error, folder = %self.folder.display(), "an incomplete checkpoint stays behind");
        }
        remove_made(self.made.as_deref(), &self.target);
    }
}

/// The first folder on the way to `path` that isn't there.
fn topmost_missing(path: &Path) -> Option<PathBuf> {
    path.ancestors().take_while(|folder| !folder.exists()).last().map(Path::to_owned)
}

/// Removes folders that were made on the way to `path`, unless somebody uses them now.
fn remove_made(top: Option<&Path>, path: &Path) {
    let Some(top) = top else { return };
    for folder in path.ancestors().take_while(|folder| folder.starts_with(top)) {
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// What is checked now is used later: nobody else may change it meanwhile.
fn check_folder(folder: &OwnedFd, path: &Path) -> Result<(), Error> {
    let failed = |error: rustix::io::Errno| Error::Folder { path: path.to_owned(), source: error.into() };
    let stat = rustix::fs::fstat(folder).map_err(failed)?;
    let ours = stat.st_uid == rustix::process::geteuid().as_raw();
    if ours && stat.st_mode & 0o022 == 0 { Ok(()) } else { Err(Error::Open(path.to_owned())) }
}

/// Where locks can't be had (some network file systems) there is none.
fn lock(folder: &OwnedFd, path: &Path, how: FlockOperation) -> Result<(), Error> {
    match flock(folder, how) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Busy(path.to_owned())),
        _ => Ok(()),
    }
}

impl Image {
    /// Opens an image without following links, and checks that it is one.
    pub fn open(path: &Path) -> Result<Image, Error> {
        Image::open_folder(path)?.complete()
    }

    pub(super) fn complete(self) -> Result<Image, Error> {
        images::check_inventory(&self.place())
            .map_err(|problem| Error::Foreign { path: self.path.clone(), problem: problem.to_string() })?;
        Ok(self)
    }

    pub(super) fn open_folder(path: &Path) -> Result<Image, Error> {
        check_path(path)?;
        let failed = |source| Error::Folder { path: path.to_owned(), source };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let folder = open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        check_folder(&folder, path)?;
        let image = Image { path: path.to_owned(), folder, manifest: None, held: None };
        image.check_entries()?;
        image.finish_arrival()?;
        lock(&image.folder, path, FlockOperation::NonBlockingLockShared)?;
        let manifest = image.check_manifest()?;
        Ok(Image { manifest, ..image })
    }

    /// What CRIU's own files say about the first process's network namespace.
    pub fn network(&self) -> Result<images::NetworkImage, Error> {
        images::network_image(&self.place()).map_err(|problem| self.damaged(&problem))
    }

    pub fn damaged(&self, problem: &impl ToString) -> Error {
        Error::Damaged { path: self.path.clone(), problem: problem.to_string() }
    }

    /// A complete image beside an older one is the last that was taken: a shim died when
    /// it was about to put it in its place.
    fn finish_arrival(&self) -> Result<(), Error> {
        let failed = |source| Error::Folder { path: self.path.clone(), source };
        if arrivals(&self.place()).map_err(failed)?.is_empty() {
            return Ok(());
        }
        lock(&self.folder, &self.path, FlockOperation::NonBlockingLockExclusive)?;
        finish_arrivals(&self.place()).map_err(failed)?;
        self.check_entries()
    }

    /// What the first process was sent before the checkpoint and hadn't read; nothing if
    /// its stdin isn't the one that the client gave it.
    pub fn unread(&self) -> Vec<u8> {
        let given = self.manifest.as_ref().and_then(|manifest| manifest.stdio.pipes.first());
        let descriptors = fs::read(self.place().join(DESCRIPTORS_FILE)).unwrap_or_default();
        let descriptors: Vec<String> = serde_json::from_slice(&descriptors).unwrap_or_default();
        if given.is_none() || given != descriptors.first() {
            return Vec::new();
        }
        fs::read(self.place().join(UNREAD_FILE)).unwrap_or_default()
    }

    /// A path to the folder that was opened.
    pub fn place(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.folder.as_raw_fd()).into()
    }

    fn check_entries(&self) -> Result<(), Error> {
        check_entries(&self.place(), &self.path)
    }

    fn check_manifest(&self) -> Result<Option<Manifest>, Error> {
        let damaged = |problem| Error::Damaged { path: self.path.clone(), problem };
        let manifest = match Manifest::read(&self.place()) {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(damaged(format!("{}: {error}", manifest::FILE_NAME))),
        };
        if !manifest.sealed {
            return Err(Error::Unsealed(self.path.clone()));
        }
        for (name, size) in &manifest.files {
            match fs::symlink_metadata(self.place().join(name)) {
                Ok(metadata) if metadata.len() == *size => {}
                Ok(metadata) => {
                    return Err(damaged(format!("{name} has {} of {size} bytes", metadata.len())));
                }
                Err(_) if is_pages(name) && memory::form(&self.place(), name).is_some() => {}
                Err(_) => {
                    let elsewhere = manifest.memory.as_ref().filter(|_| is_pages(name));
                    let elsewhere =
                        elsewhere.map(|folder| format!(", it was written to {}", folder.display()));
                    return Err(damaged(format!("{name} is missing{}", elsewhere.unwrap_or_default())));
                }
            }
        }
        // Memory is looked at when it is needed.
        let is_small = |name: &str| manifest.files.contains_key(name) && !is_pages(name);
        for (name, digest) in manifest.digests.iter().filter(|(name, _)| is_small(name)) {
            let bytes = images::read_small(&self.place().join(name));
            if !bytes.is_ok_and(|bytes| manifest::digest(&bytes) == *digest) {
                return Err(damaged(format!("{name} isn't what it was when the checkpoint was taken")));
            }
        }
        Ok(Some(manifest))
    }
}

/// Only plain files of ours belong into an image's folder.
fn check_entries(folder: &Path, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Folder { path: path.to_owned(), source };
    let owner = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        if metadata.is_dir() && entry.file_name().as_encoded_bytes().starts_with(STAGING_PREFIX.as_bytes()) {
            // Left by an operation that died; the next checkpoint removes it.
            continue;
        }
        let what = match metadata.file_type() {
            kind if kind.is_symlink() => "a link",
            kind if !kind.is_file() => "no plain file",
            _ if metadata.uid() != owner => "somebody else's file",
            _ if metadata.mode() & 0o022 != 0 => "a file that others may change",
            _ => continue,
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        return Err(Error::Hostile { path: path.to_owned(), name, what });
    }
    Ok(())
}

/// Moves a sealed image to its place. Until its manifest arrives, last of all, there is
/// no image in that place. Whoever finds this half done can do it again.
fn publish(folder: &Path, target: &Path) -> io::Result<()> {
    let manifest = Manifest::read(folder)?;
    let older = Manifest::read(target).map(|older| older.files).unwrap_or_default();
    let had_image = !older.is_empty() || images::check_inventory(target).is_ok();
    remove_manifest(target)?;
    let plain = |name: &str| stands_for(name).unwrap_or(name).to_owned();
    for name in names(folder)?.iter().filter(|name| manifest.files.contains_key(&plain(name))) {
        if is_pages(&plain(name)) {
            // The older image may have kept it in another form.
            remove_files(target, |other| plain(other) == plain(name))?;
        }
        fs::rename(folder.join(name), target.join(name))?;
    }
    // Of an older image, nothing else: the folder may be anybody's.
    let is_older = |name: &str| had_image && (older.contains_key(name) || is_image_file(name));
    remove_files(target, |name| is_older(name) && !manifest.files.contains_key(&plain(name)))?;
    fs::rename(folder.join(manifest::FILE_NAME), target.join(manifest::FILE_NAME))?;
    fs::remove_dir_all(folder)
}

fn check_path(path: &Path) -> Result<(), Error> {
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    if plain { Ok(()) } else { Err(Error::Path(path.to_owned())) }
}

pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Complete images that never reached their place.
fn arrivals(target: &Path) -> io::Result<Vec<PathBuf>> {
    let staged = stagings(target)?;
    Ok(staged.into_iter().filter(|folder| is_sealed(folder)).collect())
}

fn finish_arrivals(target: &Path) -> io::Result<()> {
    arrivals(target)?.iter().try_for_each(|folder| publish(folder, target))
}

fn stagings(target: &Path) -> io::Result<Vec<PathBuf>> {
    let names = names(target)?.into_iter().filter(|name| name.starts_with(STAGING_PREFIX));
    let folders = names.map(|name| target.join(name));
    Ok(folders.filter(|folder| fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_dir())).collect())
}

/// What an operation that died left: an image without its seal, or a staging folder.
fn remove_rubbish(target: &Path) -> io::Result<()> {
    finish_arrivals(target)?;
    stagings(target)?.iter().try_for_each(fs::remove_dir_all)?;
    match Manifest::read(target) {
        Ok(manifest) if !manifest.sealed => {
            remove_manifest(target)?;
            remove_files(target, is_image_file)
        }
        _ => Ok(()),
    }
}

fn remove_manifest(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(manifest::FILE_NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_files(folder: &Path, which: impl Fn(&str) -> bool) -> io::Result<()> {
    let names = names(folder)?;
    names.iter().filter(|name| which(name)).try_for_each(|name| fs::remove_file(folder.join(name)))
}

/// A file of an image; whatever else lies in the folder is the client's.
fn is_image_file(name: &str) -> bool {
    let name = stands_for(name).unwrap_or(name);
    let ours = [DESCRIPTORS_FILE, UNREAD_FILE, nested::FILE, rootfs::FILE];
    images::is_image_file(name) || ours.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::seal::seal;
    use crate::pages::compress::Shrinking;
    use crate::pages::follow::Follower;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const INVENTORY: [u8; 8] = [0x16, 0x31, 0x31, 0x58, 0, 0, 0, 0];

    fn foreign_image() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(folder.path().join(images::INVENTORY_FILE), INVENTORY).unwrap();
        folder
    }

    fn unsealed_manifest() -> Manifest {
        serde_json::from_value(serde_json::json!({
            "version": manifest::VERSION, "sealed": false, "container": "c", "namespace": "n",
            "taken_at": 0, "left_running": false, "runtime": {"name": "runc", "version": ""},
            "criu": null, "kernel": "", "architecture": "", "options": {}, "terminal": false,
            "stdio": {"stdin": "", "stdout": "", "stderr": "", "pipes": []}, "network": "private", "own_users": false,
            "cgroup": "", "mounts": [], "spec_digest": "", "files": {}, "took": 0,
        }))
        .unwrap()
    }

    fn sealed_image() -> tempfile::TempDir {
        let folder = foreign_image();
        fs::write(folder.path().join("pages-1.img"), [1; 100]).unwrap();
        unsealed_manifest().write(folder.path(), false).unwrap();
        seal(folder.path(), |_| {}).unwrap();
        folder
    }

    #[test]
    fn a_sealed_image_opens_and_a_truncated_one_is_named() {
        let folder = sealed_image();
        assert!(Image::open(folder.path()).unwrap().manifest.is_some());
        fs::write(folder.path().join("pages-1.img"), [1; 99]).unwrap();
        let error = Image::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("pages-1.img has 99 of 100 bytes"), "{error}");
    }

    #[test]
    fn an_image_of_somebody_else_is_judged_by_its_inventory() {
        let folder = foreign_image();
        assert!(Image::open(folder.path()).unwrap().manifest.is_none());
        fs::write(folder.path().join(images::INVENTORY_FILE), "text").unwrap();
        assert!(matches!(Image::open(folder.path()), Err(Error::Foreign { .. })));
    }

    #[test]
    fn an_image_without_its_seal_is_refused() {
        let folder = foreign_image();
        unsealed_manifest().write(folder.path(), false).unwrap();
        assert!(matches!(Image::open(folder.path()), Err(Error::Unsealed(_))));
    }

    #[test]
    fn links_and_folders_are_refused() {
        let folder = sealed_image();
        symlink("/etc/passwd", folder.path().join("core-1.img")).unwrap();
        assert!(matches!(Image::open(folder.path()), Err(Error::Hostile { .. })));
        let folder = sealed_image();
        fs::create_dir(folder.path().join("parent")).unwrap();
        assert!(matches!(Image::open(folder.path()), Err(Error::Hostile { .. })));
        let link = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".cryo-77")).unwrap();
        symlink(sealed_image().path(), link.path().join("image")).unwrap();
        assert!(matches!(Image::open(&link.path().join("image")), Err(Error::Folder { .. })));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["relative/image", "/var/../etc"] {
            assert!(matches!(Image::open(Path::new(path)), Err(Error::Path(_))), "{path}");
            assert!(matches!(Staging::begin(Path::new(path)), Err(Error::Path(_))), "{path}");
        }
    }

    #[test]
    fn an_older_image_stays_until_the_new_one_is_complete() {
        let folder = sealed_image();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        fs::write(folder.path().join("debian.img"), "mine, too").unwrap();
        let staging = Staging::begin(folder.path()).unwrap();
        fs::write(staging.folder().join("core-1.img"), "new").unwrap();
        assert!(folder.path().join("pages-1.img").exists());
        unsealed_manifest().write(staging.folder(), false).unwrap();
        seal(staging.folder(), |_| {}).unwrap();
        staging.publish().unwrap();
        let mut left = names(folder.path()).unwrap();
        left.sort();
        assert_eq!(left, ["core-1.img", "cryo.json", "debian.img", "notes.txt"]);
    }

    #[test]
    fn what_was_discarded_leaves_no_trace() {
        let folder = sealed_image();
        let before = names(folder.path()).unwrap().len();
        let staging = Staging::begin(folder.path()).unwrap();
        fs::write(staging.folder().join("core-1.img"), "half").unwrap();
        staging.discard();
        assert_eq!(names(folder.path()).unwrap().len(), before);
        let new = folder.path().join("new");
        let staging = Staging::begin(&new).unwrap();
        fs::write(staging.folder().join("core-1.img"), "half").unwrap();
        staging.discard();
        assert!(!new.exists());
    }

    #[test]
    fn a_complete_image_that_never_arrived_arrives_with_the_next_operation() {
        let folder = sealed_image();
        let staging = Staging::begin(folder.path()).unwrap();
        fs::write(staging.folder().join("core-1.img"), "new").unwrap();
        unsealed_manifest().write(staging.folder(), false).unwrap();
        seal(staging.folder(), |_| {}).unwrap();
        drop(staging);
        Staging::begin(folder.path()).unwrap().discard();
        assert!(folder.path().join("core-1.img").exists());
        assert!(!folder.path().join("pages-1.img").exists());
    }

    /// As a helper leaves it; its digest is that of a page of ones.
    fn compress(folder: &Path) {
        let page = [1; 100];
        fs::write(folder.join("pages-1.img"), page).unwrap();
        seal(folder, |_| {}).unwrap();
        let follower = Follower::<Shrinking>::start(folder, folder.to_owned()).unwrap();
        let mut shrunk = follower.finish(&[("pages-1.img".to_owned(), 100)].into()).unwrap();
        let shrunk = shrunk.remove("pages-1.img").unwrap();
        assert!(shrunk.is_compressed);
        fs::remove_file(folder.join("pages-1.img")).unwrap();
        seal(folder, |manifest| drop(manifest.digests.insert("pages-1.img".to_owned(), shrunk.digest)))
            .unwrap();
    }

    #[test]
    fn compressed_memory_is_no_missing_file_if_somebody_knows_what_it_was() {
        let folder = foreign_image();
        unsealed_manifest().write(folder.path(), false).unwrap();
        compress(folder.path());
        let image = Image::open(folder.path()).unwrap();
        assert_eq!(image.memory_elsewhere().unwrap()["pages-1.img"].size, 100);
        assert!(image.check_rest().unwrap().is_none(), "there is nothing else to check");
        seal(folder.path(), |manifest| manifest.digests.clear()).unwrap();
        let error = Image::open(folder.path()).unwrap().memory_elsewhere().unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        fs::remove_file(folder.path().join("pages-1.img.zst")).unwrap();
        let error = || Image::open(folder.path()).unwrap_err().to_string();
        assert!(error().ends_with("pages-1.img is missing"), "{}", error());
        seal(folder.path(), |manifest| manifest.memory = Some("/elsewhere".into())).unwrap();
        assert!(error().ends_with("pages-1.img is missing, it was written to /elsewhere"), "{}", error());
    }

    #[test]
    fn an_image_takes_the_place_of_one_that_kept_its_memory_in_another_form() {
        let memory = |folder: &Path| {
            let mut names = names(folder).unwrap();
            names.retain(|name| name.starts_with("pages"));
            names
        };
        let folder = sealed_image();
        for (is_compressed, name) in [(true, "pages-1.img.zst"), (false, "pages-1.img")] {
            let staging = Staging::begin(folder.path()).unwrap();
            fs::write(staging.folder().join(images::INVENTORY_FILE), INVENTORY).unwrap();
            unsealed_manifest().write(staging.folder(), false).unwrap();
            if is_compressed {
                compress(staging.folder());
            } else {
                fs::write(staging.folder().join("pages-1.img"), [2; 100]).unwrap();
                seal(staging.folder(), |_| {}).unwrap();
            }
            staging.publish().unwrap();
            assert_eq!(memory(folder.path()), [name]);
            Image::open(folder.path()).unwrap();
        }
    }

    #[test]
    fn rubbish_is_removed_by_the_next_one() {
        let folder = foreign_image();
        unsealed_manifest().write(folder.path(), false).unwrap();
        fs::create_dir(folder.path().join(".cryo-77")).unwrap();
        let staging = Staging::begin(folder.path()).unwrap();
        assert_eq!(staging.folder(), folder.path());
        assert_eq!(names(folder.path()).unwrap().len(), 0);
    }
}

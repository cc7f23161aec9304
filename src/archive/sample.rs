//! Checkpoints and archives for tests.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::export::{Compression, Source, export, files_of};
use super::import::{Error, Imported, Limits, import};
use crate::checkpoint::image::Image;
use crate::checkpoint::manifest::{self, Manifest};
use crate::checkpoint::seal::seal;
use crate::criu::images;

pub(super) const INVENTORY: [u8; 8] = [0x16, 0x31, 0x31, 0x58, 0, 0, 0, 0];

pub(super) fn unsealed() -> Manifest {
    serde_json::from_value(serde_json::json!({
        "version": manifest::VERSION, "sealed": false, "container": "c1", "namespace": "default",
        "taken_at": 1_700_000_000_123_u64, "left_running": false,
        "runtime": {"name": "runc", "version": "1.2"}, "criu": "4.2", "kernel": "6.1",
        "architecture": "x86_64", "options": {}, "terminal": false,
        "stdio": {"stdin": "", "stdout": "", "stderr": "", "pipes": []}, "network": "host",
        "own_users": false, "cgroup": "", "mounts": [], "spec_digest": "", "files": {}, "took": 0,
    }))
    .unwrap()
}

/// A sealed image with these files and an inventory.
pub(super) fn image(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    fs::write(folder.path().join(images::INVENTORY_FILE), INVENTORY).unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    unsealed().write(folder.path(), false).unwrap();
    seal(folder.path(), |_| {}).unwrap();
    folder
}

/// A small one, with a page of zeroes in it.
pub(super) fn small_image() -> TempDir {
    let pages = [vec![7; 4096], vec![0; 4096], vec![9; 100]].concat();
    image(&[("core-1.img", b"core"), ("pages-1.img", &pages)])
}

/// What [`export`] makes of it.
pub(super) fn exported(folder: &Path, compression: Compression, beside: &[(&str, PathBuf)]) -> Vec<u8> {
    let image = Image::open(folder).unwrap();
    let open = files_of(&image);
    let mut out = Vec::new();
    export(&source(image.manifest.as_ref().unwrap(), &open, beside), &mut out, compression, |_| {}).unwrap();
    out
}

pub(super) fn source<'a>(
    manifest: &'a Manifest,
    open: &'a dyn Fn(&str) -> std::io::Result<Box<dyn Read>>,
    beside: &'a [(&'a str, PathBuf)],
) -> Source<'a> {
    Source { manifest, open, container: None, reference: None, rootfs_image: None, beside }
}

/// Imports with limits of a small machine; on failure nothing is left and one sentence said.
pub(super) fn attempt(archive: impl Read) -> Result<(TempDir, Imported), Error> {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 64 << 20, members: 10_000 };
    match import(archive, folder.path(), &limits, |_| {}) {
        Ok(imported) => Ok((folder, imported)),
        Err(error) => {
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{error}");
            let text = error.to_string();
            assert!(text.chars().count() <= 300 && !text.contains('\n'), "{text}");
            Err(error)
        }
    }
}

pub(super) fn header(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    header
}

/// A tar archive of plain files, whatever their names.
pub(super) fn tape(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in members {
        builder.append(&header(name, EntryType::Regular, bytes.len() as u64), *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The members of an archive of plain files.
pub(super) fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    });
    entries.collect()
}

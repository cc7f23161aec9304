//! Whether what was unpacked is the image that its `cryo.json` describes.

use std::fs::File;
use std::io;

use super::draft::{Files, Stored};
use super::import::Error;
use super::layout::ROOTFS_FILE;
use super::summed::Summed;
use super::unpack::Unpacking;
use crate::checkpoint::manifest::{self, Manifest};
use crate::criu::images;

pub(super) fn check(unpacked: &Unpacking) -> Result<(), Error> {
    let Some(manifest) = &unpacked.manifest else {
        return images::check_inventory(&unpacked.draft.place())
            .map_err(|problem| Error::Foreign(problem.to_string()));
    };
    if !manifest.sealed {
        return Err(Error::Unsealed);
    }
    for name in manifest.files.keys() {
        if found(unpacked, name).is_none() {
            return Err(Error::damaged(format!("'{}' is missing", short(name))));
        }
    }
    let layer = manifest.rootfs.as_ref().and_then(|had| had.layer.as_ref());
    let listed = unpacked.beside.get(ROOTFS_FILE).filter(|_| manifest.files.contains_key(ROOTFS_FILE));
    let listed = listed.map(|stored| (ROOTFS_FILE, stored));
    let of_image = without_manifest(&unpacked.files).map(|(name, stored)| (name.as_str(), stored));
    for (name, stored) in of_image.chain(listed) {
        size(manifest, name, stored.size)?;
        let changes = layer.filter(|_| name == ROOTFS_FILE).map(|layer| &layer.digest);
        if let Some(digest) = manifest.digests.get(name).or(changes) {
            check_digest(unpacked, name, stored, digest)?;
        }
    }
    Ok(())
}

/// The changes of the root file system lie beside the image in archives, and in it elsewhere.
fn found<'a>(unpacked: &'a Unpacking, name: &str) -> Option<&'a Stored> {
    match name {
        ROOTFS_FILE => unpacked.beside.get(name),
        _ => unpacked.files.get(name),
    }
}

/// Whether a file is on the list, and as big as it says.
pub(super) fn size(manifest: &Manifest, name: &str, size: u64) -> Result<(), Error> {
    match manifest.files.get(name) {
        Some(listed) if *listed == size => Ok(()),
        Some(listed) => Err(Error::damaged(format!("'{}' has {size} of {listed} bytes", short(name)))),
        None => Err(Error::hostile(name, "isn't on the list in cryo.json")),
    }
}

fn check_digest(unpacked: &Unpacking, name: &str, stored: &Stored, digest: &str) -> Result<(), Error> {
    let found = match digest.split_once(':') {
        Some(("blake3", _)) => stored.digest.clone(),
        Some(("sha256", _)) => {
            let mut file =
                Summed::new(File::open(unpacked.draft.place().join(name)).map_err(Error::reading)?);
            io::copy(&mut file, &mut io::sink()).map_err(Error::reading)?;
            file.finish().1.digest
        }
        _ => return Err(Error::damaged(format!("'{}' has a digest of an unknown kind", short(name)))),
    };
    if found == digest {
        return Ok(());
    }
    let problem = format!("'{}' isn't what it was when the checkpoint was taken", short(name));
    Err(Error::damaged(problem))
}

fn without_manifest(files: &Files) -> impl Iterator<Item = (&String, &Stored)> {
    files.iter().filter(|(name, _)| *name != manifest::FILE_NAME)
}

/// A name from an archive, fit for a sentence.
pub(super) fn short(name: &str) -> String {
    crate::message::cut(&crate::message::shown(name), 60)
}

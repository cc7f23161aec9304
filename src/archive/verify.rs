//! Whether what was unpacked is the image that its `cryo.json` describes.

use std::fs::File;
use std::io;

use super::draft::{Files, Stored};
use super::import::Error;
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
        if !unpacked.files.contains_key(name) {
            return Err(Error::damaged(format!("'{}' is missing", short(name))));
        }
    }
    for (name, stored) in without_manifest(&unpacked.files) {
        size(manifest, name, stored.size)?;
        if let Some(digest) = manifest.digests.get(name) {
            check_digest(unpacked, name, stored, digest)?;
        }
    }
    Ok(())
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

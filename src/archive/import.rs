//! Reading a checkpoint from an archive: an OCI image layout, or a plain checkpoint archive of
//! Kubernetes' or Podman's. Nothing in it is believed before it was checked.
//!
//! Everything is unpacked as it comes, also layers that stand before the manifest that names
//! them, and removed again if anything turns out wrong. Nothing is synced to the disk.

use std::cell::RefCell;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::blobs::Blobs;
use super::draft::Draft;
pub use super::draft::{Files, Stored};
use super::gauge::{Gauge, Gauged, Progress};
use super::layout::ContainerConfig;
use super::members::{Member, Members, Room};
use super::oci::{self, Annotations};
use super::unpack::Unpacking;
use super::verify::{self, short};
use crate::checkpoint::manifest::Manifest;
use crate::compressed;
use crate::store::Description;
use crate::tape;

/// Of CRIU's files, every process has about eight.
const MOST_MEMBERS: u32 = 10_000;
/// For headers, padding and what isn't kept.
const SLACK: u64 = 64 << 20;

/// What an archive may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all files together, holes counted like data.
    pub bytes: u64,
    pub members: u32,
}

/// A checkpoint that was checked, all in one flat folder.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Missing if another program took the checkpoint.
    pub manifest: Option<Manifest>,
    /// The image's, its manifest among them.
    pub files: Files,
    /// What other tools keep beside an image: `spec.dump`, `rootfs-diff.tar` and the like.
    pub beside: Files,
    /// Of `config.dump`.
    pub config: Option<ContainerConfig>,
    /// Of the OCI image, if it is one; so is the digest, that of its manifest.
    pub annotations: Annotations,
    pub digest: Option<String>,
    /// The first of those members that weren't kept.
    pub left_out: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use folder {} for a checkpoint: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot import into {}: it isn't empty; name a new folder", .0.display())]
    NotEmpty(PathBuf),
    #[error("cannot write '{}' into {}: {source}", short(name), path.display())]
    Write { path: PathBuf, name: String, source: io::Error },
    #[error("cannot read the archive: {0}; if it was copied here, copy it again")]
    Read(io::Error),
    #[error("the archive is cut short: copy it here again")]
    Cut,
    #[error("this is no tar archive, or a damaged one: {0}; copy it here again")]
    NoTar(&'static str),
    #[error("this is no archive of a checkpoint: {0}; export one with cryo export")]
    Foreign(String),
    #[error("the archive is damaged: {0}; copy it here again")]
    Damaged(String),
    #[error("the checkpoint in the archive was never completed: take it again")]
    Unsealed,
    #[error("the archive isn't trusted: '{name}' in it {problem}; export the checkpoint again")]
    Hostile { name: String, problem: &'static str },
    #[error("'{name}' in the archive has {size} bytes, and there is room for {room}: make room for it")]
    TooBig { name: String, size: u64, room: u64 },
    #[error("the archive isn't trusted: it has more members than a checkpoint; export the checkpoint again")]
    TooMany,
}

impl Limits {
    /// What fits on the disk that has this folder.
    pub fn of(folder: &Path) -> Result<Limits, Error> {
        let disk = rustix::fs::statvfs(folder)
            .map_err(|error| Error::Folder { path: folder.to_owned(), source: error.into() })?;
        Ok(Limits { bytes: disk.f_bavail.saturating_mul(disk.f_frsize), members: MOST_MEMBERS })
    }

    fn room(&self) -> Room {
        Room::new(self.bytes.saturating_add(SLACK), self.members)
    }
}

/// Opens a part of an image by its digest.
pub type Open<'a> = dyn FnMut(&str) -> io::Result<Box<dyn Read + 'a>> + 'a;

/// The same of an image whose parts are fetched one after the other, beginning with its
/// manifest. Nothing is believed of who brings them, either.
pub fn import_image(
    (digest, size): (&str, u64),
    open: &mut Open<'_>,
    into: &Path,
    limits: &Limits,
) -> Result<Imported, Error> {
    let mut unpacking = Unpacking::new(Draft::open(into, limits.bytes)?);
    let room = limits.room();
    let mut blobs = Blobs::of_image(&room, digest, size);
    let mut left = vec![(digest.to_owned(), size)];
    let mut done: Vec<(String, u64)> = Vec::new();
    while let Some((digest, size)) = left.pop() {
        let name = format!("{}{}", oci::BLOBS, digest.trim_start_matches("sha256:"));
        let member = Member { name, size, is_folder: false };
        let content = open(&digest).map_err(Error::reading)?;
        blobs.blob(&member, &mut content.take(size), &mut unpacking)?;
        done.push((digest, size));
        if done.len() == 1 {
            if !blobs.are_of_a_checkpoint() {
                return Err(Error::Foreign("nothing in its manifest says that it is one".to_owned()));
            }
            // The last is taken first; an empty layer may be named twice.
            left = blobs.named();
            left.retain(|blob| !done.contains(blob));
            left.sort();
            left.dedup();
        }
    }
    let (digest, annotations) = blobs.finish()?;
    verify::check(&unpacking)?;
    Ok(Imported::of(unpacking, digest, annotations))
}

/// Unpacks a checkpoint into an empty folder. On failure the folder is empty again.
pub fn import(
    input: impl Read,
    into: &Path,
    limits: &Limits,
    mut report: impl FnMut(Progress),
) -> Result<Imported, Error> {
    let mut unpacking = Unpacking::new(Draft::open(into, limits.bytes)?);
    let gauge = RefCell::new(Gauge::new(None, &mut report));
    let input = Gauged { input: compressed::opened(input).map_err(Error::reading)?, gauge: &gauge };
    let (room, room_in_layers) = (limits.room(), limits.room());
    let mut members = Members::new(input, &room);
    let (mut blobs, mut is_plain) = (Blobs::new(&room_in_layers), false);
    while let Some(member) = members.next()? {
        if Blobs::claims(&member.name) {
            blobs.member(&member, &mut members, &mut unpacking)?;
            if let Some(bytes) = blobs.total() {
                gauge.borrow_mut().expect(bytes);
            }
        } else {
            is_plain |= unpacking.member(&member, &mut members)?;
        }
        if is_plain && !blobs.is_empty() {
            return Err(Error::hostile(&member.name, "makes it two kinds of archive at once"));
        }
    }
    members.read_to_end()?;
    let (digest, annotations) = if is_plain { (None, Annotations::new()) } else { blobs.finish()? };
    verify::check(&unpacking)?;
    gauge.borrow_mut().finish();
    Ok(Imported::of(unpacking, digest, annotations))
}

impl Imported {
    fn of(unpacking: Unpacking, digest: Option<String>, annotations: Annotations) -> Imported {
        let Unpacking { draft, manifest, config, files, beside, left_out } = unpacking;
        draft.keep();
        Imported { manifest, files, beside, config, annotations, digest, left_out }
    }

    /// What the store is told about it.
    pub fn described(self) -> Description {
        let digests = self.files.into_iter().chain(self.beside);
        let digests = digests.map(|(name, stored)| (name, stored.digest)).collect();
        let manifest = self.manifest;
        let container = manifest.as_ref().map(|manifest| manifest.container.clone());
        Description {
            container: container.or_else(|| self.config.map(|config| config.name)).unwrap_or_default(),
            namespace: manifest.as_ref().map(|manifest| manifest.namespace.clone()).unwrap_or_default(),
            taken_at: manifest.map_or(0, |manifest| manifest.taken_at),
            digests,
            ..Description::default()
        }
    }
}

impl From<tape::Error> for Error {
    fn from(error: tape::Error) -> Error {
        match error {
            tape::Error::Io(error) => Error::reading(error),
            tape::Error::Cut => Error::Cut,
            tape::Error::NoTar(problem) => Error::NoTar(problem),
        }
    }
}

impl Error {
    pub(super) fn reading(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Cut,
            _ => Error::Read(error),
        }
    }

    pub(super) fn hostile(name: &str, problem: &'static str) -> Error {
        Error::Hostile { name: short(name), problem }
    }

    pub(super) fn damaged(problem: String) -> Error {
        Error::Damaged(problem)
    }

    pub(super) fn too_big(name: &str, size: u64, room: u64) -> Error {
        Error::TooBig { name: short(name), size, room }
    }

    /// What is wrong with a text may quote it.
    pub(super) fn json(name: &str, problem: &dyn std::fmt::Display) -> Error {
        let problem = crate::message::cut(&crate::message::shown(&problem.to_string()), 100);
        Error::Damaged(format!("'{}': {problem}", short(name)))
    }
}

#[cfg(test)]
mod tests;

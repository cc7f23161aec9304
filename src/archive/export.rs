//! Writing a checkpoint as an archive that other machines and tools read.
//!
//! An OCI image names its layers by their SHA-256, and an archive says how big a member is
//! before it comes. So every layer is made twice: first only to be measured, then into the
//! archive. Compressing again costs a node a second or two of one processor per GiB; a
//! compressed copy would cost it room on a disk that may be full of checkpoints. Both passes
//! must give the same; if not, somebody changed the files.
//!
//! Index and manifest come first, and `cryo.json` first of all files, so that a reader can
//! check everything else as it comes.

mod contents;

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::gauge::{Gauge, Progress};
use super::layer::{Content, Member, Tape};
use super::layout;
use super::oci::{self, Annotations, Config, Descriptor, Image, Index, Layout, Platform, Rootfs};
use super::summed::{Sum, Summed};
use super::{annotations, verify};
use crate::checkpoint::image;
use crate::checkpoint::manifest::Manifest;
use contents::{Small, layers};

/// Fast enough for the disk; higher levels gain little on memory.
const LEVEL: i32 = 1;
/// Each needs a few megabytes.
const MOST_WORKERS: usize = 8;

/// How layers are stored. zstd by itself leaves alone what doesn't get smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Zstd,
}

/// A checkpoint to be exported. It has to be kept from changing meanwhile.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub manifest: &'a Manifest,
    /// Opens a file of the image at its beginning, wherever it is kept; called several times.
    pub open: &'a dyn Fn(&str) -> io::Result<Box<dyn Read>>,
    /// The container's name as its users know it, if that isn't its id.
    pub container: Option<&'a str>,
    /// What the image is called once imported by others: `localhost/checkpoint/web:before`.
    pub reference: Option<&'a str>,
    /// The image that the container was made of.
    pub rootfs_image: Option<&'a str>,
    /// What lies beside an image in archives of this kind: their names and where they are.
    /// The container's configuration is `spec.dump`, its own files are `rootfs-diff.tar`.
    pub beside: &'a [(&'a str, PathBuf)],
}

/// The image that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Of its manifest: what registries call it by.
    pub digest: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot export the checkpoint: its file '{}' can't be read: {source}", verify::short(name))]
    Read { name: String, source: io::Error },
    #[error("cannot export the checkpoint: somebody changed its files meanwhile; export it again")]
    Changed,
    #[error("cannot export the checkpoint: it was never completed; take it again")]
    Unsealed,
    #[error("cannot export the checkpoint: archives have no place for '{}'", verify::short(.0))]
    Misplaced(String),
    #[error("cannot write the archive: {0}")]
    Write(io::Error),
}

/// Writes a checkpoint as an OCI image in one tar archive.
pub fn export(
    source: &Source<'_>,
    out: impl Write,
    compression: Compression,
    mut report: impl FnMut(Progress),
) -> Result<Exported, Error> {
    let small = Small::of(source)?;
    let layers = layers(source, &small)?;
    let mut gauge = Gauge::new(Some(2 * bytes(&layers)), &mut report);
    let time = source.manifest.taken_at / 1000;
    let mut packed = Vec::new();
    for layer in &layers {
        packed.push(measure(layer, time, compression, &mut gauge)?);
    }
    let config = config(source.manifest, &packed)?;
    let image = image(&config, &packed, compression, small.annotations.clone())?;
    let image_digest = Sum::of(&image).digest;
    let mut archive = Tape::new(out, time);
    let layout = json(&Layout { image_layout_version: oci::LAYOUT_VERSION.to_owned() })?;
    let index = index(source, &image, small.annotations.clone())?;
    for (name, bytes) in [
        (oci::LAYOUT_FILE.to_owned(), &layout),
        (oci::INDEX_FILE.to_owned(), &index),
        (blob(&image_digest), &image),
        (blob(&Sum::of(&config).digest), &config),
    ] {
        archive.member(&Member { name, content: Content::Bytes(bytes) }, &mut |_| {})?;
    }
    for (layer, expected) in layers.iter().zip(&packed) {
        let Sum { digest, size } = &expected.stored;
        let place = archive.begin(&blob(digest), *size)?;
        if pack(layer, time, place, compression, &mut gauge)? != expected.stored {
            return Err(Error::Changed);
        }
        archive.pad(*size)?;
    }
    archive.finish()?.flush().map_err(Error::Write)?;
    gauge.finish();
    Ok(Exported { digest: image_digest })
}

/// Writes a checkpoint as a plain archive like Kubernetes' and Podman's, which checkpointctl
/// reads.
pub fn export_plain(
    source: &Source<'_>,
    out: impl Write,
    mut report: impl FnMut(Progress),
) -> Result<(), Error> {
    let small = Small::of(source)?;
    let layers = layers(source, &small)?;
    let mut gauge = Gauge::new(Some(bytes(&layers)), &mut report);
    let mut archive = Tape::new(out, source.manifest.taken_at / 1000);
    for member in layers.iter().flatten() {
        archive.member(member, &mut |bytes| gauge.advance(bytes))?;
    }
    archive.finish()?.flush().map_err(Error::Write)?;
    gauge.finish();
    Ok(())
}

/// How to open the files of an image in a folder.
pub fn files_of(image: &image::Image) -> impl Fn(&str) -> io::Result<Box<dyn Read>> + '_ {
    |name| image.open_file(name)
}

/// A layer as it is stored, and as it is once unpacked.
struct Packed {
    stored: Sum,
    tar: Sum,
}

/// What a layer will be in the archive.
fn measure(
    layer: &[Member<'_>],
    time: u64,
    compression: Compression,
    gauge: &mut Gauge<'_>,
) -> Result<Packed, Error> {
    if compression == Compression::None {
        let tar = pack(layer, time, io::sink(), compression, gauge)?;
        return Ok(Packed { stored: tar.clone(), tar });
    }
    let (encoder, tar) = fill(layer, time, Summed::new(encoder(io::sink())?), gauge)?.finish();
    let stored = encoder.finish().map_err(Error::Write)?.finish().1;
    Ok(Packed { stored, tar })
}

/// Writes a layer in the same way as it was measured.
fn pack(
    layer: &[Member<'_>],
    time: u64,
    out: impl Write,
    compression: Compression,
    gauge: &mut Gauge<'_>,
) -> Result<Sum, Error> {
    let out = match compression {
        Compression::None => fill(layer, time, Summed::new(out), gauge)?,
        Compression::Zstd => fill(layer, time, encoder(out)?, gauge)?.finish().map_err(Error::Write)?,
    };
    Ok(out.finish().1)
}

fn fill<W: Write>(layer: &[Member<'_>], time: u64, out: W, gauge: &mut Gauge<'_>) -> Result<W, Error> {
    let mut tape = Tape::new(out, time);
    for member in layer {
        tape.member(member, &mut |bytes| gauge.advance(bytes))?;
    }
    tape.finish()
}

fn encoder<W: Write>(out: W) -> Result<zstd::Encoder<'static, Summed<W>>, Error> {
    let mut encoder = zstd::Encoder::new(Summed::new(out), LEVEL).map_err(Error::Write)?;
    // The output is the same with any number of workers, but not the same as with none.
    encoder.multithread(workers()).map_err(Error::Write)?;
    Ok(encoder)
}

fn workers() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors.min(MOST_WORKERS)).unwrap_or(1)
}

fn config(manifest: &Manifest, layers: &[Packed]) -> Result<Vec<u8>, Error> {
    json(&Config {
        created: layout::time(manifest.taken_at),
        platform: Platform::of(&manifest.architecture),
        config: Annotations::new(),
        rootfs: Rootfs {
            kind: "layers",
            diff_ids: layers.iter().map(|layer| layer.tar.digest.clone()).collect(),
        },
    })
}

fn image(
    config: &[u8],
    layers: &[Packed],
    compression: Compression,
    annotations: Annotations,
) -> Result<Vec<u8>, Error> {
    let kind = match compression {
        Compression::None => oci::LAYER,
        Compression::Zstd => oci::LAYER_ZSTD,
    };
    json(&Image {
        schema_version: 2,
        media_type: oci::IMAGE.to_owned(),
        config: descriptor(oci::CONFIG, &Sum::of(config)),
        layers: layers.iter().map(|layer| descriptor(kind, &layer.stored)).collect(),
        annotations,
    })
}

fn index(source: &Source<'_>, image: &[u8], annotations: Annotations) -> Result<Vec<u8>, Error> {
    let mut of_image = annotations.clone();
    of_image.extend(source.reference.map(annotations::of_name).unwrap_or_default());
    let platform = Some(Platform::of(&source.manifest.architecture));
    let image = Descriptor { platform, annotations: of_image, ..descriptor(oci::IMAGE, &Sum::of(image)) };
    json(&Index { schema_version: 2, media_type: oci::INDEX.to_owned(), manifests: vec![image], annotations })
}

fn descriptor(media_type: &str, sum: &Sum) -> Descriptor {
    let Sum { digest, size } = sum.clone();
    let media_type = media_type.to_owned();
    Descriptor { media_type, digest, size, platform: None, annotations: Annotations::new() }
}

fn blob(digest: &str) -> String {
    format!("{}{}", oci::BLOBS, digest.trim_start_matches("sha256:"))
}

fn bytes(layers: &[Vec<Member<'_>>]) -> u64 {
    layers.iter().flatten().map(Member::size).sum()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Write(error.into()))
}

#[cfg(test)]
mod tests;

//! Memory that travels: every `pages-N.img` that gets smaller that way becomes a
//! `pages-N.img.zst`, which `zstd -d` reads, too.
//!
//! Chunks are compressed by all processors at once, each into frames of its own; a table at the
//! end says where they begin, so that reading them takes all processors as well.

mod chunks;
mod sample;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use zstd::bulk::{Compressor, Decompressor};

pub use table::Table;

use super::file::{
    create, is_pages, is_read_once, names, open_plain, read_exactly, remove, unfinished, with_suffix,
};
use super::output::Output;
use super::{Error, Expected, damaged, reading, writing};

pub const SUFFIX: &str = "zst";
/// Of a frame's content. Bigger ones compress hardly better.
const CHUNK: u64 = 1 << 20;
const LEVEL: i32 = 1;

/// A file that was compressed, and how many bytes of the disk it took and takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed {
    pub name: String,
    pub before: u64,
    pub after: u64,
}

/// Compresses the pages files of a folder, those that get smaller by it. They aren't synced.
pub fn compress(folder: &Path) -> Result<Vec<Compressed>, Error> {
    let mut compressed = Vec::new();
    for name in names(folder, is_pages)? {
        compressed.extend(compress_file(folder, &name)?);
    }
    Ok(compressed)
}

fn compress_file(folder: &Path, name: &str) -> Result<Option<Compressed>, Error> {
    let path = folder.join(name);
    let file = open_plain(&path)?;
    let metadata = file.metadata().map_err(reading(&path))?;
    if !sample::pays(&file, &path, metadata.len())? {
        return Ok(None);
    }
    is_read_once(&file);
    let target = with_suffix(&path, SUFFIX);
    let written = write(&file, &path, metadata.len(), &target).and_then(|size| {
        fs::rename(unfinished(&target), &target).map_err(writing(&target))?;
        remove(&path)?;
        Ok(size)
    });
    if written.is_err() {
        let _ = fs::remove_file(unfinished(&target));
    }
    Ok(Some(Compressed {
        name: format!("{name}.{SUFFIX}"),
        before: metadata.blocks() * 512,
        after: written?,
    }))
}

fn write(file: &fs::File, path: &Path, size: u64, target: &Path) -> Result<u64, Error> {
    let output = create(&unfinished(target))?;
    let mut table = Table::default();
    let mut offset = 0;
    let worker = || {
        let mut compressor = Compressor::new(LEVEL).map_err(reading(path))?;
        let mut content = Vec::new();
        Ok(move |number: u64, frame: &mut Vec<u8>| {
            let start = number * CHUNK;
            content.resize((size - start).min(CHUNK) as usize, 0);
            read_exactly(file, path, &mut content, start)?;
            sample::compress(&mut compressor, &content, frame).map_err(writing(target))
        })
    };
    chunks::in_order(size.div_ceil(CHUNK), worker, |number, frame| {
        output.write_all_at(frame, offset).map_err(writing(target))?;
        table.add(frame.len() as u32, (size - number * CHUNK).min(CHUNK) as u32);
        offset += frame.len() as u64;
        Ok(())
    })?;
    let table = table.to_bytes();
    output.write_all_at(&table, offset).map_err(writing(target))?;
    Ok(offset + table.len() as u64)
}

/// Writes the plain files for those of the expected ones that are compressed in a folder into
/// another one, and tells which; none gets longer than it should be. They aren't synced.
pub fn decompress(
    folder: &Path,
    into: &Path,
    expected: &BTreeMap<String, Expected>,
) -> Result<Vec<String>, Error> {
    let mut decompressed = Vec::new();
    for (name, expected) in expected {
        let source = with_suffix(&folder.join(name), SUFFIX);
        if !is_pages(name) || !is_there(&source)? {
            continue;
        }
        decompress_file(&source, Output::create(&into.join(name), expected.clone())?, expected.size)?;
        decompressed.push(name.clone());
    }
    Ok(decompressed)
}

fn is_there(path: &PathBuf) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(reading(path)(error)),
        found => Ok(found.is_ok()),
    }
}

fn decompress_file(source: &Path, mut output: Output, size: u64) -> Result<(), Error> {
    let file = open_plain(source)?;
    is_read_once(&file);
    let table = Table::read(&file, source, size)?;
    let frames = table.frames();
    let worker = || {
        let mut decompressor = Decompressor::new().map_err(reading(source))?;
        let (file, frames) = (&file, &frames);
        let mut frame = Vec::new();
        Ok(move |number: u64, content: &mut Vec<u8>| {
            let wrong = || damaged(source, format!("its frame {number} can't be read"));
            let place = frames.get(number as usize).ok_or_else(wrong)?;
            frame.resize(place.compressed, 0);
            read_exactly(file, source, &mut frame, place.offset)?;
            content.resize(place.content, 0);
            match decompressor.decompress_to_buffer(&frame, &mut content[..]) {
                Ok(got) if got == place.content => Ok(()),
                _ => Err(wrong()),
            }
        })
    };
    chunks::in_order(frames.len() as u64, worker, |_, content| output.write(content))?;
    output.finish()
}

#[cfg(test)]
mod tests;

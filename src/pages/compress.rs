//! Memory that travels: every `pages-N.img` that gets smaller that way becomes a
//! `pages-N.img.zst`, which `zstd -d` reads, too.
//!
//! Chunks are compressed by all processors at once, each into a frame of its own; a table at the
//! end says where they begin, so that reading them takes all processors as well, and any part
//! can be read alone.

mod chunks;
mod reader;
mod sample;
mod shrinking;
mod table;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use zstd::bulk::{Compressor, Decompressor};

pub(super) use reader::Reader;
pub use shrinking::{Shrinking, Shrunk};
pub use table::Table;

use super::digest::Digester;
use super::file::{create, is_read_once, read_exactly, unfinished, with_suffix};
use super::output::Output;
use super::{Error, damaged, reading, writing};

pub(super) const SUFFIX: &str = "zst";
/// Of a frame's content. Bigger ones compress hardly better.
const CHUNK: u64 = 1 << 20;
const LEVEL: i32 = 1;

/// What stands for a pages file once that is compressed.
pub fn compressed_of(pages: &Path) -> PathBuf {
    with_suffix(pages, SUFFIX)
}

/// A compressed file that is written from its beginning to its end. It gets its name when it
/// is complete, and isn't synced.
struct Writer {
    target: PathBuf,
    file: File,
    table: Table,
    digester: Digester,
    offset: u64,
    is_complete: bool,
}

#[derive(Default)]
struct Chunk {
    content: Vec<u8>,
    frame: Vec<u8>,
}

impl Writer {
    fn create(target: PathBuf) -> Result<Writer, Error> {
        let file = create(&unfinished(&target))?;
        let (table, digester) = (Table::default(), Digester::default());
        Ok(Writer { target, file, table, digester, offset: 0, is_complete: false })
    }

    /// Goes on to `end`: whole chunks, but for the end of the file.
    fn extend(&mut self, source: &File, path: &Path, end: u64) -> Result<(), Error> {
        let worker = || {
            let mut compressor = Compressor::new(LEVEL).map_err(reading(path))?;
            Ok(move |number: u64, chunk: &mut Chunk| {
                let start = number * CHUNK;
                chunk.content.resize((end - start).min(CHUNK) as usize, 0);
                read_exactly(source, path, &mut chunk.content, start)?;
                sample::compress(&mut compressor, &chunk.content, &mut chunk.frame).map_err(reading(path))
            })
        };
        let first = self.table.size() / CHUNK;
        chunks::in_order(first..end.div_ceil(CHUNK), worker, |_, chunk: &Chunk| {
            self.digester.update(&chunk.content);
            self.file.write_all_at(&chunk.frame, self.offset).map_err(writing(&self.target))?;
            self.table.add(chunk.frame.len() as u32, chunk.content.len() as u32);
            self.offset += chunk.frame.len() as u64;
            Ok(())
        })
    }

    /// Tells the digest of what it was.
    fn finish(mut self) -> Result<String, Error> {
        let written = self.file.write_all_at(&self.table.to_bytes(), self.offset);
        written
            .and_then(|()| fs::rename(unfinished(&self.target), &self.target))
            .map_err(writing(&self.target))?;
        self.is_complete = true;
        Ok(std::mem::take(&mut self.digester).finish())
    }

    /// Of what it was: nothing is written any more.
    fn into_digester(mut self) -> Digester {
        std::mem::take(&mut self.digester)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_complete {
            // Somebody else removes it, if not we.
            let _ = fs::remove_file(unfinished(&self.target));
        }
    }
}

/// Writes the plain file, which never gets longer than it should be. It isn't synced.
pub(super) fn decompress(source: &Path, mut output: Output) -> Result<(), Error> {
    let (reader, size) = (Reader::open(source)?, output.left());
    if reader.size() != size {
        return Err(damaged(source, format!("it holds {} bytes instead of {size}", reader.size())));
    }
    is_read_once(&reader.file);
    let worker = || {
        let mut decompressor = Decompressor::new().map_err(reading(source))?;
        let (reader, mut frame) = (&reader, Vec::new());
        Ok(move |number: u64, content: &mut Vec<u8>| {
            reader.chunk(number, &mut decompressor, &mut frame, content)
        })
    };
    chunks::in_order(0..size.div_ceil(CHUNK), worker, |_, content: &Vec<u8>| output.write(content))?;
    output.finish()
}

#[cfg(test)]
mod tests;

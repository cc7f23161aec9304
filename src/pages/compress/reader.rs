//! A compressed file of which any part can be read.

use std::fs::File;
use std::path::{Path, PathBuf};

use zstd::bulk::Decompressor;

use super::CHUNK;
use super::table::{Place, Table};
use crate::pages::file::{open_plain, read_exactly};
use crate::pages::{Error, damaged};

pub(in crate::pages) struct Reader {
    path: PathBuf,
    pub(super) file: File,
    frames: Vec<Place>,
    size: u64,
}

impl Reader {
    pub(in crate::pages) fn open(path: &Path) -> Result<Reader, Error> {
        let file = open_plain(path)?;
        let table = Table::read(&file, path)?;
        Ok(Reader { path: path.to_owned(), file, frames: table.frames(), size: table.size() })
    }

    /// Of the file before it was compressed.
    pub(in crate::pages) fn size(&self) -> u64 {
        self.size
    }

    /// The chunk that a place in the file lies in, and where in it.
    pub(in crate::pages) fn place(offset: u64) -> (u64, usize) {
        (offset / CHUNK, (offset % CHUNK) as usize)
    }

    /// All of one chunk.
    pub(in crate::pages) fn chunk(
        &self,
        number: u64,
        decompressor: &mut Decompressor<'_>,
        frame: &mut Vec<u8>,
        content: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let wrong = || damaged(&self.path, format!("its frame {number} can't be read"));
        let place =
            usize::try_from(number).ok().and_then(|number| self.frames.get(number)).ok_or_else(wrong)?;
        frame.resize(place.compressed, 0);
        read_exactly(&self.file, &self.path, frame, place.offset)?;
        content.resize(place.content, 0);
        match decompressor.decompress_to_buffer(frame, &mut content[..]) {
            Ok(got) if got == place.content => Ok(()),
            _ => Err(wrong()),
        }
    }
}

//! Whether compression pays, by a look at a part; what doesn't get smaller isn't compressed.

use std::fs::File;
use std::io;
use std::path::Path;

use zstd::bulk::Compressor;
use zstd::zstd_safe::compress_bound;

use super::LEVEL;
use crate::pages::file::read_exactly;
use crate::pages::{Error, PAGE, reading};

/// Looks at a file, spread evenly.
const LOOKS: u64 = 64;
const LOOK: u64 = 64 << 10;
/// Of a chunk every so many pages.
const STRIDE: usize = 16;
/// Of zstd's blocks.
const MOST_BLOCK: usize = 128 << 10;
const MAGIC: u32 = 0xfd2f_b528;
/// A frame in one piece, whose length takes four bytes.
const HEADER: u8 = 0b1010_0000;

/// Reading what is compressed takes time, too: a twentieth is the least that it has to bring.
pub(super) fn is_smaller(compressed: u64, plain: u64) -> bool {
    compressed < plain - plain / 20
}

/// Whether a file gets smaller at all.
pub(super) fn pays(file: &File, path: &Path, size: u64) -> Result<bool, Error> {
    let mut compressor = Compressor::new(LEVEL).map_err(reading(path))?;
    let mut frame = vec![0; compress_bound(LOOK as usize)];
    let mut look = vec![0; LOOK.min(size) as usize];
    let (mut plain, mut compressed) = (0, 0_u64);
    let last = size - look.len() as u64;
    let looks = if last == 0 { 1 } else { LOOKS };
    for number in 0..looks {
        read_exactly(file, path, &mut look, last / looks * number)?;
        plain += look.len() as u64;
        compressed += compressor.compress_to_buffer(&look, &mut frame[..]).map_err(reading(path))? as u64;
    }
    Ok(is_smaller(compressed, plain))
}

/// Makes a frame of a chunk, a plain one if its sample doesn't get smaller.
pub(super) fn compress(compressor: &mut Compressor<'_>, chunk: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
    frame.clear();
    frame.reserve(compress_bound(chunk.len()));
    let pages = chunk.chunks(PAGE);
    if pages.len() > STRIDE {
        // A multiple of the stride would look at the same page of every huge one.
        let sample: Vec<u8> = pages.skip(STRIDE / 2).step_by(STRIDE - 1).flatten().copied().collect();
        let length = compressor.compress_to_buffer(&sample, frame)?;
        frame.clear();
        if !is_smaller(length as u64, sample.len() as u64) {
            plain_frame(chunk, frame);
            return Ok(());
        }
    }
    compressor.compress_to_buffer(chunk, frame)?;
    Ok(())
}

/// RFC 8878, with blocks of the kind that is only copied.
fn plain_frame(chunk: &[u8], frame: &mut Vec<u8>) {
    frame.extend(MAGIC.to_le_bytes());
    frame.push(HEADER);
    frame.extend((chunk.len() as u32).to_le_bytes());
    let blocks = chunk.chunks(MOST_BLOCK);
    let last = blocks.len().saturating_sub(1);
    for (number, block) in blocks.enumerate() {
        let head = (block.len() as u32) << 3 | u32::from(number == last);
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn round(chunk: &[u8]) -> usize {
        let mut frame = Vec::new();
        compress(&mut Compressor::new(LEVEL).unwrap(), chunk, &mut frame).unwrap();
        assert_eq!(zstd::bulk::decompress(&frame, chunk.len()).unwrap(), chunk);
        frame.len()
    }

    #[test]
    fn chunks_of_any_kind_come_back() {
        for length in [1, 4095, MOST_BLOCK, MOST_BLOCK + 1, 1 << 20] {
            assert!(round(&noise(length)) < length + 100, "{length}");
            assert!(round(&vec![0; length]) < length.div_ceil(1000) + 30, "{length}");
        }
        let mut mixed = noise(1 << 20);
        mixed[1 << 19..].fill(3);
        assert!(round(&mixed) < (1 << 19) + (1 << 12));
    }

    #[test]
    fn noise_isnt_compressed_and_anything_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages-1.img");
        let ask = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            pays(&File::open(&path).unwrap(), &path, content.len() as u64).unwrap()
        };
        assert!(!ask(&noise(5 << 20)) && !ask(&noise(5000)) && !ask(&[]));
        let mut mixed = noise(5 << 20);
        mixed[3 << 20..].fill(1);
        assert!(ask(&mixed) && ask(&[1; 5000]));
    }
}

//! Reading what may be compressed with gzip or zstd, told by its first bytes.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::os::unix::fs::FileExt;

use flate2::read::MultiGzDecoder;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// zstd may ask for as much memory as a frame's window has: 128 MiB, its own default.
const MOST_WINDOW_LOG: u32 = 27;
const BUFFER: usize = 1 << 17;

/// Whether a file is, whatever it says of itself.
pub(crate) fn is_compressed(file: &File) -> io::Result<bool> {
    let mut head = [0; ZSTD.len()];
    let read = file.read_at(&mut head, 0)?;
    Ok(head[..read].starts_with(GZIP) || head[..read].starts_with(ZSTD))
}

/// The content of a stream, whatever it is compressed with.
pub(crate) fn opened<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    (&mut input).take(ZSTD.len() as u64).read_to_end(&mut head)?;
    let (gzip, zstd) = (head.starts_with(GZIP), head.starts_with(ZSTD));
    let whole = Cursor::new(head).chain(input);
    if gzip {
        return Ok(Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, whole))));
    }
    if zstd {
        let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(BUFFER, whole))?;
        decoder.window_log_max(MOST_WINDOW_LOG)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_compressed_is_read_like_what_is_not() {
        let plain = b"words".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        for stored in [plain.clone(), gzip.finish().unwrap(), zstd] {
            let mut read = Vec::new();
            opened(&stored[..]).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == plain);
        }
    }

    #[test]
    fn a_frame_that_wants_too_much_memory_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(MOST_WINDOW_LOG + 1).unwrap();
        encoder.write_all(&[0; 100]).unwrap();
        let frame = encoder.finish().unwrap();
        assert!(opened(&frame[..]).unwrap().read_to_end(&mut Vec::new()).is_err());
    }
}

//! A folder in memory as two files of an image: a list of what is in it, one JSON object a
//! line, and the content of its files, without their holes.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

use super::Limits;

const BUFFER: u64 = 1 << 20;

/// Names are written as in a URL: they may have any bytes.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(super) modified: (i64, i64),
    #[serde(flatten)]
    pub(super) kind: Kind,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Kind {
    Folder,
    File {
        size: u64,
        pieces: Vec<Piece>,
    },
    /// Another name of a file that came before.
    Link {
        to: String,
    },
    Symlink {
        to: String,
    },
    Fifo,
}

/// Of a file, and where it lies in the content.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) from: u64,
    pub(super) length: u64,
    pub(super) at: u64,
}

/// If it ends before, it has become shorter meanwhile.
pub(super) fn copy(from: (&File, u64), to: (&File, u64), length: u64, limits: &Limits) -> io::Result<()> {
    let most = |left: u64| usize::try_from(left.min(BUFFER)).unwrap_or_default();
    let mut buffer = vec![0; most(length)];
    let mut done = 0;
    while done < length {
        limits.check()?;
        let read = from.0.read_at(&mut buffer[..most(length - done)], from.1 + done)?;
        if read == 0 {
            break;
        }
        to.0.write_all_at(&buffer[..read], to.1 + done)?;
        done += read as u64;
    }
    Ok(())
}

pub(super) fn list_of(image: &Path, name: &str) -> PathBuf {
    image.join(format!("{name}.json"))
}

pub(super) fn content_of(image: &Path, name: &str) -> PathBuf {
    image.join(format!("{name}.data"))
}

pub(super) fn encoded(bytes: &[u8]) -> String {
    percent_encode(bytes, NON_ALPHANUMERIC).to_string()
}

pub(super) fn decoded(text: &str) -> PathBuf {
    OsString::from_vec(percent_decode_str(text).collect()).into()
}

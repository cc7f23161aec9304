//! Compressing a file while it grows, as long as it gets smaller by that. Its digest is made on
//! the way, whatever becomes of it.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sample::{is_smaller, pays};
use super::{CHUNK, Writer, compressed_of};
use crate::pages::Error;
use crate::pages::digest::{self, Digester};
use crate::pages::follow::Made;

/// By then it is clear what a file is like, for the time being.
const SAMPLE: u64 = 64 * CHUNK;

/// A file that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrunk {
    pub size: u64,
    /// Of what it was.
    pub digest: String,
    /// Whether there is a compressed one beside it. Somebody has to remove one of both.
    pub is_compressed: bool,
}

pub struct Shrinking {
    target: PathBuf,
    state: State,
}

enum State {
    Compressed(Box<Writer>),
    /// It didn't get smaller so far.
    Plain(Digester),
    /// There is no room for another one, and it was read in vain.
    Lost,
}

impl Made for Shrinking {
    /// Some chunks for each processor.
    const PIECE: u64 = 16 * CHUNK;
    /// The folder that compressed files go to.
    type Plan = PathBuf;
    type Whole = Shrunk;

    fn begin(into: &PathBuf, path: &Path) -> Shrinking {
        let target = compressed_of(&into.join(path.file_name().unwrap_or_default()));
        let state =
            Writer::create(target.clone()).map_or(State::Lost, |writer| State::Compressed(writer.into()));
        Shrinking { target, state }
    }

    fn step(_is_closed: bool) -> u64 {
        CHUNK
    }

    fn extend(
        &mut self,
        file: &File,
        path: &Path,
        range: Range<u64>,
        piece: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            State::Compressed(mut writer) => match writer.extend(file, path, range.end) {
                Ok(()) if range.end >= SAMPLE && !writer.is_smaller() => State::Plain(writer.into_digester()),
                Ok(()) => State::Compressed(writer),
                Err(Error::Write { .. }) => State::Lost,
                Err(error) => return Err(error),
            },
            State::Plain(mut digester) => {
                digest::add(&mut digester, file, path, range, piece)?;
                State::Plain(digester)
            }
            State::Lost => State::Lost,
        };
        Ok(())
    }

    fn finish(self, file: &File, path: &Path, size: u64) -> Result<Shrunk, Error> {
        let plain = |digest| Shrunk { size, digest, is_compressed: false };
        let compressed = |digest| Shrunk { size, digest, is_compressed: true };
        let finished = match self.state {
            State::Compressed(writer) if writer.is_smaller() => writer.finish(),
            State::Compressed(writer) => return Ok(plain(writer.into_digester().finish())),
            // Its beginning may be all that doesn't.
            State::Plain(_) if pays(file, path, size)? => {
                Writer::create(self.target).and_then(|mut writer| {
                    writer.extend(file, path, size)?;
                    writer.finish()
                })
            }
            State::Plain(digester) => return Ok(plain(digester.finish())),
            State::Lost => return digest::of_file(path).map(plain),
        };
        match finished {
            Err(Error::Write { .. }) => digest::of_file(path).map(plain),
            finished => finished.map(compressed),
        }
    }
}

impl Writer {
    /// Than what it was made of.
    fn is_smaller(&self) -> bool {
        is_smaller(self.offset, self.table.size())
    }
}

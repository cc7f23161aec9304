//! A packed file of which any part can be read.

use std::path::Path;

use super::recipe::{Recipe, Run};
use super::unpack::Decoder;
use crate::pages::{Error, PAGE, damaged};

pub(in crate::pages) struct Reader {
    size: u64,
    /// In order, each with the number of its first page.
    runs: Vec<(u64, Run)>,
    decoder: Decoder,
}

impl Reader {
    pub(in crate::pages) fn open(recipe: &Path, packs: &Path) -> Result<Reader, Error> {
        let read = Recipe::read(recipe)?;
        let decoder = Decoder::open(recipe, &read, packs)?;
        let mut next = 0;
        let numbered = read.runs().map(|run| {
            let (Run::Zeros { count } | Run::Pages { count, .. }) = run;
            next += count;
            (next - count, run)
        });
        Ok(Reader { size: read.size, runs: numbered.collect(), decoder })
    }

    pub(in crate::pages) fn size(&self) -> u64 {
        self.size
    }

    /// What lies there in the plain file, which has to have that much.
    pub(in crate::pages) fn read(&mut self, path: &Path, bytes: &mut [u8], offset: u64) -> Result<(), Error> {
        let mut filled = 0;
        while filled < bytes.len() {
            let at = offset + filled as u64;
            let (page, skipped) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let after = self.runs.partition_point(|(first, _)| *first <= page);
            let Some((start, run)) = after.checked_sub(1).and_then(|number| self.runs.get(number)).copied()
            else {
                return Err(damaged(path, "it ends too early"));
            };
            let room = bytes.len() - filled;
            let rest = &mut bytes[filled..];
            filled += match run {
                Run::Zeros { count } => {
                    let zeros = (start + count - page).saturating_mul(PAGE as u64) - skipped as u64;
                    let length = usize::try_from(zeros).unwrap_or(room).min(room);
                    rest[..length].fill(0);
                    length
                }
                Run::Pages { pack, first, count } => {
                    let wanted = (skipped + room).div_ceil(PAGE) as u64;
                    self.decoder.piece.clear();
                    self.decoder.take(pack, first + page - start, wanted.min(start + count - page))?;
                    let found = &self.decoder.piece[skipped..];
                    let length = found.len().min(room);
                    rest[..length].copy_from_slice(&found[..length]);
                    length
                }
            };
        }
        Ok(())
    }
}

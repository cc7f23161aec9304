//! Packed memory put together again: one thread decodes, the other makes the digest and writes.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use zstd::bulk::Decompressor;

use super::archive::{GROUP_BYTES, Reader};
use super::known::MOST_PACKS;
use super::recipe::{Recipe, Run};
use crate::pages::output::Output;
use crate::pages::{Error, PAGE, damaged, reading};

/// Decoded groups that are kept, 16 MiB: a recipe goes back and forth between its packs.
const MOST_GROUPS: usize = 64;
/// Pieces on their way from one thread to the other.
const MOST_PIECES: usize = 8;

/// Writes the plain file, which never gets longer than it should be. It isn't synced.
pub(in crate::pages) fn unpack(path: &Path, packs: &Path, output: Output) -> Result<(), Error> {
    let recipe = Recipe::read(path)?;
    if recipe.size != output.left() {
        return Err(damaged(path, "it is the recipe for something else"));
    }
    follow(path, &recipe, packs, output)
}

/// Whether a recipe and its packs make the right file, without writing it.
pub fn verify(path: &Path, packs: &Path) -> Result<(), Error> {
    let recipe = Recipe::read(path)?;
    follow(path, &recipe, packs, Output::nowhere(path, recipe.expected())?)
}

enum Piece {
    Pages(Vec<u8>),
    Zeros(u64),
}

pub(super) fn follow(path: &Path, recipe: &Recipe, packs: &Path, mut output: Output) -> Result<(), Error> {
    let mut decoder = Decoder::open(path, recipe, packs)?;
    let (pieces, decoded) = sync_channel(MOST_PIECES);
    let (used, spare) = channel();
    std::thread::scope(|scope| {
        let decoding = scope.spawn(move || decoder.run(recipe, &pieces, &spare));
        let written = write(&mut output, &decoded, &used);
        // A decoder that is ahead hears of it this way.
        drop(decoded);
        let decoded = decoding.join().unwrap_or(Err(Error::Cancelled));
        written.and(decoded)
    })?;
    output.finish()
}

fn write(output: &mut Output, decoded: &Receiver<Piece>, used: &Sender<Vec<u8>>) -> Result<(), Error> {
    let zeros = vec![0; GROUP_BYTES];
    for piece in decoded {
        match piece {
            Piece::Pages(pages) => {
                // The last page is filled up in its pack.
                output.write(&pages[..fitting(output, pages.len() as u64)])?;
                // Nobody needs it any more once everything is decoded.
                let _ = used.send(pages);
            }
            Piece::Zeros(mut count) => {
                while count > 0 {
                    let some = count.min(zeros.len() as u64);
                    output.write(&zeros[..fitting(output, some)])?;
                    count -= some;
                }
            }
        }
    }
    Ok(())
}

fn fitting(output: &Output, length: u64) -> usize {
    length.min(output.left()) as usize
}

pub(super) struct Decoder {
    packs: Vec<Reader>,
    decompressor: Decompressor<'static>,
    frame: Vec<u8>,
    /// Pack, group and its pages; used last are the first.
    groups: VecDeque<(usize, usize, Vec<u8>)>,
    pub(super) piece: Vec<u8>,
}

impl Decoder {
    pub(super) fn open(path: &Path, recipe: &Recipe, folder: &Path) -> Result<Decoder, Error> {
        // Its own pack comes on top of those that it shares.
        if recipe.packs.len() > MOST_PACKS + 1 {
            return Err(damaged(path, "it names too many packs"));
        }
        let packs = recipe
            .packs
            .iter()
            .map(|name| Reader::open(&folder.join(name)))
            .collect::<Result<Vec<_>, _>>()?;
        for run in recipe.runs() {
            if let Run::Pages { pack, first, count } = run
                && first + count > u64::from(packs[pack].pages())
            {
                return Err(damaged(
                    path,
                    format!("it wants pages that {} lacks", packs[pack].path().display()),
                ));
            }
        }
        let decompressor = Decompressor::new().map_err(reading(path))?;
        Ok(Decoder { packs, decompressor, frame: Vec::new(), groups: VecDeque::new(), piece: Vec::new() })
    }

    /// Ends early when nobody takes the pieces any more.
    fn run(
        &mut self,
        recipe: &Recipe,
        pieces: &SyncSender<Piece>,
        spare: &Receiver<Vec<u8>>,
    ) -> Result<(), Error> {
        for run in recipe.runs() {
            match run {
                Run::Zeros { count } => {
                    let zeros = Piece::Zeros(count * PAGE as u64);
                    if !self.hand_over(pieces, spare) || pieces.send(zeros).is_err() {
                        return Ok(());
                    }
                }
                Run::Pages { pack, mut first, count } => {
                    let end = first + count;
                    while first < end {
                        first += self.take(pack, first, end - first)?;
                        if self.piece.len() >= GROUP_BYTES && !self.hand_over(pieces, spare) {
                            return Ok(());
                        }
                    }
                }
            }
        }
        self.hand_over(pieces, spare);
        Ok(())
    }

    fn hand_over(&mut self, pieces: &SyncSender<Piece>, spare: &Receiver<Vec<u8>>) -> bool {
        let mut next = spare.try_recv().unwrap_or_default();
        next.clear();
        pieces.send(Piece::Pages(std::mem::replace(&mut self.piece, next))).is_ok()
    }

    /// Appends pages to the piece, at most those of one group; tells how many.
    pub(super) fn take(&mut self, pack: usize, first: u64, count: u64) -> Result<u64, Error> {
        let (number, start) = Reader::place(first);
        let is_wanted = |(other, group, _): &(usize, usize, Vec<u8>)| (*other, *group) == (pack, number);
        let found = self.groups.iter().position(is_wanted).and_then(|at| self.groups.remove(at));
        let group = match found {
            Some(group) => group,
            None => {
                let old = if self.groups.len() < MOST_GROUPS { None } else { self.groups.pop_back() };
                let mut pages = old.map(|(_, _, pages)| pages).unwrap_or_default();
                self.packs[pack].group(number, &mut self.decompressor, &mut self.frame, &mut pages)?;
                (pack, number, pages)
            }
        };
        let wanted = usize::try_from(count).map_or(usize::MAX, |count| count.saturating_mul(PAGE));
        let length = wanted.min(group.2.len() - start);
        self.piece.extend_from_slice(&group.2[start..start + length]);
        self.groups.push_front(group);
        Ok((length / PAGE) as u64)
    }
}

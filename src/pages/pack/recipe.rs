//! A recipe: of which pages in which packs a pages file consists.
//!
//! ```text
//! "cryorcpe"  version u32  size of the file u64  its BLAKE3, 32 bytes
//! packs u16, then each one's name: length u8, bytes
//! runs u32, then each one: kind, count, and where it begins, as numbers of 7 bits a byte
//! BLAKE3 of all that, 32 bytes
//! ```
//! Numbers have their lowest byte first. Kind 0 are zero pages, kind N pages of pack N - 1, from
//! the slot that lies so far (zigzag) from the one behind the last run of the same pack.

use std::path::Path;

use super::Error;
use crate::pages::file::read_within;
use crate::pages::{PAGE, damaged};

pub(in crate::pages) const SUFFIX: &str = "recipe";
const MAGIC: &[u8; 8] = b"cryorcpe";
const VERSION: u32 = 1;
const HASH: usize = 32;
/// A run takes 3 bytes or so; a file with more of them isn't worth packing.
const MOST_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Zeros {
        count: u64,
    },
    /// Slots of the recipe's pack of that number.
    Pages {
        pack: usize,
        first: u64,
        count: u64,
    },
}

/// One that was checked to be sound in itself; its packs may be gone all the same.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub size: u64,
    pub digest: [u8; HASH],
    /// Names of files in the folder of packs.
    pub packs: Vec<String>,
    runs: Vec<u8>,
}

impl Recipe {
    pub fn read(path: &Path) -> Result<Recipe, Error> {
        Recipe::read_from(path, &read_within(path, MOST_BYTES)?)
    }

    /// What lies at this path, or will.
    pub(super) fn read_from(path: &Path, bytes: &[u8]) -> Result<Recipe, Error> {
        Recipe::parse(bytes).map_err(|problem| match problem {
            Problem::Future(version) => Error::Future { path: path.to_owned(), version },
            Problem::Damaged(problem) => damaged(path, problem),
        })
    }

    pub fn parse(bytes: &[u8]) -> Result<Recipe, Problem> {
        let mut rest = bytes;
        if take(&mut rest, MAGIC.len())? != MAGIC {
            return Err(Problem::Damaged("it is no recipe"));
        }
        match u32::from_le_bytes(array(&mut rest)?) {
            VERSION => {}
            version if version > VERSION => return Err(Problem::Future(version)),
            _ => return Err(Problem::Damaged("it has an impossible version")),
        }
        let body = bytes.len().checked_sub(HASH).ok_or(TOO_SHORT)?;
        if blake3::hash(&bytes[..body]).as_bytes() != &bytes[body..] {
            return Err(Problem::Damaged("its checksum is wrong"));
        }
        rest = rest.get(..rest.len().saturating_sub(HASH)).unwrap_or_default();
        let size = u64::from_le_bytes(array(&mut rest)?);
        let digest = array(&mut rest)?;
        let packs =
            (0..u16::from_le_bytes(array(&mut rest)?)).map(|_| name(&mut rest)).collect::<Result<_, _>>()?;
        let count = u32::from_le_bytes(array(&mut rest)?);
        let recipe = Recipe { size, digest, packs, runs: rest.to_vec() };
        recipe.check(count)?;
        Ok(recipe)
    }

    /// So that nobody who walks along the runs has to.
    fn check(&self, count: u32) -> Result<(), Problem> {
        let mut runs = self.runs();
        let mut pages = 0u64;
        for _ in 0..count {
            let run = runs.try_next()?.ok_or(TOO_SHORT)?;
            let (Run::Zeros { count } | Run::Pages { count, .. }) = run;
            pages = pages.checked_add(count).ok_or(TOO_LARGE)?;
        }
        let fits = pages == self.size.div_ceil(PAGE as u64) && runs.rest.is_empty();
        if fits { Ok(()) } else { Err(Problem::Damaged("its runs don't make up the file")) }
    }

    pub(super) fn runs(&self) -> Runs<'_> {
        Runs { rest: &self.runs, behind: vec![0; self.packs.len()] }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    Damaged(&'static str),
    Future(u32),
}

const TOO_SHORT: Problem = Problem::Damaged("it ends too early");
const TOO_LARGE: Problem = Problem::Damaged("it has an impossible number in it");

pub(super) struct Runs<'a> {
    rest: &'a [u8],
    /// Of each pack, the slot behind its last run.
    behind: Vec<u64>,
}

impl Runs<'_> {
    fn try_next(&mut self) -> Result<Option<Run>, Problem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let kind = number(&mut self.rest)?;
        let count = number(&mut self.rest)?;
        if count == 0 || count > u64::from(u32::MAX) {
            return Err(TOO_LARGE);
        }
        let Some(pack) = kind.checked_sub(1) else { return Ok(Some(Run::Zeros { count })) };
        let pack = usize::try_from(pack).map_err(|_| TOO_LARGE)?;
        let behind = self.behind.get_mut(pack).ok_or(TOO_LARGE)?;
        let first = behind.checked_add_signed(signed(number(&mut self.rest)?)).ok_or(TOO_LARGE)?;
        *behind = first.checked_add(count).filter(|end| *end <= u64::from(u32::MAX)).ok_or(TOO_LARGE)?;
        Ok(Some(Run::Pages { pack, first, count }))
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        self.try_next().ok().flatten()
    }
}

/// Is told page after page, and makes runs of them.
#[derive(Debug, Default)]
pub(super) struct Builder {
    packs: Vec<String>,
    behind: Vec<u64>,
    runs: Vec<u8>,
    count: u32,
    last: Option<Run>,
}

impl Builder {
    pub(super) fn zeros(&mut self, more: u64) {
        match &mut self.last {
            Some(Run::Zeros { count }) if *count + more <= u64::from(u32::MAX) => *count += more,
            _ => self.begin(Run::Zeros { count: more }),
        }
    }

    pub(super) fn page(&mut self, name: &str, slot: u32) {
        let slot = u64::from(slot);
        match &mut self.last {
            Some(Run::Pages { pack, first, count })
                if self.packs[*pack] == name && *first + *count == slot =>
            {
                *count += 1;
            }
            _ => {
                let pack = self.pack(name);
                self.begin(Run::Pages { pack, first: slot, count: 1 });
            }
        }
    }

    fn pack(&mut self, name: &str) -> usize {
        self.packs.iter().position(|pack| pack == name).unwrap_or_else(|| {
            self.packs.push(name.to_owned());
            self.behind.push(0);
            self.packs.len() - 1
        })
    }

    fn begin(&mut self, next: Run) {
        if let Some(run) = self.last.replace(next) {
            self.write(run);
        }
    }

    fn write(&mut self, run: Run) {
        self.count += 1;
        match run {
            Run::Zeros { count } => {
                put(&mut self.runs, 0);
                put(&mut self.runs, count);
            }
            Run::Pages { pack, first, count } => {
                put(&mut self.runs, pack as u64 + 1);
                put(&mut self.runs, count);
                let step = first.cast_signed() - self.behind[pack].cast_signed();
                put(&mut self.runs, zigzag(step));
                self.behind[pack] = first + count;
            }
        }
    }

    /// The recipe, or none if it would be too long to be read again.
    pub(super) fn finish(mut self, size: u64, digest: &[u8; HASH]) -> Option<Vec<u8>> {
        if let Some(run) = self.last.take() {
            self.write(run);
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(digest);
        bytes.extend(u16::try_from(self.packs.len()).ok()?.to_le_bytes());
        for name in &self.packs {
            bytes.push(u8::try_from(name.len()).ok()?);
            bytes.extend(name.as_bytes());
        }
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(self.runs);
        let checksum = blake3::hash(&bytes);
        bytes.extend(checksum.as_bytes());
        (bytes.len() as u64 <= MOST_BYTES).then_some(bytes)
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Problem> {
    rest.split_off(..count).ok_or(TOO_SHORT)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Problem> {
    take(rest, N)?.try_into().map_err(|_| TOO_SHORT)
}

/// One that can't lead out of the folder of packs.
fn name(rest: &mut &[u8]) -> Result<String, Problem> {
    let [length] = array(rest)?;
    let name = std::str::from_utf8(take(rest, length.into())?).ok();
    let name =
        name.filter(|name| name.ends_with(".pack") && !name.starts_with('.') && !name.contains(['/', '\0']));
    name.map(str::to_owned).ok_or(Problem::Damaged("it names an impossible pack"))
}

fn number(rest: &mut &[u8]) -> Result<u64, Problem> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let [byte] = array(rest)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(TOO_LARGE)
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn signed(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut builder = Builder::default();
        builder.zeros(1);
        builder.zeros(1);
        for slot in [5, 6, 7, 200_000, 3] {
            builder.page("a.pack", slot);
        }
        builder.page("b.pack", 4);
        builder.zeros(1);
        builder.finish(9 * PAGE as u64 - 1, &[7; HASH]).unwrap()
    }

    /// As somebody would who knows the format.
    fn with_right_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        let body = bytes.len() - HASH;
        let checksum = blake3::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(checksum.as_bytes());
        bytes
    }

    #[test]
    fn a_recipe_is_read_as_it_was_written() {
        let recipe = Recipe::parse(&sample()).unwrap();
        assert_eq!((recipe.size, recipe.digest), (9 * PAGE as u64 - 1, [7; HASH]));
        assert_eq!(recipe.packs, ["a.pack", "b.pack"]);
        let pages = |pack, first, count| Run::Pages { pack, first, count };
        let runs = [
            Run::Zeros { count: 2 },
            pages(0, 5, 3),
            pages(0, 200_000, 1),
            pages(0, 3, 1),
            pages(1, 4, 1),
            Run::Zeros { count: 1 },
        ];
        assert_eq!(recipe.runs().collect::<Vec<_>>(), runs);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_found() {
        let good = sample();
        for length in 0..good.len() {
            assert!(Recipe::parse(&good[..length]).is_err(), "{length}");
        }
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Recipe::parse(&bytes).is_err(), "{bit}");
        }
    }

    #[test]
    fn what_is_impossible_is_refused_under_a_right_checksum_too() {
        let good = sample();
        for at in 0..good.len() - HASH {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                if let Ok(recipe) = Recipe::parse(&with_right_checksum(bytes)) {
                    let count = |run| match run {
                        Run::Zeros { count } | Run::Pages { count, .. } => count,
                    };
                    let pages: u64 = recipe.runs().map(count).sum();
                    assert_eq!(pages, recipe.size.div_ceil(PAGE as u64));
                }
            }
        }
    }

    #[test]
    fn a_pack_lies_in_the_folder_of_packs() {
        for name in ["../../etc/a.pack", "/a.pack", ".pack", "a", "..", "a\0.pack"] {
            let mut builder = Builder::default();
            builder.page(name, 0);
            let bytes = builder.finish(PAGE as u64, &[0; HASH]).unwrap();
            assert!(matches!(Recipe::parse(&bytes), Err(Problem::Damaged(_))), "{name:?}");
        }
    }

    #[test]
    fn a_recipe_of_the_future_says_so() {
        let mut bytes = sample();
        bytes[8] = 2;
        assert!(matches!(Recipe::parse(&bytes), Err(Problem::Future(2))));
    }

    #[test]
    fn an_empty_file_has_a_recipe() {
        let recipe = Recipe::parse(&Builder::default().finish(0, &[0; HASH]).unwrap()).unwrap();
        assert_eq!(recipe.runs().count(), 0);
    }
}

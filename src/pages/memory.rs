//! A pages file to be read, however it is kept: as it is, compressed, or as a recipe of what
//! packs hold.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zstd::bulk::Decompressor;

use super::digest::Digester;
use super::file::{UNFINISHED, is_pages, open_plain, read_exactly, unfinished};
use super::output::Output;
use super::{Error, Expected, compress, damaged, pack, reading, writing};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain,
    Compressed,
    Packed,
}

/// How a folder keeps a pages file. As long as that is there as it is, everything beside it is
/// of no importance.
pub fn form(folder: &Path, name: &str) -> Option<Form> {
    let plain = folder.join(name);
    let (compressed, packed) = (compress::compressed_of(&plain), pack::recipe_of(&plain));
    let forms = [(plain, Form::Plain), (compressed, Form::Compressed), (packed, Form::Packed)];
    let is_there = |(path, _): &(PathBuf, Form)| path.symlink_metadata().is_ok();
    forms.into_iter().find(is_there).map(|(_, form)| form)
}

/// The name of the pages file that another one stands for, or will when it is complete.
pub(crate) fn stands_for<'a>(name: &'a str) -> Option<&'a str> {
    let without = |name: &'a str, suffix| name.strip_suffix(suffix)?.strip_suffix('.');
    let name = without(name, UNFINISHED).unwrap_or(name);
    let plain = without(name, compress::SUFFIX).or_else(|| without(name, pack::SUFFIX));
    plain.filter(|plain| is_pages(plain))
}

/// Writes what isn't kept plain of these files into another folder, where none gets its name
/// that isn't as it is expected.
pub fn put_together(
    folder: &Path,
    packs: &Path,
    into: &Path,
    expected: &BTreeMap<String, Expected>,
) -> Result<(), Error> {
    for (name, expected) in expected {
        write(folder, packs, name, || Output::create(&into.join(name), expected.clone()))?;
    }
    Ok(())
}

/// Whether what isn't kept plain would be as it is expected.
pub(crate) fn check(folder: &Path, packs: &Path, name: &str, expected: &Expected) -> Result<(), Error> {
    write(folder, packs, name, || Output::nowhere(&folder.join(name), expected.clone()))
}

fn write(
    folder: &Path,
    packs: &Path,
    name: &str,
    output: impl FnOnce() -> Result<Output, Error>,
) -> Result<(), Error> {
    let plain = folder.join(name);
    match form(folder, name) {
        Some(Form::Compressed) => compress::decompress(&compress::compressed_of(&plain), output()?),
        Some(Form::Packed) => pack::unpack(&pack::recipe_of(&plain), packs, output()?),
        Some(Form::Plain) | None => Ok(()),
    }
}

/// A copy gets its name when it is complete. It isn't synced.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let new = unfinished(to);
    let copied = fs::copy(from, &new).and_then(|_| fs::rename(&new, to)).map_err(writing(to));
    if copied.is_err() {
        let _ = fs::remove_file(&new);
    }
    copied
}

/// Any part of it can be read.
pub struct Memory {
    path: PathBuf,
    size: u64,
    kept: Kept,
}

enum Kept {
    Plain(File),
    Compressed(compress::Reader, RefCell<Chunk>),
    Packed(RefCell<pack::Reader>),
}

/// The one that was read last.
struct Chunk {
    decompressor: Decompressor<'static>,
    frame: Vec<u8>,
    number: Option<u64>,
    content: Vec<u8>,
}

impl Memory {
    /// `packs` is where a recipe's packs are.
    pub fn open(folder: &Path, name: &str, packs: &Path) -> Result<Memory, Error> {
        let path = folder.join(name);
        let (size, kept) = match form(folder, name) {
            None | Some(Form::Plain) => {
                let file = open_plain(&path)?;
                (file.metadata().map_err(reading(&path))?.len(), Kept::Plain(file))
            }
            Some(Form::Compressed) => {
                let reader = compress::Reader::open(&compress::compressed_of(&path))?;
                let decompressor = Decompressor::new().map_err(reading(&path))?;
                let chunk = Chunk { decompressor, frame: Vec::new(), number: None, content: Vec::new() };
                (reader.size(), Kept::Compressed(reader, RefCell::new(chunk)))
            }
            Some(Form::Packed) => {
                let reader = pack::Reader::open(&pack::recipe_of(&path), packs)?;
                (reader.size(), Kept::Packed(RefCell::new(reader)))
            }
        };
        Ok(Memory { path, size, kept })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// All of what lies there, or an error.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), Error> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            return Err(damaged(&self.path, "it ends too early"));
        }
        match &self.kept {
            Kept::Plain(file) => read_exactly(file, &self.path, bytes, offset),
            Kept::Compressed(reader, chunk) => chunk.borrow_mut().read(reader, bytes, offset),
            Kept::Packed(reader) => reader.borrow_mut().read(&self.path, bytes, offset),
        }
    }

    /// From the beginning to the end, which fails if it isn't what is expected.
    pub fn into_reader(self, expected: Option<&Expected>) -> impl Read + use<> {
        let digester = expected.and_then(|expected| Digester::like(&expected.digest));
        Reading { memory: self, at: 0, digester: digester.zip(expected.cloned()) }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Memory").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Chunk {
    fn read(&mut self, reader: &compress::Reader, bytes: &mut [u8], offset: u64) -> Result<(), Error> {
        let mut filled = 0;
        while filled < bytes.len() {
            let (number, start) = compress::Reader::place(offset + filled as u64);
            if self.number != Some(number) {
                self.number = None;
                reader.chunk(number, &mut self.decompressor, &mut self.frame, &mut self.content)?;
                self.number = Some(number);
            }
            let length = (bytes.len() - filled).min(self.content.len() - start);
            bytes[filled..filled + length].copy_from_slice(&self.content[start..start + length]);
            filled += length;
        }
        Ok(())
    }
}

struct Reading {
    memory: Memory,
    at: u64,
    digester: Option<(Digester, Expected)>,
}

impl Read for Reading {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.memory.size - self.at;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = &mut bytes[..length];
        self.memory.read_exact_at(bytes, self.at).map_err(|error| io::Error::other(error.in_image()))?;
        self.at += length as u64;
        if let Some((digester, _)) = &mut self.digester {
            digester.update(bytes);
        }
        if self.at == self.memory.size
            && let Some((digester, expected)) = self.digester.take()
            && digester.finish() != expected.digest
        {
            return Err(io::Error::other(
                damaged(&self.memory.path, "its content has another digest").in_image(),
            ));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PAGE;
    use crate::pages::compress::Shrinking;
    use crate::pages::digest;
    use crate::pages::follow::Follower;
    use crate::pages::pack::Packer;

    /// Every third page is zero, and half of the others noise.
    fn content() -> Vec<u8> {
        let mut content = vec![0; (5 << 20) / 2 + 77];
        for (number, page) in content.chunks_mut(PAGE).enumerate().filter(|(number, _)| number % 3 > 0) {
            let half = page.len() / 2;
            blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut page[half..]);
        }
        content
    }

    /// Folders that keep the same, one in each form, each in a folder beside one of packs.
    fn kept(content: &[u8]) -> (tempfile::TempDir, Vec<(PathBuf, Form)>) {
        let root = tempfile::tempdir().unwrap();
        let forms = [Form::Plain, Form::Compressed, Form::Packed];
        let folders = forms.map(|form| (root.path().join(format!("{form:?}")), form));
        fs::create_dir(root.path().join("packs")).unwrap();
        for (folder, form) in &folders {
            fs::create_dir(folder).unwrap();
            let path = folder.join("pages-1.img");
            fs::write(&path, content).unwrap();
            if *form == Form::Compressed {
                let follower = Follower::<Shrinking>::start(folder, folder.clone()).unwrap();
                follower.finish(&[("pages-1.img".to_owned(), content.len() as u64)].into()).unwrap();
                assert_eq!(self::form(folder, "pages-1.img"), Some(Form::Plain));
                fs::remove_file(&path).unwrap();
            } else if *form == Form::Packed {
                let packer = Packer::open(&root.path().join("packs")).unwrap();
                packer.prepare(folder, &BTreeMap::new(), &[]).unwrap().unwrap().publish().unwrap();
            }
            assert_eq!(self::form(folder, "pages-1.img"), Some(*form));
        }
        (root, folders.into())
    }

    fn open(root: &tempfile::TempDir, folder: &Path) -> Memory {
        Memory::open(folder, "pages-1.img", &root.path().join("packs")).unwrap()
    }

    #[test]
    fn any_part_is_the_same_however_it_is_kept() {
        let content = content();
        let (root, folders) = kept(&content);
        let whole = content.len();
        for (folder, form) in &folders {
            let memory = open(&root, folder);
            assert_eq!(memory.size(), whole as u64);
            for (from, length) in [
                (0, 10),
                (PAGE - 1, 2),
                (3 * PAGE, 64 * PAGE),
                ((1 << 20) - 5, 10),
                (whole - 9, 9),
                (77, 2 << 20),
                (whole, 0),
            ] {
                let mut bytes = vec![1; length];
                memory.read_exact_at(&mut bytes, from as u64).unwrap();
                assert!(bytes == content[from..from + length], "{form:?} {from} {length}");
            }
            for (from, length) in [(whole as u64, 1), (whole as u64 - 1, 2), (u64::MAX, 8)] {
                assert!(memory.read_exact_at(&mut vec![0; length], from).is_err(), "{form:?} {from}");
            }
        }
    }

    #[test]
    fn memory_that_isnt_what_it_was_has_no_end() {
        let content = content();
        let (root, folders) = kept(&content);
        let digest = digest::of_file(&folders[0].0.join("pages-1.img")).unwrap();
        let expected = Expected { size: content.len() as u64, digest };
        let other = Expected { digest: expected.digest.replace(['0', '1'], "2"), ..expected.clone() };
        for (folder, form) in &folders {
            for (expected, is_right) in [(Some(&expected), true), (None, true), (Some(&other), false)] {
                let mut read = Vec::new();
                let end = open(&root, folder).into_reader(expected).read_to_end(&mut read);
                assert_eq!(end.is_ok(), is_right, "{form:?}");
                assert!(!is_right || read == content, "{form:?}");
            }
        }
    }

    #[test]
    fn what_stands_for_memory_is_told_by_its_name() {
        for (name, plain) in [
            ("pages-1.img.zst", Some("pages-1.img")),
            ("pages-12.img.recipe", Some("pages-12.img")),
            ("pages-1.img.zst.new", Some("pages-1.img")),
            ("pages-1.img", None),
            ("pages-1.img.new", None),
            ("core-1.img.zst", None),
            (".zst", None),
        ] {
            assert_eq!(stands_for(name), plain, "{name}");
        }
    }
}

//! Single bytes in files of CRIU's, found by the fields they belong to and changed in place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Two magic numbers.
pub(super) const HEAD: usize = 8;
/// More than any container's open files need.
const MOST_BYTES: u64 = 256 << 20;

/// Sets every byte of the file that `find` finds; a file that isn't there has none.
pub(super) fn change(path: &Path, value: u8, find: impl Fn(&[u8]) -> Vec<usize>) -> io::Result<()> {
    let file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    if length > MOST_BYTES {
        return Ok(());
    }
    let mut image = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut image, 0)?;
    for at in find(&image) {
        file.write_all_at(&[value], at as u64)?;
    }
    Ok(())
}

/// The messages of an image file, as far as it is whole.
pub(super) fn entries(image: &[u8]) -> impl Iterator<Item = Fields<'_>> {
    let mut at = HEAD;
    std::iter::from_fn(move || {
        let size: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        let begin = at + 4;
        at = begin.checked_add(u32::from_ne_bytes(size) as usize).filter(|end| *end <= image.len())?;
        Some(Fields::new(image, begin, at))
    })
}

/// The fields of a message as protocol buffers write them. Written down again by a
/// library, it would lack all that we have no name for.
pub(super) struct Fields<'a> {
    image: &'a [u8],
    at: usize,
    end: usize,
}

pub(super) struct Field {
    pub(super) number: u64,
    pub(super) is_message: bool,
    pub(super) value: u64,
    pub(super) at: usize,
    pub(super) end: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(image: &'a [u8], at: usize, end: usize) -> Fields<'a> {
        Fields { image, at, end }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.image.get(..self.end)?.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl Iterator for Fields<'_> {
    type Item = Field;

    fn next(&mut self) -> Option<Field> {
        let key = self.varint()?;
        let (number, kind) = (key >> 3, key & 7);
        let mut at = self.at;
        let mut value = 0;
        let length = match kind {
            0 => {
                value = self.varint()?;
                self.at - at
            }
            1 => 8,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                at = self.at;
                length
            }
            5 => 4,
            _ => return None,
        };
        let end = at.checked_add(length).filter(|end| *end <= self.end)?;
        self.at = end;
        Some(Field { number, is_message: kind == 2, value, at, end })
    }
}

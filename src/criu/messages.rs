//! How CRIU frames its image files: magic numbers, then a length and a message, as often
//! as need be. A file is read one message after the other, whatever its size.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::marker::PhantomData;
use std::path::Path;

use prost::Message;
use rustix::fs::{Mode, OFlags, open};

pub(super) const COMMON: u32 = 0x5456_4319;

/// More than CRIU ever writes of a container's files or mappings.
pub const MOST_LISTED: u64 = 128 << 20;

/// All messages of a file, of one kind each. Nothing comes after an error.
#[derive(Debug)]
pub struct Messages<M> {
    name: String,
    file: BufReader<File>,
    /// Bytes that the file still has: a length that lies costs no memory.
    left: u64,
    kind: PhantomData<M>,
}

impl<M: Message + Default> Messages<M> {
    /// Of a file with the given magic number after the common one, and at most that many bytes.
    pub fn open(path: &Path, magic: u32, most: u64) -> io::Result<Messages<M>> {
        Messages::after(path, &[COMMON.to_le_bytes(), magic.to_le_bytes()].concat(), most)
    }

    pub(super) fn after(path: &Path, head: &[u8], most: u64) -> io::Result<Messages<M>> {
        let name = path.file_name().unwrap_or_default().display().to_string();
        let begin = || {
            let (file, left) = open_plain(path)?;
            if left > most {
                return Err(bad("it is far too large"));
            }
            let mut file = BufReader::new(file);
            let mut found = vec![0; head.len()];
            let whole = file.read_exact(&mut found);
            if whole.is_err() || found != head {
                return Err(bad("not a CRIU image file of the expected kind"));
            }
            Ok((file, left.saturating_sub(head.len() as u64)))
        };
        match begin() {
            Ok((file, left)) => Ok(Messages { name, file, left, kind: PhantomData }),
            Err(problem) => Err(named(&name, &problem)),
        }
    }

    /// For files of which no reader needs more; one that has none is damaged.
    pub fn first(mut self) -> io::Result<M> {
        self.head()
    }

    /// A message of another kind that comes first.
    pub fn head<H: Message + Default>(&mut self) -> io::Result<H> {
        self.read().map_err(|problem| named(&self.name, &problem))
    }

    /// Bytes that follow what was read.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn read<K: Message + Default>(&mut self) -> io::Result<K> {
        let length = u32::from_le_bytes(self.bytes(4)?.try_into().unwrap_or_default());
        K::decode(&*self.bytes(length.into())?).map_err(|error| bad(&error.to_string()))
    }

    fn bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        if length > MOST_LISTED {
            return Err(bad("a message in it is far too large"));
        }
        self.left = self.left.checked_sub(length).ok_or_else(|| bad("it is cut short"))?;
        let mut bytes = Vec::new();
        (&mut self.file).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(bad("it is cut short")) }
    }
}

impl<M: Message + Default> Iterator for Messages<M> {
    type Item = io::Result<M>;

    fn next(&mut self) -> Option<io::Result<M>> {
        if self.left == 0 {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.left = 0;
        }
        Some(read.map_err(|problem| named(&self.name, &problem)))
    }
}

/// A file and its size. Whoever made it may have made a pipe, at which a reader waits for
/// ever, or a link.
pub fn open_plain(path: &Path) -> io::Result<(File, u64)> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(bad("it is no plain file")) }
}

pub(super) fn bad(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn named(name: &str, problem: &io::Error) -> io::Error {
    io::Error::new(problem.kind(), format!("{name}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::super::images::tests::write_all;
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Word {
        #[prost(string, tag = "1")]
        text: String,
    }

    fn word(text: &str) -> Word {
        Word { text: text.to_owned() }
    }

    #[test]
    fn messages_come_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.img");
        write_all(&path, 7, &[word("one"), word(""), word("three")]);
        let words = Messages::<Word>::open(&path, 7, 1000).unwrap().collect::<io::Result<Vec<_>>>();
        assert_eq!(words.unwrap(), [word("one"), word(""), word("three")]);
        assert!(Messages::<Word>::open(&path, 8, 1000).is_err());
        assert!(Messages::<Word>::open(&path, 7, 10).unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn a_file_that_is_cut_anywhere_ends_in_one_error_or_between_two_messages() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.img");
        write_all(&path, 7, &[word("one"), word("two")]);
        let whole = std::fs::read(&path).unwrap();
        for length in 8..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let read: Vec<_> = Messages::<Word>::open(&path, 7, 1000).unwrap().collect();
            let between = length == 8 || length == 8 + 4 + word("one").encoded_len();
            assert_eq!(read.iter().filter(|word| word.is_err()).count(), usize::from(!between), "{length}");
        }
    }

    #[test]
    fn a_length_that_lies_is_an_error_and_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.img");
        let head = [COMMON.to_le_bytes(), 7u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
        std::fs::write(&path, head).unwrap();
        let error = Messages::<Word>::open(&path, 7, 1000).unwrap().first().unwrap_err();
        assert_eq!(error.to_string(), "words.img: a message in it is far too large");
    }

    #[test]
    fn only_plain_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open_plain(folder.path()).is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(open_plain(&link).is_err());
    }
}

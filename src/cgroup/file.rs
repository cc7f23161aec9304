//! Reading and writing the small files of a cgroup.
//!
//! A file that isn't there is an answer, not a failure: the controller is off,
//! the kernel is older than the file, or the cgroup has just gone.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Remove,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Remove => "remove",
        })
    }
}

/// The text of `path`, or nothing if there is no such file.
pub(super) fn text(path: &Path) -> Result<Option<String>, Error> {
    match fs::read(path) {
        // Names of mounts and processes needn't be UTF-8; what we look for is.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(Error::file(Access::Read, path, source)),
    }
}

/// The number in `path`; `max` reads as the largest there is.
pub(super) fn number(path: &Path) -> Result<Option<u64>, Error> {
    let Some(text) = text(path)? else { return Ok(None) };
    match text.trim() {
        "max" => Ok(Some(u64::MAX)),
        number => unsigned(number).map(Some).ok_or_else(|| Error::malformed(path, &text)),
    }
}

/// The lines `key value` of `path`. A line of another form is passed over, but
/// a file without a single good line is an error and not a list of zeros.
pub(super) fn pairs(path: &Path) -> Result<Option<Pairs>, Error> {
    let Some(text) = text(path)? else { return Ok(None) };
    let mut pairs = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(key), Some(value), None) = (words.next(), words.next(), words.next())
            && let Some(value) = unsigned(value)
        {
            pairs.insert(key.to_owned(), value);
        }
    }
    if pairs.is_empty() {
        return Err(Error::malformed(path, &text));
    }
    Ok(Some(Pairs(pairs)))
}

pub(super) struct Pairs(HashMap<String, u64>);

impl Pairs {
    pub(super) fn find(&self, key: &str) -> Option<u64> {
        self.0.get(key).copied()
    }

    /// Which keys there are depends on the kernel, so a missing one counts as zero.
    pub(super) fn count(&self, key: &str) -> u64 {
        self.find(key).unwrap_or(0)
    }
}

/// Some kernels print counters that ran below zero; Go's library reads those as 0.
pub(super) fn unsigned(number: &str) -> Option<u64> {
    number.parse().ok().or_else(|| number.parse::<i64>().ok().map(|_| 0))
}

/// Writes to a file, which has to exist.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let open = fs::OpenOptions::new().write(true).truncate(true).open(path);
    // One write(2) for all of it: the kernel acts on each write by itself.
    let written = open.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::NOENT | Errno::NODEV) => Error::Gone { path: path.parent().unwrap_or(path).to_owned() },
        _ => Error::file(Access::Write, path, source),
    })
}

/// `top` and all folders below, parents before children. None if it is gone.
pub(super) fn tree(top: &Path) -> Vec<PathBuf> {
    let mut folders = vec![];
    let mut unseen = vec![top.to_owned()];
    while let Some(folder) = unseen.pop() {
        // A folder that vanished between being listed and being opened is no loss.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        unseen.extend(entries.flatten().filter(is_folder).map(|entry| entry.path()));
        folders.push(folder);
    }
    folders
}

/// The page sizes for which `folder` has a file `hugetlb.SIZE` + `ending`.
pub(super) fn huge_page_sizes(folder: &Path, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let size = |name: String| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(ending)?.to_owned();
        // `hugetlb.2MB.rsvd.current` is about reservations.
        (!size.contains('.')).then_some(size)
    };
    let mut sizes: Vec<_> = names.filter_map(size).collect();
    sizes.sort();
    sizes
}

/// ENODEV is how reads and writes of an open file end when its cgroup was
/// removed, ESRCH when a process was. EOPNOTSUPP stands for pressure figures
/// that are switched off and for the process list of a threaded cgroup.
pub(super) fn is_absent(error: &io::Error) -> bool {
    const ABSENT: [Errno; 4] = [Errno::NOENT, Errno::NODEV, Errno::SRCH, Errno::OPNOTSUPP];
    Errno::from_io_error(error).is_some_and(|errno| ABSENT.contains(&errno))
}

/// A struct of counters that the kernel prints as lines `key value`. A field
/// is named as in containerd's messages; where the kernel's key differs, it
/// follows in quotes.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($field:ident $(= $key:literal)?),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $(pub $field: u64,)*
        }

        impl From<$crate::cgroup::file::Pairs> for $name {
            fn from(pairs: $crate::cgroup::file::Pairs) -> Self {
                Self { $($field: pairs.count(counters!(@key $field $($key)?)),)* }
            }
        }
    };
    (@key $field:ident $key:literal) => { $key };
    (@key $field:ident) => { stringify!($field) };
}
pub(super) use counters;

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn numbers_are_read_as_the_kernel_writes_them() {
        for (text, expected) in [("42\n", 42), ("max\n", u64::MAX), ("-1\n", 0)] {
            assert_eq!(number(file_with(text).path()).unwrap(), Some(expected));
        }
    }

    #[test]
    fn an_absent_file_is_not_an_error() {
        assert_eq!(number(Path::new("/nowhere/pids.max")).unwrap(), None);
        assert!(pairs(Path::new("/nowhere/cpu.stat")).unwrap().is_none());
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_file() {
        let file = file_with("many\n");
        let error = number(file.path()).unwrap_err().to_string();
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
        assert!(error.contains("many"), "{error}");
    }

    #[test]
    fn a_malformed_line_costs_only_itself() {
        let file = file_with("oom 3\nhalf\noom_kill x\nmax 1 2\n\noom_kill 2\n");
        let pairs = pairs(file.path()).unwrap().unwrap();
        assert_eq!(pairs.find("oom"), Some(3));
        assert_eq!(pairs.find("oom_kill"), Some(2));
        assert_eq!(pairs.find("max"), None);
    }

    #[test]
    fn a_file_without_any_good_line_is_not_read_as_zeros() {
        assert!(matches!(pairs(file_with("\0\0\0").path()), Err(Error::Malformed { .. })));
    }

    #[test]
    fn writing_into_a_vanished_cgroup_says_so() {
        assert!(matches!(write(Path::new("/nowhere/cgroup.procs"), "1"), Err(Error::Gone { .. })));
    }

    #[test]
    fn huge_page_sizes_are_found_by_their_files() {
        let folder = tempfile::tempdir().unwrap();
        for size in ["2MB", "1GB", "2MB.rsvd"] {
            fs::write(folder.path().join(format!("hugetlb.{size}.current")), "0\n").unwrap();
        }
        assert_eq!(huge_page_sizes(folder.path(), ".current"), ["1GB", "2MB"]);
    }
}

//! Filters of system calls in an image.

use std::io;
use std::path::Path;

use prost::Message;

use super::images;

const FILTERS: u32 = 0x6441_3049;
/// CRIU writes those of each process, even if all have the same.
const MOST_BYTES: u64 = 64 << 20;
/// Set by CRIU if all threads have the same: it gives them those of the first thread.
const OF_ALL_THREADS: u32 = 1;

#[derive(Clone, PartialEq, Message)]
pub struct Filters {
    #[prost(message, repeated, tag = "1")]
    filters: Vec<Filter>,
}

#[derive(Clone, PartialEq, Message)]
struct Filter {
    #[prost(bytes = "vec", tag = "1")]
    program: Vec<u8>,
    /// The one that was added to it; CRIU calls it the previous one.
    #[prost(uint32, optional, tag = "2")]
    later: Option<u32>,
    #[prost(uint32, tag = "3")]
    flags: u32,
}

impl Filters {
    pub fn of(folder: &Path) -> io::Result<Filters> {
        match images::first_within(&folder.join("seccomp.img"), FILTERS, MOST_BYTES) {
            // Nobody has one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Filters::default()),
            read => read,
        }
    }

    /// Whether whoever has the filter of this number shares its filters with its threads.
    pub(super) fn are_of_all_threads(&self, number: u32) -> bool {
        let mut chain = self.chain(number).peekable();
        chain.peek().is_some() && chain.all(|filter| filter.flags & OF_ALL_THREADS != 0)
    }

    /// The filter that somebody had first, after `inherited` ones, as the kernel takes it.
    pub fn program(&self, number: u32, inherited: usize) -> Option<&[u8]> {
        self.chain(number).nth(inherited).map(|filter| &*filter.program)
    }

    /// The oldest comes first.
    fn chain(&self, number: u32) -> impl Iterator<Item = &Filter> {
        let find = |number: u32| self.filters.get(usize::try_from(number).ok()?);
        let chain = std::iter::successors(find(number), move |filter| find(filter.later?));
        // A ring has no end.
        chain.take(self.filters.len())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::criu::images::tests::write_all;

    pub(crate) fn write(folder: &Path, flags: u32) {
        let filter = |program: u8, later| Filter { program: vec![program; 8], later, flags };
        let filters = vec![filter(1, None), filter(2, Some(0)), filter(3, Some(3)), filter(4, Some(2))];
        write_all(&folder.join("seccomp.img"), FILTERS, &[Filters { filters }]);
    }

    #[test]
    fn the_oldest_is_the_one_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 0);
        let filters = Filters::of(folder.path()).unwrap();
        assert_eq!(filters.program(1, 0), Some(&[2; 8][..]));
        assert_eq!(filters.program(1, 1), Some(&[1; 8][..]));
        assert_eq!(filters.program(0, 1), None);
        assert_eq!(filters.program(2, 9), None, "a ring");
        assert_eq!(filters.program(9, 0), None);
    }

    #[test]
    fn filters_are_shared_if_all_of_them_are() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Filters::of(folder.path()).unwrap().are_of_all_threads(0));
        write(folder.path(), OF_ALL_THREADS);
        let filters = Filters::of(folder.path()).unwrap();
        assert!(filters.are_of_all_threads(1) && !filters.are_of_all_threads(9));
        write(folder.path(), 0);
        assert!(!Filters::of(folder.path()).unwrap().are_of_all_threads(1));
    }
}

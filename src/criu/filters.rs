//! Filters of system calls in an image.

use std::io;
use std::path::Path;

use prost::Message;

use super::images;

const FILTERS: u32 = 0x6441_3049;

#[derive(Clone, PartialEq, Message)]
struct Filters {
    #[prost(message, repeated, tag = "1")]
    filters: Vec<Filter>,
}

#[derive(Clone, PartialEq, Message)]
struct Filter {
    #[prost(bytes = "vec", tag = "1")]
    program: Vec<u8>,
    /// The one that was there before.
    #[prost(uint32, optional, tag = "2")]
    earlier: Option<u32>,
}

/// What whoever has the filter of this number had first: that of its runtime. The program is
/// as the kernel takes it.
pub fn earliest(folder: &Path, number: u32) -> io::Result<Vec<u8>> {
    let Filters { filters } = images::first(&folder.join("seccomp.img"), FILTERS)?;
    let find = |number: u32| filters.get(usize::try_from(number).ok()?);
    let chain = std::iter::successors(find(number), |filter| find(filter.earlier?));
    // A chain without an end is no chain.
    let mut chain = chain.take(filters.len() + 1);
    let earliest = chain.find(|filter| filter.earlier.is_none());
    earliest.map(|filter| filter.program.clone()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("seccomp.img: it has no filter {number}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::images::tests::write_all;

    #[test]
    fn the_earliest_of_a_chain_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let filter = |program: u8, earlier| Filter { program: vec![program; 8], earlier };
        let filters = vec![filter(1, None), filter(2, Some(0)), filter(3, Some(3)), filter(4, Some(2))];
        write_all(&folder.path().join("seccomp.img"), FILTERS, &[Filters { filters }]);
        assert_eq!(earliest(folder.path(), 1).unwrap(), [1; 8]);
        assert_eq!(earliest(folder.path(), 0).unwrap(), [1; 8]);
        assert!(earliest(folder.path(), 2).is_err(), "its chain is a ring");
        assert!(earliest(folder.path(), 9).is_err(), "nobody has it");
    }
}

//! Room for the image: at least as much as the processes' memory that is in no file.

use std::path::Path;

use rustix::fs::{StatVfs, statvfs};

use super::process::Process;
use super::{Finding, Look, What};

const MEGABYTE: u64 = 1 << 20;
/// Less is written so soon that it may as well be tried.
const WORTH_A_LOOK: u64 = 16 * MEGABYTE;

pub(super) fn look(first: &Process, family: &[Process], container: &Look) -> Option<Finding> {
    let folder = container.image.as_deref()?;
    let needed = needed(family, container);
    let free = free(folder)?;
    (needed > free.max(WORTH_A_LOOK)).then(|| {
        let (needed, free) = (needed.div_ceil(MEGABYTE), free / MEGABYTE);
        let place = format!("{needed} MB needed, {free} MB free in {}", folder.display());
        Finding::new(What::NoSpace, first, place, true)
    })
}

/// In bytes.
pub(super) fn needed(family: &[Process], container: &Look) -> u64 {
    let inside = family.iter().filter(|process| process.inside);
    inside.fold(container.besides, |sum, process| sum.saturating_add(process.memory.saturating_mul(1024)))
}

/// In the file system of a folder that may have to be made first.
fn free(folder: &Path) -> Option<u64> {
    let found: Option<StatVfs> = folder.ancestors().find_map(|folder| statvfs(folder).ok());
    // Some don't count. Root may use what is kept back for it.
    found.filter(|found| found.f_blocks > 0).map(|found| found.f_bfree.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::Options;

    fn process(memory: u64, inside: bool) -> Process {
        Process { pid: 12, program: "java".to_owned(), memory, inside, ..Process::default() }
    }

    #[test]
    fn more_memory_than_any_disk_blocks() {
        let mut look_at = Look::new(12, vec![12], Options::default());
        look_at.image = Some("/tmp/not/made/yet".into());
        let huge = process(1 << 50, true);
        let found = look(&huge, std::slice::from_ref(&huge), &look_at).unwrap();
        assert_eq!((found.what, found.blocks), (What::NoSpace, true));
        assert!(found.place.ends_with("MB free in /tmp/not/made/yet"), "{}", found.place);
        assert_eq!(look(&huge, &[process(1, true)], &look_at), None);
    }

    #[test]
    fn who_is_not_in_the_image_needs_no_room() {
        let look = Look::new(12, vec![12], Options::default());
        assert_eq!(needed(&[process(3, true), process(100, false), process(4, true)], &look), 7 * 1024);
    }
}

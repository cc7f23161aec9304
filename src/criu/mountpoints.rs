//! Mounts whose source on the host was deleted or replaced while the container ran, as
//! editors and configuration tools replace files.
//!
//! CRIU remembers that, and makes the source anew at a restore, to delete it once it is
//! mounted. What is mounted from outside is there already, or it is missing and named: by us, as
//! CRIU 4.2 doesn't know its place in time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost::Message;

use super::fields::{self, Fields, entries};
use super::images;

/// With the number of the mount namespace after it.
const FILE_NAME: &str = "mountpoints-";
const MOUNTS: u32 = 0x5556_3928;

/// Where the entry of a mount says that its source was deleted, and where it comes from.
const DELETED: u64 = 16;
const OUTSIDE: u64 = 18;

#[derive(Clone, PartialEq, Message)]
struct Mount {
    #[prost(uint32, tag = "2")]
    number: u32,
    /// Text, mostly.
    #[prost(bytes = "vec", tag = "7")]
    place: Vec<u8>,
}

/// Takes what comes from outside in the image in `folder` for what is there.
pub fn forget_deletions(folder: &Path) -> io::Result<()> {
    files(folder)?.iter().try_for_each(|file| fields::change(file, 0, deletions))
}

/// Where the mount of this number is in the container, if the image in `folder` says so.
pub fn place_of(folder: &Path, number: u32) -> Option<String> {
    let mounts =
        files(folder).ok()?.into_iter().flat_map(|file| images::all(&file, MOUNTS).unwrap_or_default());
    let mount = mounts.into_iter().find(|mount: &Mount| mount.number == number)?;
    let place = String::from_utf8_lossy(&mount.place);
    // Older versions of CRIU write it relative to the root.
    Some(place.strip_prefix("./").map_or_else(|| place.to_string(), |place| format!("/{place}")))
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let is_ours =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FILE_NAME));
    Ok(paths.into_iter().filter(is_ours).collect())
}

/// Where each such entry says so: one byte, one.
fn deletions(image: &[u8]) -> Vec<usize> {
    entries(image).filter_map(deletion).collect()
}

fn deletion(mount: Fields<'_>) -> Option<usize> {
    let fields: Vec<_> = mount.collect();
    fields.iter().find(|field| field.number == OUTSIDE)?;
    let deleted = fields.iter().find(|field| field.number == DELETED && field.value == 1)?;
    (deleted.end - deleted.at == 1).then_some(deleted.at)
}

#[cfg(test)]
mod tests {
    use super::super::fields::HEAD;
    use super::*;

    /// An image of mounts that are all deleted, some of them from outside.
    fn image(outside: &[bool]) -> Vec<u8> {
        let mut image = vec![0; HEAD];
        for outside in outside {
            // A key of two bytes each: 16 << 3, and 18 << 3 | 2 with "/x" after it.
            let mut entry = vec![2 << 3, 9, 0x80, 1, 1];
            if *outside {
                entry.extend([0x92, 1, 2, b'/', b'x']);
            }
            image.extend(u32::try_from(entry.len()).unwrap().to_ne_bytes());
            image.extend(entry);
        }
        image
    }

    #[test]
    fn only_what_comes_from_outside_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mountpoints-12.img");
        fs::write(&path, image(&[true, false])).unwrap();
        forget_deletions(folder.path()).unwrap();
        let mut expected = image(&[true, false]);
        expected[HEAD + 4 + 4] = 0;
        assert_eq!(fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn a_mount_is_found_by_its_number() {
        let mount = |number, place: &str| Mount { number, place: place.into() };
        let folder = tempfile::tempdir().unwrap();
        let mounts = [mount(9, "/"), mount(7, "/.cache"), mount(6, "./data")];
        images::tests::write_all(&folder.path().join("mountpoints-12.img"), MOUNTS, &mounts);
        assert_eq!(place_of(folder.path(), 7).as_deref(), Some("/.cache"));
        assert_eq!(place_of(folder.path(), 6).as_deref(), Some("/data"));
        assert_eq!(place_of(folder.path(), 9).as_deref(), Some("/"));
        assert_eq!(place_of(folder.path(), 8), None);
    }

    #[test]
    fn a_broken_image_is_left_to_criu() {
        let whole = image(&[true]);
        for length in 0..whole.len() {
            assert!(deletions(&whole[..length]).is_empty(), "{length}");
        }
        assert_eq!(deletions(&whole).len(), 1);
    }
}

//! Watches of inotify and fanotify, which know a file by its number. An overlay can't be
//! asked where that is, and CRIU looks for it in a few folders only.

use std::collections::HashSet;
use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use super::process::{Process, fdinfo};
use super::{Finding, Look, What};
use crate::mount::table::{self, Entry};

/// Where CRIU looks, and how many levels deep at the most: it follows no limit of its own.
const SEARCHED: [(&str, usize); 8] = [
    ("", 0),
    ("etc", DEEP),
    ("var/spool", DEEP),
    ("var/log", DEEP),
    ("usr/share/dbus-1", DEEP),
    ("var/lib/polkit-1/localauthority", DEEP),
    ("usr/share/polkit-1/actions", DEEP),
    ("lib/udev", DEEP),
];
const DEEP: usize = 16;

/// A file as the kernel names it: file system and number.
type File = (u64, u64);

/// What this descriptor watches and CRIU wouldn't find.
pub(super) fn lost(process: &Process, number: i32, target: &str, container: &Look) -> Option<Finding> {
    if !matches!(target, "anon_inode:inotify" | "anon_inode:[fanotify]") {
        return None;
    }
    let mut watched = watched(&fdinfo(process.pid, number));
    let overlays = overlays(&table::of(container.init));
    watched.retain(|(device, _)| overlays.contains(device));
    if watched.is_empty() {
        return None;
    }
    let root = format!("/proc/{}/root", container.init);
    for (folder, levels) in SEARCHED {
        forget_found(&Path::new(&root).join(folder), levels, &mut watched);
    }
    let (_, inode) = watched.iter().min()?;
    let place = format!("fd {number}, inode {inode} of the root file system");
    Some(Finding::new(What::Watch, process, place, true))
}

/// Lines of fdinfo that name a file; marks on whole mounts do without.
fn watched(info: &str) -> HashSet<File> {
    let file = |line: &str| {
        let of = |key: &str| {
            let value = line.split(' ').find_map(|word| word.strip_prefix(key))?;
            u64::from_str_radix(value, 16).ok()
        };
        Some((device(of("sdev:")?), of("ino:")?))
    };
    info.lines()
        .filter(|line| line.starts_with("inotify ") || line.starts_with("fanotify "))
        .filter_map(file)
        .collect()
}

/// The kernel's own number of a device, as stat tells it.
fn device(own: u64) -> u64 {
    rustix::fs::makedev((own >> 20) as u32, (own & 0xf_ffff) as u32)
}

/// Those that don't tell where a number is.
fn overlays(mounts: &[Entry]) -> HashSet<u64> {
    let overlay = |mount: &Entry| {
        let (major, minor) = mount.device.split_once(':')?;
        let tells = mount.settings.contains("nfs_export=on");
        (mount.kind == "overlay" && !tells)
            .then_some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
    };
    mounts.iter().filter_map(overlay).collect()
}

fn forget_found(path: &Path, levels: usize, watched: &mut HashSet<File>) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    watched.remove(&(found.st_dev(), found.st_ino()));
    if levels == 0 || watched.is_empty() || !found.is_dir() {
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        forget_found(&entry.path(), levels - 1, watched);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_watched_are_known_by_number() {
        let info = "pos:\t0\nflags:\t00\nmnt_id:\t15\nino:\t2058\n\
            inotify wd:2 ino:2a sdev:2b mask:100 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:2a00\n\
            fanotify ino:7 sdev:800001 mflags:0 mask:20 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:07\n\
            fanotify mnt_id:12 mflags:0 mask:20 ignored_mask:0\n";
        let wanted = [(rustix::fs::makedev(0, 0x2b), 0x2a), (rustix::fs::makedev(8, 1), 7)];
        assert_eq!(watched(info), wanted.into());
    }

    #[test]
    fn an_overlay_that_can_be_exported_tells_where_a_file_is() {
        let mounts = "500 400 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l\n\
            501 500 0:51 / /a rw - overlay overlay rw,lowerdir=/l,index=on,nfs_export=on\n\
            502 500 0:52 / /dev rw,nosuid - tmpfs tmpfs rw\ngarbled\n";
        assert_eq!(overlays(&table::parse(mounts)), [rustix::fs::makedev(0, 50)].into());
    }

    #[test]
    fn what_is_found_in_a_folder_is_no_worry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        fs::create_dir_all(&path).unwrap();
        let file = |path: &Path| fs::metadata(path).map(|found| (found.st_dev(), found.st_ino())).unwrap();
        let (found, other) = (file(&path), (1, 1));
        let mut watched = HashSet::from([found, other]);
        forget_found(folder.path(), 1, &mut watched);
        assert!(watched.contains(&found), "too deep");
        forget_found(folder.path(), DEEP, &mut watched);
        assert_eq!(watched, [other].into());
    }
}

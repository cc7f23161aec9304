//! Open files: kinds that CRIU doesn't know, devices, and files without a name.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, fstatfs, openat, readlinkat, statx};

use super::process::{Process, fdinfo};
use super::sockets::Held;
use super::{Finding, Look, What, watches};

/// Files of the kernel without a place in a file system that CRIU can save. Whether it
/// knows the last two depends on its version and on how it was built.
const KNOWN: [&str; 8] =
    ["[eventfd]", "[eventpoll]", "inotify", "[fanotify]", "[signalfd]", "[timerfd]", "[pidfd]", "bpf-map"];
const MEMORY: u32 = 1;
const MISCELLANEOUS: u32 = 10;
/// Of the miscellaneous ones CRIU knows tun and autofs.
const TUN: u32 = 200;
const AUTOFS: u32 = 235;
const TUN_PATH: &str = "/dev/net/tun";
/// As <linux/magic.h> has it.
const MESSAGE_QUEUES: rustix::fs::FsWord = 0x1980_0202;
/// stat counts in these, whatever the file system does.
const BLOCK_BYTES: u64 = 512;

/// Looks at all open files of a process; its sockets are noted for another room.
pub(super) fn of(process: &Process, container: &Look, held: &mut Held) -> Vec<Finding> {
    let path = format!("/proc/{}/fd", process.pid);
    let mut found = Vec::new();
    // Thousands of names: from the folder it is a short way to each.
    let Ok(folder) = fs::File::open(&path) else { return found };
    for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(target) = readlinkat(&folder, &name, Vec::new()) else { continue };
        let target = target.to_string_lossy();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            held.note(process, number, inode.parse().unwrap_or_default());
        } else if process.inside {
            let place = || format!("fd {number}");
            let judged = judge(&target, &folder, Path::new(&name), container);
            found.extend(watches::lost(process, number, &target, container));
            if target == TUN_PATH && has_interface(process.pid, number) {
                let place = format!("fd {number}, {target} with an interface");
                found.push(Finding::new(What::Device, process, place, true));
            }
            if target.starts_with("pipe:[") && keeps_packets(process.pid, number) {
                let place = format!("fd {number}, a pipe in packet mode");
                found.push(Finding::new(What::UnsupportedFile, process, place, true));
            }
            found.extend(judged.map(|(what, blocks)| {
                let place = if target.starts_with('/') { format!("fd {number}, {target}") } else { place() };
                Finding::new(what, process, place, blocks)
            }));
            if target.starts_with('/') && !container.options.file_locks && is_locked(process.pid, number) {
                found.push(Finding::new(What::FileLock, process, place(), true));
            }
        }
    }
    found
}

fn judge(target: &str, folder: &fs::File, name: &Path, container: &Look) -> Option<(What, bool)> {
    if let Some(kind) = target.strip_prefix("anon_inode:") {
        return anonymous(kind);
    }
    if !target.starts_with('/') || target.starts_with("/memfd:") {
        return None;
    }
    if is_message_queue(target, folder, name) {
        return Some((What::MessageQueue, true));
    }
    let status = look_at(folder, name)?;
    if let Some(what) = device(target, &status) {
        return Some(what);
    }
    nameless(target, &status, container.ghost_limit).or_else(|| {
        let is_deleted =
            target.ends_with(" (deleted)") && FileType::from_raw_mode(status.stx_mode.into()).is_file();
        // Another of its names remains. Only a container that is stopped leaves CRIU the
        // right to give it one more.
        let lost = is_deleted && status.stx_nlink > 0 && !has_name(target, &status, container.init);
        (lost && !container.link_remap).then_some((What::DeletedName, true))
    })
}

/// A POSIX message queue, whose name is in no folder of the container's.
fn is_message_queue(target: &str, folder: &fs::File, name: &Path) -> bool {
    // Few other files lie in the root, and each look costs.
    target.rfind('/') == Some(0)
        && openat(folder, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(fstatfs)
            .is_ok_and(|found| found.f_type == MESSAGE_QUEUES)
}

/// Interfaces aren't in an image: whoever restores it brings the network.
fn has_interface(pid: u32, number: i32) -> bool {
    let info = fdinfo(pid, number);
    let interface = info.lines().find_map(|line| line.strip_prefix("iff:"));
    interface.is_some_and(|name| !name.trim().is_empty())
}

/// Whether a pipe keeps apart what was written apart (O_DIRECT).
fn keeps_packets(pid: u32, number: i32) -> bool {
    let info = fdinfo(pid, number);
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & OFlags::DIRECT.bits() != 0)
}

/// Whether a file is called so after all, or has its name again.
fn has_name(target: &str, status: &Statx, init: u32) -> bool {
    let is_it = |name: &str| {
        let found = look_at(rustix::fs::CWD, Path::new(&format!("/proc/{init}/root{name}")));
        found.is_some_and(|found| {
            (found.stx_ino, found.stx_dev_major, found.stx_dev_minor)
                == (status.stx_ino, status.stx_dev_major, status.stx_dev_minor)
        })
    };
    is_it(target) || target.strip_suffix(" (deleted)").is_some_and(is_it)
}

fn anonymous(kind: &str) -> Option<(What, bool)> {
    match kind {
        "[io_uring]" => Some((What::IoUring, true)),
        "seccomp notify" | "[seccomp notify]" => Some((What::SeccompNotify, true)),
        _ if KNOWN.contains(&kind) => None,
        _ => Some((What::UnsupportedFile, true)),
    }
}

/// A device that CRIU has no way to save.
pub(super) fn device(target: &str, status: &Statx) -> Option<(What, bool)> {
    let (major, minor) = (status.stx_rdev_major, status.stx_rdev_minor);
    let is_known = match FileType::from_raw_mode(status.stx_mode.into()) {
        FileType::CharacterDevice => is_known_device(major, minor),
        // CRIU saves the contents of a disk as little as it opens one again.
        FileType::BlockDevice => false,
        _ => true,
    };
    if is_known {
        return None;
    }
    let is_gpu = ["/dev/nvidia", "/dev/kfd", "/dev/dri/"].iter().any(|name| target.starts_with(name));
    Some((if is_gpu { What::Gpu } else { What::Device }, true))
}

fn is_known_device(major: u32, minor: u32) -> bool {
    match major {
        MEMORY => true,
        MISCELLANEOUS => matches!(minor, TUN | AUTOFS),
        // Terminals, by their numbers: consoles, /dev/tty and its like, serial lines, and
        // both ends of pseudo terminals.
        4 => (1..=63).contains(&minor),
        5 => minor <= 2,
        188 | 204 | 128..=143 => true,
        _ => false,
    }
}

/// A file that is gone from its file system goes into the image, up to a limit.
pub(super) fn nameless(target: &str, status: &Statx, limit: u64) -> Option<(What, bool)> {
    let is_file = FileType::from_raw_mode(status.stx_mode.into()).is_file();
    let is_ghost = is_file && target.ends_with(" (deleted)") && status.stx_nlink == 0;
    (is_ghost && status.stx_blocks * BLOCK_BYTES > limit).then_some((What::GhostFile, true))
}

/// What is known of it without asking a server that may not answer.
pub(super) fn look_at(folder: impl AsFd, name: &Path) -> Option<Statx> {
    statx(folder, name, AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS).ok()
}

fn is_locked(pid: u32, number: i32) -> bool {
    let info = fdinfo(pid, number);
    info.lines().any(|line| line.starts_with("lock:"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::super::process::family;
    use super::*;
    use crate::criu::Options;

    fn found(change: impl FnOnce(&mut Look)) -> Vec<Finding> {
        let own = std::process::id();
        let options = Options { file_locks: true, ..Options::default() };
        let mut look = Look::new(own, vec![own], options);
        change(&mut look);
        of(&family(own, &[own])[0], &look, &mut Held::default())
    }

    fn about(found: &[Finding], file: &impl AsRawFd) -> Vec<(What, bool)> {
        let place = format!("fd {}", file.as_raw_fd());
        let is_here =
            |finding: &&Finding| finding.place == place || finding.place.starts_with(&format!("{place},"));
        found.iter().filter(is_here).map(|finding| (finding.what, finding.blocks)).collect()
    }

    #[test]
    fn files_without_a_place_are_known_by_their_kind() {
        assert_eq!(anonymous("[io_uring]"), Some((What::IoUring, true)));
        assert_eq!(anonymous("[userfaultfd]"), Some((What::UnsupportedFile, true)));
        assert_eq!(anonymous("bpf-prog"), Some((What::UnsupportedFile, true)));
        assert_eq!(anonymous("seccomp notify"), Some((What::SeccompNotify, true)));
        assert_eq!(anonymous("[eventpoll]"), None);
        assert_eq!(anonymous("inotify"), None);
    }

    #[test]
    fn a_large_deleted_file_blocks_and_a_small_one_does_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 64 << 10]).unwrap();
        file.sync_all().unwrap();
        assert_eq!(about(&found(|_| {}), &file), []);
        assert_eq!(about(&found(|look| look.ghost_limit = 4096), &file), [(What::GhostFile, true)]);
    }

    #[test]
    fn a_file_that_lost_the_name_it_was_opened_by_blocks_unless_the_container_stops() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let file = fs::File::create(&path).unwrap();
        fs::hard_link(&path, folder.path().join("b")).unwrap();
        assert_eq!(about(&found(|_| {}), &file), []);
        fs::remove_file(&path).unwrap();
        assert_eq!(about(&found(|_| {}), &file), [(What::DeletedName, true)]);
        assert_eq!(about(&found(|look| look.link_remap = true), &file), []);
    }

    #[test]
    fn a_lock_blocks_if_locks_are_not_allowed() {
        let file = tempfile::tempfile().unwrap();
        file.lock().unwrap();
        assert_eq!(about(&found(|_| {}), &file), []);
        assert_eq!(about(&found(|look| look.options.file_locks = false), &file), [(What::FileLock, true)]);
    }

    #[test]
    fn a_pipe_blocks_if_it_keeps_packets_apart() {
        let (plain, _write) = std::io::pipe().unwrap();
        let flags = rustix::pipe::PipeFlags::DIRECT | rustix::pipe::PipeFlags::CLOEXEC;
        // The kernel notes it at the end that is written to.
        let (_read, packets) = rustix::pipe::pipe_with(flags).unwrap();
        let found = found(|_| {});
        assert_eq!(
            (about(&found, &plain), about(&found, &packets)),
            (vec![], vec![(What::UnsupportedFile, true)])
        );
    }

    #[test]
    fn memory_files_and_plain_devices_are_no_finding() {
        let memory = rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::empty()).unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        let found = found(|look| look.ghost_limit = 0);
        assert_eq!((about(&found, &memory), about(&found, &null)), (vec![], vec![]));
    }

    #[test]
    fn devices_are_known_by_their_numbers() {
        for (major, minor) in [(1, 3), (10, 200), (5, 0), (136, 7), (4, 1)] {
            assert!(is_known_device(major, minor), "{major}:{minor}");
        }
        for (major, minor) in [(10, 229), (10, 232), (195, 0), (226, 128), (4, 64), (7, 0)] {
            assert!(!is_known_device(major, minor), "{major}:{minor}");
        }
    }
}

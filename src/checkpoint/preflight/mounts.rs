//! Mounts that were made inside the container, of file systems that CRIU can't save.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::process::Process;
use super::{Finding, Look, What};
use crate::mount::table::{self, Entry};

/// What CRIU makes anew at a restore.
const KNOWN: [&str; 18] = [
    "aufs",
    "autofs",
    "binfmt_misc",
    "cgroup",
    "cgroup2",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "mqueue",
    "overlay",
    "proc",
    "pstore",
    "securityfs",
    "simfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// Every mount below the first process's root that the runtime doesn't see to.
pub(super) fn look(first: &Process, container: &Look) -> Vec<Finding> {
    let Some(bound) = &container.bound else { return Vec::new() };
    let mounts = table::of_container(first.pid);
    let queues = queues(&mounts, bound, &PathBuf::from(format!("/proc/{}/root", first.pid)))
        .map(|queue| Finding::new(What::MessageQueue, first, queue.display().to_string(), true));
    let strange = strange(mounts, bound).into_iter().map(|(point, kind)| {
        Finding::new(What::UnsupportedMount, first, format!("{kind} at {}", point.display()), true)
    });
    strange.chain(queues).collect()
}

/// The first POSIX message queue that somebody has made and not removed.
fn queues(mounts: &[Entry], bound: &[PathBuf], root: &Path) -> Option<PathBuf> {
    let made = |mount: &&Entry| mount.kind == "mqueue" && !bound.contains(&mount.point);
    mounts.iter().filter(made).find_map(|mount| {
        let folder = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        let queue = fs::read_dir(folder).ok()?.flatten().next()?;
        Some(mount.point.join(queue.file_name()))
    })
}

/// A part of a file system, as bind mounts show it, may belong to another mount that CRIU
/// knows.
fn strange(all: Vec<Entry>, bound: &[PathBuf]) -> Vec<(PathBuf, String)> {
    let is_given = |mount: &Entry| mount.point == Path::new("/") || bound.contains(&mount.point);
    // CRIU takes a mount of something that it is given for one more of the same.
    let given: HashSet<String> =
        all.iter().filter(|mount| is_given(mount)).map(|mount| mount.device.clone()).collect();
    all.into_iter()
        .filter(|mount| mount.is_whole() && !given.contains(&mount.device))
        .filter(|mount| !KNOWN.contains(&mount.kind.as_str()))
        .map(|mount| (mount.point, mount.kind))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        500 400 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l\n\
        501 500 0:51 / /proc rw,nosuid - proc proc rw\n\
        502 500 0:52 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k\n\
        503 500 8:1 /var/lib/hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw\n\
        504 500 8:16 / /data rw,relatime shared:1 - ext4 /dev/sdb rw\n\
        505 500 0:60 / /mnt/a\\040b rw - fuse.sshfs host: rw\n\
        506 500 0:61 / /mnt/nfs rw - nfs4 host:/x rw\n\
        507 500 0:62 / /huge rw - hugetlbfs none rw\n";

    #[test]
    fn what_was_mounted_inside_is_judged_by_its_kind() {
        let found = strange(table::parse(MOUNTS), &["/data".into()]);
        let found: Vec<_> =
            found.iter().map(|(point, kind)| (point.to_str().unwrap(), kind.as_str())).collect();
        assert_eq!(found, [("/mnt/a b", "fuse.sshfs"), ("/mnt/nfs", "nfs4"), ("/huge", "hugetlbfs")]);
    }

    #[test]
    fn a_queue_of_messages_is_found_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("dev/mqueue")).unwrap();
        let mounts = table::parse("508 502 0:63 / /dev/mqueue rw - mqueue mqueue rw\n");
        assert_eq!(queues(&mounts, &[], root.path()), None);
        fs::write(root.path().join("dev/mqueue/jobs"), "").unwrap();
        assert_eq!(queues(&mounts, &[], root.path()), Some("/dev/mqueue/jobs".into()));
        assert_eq!(queues(&mounts, &["/dev/mqueue".into()], root.path()), None);
    }

    #[test]
    fn a_root_of_any_kind_is_the_runtimes_business() {
        assert_eq!(strange(table::parse("1 0 8:1 / / rw - xfs /dev/sda1 rw"), &[]), []);
    }
}

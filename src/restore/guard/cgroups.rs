//! What a container sees of cgroups of version 1, and those that it has made.
//!
//! runc and crun tell CRIU to bind the folders of the cgroups that they themselves are in:
//! the container would see the shim's, which is often the top of a hierarchy.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};

use crate::bundle::{Spec, has_crun};
use crate::cgroup::Cgroup;
use crate::cgroup::nested::{self, Restorer};
use crate::criu;
use crate::mount::table::{self, Entry};

const LEGACY: &str = "cgroup";
const OPTIONS: [(&str, MountFlags); 5] = [
    ("ro", MountFlags::RDONLY),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("relatime", MountFlags::RELATIME),
];

/// Whether the container sees cgroups at all.
pub(super) fn is_needed(spec: &Spec) -> bool {
    !points(spec).is_empty()
}

/// Where it is meant to see its own.
fn points(spec: &Spec) -> Vec<&Path> {
    let mounts = spec.mounts.as_array().into_iter().flatten();
    let own = mounts.filter(|mount| mount["type"] == LEGACY || mount["type"] == "cgroup2");
    own.filter_map(|mount| mount["destination"].as_str().map(Path::new)).collect()
}

/// Makes what is inside the container's cgroup what it was, before anything of it runs.
pub(super) fn restore(pid: u32, spec: &Spec, shim: &str, bundle: &Path) -> io::Result<()> {
    let noted = criu::image_folder().join(nested::FILE);
    if !noted.exists() {
        return Ok(());
    }
    let cgroup = Cgroup::of_container(pid, &spec.linux.cgroups_path).map_err(io::Error::other)?;
    let leave_to_shim = || fs::copy(&noted, bundle.join(nested::FILE)).map(drop);
    if cgroup.is_unified() && has_crun(bundle) {
        // It puts the first process into the container's own once more, when CRIU is done.
        return leave_to_shim();
    }
    let shim = shim.parse().ok().and_then(|shim| Cgroup::of_process(shim).ok());
    let aside = shim.ok_or_else(|| io::Error::other("the shim has no cgroup"))?;
    let problems = cgroup.restore_nested(pid, &criu::image_folder(), &Restorer::CanLeaveFor(&aside))?;
    // Who can tell of them tries once more.
    if problems.is_empty() { Ok(()) } else { leave_to_shim() }
}

/// A mount that shows another cgroup than the container's.
pub(super) struct Wrong {
    point: PathBuf,
    flags: MountFlags,
    right: OwnedFd,
}

/// Those of a process whose mount namespace this one isn't in yet.
pub(super) fn wrong(pid: u32, spec: &Spec) -> io::Result<Vec<Wrong>> {
    let points = points(spec);
    let is_own = |entry: &Entry| points.iter().any(|point| entry.point.starts_with(point));
    let mut mounts = table::of(pid);
    mounts.retain(|entry| entry.kind == LEGACY && is_own(entry));
    if mounts.is_empty() {
        return Ok(Vec::new());
    }
    let cgroup = Cgroup::of_container(pid, &spec.linux.cgroups_path).map_err(io::Error::other)?;
    let wrong = mounts.iter().filter_map(|entry| Wrong::of(entry, pid, &cgroup).transpose());
    wrong.collect()
}

impl Wrong {
    fn of(entry: &Entry, pid: u32, cgroup: &Cgroup) -> io::Result<Option<Wrong>> {
        // `cgroup rw,cpu,cpuacct`
        let settings = entry.settings.split([' ', ',']);
        let Some(own) = settings.filter_map(|name| cgroup.folder(name)).next() else { return Ok(None) };
        let identity = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino()));
        let seen = PathBuf::from(format!("/proc/{pid}/root{}", entry.point.display()));
        let seen = match identity(&seen) {
            // It is covered by another mount.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            seen => seen?,
        };
        if seen == identity(own)? {
            return Ok(None);
        }
        let right = open_tree(CWD, own, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        let has = |name: &str| entry.options.split(',').any(|option| option == name);
        let flags = OPTIONS.iter().filter(|(name, _)| has(name));
        let flags = flags.fold(MountFlags::empty(), |all, (_, flag)| all | *flag);
        Ok(Some(Wrong { point: entry.point.clone(), flags, right }))
    }

    /// In the container's mount namespace.
    pub(super) fn replace(&self) -> io::Result<()> {
        unmount(&self.point, UnmountFlags::DETACH)?;
        move_mount(&self.right, "", CWD, &self.point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        mount_change(&self.point, MountPropagationFlags::PRIVATE)?;
        Ok(mount_remount(&self.point, MountFlags::BIND | self.flags, "")?)
    }
}

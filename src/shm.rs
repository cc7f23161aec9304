//! What lies in memory that a client has mounted: a /dev/shm that several containers share,
//! a pod's volume in memory. CRIU leaves mounts of the host's alone, and these are new and
//! empty when the container comes back. A copy of each travels in the image.

mod tree;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, fstatfs, open, openat2};

use crate::bundle::Spec;

const TMPFS: u64 = 0x0102_1994;
const SHM: &str = "/dev/shm";
/// Where the kubelet has volumes that last as long as their pod.
const POD_VOLUMES: &str = "/kubernetes.io~empty-dir/";

/// Copies what the container sees there, while it stands still, into the image. Says where
/// there was something: the first of these places has the first copy.
pub(crate) fn keep(init: u32, spec: &Spec, image: &Path) -> io::Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for Mount { destination, .. } in mounts(spec) {
        // It may have unmounted it.
        let Some(folder) = in_container(init, &destination).filter(is_memory) else { continue };
        if tree::save(&folder, image, &copy(kept.len())).map_err(|error| at(&destination, error))? {
            kept.push(destination);
        }
    }
    Ok(kept)
}

/// Puts it back where the new configuration has memory at the same places, or leaves these
/// as they were. What is there already belongs to others, who may be using it, and stays.
pub(crate) fn put_back(kept: &[PathBuf], spec: &Spec, image: &Path) -> io::Result<()> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for (number, place) in kept.iter().enumerate() {
        let mount = mounts(spec).into_iter().find(|mount| mount.destination == *place);
        let opened = mount.and_then(|mount| open(mount.source, folder, Mode::empty()).ok());
        if let Some(opened) = opened.filter(is_memory) {
            tree::load(&opened, image, &copy(number)).map_err(|error| at(place, error))?;
        }
    }
    Ok(())
}

struct Mount {
    source: PathBuf,
    destination: PathBuf,
}

/// Bind mounts whose content is the container's, wherever it comes back; not the host's own.
fn mounts(spec: &Spec) -> Vec<Mount> {
    let bound = spec.bound();
    let listed = spec.mounts.as_array().into_iter().flatten().filter_map(|mount| {
        let path = |name: &str| mount[name].as_str().map(PathBuf::from);
        Some(Mount { source: path("source")?, destination: path("destination")? })
    });
    let is_its = |mount: &Mount| {
        let is_shm = mount.destination == Path::new(SHM) && mount.source != Path::new(SHM);
        is_shm || mount.source.to_string_lossy().contains(POD_VOLUMES)
    };
    listed.filter(|mount| bound.contains(&mount.destination) && is_its(mount)).collect()
}

fn in_container(init: u32, place: &Path) -> Option<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(format!("/proc/{init}/root"), flags | OFlags::PATH, Mode::empty()).ok()?;
    openat2(&root, place, flags | OFlags::RDONLY, Mode::empty(), ResolveFlags::IN_ROOT).ok()
}

fn is_memory(folder: &OwnedFd) -> bool {
    fstatfs(folder).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS))
}

fn copy(number: usize) -> String {
    format!("cryo-shm-{number}")
}

fn at(place: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_goes_with_the_container_is_carried() {
        let spec = r#"{"mounts": [
            {"destination": "/dev/shm", "type": "bind", "source": "/run/shm", "options": ["rbind"]},
            {"destination": "/cache", "type": "bind", "options": ["bind"],
             "source": "/var/lib/kubelet/pods/x/volumes/kubernetes.io~empty-dir/cache"},
            {"destination": "/data", "type": "bind", "source": "/tmp/data"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]}"#;
        let found: Vec<PathBuf> =
            mounts(&serde_json::from_str(spec).unwrap()).into_iter().map(|mount| mount.destination).collect();
        assert_eq!(found, [Path::new("/dev/shm"), Path::new("/cache")]);
        for other in [
            r#"{"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}"#,
            r#"{"destination": "/dev/shm", "type": "bind", "source": "/dev/shm"}"#,
        ] {
            let spec = format!(r#"{{"mounts": [{other}]}}"#);
            assert!(mounts(&serde_json::from_str(&spec).unwrap()).is_empty(), "{other}");
        }
    }
}

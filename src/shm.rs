//! What lies in memory that a client has mounted: a /dev/shm that several containers share,
//! a pod's volume in memory. CRIU leaves mounts of the host's alone, and these are new and
//! empty when the container comes back. A copy of each travels in the image.

mod load;
mod save;
mod tree;
#[cfg(test)]
#[path = "shm/tests.rs"]
mod trees;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Mode, OFlags, fstat, fstatfs, open, stat};

use crate::bundle::Spec;
use crate::runtime::Abort;
use load::Placed;

const TMPFS: u64 = 0x0102_1994;
const SHM: &str = "/dev/shm";
/// Where the kubelet has volumes that last as long as their pod.
const POD_VOLUMES: [&str; 2] = ["/volumes/kubernetes.io~empty-dir/", "/volume-subpaths/"];

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", place.display())]
pub struct Error {
    place: PathBuf,
    pub source: io::Error,
}

impl Error {
    /// Whether it is for want of room.
    pub(crate) fn is_full(&self) -> bool {
        self.source.kind() == io::ErrorKind::StorageFull
    }
}

/// What others put there can be endless.
#[derive(Clone)]
pub(crate) struct Limits {
    pub(crate) until: Instant,
    pub(crate) abort: Abort,
}

impl Limits {
    fn check(&self) -> io::Result<()> {
        if Instant::now() > self.until || self.abort.is_aborted() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "copying it takes too long"));
        }
        Ok(())
    }
}

/// Copies what is there into the image, while the container stands still. Says where there
/// was something: the first of these places has the first copy.
pub(crate) fn keep(spec: &Spec, image: &Path, limits: &Limits) -> Result<Vec<PathBuf>, Error> {
    let mut kept = Vec::new();
    for mount in mounts(spec) {
        // The configuration's source, not what the container sees: it has nothing mounted below.
        let Some(folder) = mount.open() else { continue };
        let saved = save::tree(folder, image, &copy(kept.len()), limits);
        if saved.map_err(|source| Error { place: mount.destination.clone(), source })? {
            kept.push(mount.destination);
        }
    }
    Ok(kept)
}

/// What all of it takes.
pub fn bytes(spec: &Spec) -> u64 {
    let used = |folder: OwnedFd| {
        let found = fstatfs(&folder).ok()?;
        Some(found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(u64::try_from(found.f_bsize).ok()?))
    };
    mounts(spec).iter().filter_map(|mount| used(mount.open()?)).sum()
}

/// What was put back, to be taken away again if the restore fails.
#[derive(Default)]
pub(crate) struct PutBack(Vec<Placed>);

impl PutBack {
    pub(crate) fn undo(self) {
        self.0.into_iter().rev().for_each(Placed::remove);
    }
}

/// Puts it back where the new configuration has memory at the same places. What is there
/// already belongs to others, who may be using it, and stays.
pub(crate) fn put_back(
    kept: &[PathBuf],
    spec: &Spec,
    image: &Path,
    limits: &Limits,
) -> Result<PutBack, Error> {
    let mut all = PutBack::default();
    let mounts = mounts(spec);
    for (number, place) in kept.iter().enumerate() {
        let mount = mounts.iter().find(|mount| mount.destination == *place);
        let Some(folder) = mount.and_then(Mount::open) else { continue };
        match load::tree(folder, image, &copy(number), limits) {
            Ok(placed) => all.0.push(placed),
            Err(source) => {
                all.undo();
                return Err(Error { place: place.clone(), source });
            }
        }
    }
    Ok(all)
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    source: PathBuf,
    destination: PathBuf,
}

impl Mount {
    /// If it is memory, and not the host's own.
    fn open(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(&self.source, flags, Mode::empty()).ok()?;
        let is_memory = u64::try_from(fstatfs(&folder).ok()?.f_type) == Ok(TMPFS);
        let hosts = stat(SHM).map(|hosts| hosts.st_dev).ok();
        (is_memory && hosts != Some(fstat(&folder).ok()?.st_dev)).then_some(folder)
    }
}

/// Bind mounts whose content goes with the container, or with its pod. A later one at the
/// same place covers the one before.
fn mounts(spec: &Spec) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    for mount in spec.mounts.as_array().into_iter().flatten() {
        let path = |name: &str| mount[name].as_str().map(PathBuf::from);
        let Some(destination) = path("destination") else { continue };
        found.retain(|other| other.destination != destination);
        let Some(source) = path("source").filter(|_| Spec::is_bind(mount)) else { continue };
        let text = source.to_string_lossy();
        if destination == Path::new(SHM) || POD_VOLUMES.iter().any(|folder| text.contains(folder)) {
            found.push(Mount { source, destination });
        }
    }
    found
}

fn copy(number: usize) -> String {
    format!("cryo-shm-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destinations(mounts_text: &str) -> Vec<PathBuf> {
        let spec = serde_json::from_str(&format!(r#"{{"mounts": [{mounts_text}]}}"#)).unwrap();
        mounts(&spec).into_iter().map(|mount| mount.destination).collect()
    }

    #[test]
    fn only_what_goes_with_the_container_is_carried() {
        let found = destinations(
            r#"{"destination": "/dev/shm", "type": "bind", "source": "/run/pod/shm", "options": ["rbind"]},
            {"destination": "/cache", "type": "bind", "options": ["bind"],
             "source": "/var/lib/kubelet/pods/x/volumes/kubernetes.io~empty-dir/cache"},
            {"destination": "/data", "type": "bind", "source": "/tmp/data"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}"#,
        );
        assert_eq!(found, [Path::new("/dev/shm"), Path::new("/cache")]);
    }

    #[test]
    fn the_last_mount_at_a_place_counts() {
        let own = r#"{"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}"#;
        let bound = r#"{"destination": "/dev/shm", "type": "bind", "source": "/run/pod/shm"}"#;
        assert_eq!(destinations(&format!("{own},{bound}")), [Path::new("/dev/shm")]);
        assert!(destinations(&format!("{bound},{own}")).is_empty());
    }

    #[test]
    fn the_hosts_own_is_never_carried() {
        for source in [SHM, "/dev/shm/.", "/proc/self/root/dev/shm"] {
            assert!(Mount { source: source.into(), destination: SHM.into() }.open().is_none(), "{source}");
        }
    }
}

//! What has to be set right before anything of a restored container runs: CRIU calls our
//! binary then.
//!
//! What bind mounts must not allow: writing, device files, set-user-id, programs. CRIU
//! forgets to say so again of some: it takes a mount of the same file system that
//! came before for its model, and believes that what goes for that one goes for the new
//! one as well. The same goes for what hides files of the kernel's: a program that may write
//! there changes something of the host's. Shared mounts, whose peers are outside. And the
//! name of a container that comes back under another id.

mod cgroups;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, open, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, mount_change, mount_remount, move_mount,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;

use crate::bundle::{CONFIG, Spec};
use crate::criu;
use crate::mount::table;

/// Set for the runtime, and handed on by it and by CRIU to our binary: the bundle.
pub const BUNDLE_VARIABLE: &str = "CRYO_GUARDED_BUNDLE";
/// The same: the name it is to have instead of the one in the image.
pub const NAME_VARIABLE: &str = "CRYO_HOSTNAME";
/// The same: whose mounts are the host's.
pub const SHIM_VARIABLE: &str = "CRYO_SHIM";
/// Everything is restored and stands still.
const MOMENT: &str = "post-restore";

/// What a specification calls it, how it is seen, and how it is set.
const LIMITS: [(&str, StatVfsMountFlags, MountFlags); 4] = [
    ("ro", StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
    ("nosuid", StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
    ("nodev", StatVfsMountFlags::NODEV, MountFlags::NODEV),
    ("noexec", StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
];
/// Not limits, but lost if they aren't said again.
const MANNERS: [(StatVfsMountFlags, MountFlags); 3] = [
    (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
    (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
    (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
];

#[derive(Deserialize)]
struct Config {
    mounts: Option<Vec<Mount>>,
    linux: Option<Linux>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    masked_paths: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Mount {
    destination: String,
    source: Option<String>,
    options: Option<Vec<String>>,
}

impl Mount {
    /// What hides something is the host's after a restore, and shared by containers.
    fn mask(destination: String) -> Mount {
        Mount { destination, source: None, options: Some(vec!["ro".to_owned()]) }
    }

    fn is_adjusted(&self) -> bool {
        let binds = self.options().any(|option| option == "bind" || option == "rbind");
        binds && (self.is_shared() || LIMITS.iter().any(|(name, ..)| self.has(name)))
    }

    fn is_shared(&self) -> bool {
        self.options().any(|option| option == "shared" || option == "rshared")
    }

    /// With an `r` before it, it goes for what is mounted below as well.
    fn has(&self, limit: &str) -> bool {
        self.options().any(|option| option == limit || option.strip_prefix('r') == Some(limit))
    }

    fn options(&self) -> impl Iterator<Item = &str> {
        self.options.iter().flatten().map(String::as_str)
    }

    /// Restores the limits that the mount has lost.
    fn limit(&self) -> io::Result<()> {
        let is = match statvfs(&self.destination) {
            // Nothing there that had to be hidden.
            Err(Errno::NOENT) if self.source.is_none() => return Ok(()),
            seen => seen?.f_flag,
        };
        let asked = LIMITS.iter().filter(|(name, ..)| self.has(name));
        let lost = asked
            .filter(|(_, seen, _)| !is.contains(*seen))
            .fold(MountFlags::empty(), |all, limit| all | limit.2);
        if lost.is_empty() {
            return Ok(());
        }
        let kept = LIMITS.iter().map(|(_, seen, set)| (*seen, *set)).chain(MANNERS);
        let kept =
            kept.filter(|(seen, _)| is.contains(*seen)).fold(MountFlags::empty(), |all, (_, set)| all | set);
        match mount_remount(&self.destination, MountFlags::BIND | lost | kept, "") {
            // Another mount lies above: nobody sees this one.
            Err(Errno::INVAL) => Ok(()),
            remounted => Ok(remounted?),
        }
    }
}

/// Whether the container has mounts that something isn't allowed on.
pub(super) fn is_needed(bundle: &Path, spec: &Spec) -> bool {
    // What can't be read is told of when it is done.
    cgroups::is_needed(spec) || !mounts(bundle).is_ok_and(|mounts| mounts.is_empty())
}

fn mounts(bundle: &Path) -> io::Result<Vec<Mount>> {
    let config: Config = serde_json::from_slice(&fs::read(bundle.join(CONFIG))?)?;
    let masked = config.linux.and_then(|linux| linux.masked_paths).into_iter().flatten().map(Mount::mask);
    Ok(config.mounts.into_iter().flatten().filter(Mount::is_adjusted).chain(masked).collect())
}

/// A container that comes back under another id has another name, too.
fn take_name(pid: u32, name: &str) -> io::Result<()> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/uts"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::HostNameAndNISDomainName))?;
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// What our binary does when CRIU calls it at some moment of a restore.
pub fn adjust(action: &str, bundle: &Path) -> io::Result<()> {
    if action != MOMENT {
        return Ok(());
    }
    let mounts = mounts(bundle)?;
    let shim = std::env::var(SHIM_VARIABLE).unwrap_or_default();
    let peers: Vec<Peer> = mounts.iter().filter_map(|mount| Peer::of(mount, &shim)).collect();
    let pid = criu::first_process()?;
    if let Ok(name) = std::env::var(NAME_VARIABLE) {
        take_name(pid, &name)?;
    }
    let spec = Spec::read(bundle).map_err(io::Error::other)?;
    cgroups::restore(pid, &spec, &shim, bundle)?;
    let wrong = cgroups::wrong(pid, &spec)?;
    let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let failed = |mount: &Mount, error| {
        io::Error::other(format!("{} can't be mounted as it has to be: {error}", mount.destination))
    };
    for mount in &mounts {
        mount.limit().map_err(|error| failed(mount, error))?;
    }
    for mount in &wrong {
        mount.replace()?;
    }
    for Peer { mount, outside } in peers {
        join(&outside, &mount.destination).map_err(|error| failed(mount, error.into()))?;
    }
    Ok(())
}

/// A mount that tells the host what is mounted below it, and hears of it. CRIU makes it
/// one that tells nobody.
struct Peer<'a> {
    mount: &'a Mount,
    /// The host's mount that its source lies on.
    outside: OwnedFd,
}

impl Peer<'_> {
    fn of<'a>(mount: &'a Mount, shim: &str) -> Option<Peer<'a>> {
        let source = Path::new(mount.source.as_ref().filter(|_| mount.is_shared())?);
        let host = table::of(shim);
        // The last of several at one place lies above the others.
        let outside = host.iter().filter(|entry| source.starts_with(&entry.point));
        let outside = outside.max_by_key(|entry| entry.point.components().count())?;
        // A container's mount of one that isn't shared has no peers outside.
        let place = format!("/proc/{shim}/root{}", outside.point.display());
        let place = open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let outside = place.ok().filter(|_| outside.is_shared)?;
        Some(Peer { mount, outside })
    }
}

fn join(outside: &OwnedFd, point: &str) -> Result<(), Errno> {
    mount_change(point, MountPropagationFlags::PRIVATE)?;
    let flags = MoveMountFlags::MOVE_MOUNT_SET_GROUP | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    match move_mount(outside, "", CWD, point, flags) {
        // A kernel before 5.15, or mounts that can't be peers: as CRIU left it.
        Err(Errno::INVAL) => mount_change(point, MountPropagationFlags::SHARED),
        joined => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bind_mounts_with_limits_are_looked_at() {
        let bundle = tempfile::tempdir().unwrap();
        let config = serde_json::json!({ "mounts": [
            { "destination": "/free", "options": ["rbind", "rw"] },
            { "destination": "/proc", "options": ["nosuid", "noexec"] },
            { "destination": "/bare" },
        ]});
        fs::write(bundle.path().join(CONFIG), config.to_string()).unwrap();
        assert!(!is_needed(bundle.path(), &Spec::default()));
        for option in ["ro", "rro", "nosuid", "rnoexec"] {
            let config =
                format!(r#"{{"mounts": [{{"destination": "/data", "options": ["rbind", "{option}"]}}]}}"#);
            fs::write(bundle.path().join(CONFIG), config).unwrap();
            assert!(is_needed(bundle.path(), &Spec::default()), "{option}");
        }
        let config = r#"{"linux": {"maskedPaths": ["/proc/keys"]}}"#;
        fs::write(bundle.path().join(CONFIG), config).unwrap();
        assert!(is_needed(bundle.path(), &Spec::default()));
        assert!(adjust("pre-restore", bundle.path()).is_ok());
    }
}

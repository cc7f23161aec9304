//! What a bind mount must not allow: writing, device files, set-user-id, programs.
//!
//! CRIU forgets to say so again of some: it takes a mount of the same file system that
//! came before for its model, and believes that what goes for that one goes for the new
//! one as well. So before anything of the container runs, CRIU calls our binary, which
//! looks at every mount and sets right what isn't.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;

use crate::bundle::CONFIG;
use crate::criu;

/// Set for the runtime, and handed on by it and by CRIU to our binary: the bundle.
pub const BUNDLE_VARIABLE: &str = "CRYO_GUARDED_BUNDLE";
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
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Deserialize)]
struct Mount {
    destination: String,
    #[serde(default)]
    options: Vec<String>,
}

impl Mount {
    fn is_limited_bind(&self) -> bool {
        let has = |word: &str| self.options.iter().any(|option| option == word);
        (has("bind") || has("rbind")) && LIMITS.iter().any(|(name, ..)| has(name))
    }

    /// Restores the limits that the mount has lost.
    fn limit(&self) -> io::Result<()> {
        let is = statvfs(&self.destination)?.f_flag;
        let asked = LIMITS.iter().filter(|(name, ..)| self.options.iter().any(|option| option == name));
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
pub(super) fn is_needed(bundle: &Path) -> bool {
    mounts(bundle).is_ok_and(|mounts| !mounts.is_empty())
}

fn mounts(bundle: &Path) -> io::Result<Vec<Mount>> {
    let config: Config = serde_json::from_slice(&fs::read(bundle.join(CONFIG))?)?;
    Ok(config.mounts.into_iter().filter(Mount::is_limited_bind).collect())
}

/// What our binary does when CRIU calls it at some moment of a restore.
pub fn limit_mounts(action: &str, bundle: &Path) -> io::Result<()> {
    if action != MOMENT {
        return Ok(());
    }
    let mounts = mounts(bundle)?;
    let namespace = fs::File::open(format!("/proc/{}/ns/mnt", criu::first_process()?))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    for mount in mounts {
        mount.limit().map_err(|error| {
            io::Error::other(format!("{} can't be mounted as it has to be: {error}", mount.destination))
        })?;
    }
    Ok(())
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
        assert!(!is_needed(bundle.path()));
        let config = r#"{"mounts": [{"destination": "/data", "options": ["rbind", "ro"]}]}"#;
        fs::write(bundle.path().join(CONFIG), config).unwrap();
        assert!(is_needed(bundle.path()));
        assert!(limit_mounts("pre-restore", bundle.path()).is_ok());
    }
}

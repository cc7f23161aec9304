//! Where in a root file system something is to be mounted.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, open, openat2};
use rustix::io::Errno;

/// Where something is to be mounted: the root itself, or a folder that was found in it.
pub(super) enum Place {
    Root(PathBuf),
    Below(OwnedFd),
}

impl Place {
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Place::Root(path) => path.clone(),
            Place::Below(folder) => format!("/proc/self/fd/{}", folder.as_raw_fd()).into(),
        }
    }
}

/// Finds or makes a folder below the root as a process in the container would see it:
/// links in the image lead nowhere else.
pub(super) fn place_within(root: &Path, target: &str) -> io::Result<Place> {
    let mut names = target.split('/').filter(|name| !matches!(*name, "" | ".")).peekable();
    if names.peek().is_none() {
        return Ok(Place::Root(root.to_owned()));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = open(root, flags, Mode::empty())?;
    let within = |path: &Path| openat2(&top, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    let (mut folder, mut path) = (within(Path::new("."))?, PathBuf::new());
    for name in names {
        path.push(name);
        folder = match within(&path) {
            Err(Errno::NOENT) => {
                mkdirat(&folder, name, Mode::from_raw_mode(0o755))?;
                within(&path)?
            }
            found => found?,
        };
    }
    Ok(Place::Below(folder))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_target_stays_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        assert!(matches!(place_within(root.path(), "/").unwrap(), Place::Root(_)));
        let real =
            |target: &str| fs::canonicalize(place_within(root.path(), target).unwrap().path()).unwrap();
        assert_eq!(real("/a/b"), root.path().canonicalize().unwrap().join("a/b"));
        assert_eq!(real("../../a"), root.path().canonicalize().unwrap().join("a"));
        // The link means a path of the container, which isn't there.
        assert!(place_within(root.path(), "/link").is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

//! Where an overlay keeps what was changed.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::{Deserialize, Serialize};

use crate::mount::table::Entry;
use crate::mount::unescape;

const KIND: &str = "overlay";

/// The folder that takes the changes. It is the same again only if all of this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    pub upper: PathBuf,
    inode: u64,
    /// Seconds and nanoseconds since 1970; not every file system knows it.
    #[serde(default)]
    made: Option<(i64, u32)>,
    node: String,
    /// Its own notes are attributes for users, as in a container of users' own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) for_users: bool,
}

/// What a root file system is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Changes(Overlay),
    /// Nothing in it can be changed.
    Fixed,
    /// A file system that doesn't tell.
    Other(String),
}

pub(super) fn of(root: &Path, mounts: &[Entry]) -> Root {
    let above = |entry: &&Entry| root.starts_with(&entry.point);
    let depth = |entry: &&Entry| entry.point.components().count();
    // Of several at one place the last is on top.
    let Some(mount) = mounts.iter().filter(above).max_by_key(depth) else {
        return Root::Other("an unknown file system".to_owned());
    };
    if mount.kind != KIND || mount.point != root || !mount.is_whole() {
        return Root::Other(mount.kind.clone());
    }
    let Some(upper) = option(&mount.settings, "upperdir") else { return Root::Fixed };
    let upper = root.ancestors().skip(1).map(|folder| folder.join(&upper)).find(|upper| upper.is_dir());
    let for_users = mount.settings.split(',').any(|word| word == "userxattr");
    match upper.map(|upper| Overlay::at(&upper, for_users)) {
        Some(Ok(overlay)) => Root::Changes(overlay),
        _ => Root::Other("an overlay whose folders are elsewhere".to_owned()),
    }
}

impl Overlay {
    pub(super) fn at(upper: &Path, for_users: bool) -> std::io::Result<Overlay> {
        let found = statx(CWD, upper, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO | StatxFlags::BTIME)?;
        let knows = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Overlay {
            upper: upper.to_owned(),
            inode: found.stx_ino,
            made: knows.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec)),
            node: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            for_users,
        })
    }
}

/// Of a mount's settings: the file system's source and its options.
fn option(settings: &str, name: &str) -> Option<PathBuf> {
    let (_, options) = settings.split_once(' ')?;
    let value = options.split(',').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(unescape(value).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(point: &Path, kind: &str, options: &str) -> Entry {
        let line = format!("503 500 0:50 / {} rw shared:7 - {kind} source {options}", point.display());
        Entry::parse(&line).unwrap()
    }

    #[test]
    fn an_overlay_tells_where_its_changes_are() {
        let folder = tempfile::tempdir().unwrap();
        let (root, upper) = (folder.path().join("ID/merged"), folder.path().join("ID/u p"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir(&upper).unwrap();
        let escaped = upper.display().to_string().replace(' ', "\\040");
        let host = mounted(Path::new("/"), "ext4", "rw");
        let find = |options: &str| of(&root, &[mounted(&root, KIND, options), host.clone()]);
        let Root::Changes(found) = find(&format!("rw,lowerdir=/a:/b,upperdir={escaped},workdir=/w")) else {
            panic!("there is one");
        };
        assert_eq!((&found.upper, found.for_users), (&upper, false));
        assert_eq!(Overlay::at(&upper, false).unwrap(), found);
        // Docker names them from the folder of all of them if there are many layers.
        assert_eq!(find("rw,lowerdir=l/A:l/B,upperdir=ID/u\\040p"), Root::Changes(found));
        assert_eq!(find("ro,lowerdir=/a:/b"), Root::Fixed);
        assert_eq!(of(&root, std::slice::from_ref(&host)), Root::Other("ext4".to_owned()));
        assert!(matches!(find("rw,upperdir=/no/such"), Root::Other(_)));
        let below = [mounted(folder.path(), KIND, &format!("rw,upperdir={escaped}")), host];
        assert_eq!(of(&root, &below), Root::Other(KIND.to_owned()), "it is a folder of somebody else's");
    }
}

//! A container's root file system: mounting what the client describes, and undoing it.

mod helper;
mod place;
pub(crate) mod table;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};

use crate::reaper::Reaper;
use crate::{anchor, sys};
use place::place_within;

/// One mount as containerd describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub kind: String,
    pub source: String,
    /// Below the root file system; empty for the root itself.
    pub target: String,
    pub options: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot mount {kind} {from} on {}: {cause}", on.display())]
    Mount { kind: String, from: String, on: PathBuf, cause: io::Error },
    #[error("cannot prepare {}: {cause}", path.display())]
    Folder { path: PathBuf, cause: io::Error },
    #[error("cannot unmount {}: {cause}", path.display())]
    Unmount { path: PathBuf, cause: io::Error },
}

/// The kernel takes one page of options; a little is left for its own use.
const OPTIONS_BYTES: usize = 4096 - 512;
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Mounts everything below `root`, in order; undoes it all if one fails.
pub async fn mount_all(reaper: Reaper, mounts: &[Mount], root: &Path) -> Result<(), Error> {
    if mounts.is_empty() {
        return Ok(());
    }
    let folder = |cause| Error::Folder { path: root.to_owned(), cause };
    fs::DirBuilder::new().recursive(true).mode(0o711).create(root).map_err(folder)?;
    for mount in mounts {
        let mounted = match place_within(root, &mount.target) {
            Ok(place) => mount_one(reaper, mount, &place.path()).await,
            Err(cause) => Err(Error::Folder { path: root.join(&mount.target), cause }),
        };
        if let Err(error) = mounted {
            let _ = detach_all(root);
            return Err(error);
        }
    }
    Ok(())
}

/// Unmounts `root` and everything below and beneath it. Waits for what is busy.
pub async fn unmount_all(root: &Path) -> Result<(), Error> {
    for _ in 0..BUSY_TRIES {
        match unmount_once(root, UnmountFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => return Err(Error::Unmount { path: root.to_owned(), cause: error.into() }),
        }
    }
    detach_all(root)
}

/// The same at once: what is busy goes when its last user does.
pub fn detach_all(root: &Path) -> Result<(), Error> {
    unmount_once(root, UnmountFlags::DETACH)
        .map_err(|error| Error::Unmount { path: root.to_owned(), cause: error.into() })
}

/// Detaches what is mounted below a folder, and leaves the folder.
pub fn detach_below(folder: &Path) {
    // Nothing there, or what is there is somebody else's to unmount.
    let _ = unmount_children(folder, UnmountFlags::DETACH);
}

fn unmount_once(root: &Path, flags: UnmountFlags) -> Result<(), Errno> {
    loop {
        match unmount(root, flags | UnmountFlags::NOFOLLOW) {
            // Mounts may be stacked on one another.
            Ok(()) => {}
            // No mount (any more), or no such folder.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => unmount_children(root, flags)?,
            Err(error) => return Err(error),
        }
    }
}

/// Unmounts what lies below; fails with BUSY if nothing does, so that the caller waits.
fn unmount_children(root: &Path, flags: UnmountFlags) -> Result<(), Errno> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut below: Vec<_> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(root) && point != root)
        .collect();
    if below.is_empty() {
        return Err(Errno::BUSY);
    }
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    below.iter().try_for_each(|point| match unmount(point, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    })
}

/// The kernel writes blanks and backslashes in paths as octal numbers.
pub(crate) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn mount_one(reaper: Reaper, request: &Mount, on: &Path) -> Result<(), Error> {
    let mut options = Options::parse(&request.options);
    let failed = |cause: io::Error| Error::Mount {
        kind: request.kind.clone(),
        from: request.source.clone(),
        on: on.to_owned(),
        cause,
    };
    let owners = match options.owners.take() {
        Some(owners) => Some(owners.namespace(reaper).await.map_err(failed)?),
        None => None,
    };
    if helper::is_needed(request) {
        helper::mount(reaper, request, on).await.map_err(failed)?;
        return owners.map_or(Ok(()), |owners| map_tree(on, on, owners.as_fd())).map_err(failed);
    }
    match owners {
        None => options.apply(request, on),
        Some(owners) => options.apply_mapped(request, on, owners.as_fd()),
    }
    .map_err(failed)
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MountFlags,
    bind: Option<Recursive>,
    propagation: Option<MountPropagationFlags>,
    owners: Option<Owners>,
    /// For the file system itself.
    data: Vec<String>,
}

/// Whom files seem to belong to, for a container with users of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Owners {
    users: String,
    groups: String,
}

impl Owners {
    async fn namespace(&self, reaper: Reaper) -> io::Result<OwnedFd> {
        anchor::user_namespace(reaper, &self.users, &self.groups).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recursive(bool);

impl Options {
    fn parse(words: &[String]) -> Options {
        let mut options = Options {
            flags: MountFlags::empty(),
            bind: None,
            propagation: None,
            owners: None,
            data: Vec::new(),
        };
        words.iter().for_each(|word| options.add(word));
        options
    }

    fn add(&mut self, word: &str) {
        let (flag, on) = match word {
            "" | "defaults" | "async" => return,
            "bind" | "rbind" => {
                self.bind = Some(Recursive(word == "rbind"));
                return;
            }
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "diratime" => (MountFlags::NODIRATIME, false),
            "relatime" => (MountFlags::RELATIME, true),
            "norelatime" => (MountFlags::RELATIME, false),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "dirsync" => (MountFlags::DIRSYNC, true),
            _ => return self.add_other(word),
        };
        self.flags.set(flag, on);
    }

    fn add_other(&mut self, word: &str) {
        if let Some(propagation) = propagation(word) {
            self.propagation = Some(propagation);
        } else if let Some(users) = word.strip_prefix("uidmap=") {
            self.owners.get_or_insert_default().users = users.to_owned();
        } else if let Some(groups) = word.strip_prefix("gidmap=") {
            self.owners.get_or_insert_default().groups = groups.to_owned();
        } else {
            self.data.push(word.to_owned());
        }
    }

    fn apply(&self, request: &Mount, on: &Path) -> io::Result<()> {
        if let Some(Recursive(recursive)) = self.bind {
            let recursive = if recursive { MountFlags::REC } else { MountFlags::empty() };
            mount(&*request.source, on, "", MountFlags::BIND | recursive, None)?;
            if !self.flags.is_empty() {
                mount_remount(on, MountFlags::BIND | self.flags, "")?;
            }
        } else {
            self.mount_new(request, on)?;
        }
        if let Some(propagation) = self.propagation {
            mount_change(on, propagation)?;
        }
        Ok(())
    }

    /// An overlay's lower folders get the other owners; its upper one has them already.
    /// Any other mount gets them as a whole.
    fn apply_mapped(&self, request: &Mount, on: &Path, owners: BorrowedFd<'_>) -> io::Result<()> {
        if request.kind != "overlay" {
            self.apply(request, on)?;
            return map_tree(on, on, owners);
        }
        let folder = common_folder(&self.data).ok_or(io::ErrorKind::InvalidInput)?;
        // Beside the root file system, for as long as the overlay takes to mount.
        let mapped = on.with_extension("lower");
        fs::create_dir_all(&mapped)?;
        let result = map_tree(&folder, &mapped, owners).and_then(|()| {
            let moved = self.with_lower_folders_in(&folder, &mapped);
            let mounted = moved.apply(request, on);
            unmount(&mapped, UnmountFlags::DETACH)?;
            mounted
        });
        let _ = fs::remove_dir(&mapped);
        result
    }

    fn with_lower_folders_in(&self, folder: &Path, mapped: &Path) -> Options {
        let (folder, mapped) = (folder.to_string_lossy(), mapped.to_string_lossy());
        let moved = |word: &String| match word.strip_prefix("lowerdir=") {
            Some(layers) => {
                let layers = layers.split(':').map(|layer| format!("{mapped}/{}", &layer[folder.len()..]));
                format!("lowerdir={}", layers.collect::<Vec<_>>().join(":"))
            }
            None => word.clone(),
        };
        Options {
            flags: self.flags,
            bind: self.bind,
            propagation: self.propagation,
            owners: None,
            data: self.data.iter().map(moved).collect(),
        }
    }

    fn mount_new(&self, request: &Mount, on: &Path) -> io::Result<()> {
        let data = self.data.join(",");
        if data.len() <= OPTIONS_BYTES {
            let data = CString::new(data)?;
            mount(&*request.source, on, &*request.kind, self.flags, Some(&*data))?;
            return Ok(());
        }
        let Some((folder, data)) = shorten(&self.data) else {
            return Err(Errno::TOOBIG.into());
        };
        // Image layers have long names with a common beginning. Standing there, the
        // rest of them suffices; nothing else runs while this thread is elsewhere.
        let home = fs::File::open(".")?;
        rustix::process::chdir(&folder)?;
        let data = CString::new(data)?;
        let mounted = mount(&*request.source, on, &*request.kind, self.flags, Some(&*data));
        rustix::process::fchdir(&home)?;
        Ok(mounted?)
    }
}

fn propagation(word: &str) -> Option<MountPropagationFlags> {
    let (word, recursive) = match word.strip_prefix('r') {
        Some(rest @ ("shared" | "slave" | "private" | "unbindable")) => (rest, MountPropagationFlags::REC),
        _ => (word, MountPropagationFlags::empty()),
    };
    let kind = match word {
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "private" => MountPropagationFlags::PRIVATE,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

/// Mounts what is at `from` on `to`, with other owners.
fn map_tree(from: &Path, to: &Path, owners: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, from, flags)?;
    sys::map_owners(tree.as_fd(), owners)?;
    Ok(move_mount(&tree, "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// The folder that an overlay's lower folders share, with a slash at its end.
fn common_folder(data: &[String]) -> Option<PathBuf> {
    let lower = data.iter().find_map(|word| word.strip_prefix("lowerdir="))?;
    let common = lower.split(':').reduce(common_prefix)?;
    Some(common[..=common.rfind('/')?].into())
}

/// Overlay options with the lower folders named relative to a folder they share.
fn shorten(data: &[String]) -> Option<(PathBuf, String)> {
    let lower = data.iter().find_map(|word| word.strip_prefix("lowerdir="))?;
    let folder = common_folder(data)?;
    let length = folder.as_os_str().len();
    let relative: Vec<&str> = lower.split(':').map(|layer| &layer[length..]).collect();
    let words = data.iter().map(|word| match word.starts_with("lowerdir=") {
        true => format!("lowerdir={}", relative.join(":")),
        false => word.clone(),
    });
    let data = words.collect::<Vec<_>>().join(",");
    (data.len() <= OPTIONS_BYTES && relative.iter().all(|layer| !layer.is_empty())).then_some((folder, data))
}

fn common_prefix<'a>(a: &'a str, b: &str) -> &'a str {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    // Never in the middle of a character.
    &a[..(0..=same).rev().find(|end| a.is_char_boundary(*end)).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn options_are_told_from_data_of_the_file_system() {
        let options = Options::parse(&words(&["ro", "nodev", "index=off", "rslave"]));
        assert_eq!(options.flags, MountFlags::RDONLY | MountFlags::NODEV);
        assert_eq!(options.data, ["index=off"]);
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        assert_eq!(options.propagation, Some(slave));
        assert_eq!(Options::parse(&words(&["ro", "rw"])).flags, MountFlags::empty());
    }

    #[test]
    fn many_layers_fit_into_a_page() {
        let base = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
        let layers: Vec<_> = (100..200).map(|n| format!("{base}/{n}/fs")).collect();
        let data = vec!["upperdir=/u".to_owned(), format!("lowerdir={}", layers.join(":"))];
        let (folder, data) = shorten(&data).unwrap();
        assert_eq!(folder, PathBuf::from(format!("{base}/")));
        assert!(data.starts_with("upperdir=/u,lowerdir=100/fs:101/fs:"));
    }

    #[test]
    fn a_layer_that_is_the_shared_folder_itself_is_not_shortened_to_nothing() {
        let data = vec![format!("lowerdir=/{0}/:/{0}/b", "x".repeat(4000))];
        assert_eq!(shorten(&data), None);
    }

    #[test]
    fn mount_points_with_blanks_are_found() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\9"), r"/a\9");
    }
}

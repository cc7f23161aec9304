//! Looking up names in a folder that a container writes to, or that an image has names for:
//! nothing leads out of it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// No name is ever looked up through a link or a mount.
pub(crate) const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// To be left out for looking at a link itself.
pub(crate) const NO_LINKS: ResolveFlags = ResolveFlags::NO_SYMLINKS;
pub(crate) const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The folder that something is in, and its name there.
pub(crate) fn place<'a>(folder: &OwnedFd, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((openat2(folder, above, FOLDER, Mode::empty(), WITHIN)?, name))
}

/// The very thing that was opened, whatever has its name by now.
pub(crate) fn itself(opened: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", opened.as_raw_fd()).into()
}

//! Finding programs as a process would that has a given PATH and root directory.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::root::{BIN, SHIM, USUAL_PATH};

/// Read no further into a program that may be ours under another name.
const PROGRAM_BYTES: u64 = 64 << 20;
/// Every build of the shim says this name of itself.
pub(crate) const OWN_NAME: &str = "io.containerd.runc.cryo.v2";

/// A program: where PATH has it, and the file that this leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) file: PathBuf,
}

/// The first executable file of that name. Folders that aren't absolute are left out, as
/// containerd refuses what it finds in them.
pub(crate) fn find(name: &str, path: &str, root: &Path) -> Option<Found> {
    let folders = path.split(':').filter(|folder| folder.starts_with('/'));
    folders.map(|folder| Path::new(folder).join(name)).find_map(|path| {
        let file = executable(&path, root)?;
        Some(Found { path, file })
    })
}

/// PATH, and the folders for root's programs that a user's shell leaves out.
pub(crate) fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:{USUAL_PATH}")
}

/// The shim's binary: beside this one, or where a path like PATH has it.
pub(crate) fn shim(path: &str) -> Option<PathBuf> {
    let here = std::env::current_exe().ok().and_then(|program| program.parent().map(|p| p.join(SHIM)));
    let root = Path::new("/");
    let beside = here.filter(|path| executable(path, root).is_some());
    let elsewhere: Vec<_> = path.split(':').filter(|folder| *folder != BIN).collect();
    beside.or_else(|| find(SHIM, &elsewhere.join(":"), root).map(|found| found.path))
}

/// Whether a program is our shim, whatever it is called.
pub(crate) fn is_cryo(file: &Path) -> bool {
    let named = file.file_name().is_some_and(|name| name == SHIM);
    named || contains_mark(file).unwrap_or(false)
}

fn contains_mark(file: &Path) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(file)?.take(PROGRAM_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes.windows(OWN_NAME.len()).any(|window| window == OWN_NAME.as_bytes()))
}

/// The file behind a path, links followed inside the root, if it can be run.
pub(crate) fn executable(path: &Path, root: &Path) -> Option<PathBuf> {
    let file = open(path, root)?;
    let metadata = file.metadata().ok()?;
    let runs = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    if !metadata.is_file() || !runs {
        return None;
    }
    // Of another mount namespace the kernel tells the path as seen from its root.
    let seen = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    Some(seen.strip_prefix(root).map_or(seen.clone(), |inside| Path::new("/").join(inside)))
}

/// Opens a file below a root for looking at, not for reading.
fn open(path: &Path, root: &Path) -> Option<File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let folder = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    match openat2(&folder, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(file) => Some(file.into()),
        // Before Linux 5.6, and where a filter forbids it: good enough for this machine's root.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            let path = root.join(path.strip_prefix("/").unwrap_or(path));
            Some(rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?.into())
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn program(path: PathBuf, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_executable_wins_and_links_stay_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        program(root.join("plain/shim"), 0o644);
        program(root.join("usr/bin/shim"), 0o755);
        fs::create_dir_all(root.join("first")).unwrap();
        assert_eq!(find("shim", "first:/plain:/first", &root), None);
        let stock = find("shim", "/plain:/first:/usr/bin", &root).unwrap();
        assert_eq!(stock, Found { path: "/usr/bin/shim".into(), file: "/usr/bin/shim".into() });
        program(root.join("opt/cryo"), 0o755);
        symlink("/opt/cryo", root.join("first/shim")).unwrap();
        let ours = find("shim", "/plain:/first:/usr/bin", &root).unwrap();
        assert_eq!(ours, Found { path: "/first/shim".into(), file: "/opt/cryo".into() });
    }
}

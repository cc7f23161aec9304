//! Completing an image: what CRIU leaves out is added, and the list of its files sealed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::image::{UNREAD_FILE, names};
use super::manifest::{self, Manifest, Network};
use crate::criu::{self, images, mountpoints, timers};
use crate::pages::memory::stands_for;
use crate::rootfs;
use crate::runtime::Flavour;
use crate::stdio::unread_stdin;

/// No file but memory is nearly as big.
const DIGESTED_BYTES: u64 = images::MOST_BYTES;

/// Known in CRIU's log by these words.
const ROOTFS_FAILED: &str = "what changed in the root file system can't be copied: ";

/// Run by CRIU, through the `action-script` setting, at several points of a dump. Once
/// everything is written and nothing killed yet, it seals the image; CRIU lets the
/// container run on if that fails.
pub fn from_criu(action: &str, folder: &Path) -> io::Result<()> {
    if action != "post-dump" {
        return Ok(());
    }
    // Once more: it may have been sent something during the dump.
    keep_unread(folder, criu::first_process()?)?;
    keep_rootfs(folder)?;
    seal(folder, |_| {}).map(drop)
}

/// Completes an image: lists its files and seals the list.
pub fn seal(folder: &Path, update: impl FnOnce(&mut Manifest)) -> io::Result<Manifest> {
    let mut manifest = Manifest::read(folder)?;
    let seals = !manifest.sealed;
    if seals {
        forget_network(folder, &manifest)?;
        timers::wind_up(folder)?;
        mountpoints::forget_deletions(folder)?;
        forget_freeze(folder)?;
        list_files(folder, &mut manifest)?;
        manifest.sealed = true;
    }
    update(&mut manifest);
    manifest.write(folder, seals)?;
    Ok(manifest)
}

/// What CRIU has given a name to, for files that have none, is among the changes.
fn keep_rootfs(folder: &Path) -> io::Result<()> {
    let mut manifest = Manifest::read(folder)?;
    let Some(had) = &mut manifest.rootfs else { return Ok(()) };
    let Some(overlay) = &had.overlay else { return Ok(()) };
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{ROOTFS_FAILED}{error}"));
    had.layer = Some(rootfs::save(overlay, folder).map_err(failed)?);
    manifest.write(folder, false)
}

fn list_files(folder: &Path, manifest: &mut Manifest) -> io::Result<()> {
    for name in names(folder)? {
        // A helper may be at work.
        if name.starts_with(manifest::FILE_NAME) || stands_for(&name).is_some() {
            continue;
        }
        let path = folder.join(&name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let size = fs::symlink_metadata(&path)?.len();
        if is_digested(&name, size) {
            manifest.digests.insert(name.clone(), manifest::digest(&fs::read(path)?));
        }
        manifest.files.insert(name, size);
    }
    Ok(())
}

/// The container stands still meanwhile: memory is only measured. What changed in the root
/// file system has a digest already.
fn is_digested(name: &str, size: u64) -> bool {
    size <= DIGESTED_BYTES && !name.starts_with("pages-") && name != rootfs::FILE
}

/// Keeps what process `pid` has been sent and not read, while it stands still.
pub fn keep_unread(folder: &Path, pid: u32) -> io::Result<()> {
    let stdio = Manifest::read(folder)?.stdio;
    // The client gives it a pipe; what others have put in its place is CRIU's business.
    let Some(stdin) = stdio.pipes.first().filter(|_| stdio.stdin != "null") else { return Ok(()) };
    let unread = unread_stdin(pid, stdin)?;
    let path = folder.join(UNREAD_FILE);
    if !unread.is_empty() {
        return fs::write(path, unread);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub fn is_sealed(folder: &Path) -> bool {
    Manifest::read(folder).is_ok_and(|manifest| manifest.sealed)
}

/// The container stands still while it is dumped. Told to restore what its cgroups were
/// like, CRIU would freeze it again, and itself with it.
fn forget_freeze(folder: &Path) -> io::Result<()> {
    let path = folder.join(images::CGROUP_FILE);
    match fs::read(&path) {
        Ok(bytes) => images::thawed(&bytes).map_or(Ok(()), |thawed| fs::write(path, thawed)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a network namespace holds is the client's to set up again. runc leaves it out of
/// the image, but says of a container that was restored that its namespace came from
/// outside; without the remark it is an image like any other of runc's, which the stock
/// shim can restore too. crun leaves it out if it comes from outside, which it can't for
/// a container with users of its own.
fn forget_network(folder: &Path, manifest: &Manifest) -> io::Result<()> {
    let kept = manifest.runtime.name == Flavour::Crun.name() && !manifest.own_users;
    if manifest.network != Network::Private || kept {
        return Ok(());
    }
    for name in names(folder)?.iter().filter(|name| images::describes_network(name)) {
        fs::remove_file(folder.join(name))?;
    }
    Ok(())
}

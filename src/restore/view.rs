//! An image as CRIU shall see it: the files as they are, and what has to differ for this
//! restore laid over them. The client's files aren't ours to change.
//!
//! - CRIU restores into a network namespace of ours only if the image says that its
//!   namespace came from outside. runc's images don't say so.
//! - A container with users of its own reads its image as one of them while it comes
//!   back, and must be allowed to.
//!
//! An overlay does both. It is mounted nowhere: only who may look into this process
//! finds it, and it ends with its descriptor.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use crate::checkpoint::image::Image;
use crate::criu::images::{self, NetworkImage};

const FOLDER: &str = "cryo-view";

#[derive(Debug)]
pub(super) enum View {
    Plain(PathBuf),
    Overlay(OwnedFd),
}

impl View {
    pub(super) fn plain(image: &Image) -> View {
        View::Plain(image.place())
    }

    /// Its network namespace comes from outside, whatever the image says.
    pub(super) fn with_external(network: &NetworkImage, image: &Image, bundle: &Path) -> io::Result<View> {
        if network.external {
            return Ok(View::plain(image));
        }
        let above = bundle.join(FOLDER);
        fs::create_dir_all(&above)?;
        fs::write(above.join(&network.file_name), images::external_network())?;
        let above = open_folder(&above)?;
        // Descriptors as names: no path of a client's has to be quoted or cut to length.
        let layers = format!("{}:{}", place(&above), place(&image.folder));
        overlay(&[("lowerdir", &layers)], MountAttrFlags::MOUNT_ATTR_RDONLY).map(View::Overlay)
    }

    pub(super) fn for_users(image: &Image, bundle: &Path) -> io::Result<View> {
        let above = bundle.join(FOLDER);
        let (upper, work) = (above.join("upper"), above.join("work"));
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let (upper, work) = (open_folder(&upper)?, open_folder(&work)?);
        let options = [
            ("lowerdir", &*place(&image.folder)),
            ("upperdir", &place(&upper)),
            ("workdir", &place(&work)),
            // A file's mode changes without its data being copied.
            ("metacopy", "on"),
        ];
        let view = View::Overlay(overlay(&options, MountAttrFlags::empty())?);
        for entry in fs::read_dir(view.place())? {
            fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o444))?;
        }
        fs::set_permissions(view.place(), fs::Permissions::from_mode(0o555))?;
        Ok(view)
    }

    pub(super) fn place(&self) -> PathBuf {
        match self {
            View::Plain(place) => place.clone(),
            View::Overlay(mount) => format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd()).into(),
        }
    }
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn place(folder: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", folder.as_raw_fd())
}

fn overlay(options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "cryo")?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

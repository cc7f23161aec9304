//! An image as CRIU shall see it: the files as they are, and what has to differ for this
//! restore laid over them. The client's files aren't ours to change.
//!
//! - CRIU restores into a network namespace of ours only if the image says that its
//!   namespace came from outside. runc's images don't say so.
//! - A container with users of its own reads its image as one of them while it comes
//!   back, and must be allowed to.
//! - Memory that is kept in another form lies elsewhere.
//!
//! An overlay does all of it. It is mounted nowhere: only who may look into this process
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

use super::scratch::Scratch;
use super::{Attempt, Error};
use crate::bundle::Sharing;
use crate::checkpoint::image::Image;
use crate::container::Subject;
use crate::criu::images::{self, NetworkImage};

const FOLDER: &str = "cryo-view";

#[derive(Debug)]
pub(super) enum View {
    Plain(PathBuf),
    Overlay(OwnedFd),
}

impl View {
    pub(super) fn of(attempt: &Attempt) -> Result<View, Error> {
        let Attempt { image, subject, scratch, .. } = attempt;
        let Subject { spec, bundle, .. } = &**subject;
        let memory = scratch.as_ref().map(Scratch::folder);
        let view = match (spec.sharing("user"), spec.sharing("network")) {
            (Sharing::Private, _) => View::for_users(image, memory, bundle),
            (_, Sharing::Host) => View::plain(image, memory),
            _ => View::with_external(&image.network()?, image, memory, bundle),
        };
        view.map_err(Error::View)
    }

    fn plain(image: &Image, memory: Option<&OwnedFd>) -> io::Result<View> {
        match memory {
            None => Ok(View::Plain(image.place())),
            Some(memory) => {
                let layers = layers(&[memory, &image.folder]);
                overlay(&[("lowerdir", &layers)], MountAttrFlags::MOUNT_ATTR_RDONLY).map(View::Overlay)
            }
        }
    }

    /// Its network namespace comes from outside, whatever the image says.
    fn with_external(
        network: &NetworkImage,
        image: &Image,
        memory: Option<&OwnedFd>,
        bundle: &Path,
    ) -> io::Result<View> {
        if network.external {
            return View::plain(image, memory);
        }
        let above = bundle.join(FOLDER);
        fs::create_dir_all(&above)?;
        fs::write(above.join(&network.file_name), images::external_network())?;
        let above = open_folder(&above)?;
        let all: Vec<_> = [&above].into_iter().chain(memory).chain([&image.folder]).collect();
        overlay(&[("lowerdir", &layers(&all))], MountAttrFlags::MOUNT_ATTR_RDONLY).map(View::Overlay)
    }

    fn for_users(image: &Image, memory: Option<&OwnedFd>, bundle: &Path) -> io::Result<View> {
        let above = bundle.join(FOLDER);
        let (upper, work) = (above.join("upper"), above.join("work"));
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let (upper, work) = (open_folder(&upper)?, open_folder(&work)?);
        let options = [
            ("lowerdir", &*layers(&memory.into_iter().chain([&image.folder]).collect::<Vec<_>>())),
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

/// The first is the topmost. Descriptors as names: no path of a client's has to be quoted or
/// cut to length.
fn layers(folders: &[&OwnedFd]) -> String {
    folders.iter().map(|folder| place(folder)).collect::<Vec<_>>().join(":")
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

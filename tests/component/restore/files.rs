//! What the original has changed in its root file system: there before CRIU reads anything, and
//! in nobody's way if the restore comes to nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cryo_protos::api;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;

use super::stopped_and_deletable;
use crate::harness::{Blueprint, Code, Script, Test, World, image, process, refused, skip, tests, until};

pub(super) fn tests() -> Vec<Test> {
    tests![
        changed_files_are_there_before_anything_is_restored,
        the_root_that_they_are_in_gets_none,
        files_of_a_restore_that_fails_are_in_nobodys_way,
        a_restore_that_puts_files_back_can_be_called_off,
        who_puts_files_back_dies_with_the_shim,
    ]
}

/// A root file system in three folders of its own.
struct Root {
    upper: PathBuf,
    mounts: Vec<api::Mount>,
}

impl Root {
    fn new(world: &World, name: &str) -> Root {
        let [lower, upper, work] =
            ["lower", "upper", "work"].map(|kind| world.folder(&format!("{name}/{kind}")));
        let options = [("lowerdir", &lower), ("upperdir", &upper), ("workdir", &work)];
        let options: Vec<_> =
            options.iter().map(|(name, path)| format!("{name}={}", path.display())).collect();
        let there = world.folder("try");
        let text = std::ffi::CString::new(options.join(",")).unwrap();
        if mount("overlay", &there, "overlay", MountFlags::empty(), Some(&*text)).is_err() {
            skip("overlays can't be mounted here");
        }
        unmount(&there, UnmountFlags::empty()).unwrap();
        let kind = "overlay".to_owned();
        Root {
            upper,
            mounts: vec![api::Mount { type_: kind.clone(), source: kind, options, ..Default::default() }],
        }
    }

    fn of<'w>(&self, blueprint: Blueprint<'w>) -> Blueprint<'w> {
        blueprint.mounts(self.mounts.clone())
    }
}

/// A checkpoint of a container that has written so many files.
fn taken(world: &World, files: usize) -> (Root, PathBuf) {
    let root = Root::new(world, "first");
    let container = root.of(world.container("first")).started();
    fs::write(root.upper.join("file"), "text").unwrap();
    for number in 1..files {
        File::create(root.upper.join(format!("file-{number}"))).unwrap();
    }
    let image = world.path("image");
    container.checkpoint(&image, true).unwrap();
    container.wait().unwrap();
    container.delete().unwrap();
    assert!(image::is_complete(&image));
    assert_eq!(image::manifest(&image).unwrap()["rootfs"]["layer"]["files"], files);
    (root, image)
}

fn changed_files_are_there_before_anything_is_restored(world: &World) {
    let (_first, image) = taken(world, 3);
    let root = Root::new(world, "second");
    let seen = root.upper.join("file");
    let blueprint = root.of(world.container("second")).from_checkpoint(&image);
    let container = blueprint.rule(Script::at("restore", "before"), "hang").created();
    assert!(!seen.exists(), "they come with the start");
    let starting = container.begin(|container| container.start());
    until("the runtime is called", || !process::with_words(&["--root", "restore"]).is_empty());
    assert_eq!(fs::read(&seen).unwrap(), b"text");
    assert_eq!(image::names(&root.upper), ["file", "file-1", "file-2"]);
    container.kill(9).unwrap();
    starting.answer().unwrap_err();
}

fn the_root_that_they_are_in_gets_none(world: &World) {
    let (first, image) = taken(world, 3);
    fs::write(first.upper.join("file"), "later").unwrap();
    fs::remove_file(first.upper.join("file-1")).unwrap();
    let container = first.of(world.container("again")).from_checkpoint(&image).created();
    container.start().unwrap();
    assert_eq!(fs::read(first.upper.join("file")).unwrap(), b"later");
    assert!(!first.upper.join("file-1").exists());
}

fn files_of_a_restore_that_fails_are_in_nobodys_way(world: &World) {
    let (_first, image) = taken(world, 3);
    let root = Root::new(world, "second");
    let container = root
        .of(world.container("second"))
        .from_checkpoint(&image)
        .rule(Script::at("restore", "read"), json!({"criu-fail": "strange thing"}))
        .created();
    refused(container.start(), Code::FAILED_PRECONDITION, &["strange thing"]);
    stopped_and_deletable(&container);
    assert_eq!(fs::read(root.upper.join("file")).unwrap(), b"text");
    // They are put there once more.
    fs::write(root.upper.join("file"), "half").unwrap();
    let again = root.of(world.container("third")).from_checkpoint(&image).created();
    again.start().unwrap();
    assert_eq!(fs::read(root.upper.join("file")).unwrap(), b"text");
    again.kill(9).unwrap();
    again.wait().unwrap();
    again.delete().unwrap();
    // What is no layer any longer stops it, and says so.
    let layer = image.join("rootfs-diff.tar");
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let other = Root::new(world, "fourth");
    let container = other.of(world.container("fourth")).from_checkpoint(&image).created();
    refused(container.start(), Code::DATA_LOSS, &["isn't what it was", "cryo.rootfs=leave"]);
    stopped_and_deletable(&container);
    assert_eq!(image::names(&other.upper), [""; 0]);
}

/// So many that it takes a while.
const MANY: usize = 30_000;

fn helpers() -> Vec<u32> {
    process::with_words(&["layer", "blake3:"])
}

fn a_restore_that_puts_files_back_can_be_called_off(world: &World) {
    let (_first, image) = taken(world, MANY);
    let root = Root::new(world, "second");
    let container = root.of(world.container("second")).from_checkpoint(&image).created();
    let starting = container.begin(|container| container.start());
    until("files are put back", || root.upper.join("file").exists() || !helpers().is_empty());
    container.kill(9).unwrap();
    let refusal = starting.answer().unwrap_err();
    assert!(refusal.message.contains("called off") || refusal.message.contains("restore"), "{refusal}");
    until("nobody puts files back", || helpers().is_empty());
    assert!(container.calls("restore").is_empty(), "it was restored");
    stopped_and_deletable(&container);
}

fn who_puts_files_back_dies_with_the_shim(world: &World) {
    let (_first, image) = taken(world, MANY);
    let root = Root::new(world, "second");
    let container = root.of(world.container("second")).from_checkpoint(&image).created();
    let starting = container.begin(|container| container.start());
    until("files are put back", || !helpers().is_empty());
    container.kill_shim();
    starting.answer().unwrap_err();
    until("nobody puts files back", || helpers().is_empty());
    let rootfs = Path::new(&container.bundle.request.bundle).join("rootfs");
    container.bundle.call.delete().deleted();
    assert_eq!(image::names(&rootfs), [""; 0], "it is mounted");
}

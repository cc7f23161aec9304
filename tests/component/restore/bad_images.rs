//! What is wrong with an image is found at Create, and said.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cryo_protos::api::{CreateTaskRequest, Empty};
use serde_json::Value;

use crate::harness::image::{manifest, take};
use crate::harness::until;
use crate::harness::{Code, Test, World, mkfifo, process, refused, skip};

/// A name, what to do to a good image for its sake and where the bad one is then, and how
/// it is refused.
type Case = (&'static str, fn(&World, &Path) -> PathBuf, Code, &'static [&'static str]);

pub(super) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (name, damage, code, words) in PLACES.into_iter().chain(MANIFESTS).chain(ORIGINS).chain(FILES) {
        tests.push(Test::new(format!("restore::an_image_is_refused::{name}"), move |world| {
            let image = damage(world, &take(world, "image", false));
            let rootfs = world.folder("rootfs");
            let container = world.container("c1").rootfs(&rootfs).from_checkpoint(&image).boot();
            refused(container.create(), code, words);
            refused(container.state(), Code::NOT_FOUND, &[]);
            assert!(container.calls("restore").is_empty());
            until("no anchor is left", || process::anchors().is_empty());
            assert!(
                !fs::read_to_string("/proc/self/mountinfo").unwrap().contains("c1/rootfs"),
                "a mount is left"
            );
            assert!(container.events().is_empty());
            // With a good one the same id works.
            let good = take(world, "good", false);
            let request = CreateTaskRequest {
                checkpoint: good.to_str().unwrap().into(),
                ..container.bundle.request.clone()
            };
            container.client().call::<_, Empty>("Create", &request).unwrap();
        }));
    }
    tests
}

/// No images at all.
const PLACES: [Case; 8] = [
    ("missing", |w, _| w.path("nowhere"), Code::NOT_FOUND, &["/tmp/test/nowhere"]),
    (
        "no_folder",
        |w, _| {
            fs::write(w.path("file"), "").unwrap();
            w.path("file")
        },
        Code::INTERNAL,
        &["/tmp/test/file"],
    ),
    ("relative", |_, _| "image".into(), Code::INVALID_ARGUMENT, &["absolute"]),
    ("leading_up", |_, _| "/tmp/test/../test/image".into(), Code::INVALID_ARGUMENT, &[".."]),
    (
        "behind_a_link",
        |w, i| {
            symlink(i, w.path("link")).unwrap();
            w.path("link")
        },
        Code::INTERNAL,
        &["/tmp/test/link"],
    ),
    ("empty", |w, _| w.folder("empty"), Code::FAILED_PRECONDITION, &["holds no checkpoint"]),
    (
        "of_something_else",
        |w, _| write(&w.folder("other"), "inventory.img", b"text"),
        Code::FAILED_PRECONDITION,
        &["holds no checkpoint"],
    ),
    (
        "with_an_empty_inventory",
        |_, i| {
            foreign(i);
            write(i, "inventory.img", b"")
        },
        Code::FAILED_PRECONDITION,
        &["holds no checkpoint"],
    ),
];

/// Images whose manifest can't be relied on.
const MANIFESTS: [Case; 6] = [
    (
        "unsealed",
        |_, i| edit(i, |m| m["sealed"] = false.into()),
        Code::FAILED_PRECONDITION,
        &["never completed"],
    ),
    ("of_the_future", |_, i| edit(i, |m| m["version"] = 99.into()), Code::DATA_LOSS, &["version 99"]),
    ("with_a_broken_manifest", |_, i| write(i, "cryo.json", b"{"), Code::DATA_LOSS, &["cryo.json"]),
    ("with_an_empty_manifest", |_, i| write(i, "cryo.json", b""), Code::DATA_LOSS, &["cryo.json"]),
    ("with_a_binary_manifest", |_, i| write(i, "cryo.json", &[0xff; 99]), Code::DATA_LOSS, &["cryo.json"]),
    (
        "with_a_deep_manifest",
        |_, i| write(i, "cryo.json", "[".repeat(100_000).as_bytes()),
        Code::DATA_LOSS,
        &["cryo.json"],
    ),
];

/// Images of what this container is not.
const ORIGINS: [Case; 3] = [
    (
        "of_another_runtime",
        |_, i| edit(i, |m| m["runtime"]["name"] = "crun".into()),
        Code::FAILED_PRECONDITION,
        &["crun", "runc"],
    ),
    (
        "of_another_architecture",
        |_, i| edit(i, |m| m["architecture"] = "s390x".into()),
        Code::FAILED_PRECONDITION,
        &["s390x"],
    ),
    (
        "of_another_kind_of_network",
        |_, i| edit(i, |m| m["network"] = "private".into()),
        Code::FAILED_PRECONDITION,
        &["network"],
    ),
];

/// Images whose files are not those that were written, or not files of ours.
const FILES: [Case; 9] = [
    (
        "with_a_file_cut_short",
        |_, i| {
            fs::File::options().write(true).open(i.join("pages-1.img")).unwrap().set_len(9).unwrap();
            same(i)
        },
        Code::DATA_LOSS,
        &["pages-1.img", "9 of 65536"],
    ),
    (
        "with_a_file_missing",
        |_, i| {
            fs::remove_file(i.join("core-1.img")).unwrap();
            same(i)
        },
        Code::DATA_LOSS,
        &["core-1.img is missing"],
    ),
    (
        "with_files_elsewhere",
        |_, i| edit(i, |m| m["files"]["../../../etc/passwd"] = 1.into()),
        Code::DATA_LOSS,
        &["passwd"],
    ),
    (
        "with_a_link_in_it",
        |_, i| {
            symlink("/etc/passwd", i.join("core-2.img")).unwrap();
            same(i)
        },
        Code::INVALID_ARGUMENT,
        &["core-2.img"],
    ),
    (
        "with_a_link_for_a_manifest",
        |_, i| {
            fs::rename(i.join("cryo.json"), i.join("other")).unwrap();
            symlink("other", i.join("cryo.json")).unwrap();
            same(i)
        },
        Code::INVALID_ARGUMENT,
        &["cryo.json"],
    ),
    (
        "with_a_folder_in_it",
        |_, i| {
            fs::create_dir(i.join("parent")).unwrap();
            same(i)
        },
        Code::INVALID_ARGUMENT,
        &["parent"],
    ),
    (
        "with_a_fifo_in_it",
        |_, i| {
            mkfifo(&i.join("pages-2.img"));
            same(i)
        },
        Code::INVALID_ARGUMENT,
        &["pages-2.img"],
    ),
    (
        "with_a_socket_in_it",
        |_, i| {
            drop(std::os::unix::net::UnixListener::bind(i.join("s.img")).unwrap());
            same(i)
        },
        Code::INVALID_ARGUMENT,
        &["s.img"],
    ),
    (
        "with_a_file_of_somebody_else",
        |w, i| {
            if !w.can_be_others() {
                skip("there is only one user here");
            }
            std::os::unix::fs::chown(i.join("pages-1.img"), Some(1000), None).unwrap();
            same(i)
        },
        Code::INVALID_ARGUMENT,
        &["pages-1.img"],
    ),
];

fn same(image: &Path) -> PathBuf {
    image.to_owned()
}

fn edit(image: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut manifest = manifest(image).unwrap();
    change(&mut manifest);
    fs::write(image.join("cryo.json"), manifest.to_string()).unwrap();
    same(image)
}

fn write(image: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    fs::write(image.join(name), bytes).unwrap();
    same(image)
}

fn foreign(image: &Path) {
    fs::remove_file(image.join("cryo.json")).unwrap();
}

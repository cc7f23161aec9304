//! Damage to an image that no manifest tells of: whoever finds it, the shim is well.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::stopped_and_deletable;
use crate::harness::image::{is_complete, names, take};
use crate::harness::{Code, Test, World, process, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_giant_image_file_does_not_fill_memory,
        an_image_whose_arrival_was_cut_short_is_whole_or_refused,
    ];
    tests.extend(damage_found_late());
    tests
}

/// What only CRIU's own files tell, and only when they are needed.
fn damage_found_late() -> Vec<Test> {
    type Damage = fn(&Path);
    let cases: [(&str, bool, Damage); 7] = [
        ("core_cut_short", false, |i| fs::write(i.join("core-1.img"), "short").unwrap()),
        ("core_missing", false, |i| fs::remove_file(i.join("core-1.img")).unwrap()),
        ("pstree_missing", true, |i| fs::remove_file(i.join("pstree.img")).unwrap()),
        ("pstree_cut_short", true, |i| fs::write(i.join("pstree.img"), b"\x19CVT00").unwrap()),
        ("pstree_of_garbage", true, |i| fs::write(i.join("pstree.img"), [0xff; 64]).unwrap()),
        ("ids_with_an_endless_length", true, |i| {
            let bytes = [&b"\x19CVT\x30\x20\x43\x54"[..], &[0xff; 4], &[0; 8]].concat();
            fs::write(i.join("ids-1.img"), bytes).unwrap();
        }),
        ("network_of_garbage", true, |i| fs::write(i.join("netns-10.img"), [0xff; 64]).unwrap()),
    ];
    let mut tests = Vec::new();
    for (name, network, damage) in cases {
        tests.push(Test::new(
            format!("restore::a_foreign_image_with_damage_fails_cleanly::{name}"),
            move |world| {
                let image = take(world, "image", network);
                fs::remove_file(image.join("cryo.json")).unwrap();
                damage(&image);
                let blueprint = world.container("c1").from_checkpoint(&image);
                let container = if network { blueprint.networked() } else { blueprint }.boot();
                let refusal = match container.create() {
                    Err(refusal) => {
                        refused(container.state(), Code::NOT_FOUND, &[]);
                        refusal
                    }
                    Ok(_) => {
                        let refusal = container.start().unwrap_err();
                        stopped_and_deletable(&container);
                        refusal
                    }
                };
                // The image is to blame, not the shim.
                assert!(
                    matches!(refusal.code, Code::DATA_LOSS | Code::FAILED_PRECONDITION),
                    "the image is to blame: {refusal}"
                );
                assert!(refusal.message.contains(".img"), "{refusal}");
            },
        ));
    }
    tests
}

fn a_giant_image_file_does_not_fill_memory(world: &World) {
    for name in ["inventory.img", "pstree.img", "ids-1.img", "cryo.json"] {
        let image = take(world, &format!("image-{name}"), true);
        if name != "cryo.json" {
            fs::remove_file(image.join("cryo.json")).unwrap();
        }
        // Sparse: it takes no room on disk.
        fs::File::options().write(true).open(image.join(name)).unwrap().set_len(400 << 20).unwrap();
        let container = world.container(&format!("c-{name}")).networked().from_checkpoint(&image).boot();
        if container.create().is_ok() {
            let _ = container.start();
        }
        let peak = process::kilobytes(container.shim, "VmHWM") >> 10;
        assert!(peak < 100, "{name}: the shim took {peak} MiB");
    }
}

/// A new image is moved beside the remains of an older one, file by file and its manifest
/// last; the shim was killed on the way.
fn an_image_whose_arrival_was_cut_short_is_whole_or_refused(world: &World) {
    let complete = take(world, "complete", false);
    let files: Vec<_> = names(&complete).into_iter().filter(|name| name != "cryo.json").collect();
    for arrived in 0..=files.len() {
        let image = world.folder(&format!("image-{arrived}"));
        fs::set_permissions(&image, fs::Permissions::from_mode(0o755)).unwrap();
        let staging = image.join(".cryo-4711");
        fs::create_dir(&staging).unwrap();
        for (number, name) in names(&complete).into_iter().enumerate() {
            let is_there = name != "cryo.json" && number < arrived;
            let to = if is_there { image.join(&name) } else { staging.join(&name) };
            fs::copy(complete.join(&name), to).unwrap();
        }
        let container = world.container(&format!("c{arrived}")).from_checkpoint(&image).boot();
        match container.create() {
            Err(refusal) => assert!(refusal.code == Code::FAILED_PRECONDITION, "{arrived}: {refusal}"),
            Ok(_) => {
                let _ = container.start();
                assert!(is_complete(&image), "with {arrived} files it was taken for somebody else's");
            }
        }
    }
}

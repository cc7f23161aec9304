//! Images that change their place: the copy that containerd makes of one, and one that is
//! moved between Create and Start.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::harness::image::{is_complete, names, take};
use crate::harness::{Script, Test, World, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        containerds_copy_is_removed_and_nothing_else,
        containerds_copy_is_removed_if_the_restore_fails,
        containerds_copy_is_removed_if_the_restore_never_starts,
        the_image_is_the_one_that_was_checked,
    ]
}

fn containerds_copy_is_removed_and_nothing_else(world: &World) {
    let copy = daemons_copy(world, "ctrd-checkpoint1234");
    let mine = world.path("ctrd-checkpoint1234");
    fs::rename(world.path("image"), &mine).unwrap();
    for (id, image) in [("c1", &copy), ("c2", &mine)] {
        let container = world.container(id).from_checkpoint(image).created();
        container.start().unwrap();
    }
    assert!(!copy.exists(), "a copy of the container's memory for each restore");
    assert!(is_complete(&mine));
}

fn containerds_copy_is_removed_if_the_restore_fails(world: &World) {
    let copy = daemons_copy(world, "ctrd-checkpoint1234");
    let container = world
        .container("c1")
        .from_checkpoint(&copy)
        .rule(Script::at("restore", "read"), json!({"fail": "no"}))
        .created();
    container.start().unwrap_err();
    assert!(!copy.exists());
}

fn containerds_copy_is_removed_if_the_restore_never_starts(world: &World) {
    for way in ["delete", "kill"] {
        let copy = daemons_copy(world, "ctrd-checkpoint1234");
        let container = world.container("c1").from_checkpoint(&copy).created();
        if way == "kill" {
            container.kill(9).unwrap();
            container.wait().unwrap();
        }
        container.delete().unwrap();
        let left = copy.exists();
        let _ = fs::remove_dir_all(&copy);
        assert!(!left, "after {way}");
        container.clean_up();
        container.expect_shim_gone();
        fs::remove_dir_all(world.path("image")).unwrap();
    }
}

fn daemons_copy(world: &World, name: &str) -> PathBuf {
    let image = take(world, "image", false);
    let copy = PathBuf::from("/tmp").join(name);
    fs::create_dir(&copy).unwrap();
    for file in names(&image) {
        fs::copy(image.join(&file), copy.join(&file)).unwrap();
    }
    copy
}

fn the_image_is_the_one_that_was_checked(world: &World) {
    let image = take(world, "image", false);
    let container = world.container("c1").from_checkpoint(&image).created();
    // The path leads elsewhere by now.
    fs::rename(&image, world.path("moved")).unwrap();
    let other = world.folder("image");
    fs::write(other.join("inventory.img"), "not an inventory").unwrap();
    container.start().unwrap();
}

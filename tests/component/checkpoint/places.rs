//! Places that take no image: full, read-only, no folder, or somewhere else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use cryo_protos::api::Status;
use serde_json::json;

use super::unharmed;
use crate::harness::image::{contents, is_complete, names};
use crate::harness::{Code, Refusal, Script, Test, World, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        every_file_that_finds_no_inode_fails_the_checkpoint_and_nothing_else,
        every_file_that_finds_no_room_fails_the_checkpoint_and_nothing_else,
        every_file_that_finds_no_inode_beside_an_older_image_leaves_that_as_it_was,
        a_read_only_place_is_named,
        folders_made_for_a_failed_checkpoint_are_removed,
        a_place_that_is_no_folder_is_refused,
        a_path_that_leads_elsewhere_is_refused,
        an_image_that_cannot_be_sealed_fails_with_the_cause,
    ]
}

fn every_file_that_finds_no_inode_fails_the_checkpoint_and_nothing_else(world: &World) {
    until_it_fits(world, false, (2..40).map(|inodes| format!("mode=700,nr_inodes={inodes}")));
}

fn every_file_that_finds_no_room_fails_the_checkpoint_and_nothing_else(world: &World) {
    until_it_fits(world, false, (1..60).map(|pages| format!("mode=700,size={}k", pages * 4)));
}

fn every_file_that_finds_no_inode_beside_an_older_image_leaves_that_as_it_was(world: &World) {
    until_it_fits(world, true, (12..60).map(|inodes| format!("mode=700,nr_inodes={inodes}")));
}

/// Takes checkpoints into file systems that are a little larger each time, until one
/// succeeds untouched.
#[track_caller]
fn until_it_fits(world: &World, older: bool, sizes: impl Iterator<Item = String>) {
    let container = world.container("c1").started();
    let exits = world.container("c2").started();
    let origin = world.path("origin");
    container.checkpoint(&origin, false).unwrap();
    container.wait_for_event("checkpointed");
    let mut failures = 0;
    for size in sizes {
        let mut fitted = 0;
        for (container, exit) in [(&container, false), (&exits, true)] {
            let place = world.tmpfs("small", &size);
            let image = place.join("image");
            if older && copy(&origin, &image).is_err() {
                world.unmount(&place);
                continue;
            }
            let before = contents(&place);
            let events = container.events().len();
            match container.checkpoint(&image, exit) {
                Ok(()) => {
                    assert!(is_complete(&image), "{size}: {:?}", names(&image));
                    fitted += 1;
                    if exit {
                        assert_eq!(container.wait().unwrap(), 137);
                    }
                }
                Err(refusal) => {
                    no_room(&refusal, &size);
                    assert!(contents(&place) == before, "{size}: {:?} is left", contents(&place).keys());
                    unharmed(world, container, false);
                    let told = container.events();
                    assert!(!told[events..].iter().any(|event| event == "checkpointed"), "{told:?}");
                    failures += 1;
                }
            }
            world.unmount(&place);
        }
        if fitted == 2 {
            assert!(failures > 4, "only {failures} failures before {size} fitted");
            return;
        }
        // One that exits can't be used again.
        assert!(exits.status() == Status::RUNNING, "{size} is enough to exit and not to run on");
    }
    panic!("none was large enough");
}

#[track_caller]
fn no_room(refusal: &Refusal, size: &str) {
    let code = matches!(refusal.code, Code::RESOURCE_EXHAUSTED | Code::FAILED_PRECONDITION);
    assert!(code && refusal.message.to_lowercase().contains("no space left"), "{size}: {refusal}");
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name))?;
    }
    Ok(())
}

fn an_image_that_cannot_be_sealed_fails_with_the_cause(world: &World) {
    let place = world.tmpfs("full", "size=1m,mode=700");
    let image = place.join("image");
    let fill = format!("cat /dev/zero > {}/filling 2>/dev/null", place.display());
    let container =
        world.container("c1").rule(Script::at("checkpoint", "dumped"), json!({ "shell": fill })).started();
    let refusal = container.checkpoint(&image, true).unwrap_err();
    unharmed(world, &container, false);
    assert!(!image.exists(), "{:?} is left", names(&image));
    world.unmount(&place);
    no_room(&refusal, "with no room for the seal");
}

fn a_read_only_place_is_named(world: &World) {
    let place = world.tmpfs("fixed", "mode=700");
    let older = place.join("older");
    let container = world.container("c1").started();
    container.checkpoint(&older, false).unwrap();
    fs::create_dir(place.join("empty")).unwrap();
    fs::set_permissions(place.join("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    world.make_read_only(&place);
    for name in ["new", "empty", "older"] {
        let image = place.join(name);
        refused(
            container.checkpoint(&image, true),
            Code::FAILED_PRECONDITION,
            &["Read-only", image.to_str().unwrap()],
        );
        unharmed(world, &container, false);
    }
    world.unmount(&place);
}

fn folders_made_for_a_failed_checkpoint_are_removed(world: &World) {
    let container = world
        .container("c1")
        .rule(Script::at("checkpoint", "before").nth(1), json!({"fail": "no"}))
        .started();
    let image = world.path("a/b/c");
    container.checkpoint(&image, false).unwrap_err();
    assert!(!world.path("a").exists(), "{:?} is left", contents(&world.path("a")).keys());
    container.checkpoint(&image, false).unwrap();
    assert!(is_complete(&image));
}

fn a_place_that_is_no_folder_is_refused(world: &World) {
    let container = world.container("c1").started();
    fs::write(world.path("file"), "mine").unwrap();
    symlink("/nowhere", world.path("dangling")).unwrap();
    for name in ["file", "file/below", "dangling"] {
        let image = world.path(name);
        let refusal = container.checkpoint(&image, true).unwrap_err();
        assert!(refusal.message.contains(image.to_str().unwrap()), "{refusal}");
    }
    assert_eq!(fs::read_to_string(world.path("file")).unwrap(), "mine");
    unharmed(world, &container, false);
}

fn a_path_that_leads_elsewhere_is_refused(world: &World) {
    let container = world.container("c1").started();
    for path in ["relative/image", "/tmp/test/../test/image", ""] {
        refused(container.checkpoint(Path::new(path), false), Code::INVALID_ARGUMENT, &[]);
    }
    unharmed(world, &container, false);
}

//! What the folder of an image holds already: older images, the remains of an interrupted
//! checkpoint, files of others and what another container writes meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::unharmed;
use crate::harness::image::{contents, is_complete, manifest, names};
use crate::harness::{Gate, Script, Test, World, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        an_older_image_is_replaced_by_a_complete_one,
        an_older_image_survives_every_failure,
        what_an_interrupted_checkpoint_left_is_removed,
        what_is_in_the_folder_besides_an_image_is_left_alone,
        an_image_in_an_open_folder_is_read_by_nobody_meanwhile,
        two_containers_never_mix_their_images_in_one_folder,
    ]
}

fn an_older_image_is_replaced_by_a_complete_one(world: &World) {
    let image = world.path("image");
    let first = world.container("c1").started();
    first.checkpoint(&image, false).unwrap();
    fs::write(image.join("pages-9.img"), "of the older one").unwrap();
    let second = world.container("c2").started();
    second.checkpoint(&image, true).unwrap();
    assert!(is_complete(&image));
    assert_eq!(manifest(&image).unwrap()["container"], "c2");
    assert!(!image.join("pages-9.img").exists());
    assert!(names(&image).iter().all(|name| !name.starts_with('.')), "{:?}", names(&image));
}

fn an_older_image_survives_every_failure(world: &World) {
    let image = world.path("image");
    let container = world.container("c1").started();
    container.checkpoint(&image, false).unwrap();
    let before = contents(&image);
    for point in ["before", "written", "dumped", "sealed"] {
        for (action, exit) in [(json!({"fail": "no"}), true), (json!({"die": 9}), false)] {
            container.script(|script| script.rule(Script::at("checkpoint", point), action));
            container.checkpoint(&image, exit).unwrap_err();
            assert!(contents(&image) == before, "{point}: {:?}", names(&image));
        }
    }
    unharmed(world, &container, false);
}

fn what_an_interrupted_checkpoint_left_is_removed(world: &World) {
    let container = world.container("c1").started();
    // As a shim leaves it that was killed: no seal, or a folder beside an older image.
    let image = world.folder("unsealed");
    container.checkpoint(&image, false).unwrap();
    let mut unsealed = manifest(&image).unwrap();
    unsealed["sealed"] = false.into();
    fs::write(image.join("cryo.json"), unsealed.to_string()).unwrap();
    fs::write(image.join("pages-7.img"), "rubbish").unwrap();
    fs::create_dir(image.join(".cryo-12345")).unwrap();
    fs::write(image.join(".cryo-12345/pages-1.img"), "rubbish").unwrap();
    container.checkpoint(&image, false).unwrap();
    assert!(is_complete(&image));
    assert!(!image.join("pages-7.img").exists() && !image.join(".cryo-12345").exists());
}

fn what_is_in_the_folder_besides_an_image_is_left_alone(world: &World) {
    let image = world.folder("image");
    fs::write(image.join("notes.txt"), "mine").unwrap();
    let container = world.container("c1").started();
    container.checkpoint(&image, false).unwrap();
    assert!(is_complete(&image));
    assert_eq!(fs::read_to_string(image.join("notes.txt")).unwrap(), "mine");
    container.script(|script| script.rule(Script::at("checkpoint", "dumped"), json!({"fail": "no"})));
    container.checkpoint(&image, false).unwrap_err();
    assert_eq!(fs::read_to_string(image.join("notes.txt")).unwrap(), "mine");
}

fn an_image_in_an_open_folder_is_read_by_nobody_meanwhile(world: &World) {
    let image = world.folder("image");
    fs::set_permissions(&image, fs::Permissions::from_mode(0o755)).unwrap();
    let container =
        world.container("c1").rule(Script::at("checkpoint", "dumped"), json!({"wait": "dumped"})).started();
    let gate = Gate::new(&container.bundle.path, "dumped");
    let target = image.clone();
    let checkpoint = container.begin(move |container| container.checkpoint(&target, false));
    gate.wait_until_reached();
    // Memory of the container: either the file or the folder it is in is closed to others.
    let open = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077 != 0;
    for path in contents(&image).into_keys().filter(|path| path.is_file()) {
        assert!(!open(&path) || !open(path.parent().unwrap()), "{} is open", path.display());
    }
    gate.open();
    checkpoint.answer().unwrap();
    for name in names(&image) {
        assert!(!open(&image.join(&name)), "{name} is open");
    }
}

fn two_containers_never_mix_their_images_in_one_folder(world: &World) {
    for (name, older, point) in
        [("a", false, "written"), ("b", true, "written"), ("c", false, "dumped"), ("d", true, "dumped")]
    {
        let image: PathBuf = world.path(name);
        if older {
            let container = world.container(&format!("older-{name}")).started();
            container.checkpoint(&image, true).unwrap();
        }
        let first = world
            .container(&format!("first-{name}"))
            .rule(Script::at("checkpoint", point), json!({"wait": "half"}))
            .started();
        let gate = Gate::new(&first.bundle.path, "half");
        let second = world.container(&format!("second-{name}")).started();
        let target = image.clone();
        let one = first.begin(move |container| container.checkpoint(&target, false));
        gate.wait_until_reached();
        let other = second.checkpoint(&image, false);
        gate.open();
        let one = one.answer();
        // Each was told the truth, and what lies there is one image and whole.
        assert!(one.is_ok() || other.is_ok(), "{one:?}, {other:?}");
        assert!(is_complete(&image), "{name}: {one:?}, {other:?}: {:?}", names(&image));
        let owner = manifest(&image).unwrap()["container"].as_str().unwrap().to_owned();
        let core = String::from_utf8_lossy(&fs::read(image.join("core-1.img")).unwrap()).into_owned();
        assert!(core.contains(&owner), "{name}: the manifest is {owner}'s, the memory isn't");
        let winner = if owner == first.id() { &one } else { &other };
        assert!(winner.is_ok(), "{name}: it holds {owner}, but {one:?}, {other:?}");
        unharmed(world, &first, false);
        unharmed(world, &second, false);
    }
}

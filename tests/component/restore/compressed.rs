//! Memory that is kept compressed: put together in the store for a restore, and gone after it,
//! whatever happens.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::stopped_and_deletable;
use crate::harness::image::{manifest, names, take};
use crate::harness::{Code, Test, World, isolation, refused, tests, until};

const STORE: &str = "/var/lib/cryo/store";
const PLAIN: &str = "pages-1.img";

pub(super) fn tests() -> Vec<Test> {
    tests![
        memory_that_was_compressed_is_there_for_the_runtime,
        compressed_memory_that_is_wrong_is_never_restored,
        compressed_memory_of_which_nothing_is_known_is_refused,
        without_a_store_compressed_memory_is_refused,
        unpacked_memory_goes_with_a_container_that_never_starts,
        unpacked_memory_goes_with_a_killed_shim,
    ]
}

/// A good image of which the memory was compressed by the shim's own helper.
fn compressed(world: &World) -> PathBuf {
    let image = take(world, "image", false);
    let mut said = manifest(&image).unwrap();
    let sizes = json!({ PLAIN: said["files"][PLAIN] });
    let shim = Path::new(isolation::BINARIES).join("containerd-shim-cryo-v2");
    let mut command = Command::new(shim);
    let command = command.args(["memory", "shrink"]).arg(&image).arg(&image);
    let mut helper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(helper.stdin.take().unwrap(), "{sizes}").unwrap();
    let shrunk: Value = serde_json::from_reader(helper.stdout.take().unwrap()).unwrap();
    assert!(helper.wait().unwrap().success());
    assert_eq!(shrunk[PLAIN]["is_compressed"], true, "{shrunk}");
    said["digests"][PLAIN] = shrunk[PLAIN]["digest"].clone();
    fs::write(image.join("cryo.json"), said.to_string()).unwrap();
    fs::remove_file(image.join(PLAIN)).unwrap();
    image
}

fn unpacked() -> Vec<String> {
    names(&Path::new(STORE).join("new"))
}

fn memory_that_was_compressed_is_there_for_the_runtime(world: &World) {
    let image = compressed(world);
    for id in ["c1", "c2"] {
        let container = world.container(id).from_checkpoint(&image).created();
        container.start().unwrap();
        assert_eq!(unpacked(), [""; 0]);
        container.clean_up();
    }
    assert!(image.join("pages-1.img.zst").exists() && !image.join(PLAIN).exists());
}

fn compressed_memory_that_is_wrong_is_never_restored(world: &World) {
    let image = compressed(world);
    let path = image.join("pages-1.img.zst");
    let good = fs::read(&path).unwrap();
    for at in [0, 20, good.len() - 10] {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[good[at] ^ 1], at as u64).unwrap();
        let container = world.container(&format!("c{at}")).from_checkpoint(&image).created();
        refused(container.start(), Code::DATA_LOSS, &["/tmp/test/image is damaged: pages-1.img"]);
        assert!(container.calls("restore").is_empty());
        stopped_and_deletable(&container);
        assert_eq!(unpacked(), [""; 0]);
        file.write_all_at(&[good[at]], at as u64).unwrap();
    }
}

fn compressed_memory_of_which_nothing_is_known_is_refused(world: &World) {
    let image = compressed(world);
    let mut said = manifest(&image).unwrap();
    said["digests"].as_object_mut().unwrap().remove(PLAIN);
    fs::write(image.join("cryo.json"), said.to_string()).unwrap();
    let container = world.container("c1").from_checkpoint(&image).boot();
    refused(container.create(), Code::DATA_LOSS, &["nothing says what pages-1.img was"]);
}

fn without_a_store_compressed_memory_is_refused(world: &World) {
    let image = compressed(world);
    fs::write(STORE, "").unwrap();
    let container = world.container("c1").from_checkpoint(&image).boot();
    refused(container.create(), Code::FAILED_PRECONDITION, &["cannot restore", STORE]);
}

fn unpacked_memory_goes_with_a_container_that_never_starts(world: &World) {
    let image = compressed(world);
    let container = world.container("c1").from_checkpoint(&image).created();
    until("memory is unpacked", || unpacked().len() == 2);
    container.kill(9).unwrap();
    container.wait().unwrap();
    container.delete().unwrap();
    assert_eq!(unpacked(), [""; 0]);
}

fn unpacked_memory_goes_with_a_killed_shim(world: &World) {
    let image = compressed(world);
    let container = world.container("c1").from_checkpoint(&image).created();
    until("memory is unpacked", || unpacked().len() == 2);
    container.kill_shim();
    assert_eq!(container.bundle.call.delete().deleted().exit_status, 137);
    assert_eq!(unpacked(), [""; 0]);
}

//! Older checkpoints in the store share what they have in common, and start all the same.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::kept::{STORE, cryo, entries, names};
use super::ready;
use crate::harness::*;

const RECIPE: &str = "pages-1.img.recipe";
/// An empty one of 256 MiB, by `mkfs.btrfs --mixed -m single -d single`, which test hosts lack.
const BTRFS: &[u8] = include_bytes!("../../../data/btrfs.img.zst");

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ours = "the stock shim has no store";
    let all = vec![
        docker_scenario!(packed_checkpoints_start_and_take_little_room),
        docker_scenario!(older_checkpoints_are_packed_by_themselves),
        docker_scenario!(a_flipped_byte_in_a_pack_is_found_and_never_resumed),
        docker_scenario!(packs_go_with_their_checkpoints),
        docker_scenario!(whoever_is_killed_while_he_packs_spoils_nothing),
        docker_scenario!(checkpoints_share_what_they_have_where_the_file_system_can)
            .impossible_if(|_, _| !knows_btrfs(), "this kernel has no btrfs"),
    ];
    all.into_iter().map(|scenario| scenario.comes_back().cryo_only(ours)).collect()
}

/// A container with a heap, and three checkpoints of it.
fn three<'d>(docker: &'d Docker<'_>) -> Outcome<Container<'d>> {
    let container = ready(docker, &[], &["heap", "32"])?;
    for checkpoint in ["one", "two", "three"] {
        container.copy(checkpoint)?;
    }
    container.call(&["kill"])?;
    container.wait_for_status("exited")?;
    Ok(container)
}

#[track_caller]
fn starts(container: &Container<'_>, checkpoint: &str, answers: usize) -> Outcome {
    container.start_from(checkpoint)?;
    container.asks(answers, "same")?;
    container.call(&["kill"])?;
    container.wait_for_status("exited")
}

fn packs(docker: &Docker<'_>) -> Outcome<Vec<PathBuf>> {
    let folder = docker.bench.slot.outside(STORE).join("packs");
    Ok(names(&folder)?.into_iter().map(|name| folder.join(name)).collect())
}

fn packed_checkpoints_start_and_take_little_room(docker: &Docker<'_>) -> Outcome {
    let container = three(docker)?;
    let said = cryo(docker, &["store", "pack"])?;
    ensure!(said.contains("2 checkpoints packed"), "{said}");
    let has_recipe = |entry: &PathBuf| entry.join(RECIPE).exists() && !entry.join("pages-1.img").exists();
    let all = entries(&container)?;
    ensure_eq!(all.iter().filter(|entry| has_recipe(entry)).count(), 2, "packed ones");
    let listed = cryo(docker, &["ls", "--json"])?;
    let listed: Vec<Value> = serde_json::from_str(&listed).during(|| listed.clone())?;
    let stored: u64 = listed.iter().filter_map(|entry| entry["stored"].as_u64()).sum();
    let one = listed[0]["size"].as_u64().unwrap_or_default();
    ensure!(one > 32 << 20 && stored < one * 5 / 2, "{stored} for three of {one}");
    ensure_eq!(listed.iter().filter(|entry| entry["packed"] == true).count(), 2, "packed ones in the list");
    ensure!(cryo(docker, &["ls"])?.contains("packed"), "the list doesn't say so");
    let said = cryo(docker, &["store", "verify"])?;
    ensure_eq!(said.matches(": good").count(), 3, "good ones");
    let folder = container.checkpoint_folder("one").display().to_string();
    ensure!(cryo(docker, &["inspect", &folder])?.contains("guest heap"), "it can't be looked into");
    let archive = docker.bench.fresh_folder("archive")?.join("heap.tar").display().to_string();
    cryo(docker, &["export", &folder, "-o", &archive])?;
    cryo(docker, &["import", &archive])?;
    ensure!(cryo(docker, &["store", "verify", "heap"])?.contains("heap: good"), "its copy isn't good");
    cryo(docker, &["rm", "heap"])?;
    for (number, checkpoint) in ["one", "two", "one", "three", "one"].iter().enumerate() {
        starts(&container, checkpoint, number + 1)?;
    }
    let left = names(&docker.bench.slot.outside(STORE).join("new"))?;
    ensure!(left.is_empty(), "{left:?} is left");
    container.rm()
}

fn older_checkpoints_are_packed_by_themselves(docker: &Docker<'_>) -> Outcome {
    docker.bench.set_node_file("[store]\npack-after = \"0s\"\n")?;
    let container = ready(docker, &[], &["heap", "16"])?;
    container.copy("one")?;
    let one = entries(&container)?.remove(0);
    container.checkpoint("two")?;
    eventually("the first one is packed", || (!one.join("pages-1.img").exists()).then_some(()))?;
    ensure!(one.join(RECIPE).exists(), "its memory is gone");
    starts(&container, "one", 1)?;
    starts(&container, "two", 2)?;
    container.rm()
}

fn a_flipped_byte_in_a_pack_is_found_and_never_resumed(docker: &Docker<'_>) -> Outcome {
    let container = three(docker)?;
    cryo(docker, &["store", "pack"])?;
    let biggest =
        packs(docker)?.into_iter().max_by_key(|pack| fs::metadata(pack).map_or(0, |data| data.len()));
    let pack = biggest.ok_or_else(|| Failure::new("there is no pack"))?;
    let file = fs::File::options().read(true).write(true).open(&pack)?;
    let (mut byte, at) = ([0], 10 << 20);
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    let found = cryo(docker, &["store", "verify"]).err();
    let found = found.ok_or_else(|| Failure::new("nothing was found"))?;
    let name = pack.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure!(found.text().contains(&format!("{name}: damaged")), "{}", found.text());
    let before = container.logs()?;
    let refusal = container.start_refusal("one")?;
    ensure!(refusal.contains("is damaged"), "{refusal}");
    ensure_eq!(container.logs()?, before, "what it has written");
    ensure!(container.status()? != "running", "it runs");
    starts(&container, "three", 1)?;
    file.write_all_at(&byte, at)?;
    starts(&container, "one", 2)?;
    container.rm()
}

fn packs_go_with_their_checkpoints(docker: &Docker<'_>) -> Outcome {
    let container = three(docker)?;
    cryo(docker, &["store", "pack"])?;
    ensure!(!packs(docker)?.is_empty(), "there is no pack");
    docker.call(&["checkpoint", "rm", &container.name, "one"])?;
    cryo(docker, &["store", "prune"])?;
    starts(&container, "two", 1)?;
    ensure!(cryo(docker, &["store", "verify"])?.contains(": good"), "it isn't good");
    docker.call(&["checkpoint", "rm", &container.name, "two"])?;
    let said = cryo(docker, &["store", "prune"])?;
    ensure!(said.contains("1 checkpoint removed") && packs(docker)?.is_empty(), "{said}{:?}", packs(docker)?);
    starts(&container, "three", 2)?;
    container.rm()
}

fn whoever_is_killed_while_he_packs_spoils_nothing(docker: &Docker<'_>) -> Outcome {
    let container = three(docker)?;
    let packs = docker.bench.slot.outside(STORE).join("packs");
    for is_late in [false, true] {
        let mut command: Command = docker.bench.slot.command("cryo");
        let mut packer = command.args(["store", "pack"]).stdout(Stdio::null()).spawn()?;
        // The first one as soon as it has begun, the other as soon as a pack is complete.
        let seen = || {
            let names = names(&packs).ok()?;
            names.iter().any(|name| !is_late || name.ends_with(".pack")).then_some(())
        };
        eventually("a pack is made", seen)?;
        packer.kill()?;
        packer.wait()?;
        ensure_eq!(cryo(docker, &["store", "verify"])?.matches(": good").count(), 3, "good ones");
    }
    starts(&container, "one", 1)?;
    cryo(docker, &["store", "pack"])?;
    for (number, checkpoint) in ["one", "two", "three"].iter().enumerate() {
        starts(&container, checkpoint, number + 2)?;
    }
    container.rm()
}

fn knows_btrfs() -> bool {
    fs::read_to_string("/proc/filesystems").is_ok_and(|known| known.contains("btrfs"))
}

fn checkpoints_share_what_they_have_where_the_file_system_can(docker: &Docker<'_>) -> Outcome {
    let image = docker.bench.fresh_folder("btrfs")?.join("image");
    zstd::stream::copy_decode(BTRFS, fs::File::create(&image)?)?;
    let store = Path::new("/run/sharing");
    docker.bench.shell("mkdir $2; mount -o loop $1 $2; chmod 700 $2", &[&image, store])?;
    let result = share_in(docker, store);
    docker.bench.shell("umount $1; rmdir $1", &[store])?;
    result
}

fn share_in(docker: &Docker<'_>, store: &Path) -> Outcome {
    docker.bench.set_node_file(&format!("[store]\npath = {store:?}\npack-after = \"0s\"\n"))?;
    let used = || -> Outcome<u64> {
        let blocks = docker.bench.shell("sync -f $1; stat -f -c '%b %f %S' $1", &[store])?;
        let numbers: Vec<u64> = blocks.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [all, free, size] = numbers[..] else { return Err(Failure::new(blocks)) };
        Ok((all - free) * size)
    };
    let container = ready(docker, &[], &["heap", "48"])?;
    container.copy("one")?;
    let one = used()?;
    ensure!(one > 48 << 20, "one takes {one} bytes");
    for checkpoint in ["two", "three"] {
        container.copy(checkpoint)?;
    }
    let most = one * 3 / 2;
    eventually("three take about as much as one", || used().is_ok_and(|used| used < most).then_some(()))?;
    let said = cryo(docker, &["store", "verify"])?;
    ensure_eq!(said.matches(": good").count(), 3, "good ones");
    ensure_eq!(docker.bench.shell("ls $1/packs", &[store])?, "", "what is packed");
    container.call(&["kill"])?;
    container.wait_for_status("exited")?;
    for (number, checkpoint) in ["one", "three"].iter().enumerate() {
        starts(&container, checkpoint, number + 1)?;
    }
    container.rm()
}

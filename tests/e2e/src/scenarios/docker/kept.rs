//! What Docker carries of a checkpoint is a word of where it is in the node's store.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::counting;
use crate::harness::*;

pub(super) const STORE: &str = "/var/lib/cryo/store";

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ours = "the stock shim has no store";
    let all = vec![
        docker_scenario!(docker_keeps_no_more_than_the_name_of_a_checkpoint),
        docker_scenario!(a_checkpoint_that_docker_removes_goes_with_the_next),
        docker_scenario!(memory_that_was_changed_is_never_resumed),
        docker_scenario!(a_checkpoint_that_is_elsewhere_says_where),
        docker_scenario!(a_checkpoint_that_was_removed_says_so),
        docker_scenario!(the_nodes_owner_may_do_without_the_store),
        docker_scenario!(a_full_store_leaves_it_to_docker),
        docker_scenario!(a_store_that_is_a_must_and_full_refuses),
        docker_scenario!(a_folder_of_the_clients_own_gets_everything),
    ];
    all.into_iter().map(|scenario| scenario.comes_back().cryo_only(ours)).collect()
}

pub(super) fn cryo(docker: &Docker<'_>, args: &[&str]) -> Outcome<String> {
    let output = docker.bench.slot.command("cryo").args(args).output()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(text) } else { Err(Failure::new(format!("cryo {args:?}: {text}"))) }
}

/// The store's folders of a container's checkpoints.
pub(super) fn entries(container: &Container<'_>) -> Outcome<Vec<PathBuf>> {
    let text = cryo(container.docker, &["ls", "--json"])?;
    let all: Vec<Value> = serde_json::from_str(&text).during(|| text.clone())?;
    let its = all.iter().filter(|entry| entry["container"] == container.id);
    let store = container.docker.bench.slot.outside(STORE).join("entries");
    Ok(its.filter_map(|entry| Some(store.join(entry["id"].as_str()?))).collect())
}

pub(super) fn names(folder: &Path) -> Outcome<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).during(|| folder.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn docker_keeps_no_more_than_the_name_of_a_checkpoint(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    ensure_eq!(names(&container.checkpoint_folder("one"))?, ["cryo.json"], "what Docker has");
    let entries = entries(&container)?;
    ensure_eq!(entries.len(), 1, "checkpoints in the store");
    ensure!(entries[0].join("pages-1.img").exists(), "the store has no memory");
    let folder = container.checkpoint_folder("one").display().to_string();
    let said = cryo(docker, &["inspect", &folder])?;
    ensure!(said.contains("guest count"), "{said}");
    ensure!(cryo(docker, &["ls"])?.contains("(one)"), "its name isn't shown");
    ensure!(cryo(docker, &["store", "verify"])?.contains(": good"), "it isn't good");
    for _ in 0..2 {
        container.start_from("one")?;
        container.wait_for_counting(3)?;
        container.call(&["kill"])?;
        container.wait_for_status("exited")?;
    }
    container.rm()
}

fn a_checkpoint_that_docker_removes_goes_with_the_next(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.copy("one")?;
    container.copy("two")?;
    let removed = entries(&container)?;
    ensure_eq!(removed.len(), 2, "checkpoints in the store");
    docker.call(&["checkpoint", "rm", &container.name, "one"])?;
    container.copy("three")?;
    eventually("the first one is gone", || (!removed[0].exists()).then_some(()))?;
    ensure!(removed[1].exists(), "the second one is gone, too");
    container.call(&["kill"])?;
    container.wait_for_status("exited")?;
    container.start_from("two")?;
    container.rm()?;
    let other = counting(docker, &[])?;
    other.copy("one")?;
    eventually("what a removed container had is gone", || (!removed[1].exists()).then_some(()))?;
    ensure_eq!(entries(&other)?.len(), 1, "checkpoints of the other one");
    other.rm()
}

fn memory_that_was_changed_is_never_resumed(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    let before = container.logs()?;
    let pages = entries(&container)?.remove(0).join("pages-1.img");
    let file = fs::File::options().read(true).write(true).open(&pages)?;
    let (mut byte, at) = ([0], file.metadata()?.len() - 1);
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    let refusal = container.start_refusal("one")?;
    ensure!(refusal.contains("is damaged: pages-1.img: its content has another digest"), "{refusal}");
    ensure_eq!(container.logs()?, before, "what it has written");
    ensure!(container.status()? != "running", "it runs");
    file.write_all_at(&byte, at)?;
    container.start_from("one")?;
    container.is_well()?;
    container.rm()
}

/// Changes what Docker keeps.
fn change(container: &Container<'_>, how: impl FnOnce(&mut Value)) -> Outcome {
    let path = container.checkpoint_folder("one").join("cryo.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    how(&mut manifest["store"]);
    Ok(fs::write(path, manifest.to_string())?)
}

fn a_checkpoint_that_is_elsewhere_says_where(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    change(&container, |store| {
        store["node"] = "berlin".into();
        store["entry"] = "00112233445566ff".into();
    })?;
    let refusal = container.start_refusal("one")?;
    for part in ["in the store of node berlin", "00112233445566ff", "cryo export", "cryo import"] {
        ensure!(refusal.contains(part), "{refusal}");
    }
    container.rm()
}

fn a_checkpoint_that_was_removed_says_so(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    let entry = entries(&container)?.remove(0);
    let id = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let refusal = cryo(docker, &["rm", &id]).err().map(|failure| failure.to_string()).unwrap_or_default();
    ensure!(refusal.contains("names it (docker checkpoint rm)"), "it is removed, or not: {refusal}");
    cryo(docker, &["rm", "--force", &id])?;
    let refusal = container.start_refusal("one")?;
    ensure!(refusal.contains("was removed from this node's store") && refusal.contains(&id), "{refusal}");
    container.start()?;
    container.wait_for_lines(2, "3")?;
    container.rm()
}

fn has_everything(container: &Container<'_>) -> Outcome {
    let names = names(&container.checkpoint_folder("one"))?;
    ensure!(names.iter().any(|name| name == "pages-1.img.zst"), "{names:?}");
    ensure_eq!(entries(container)?.len(), 0, "checkpoints in the store");
    container.start_from("one")?;
    container.is_well()?;
    container.call(&["rm", "--force"])?;
    Ok(())
}

fn the_nodes_owner_may_do_without_the_store(docker: &Docker<'_>) -> Outcome {
    docker.bench.set_node_file("[store]\ndata = \"client\"\n")?;
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    has_everything(&container)
}

/// A store that holds next to nothing.
fn tiny(docker: &Docker<'_>, data: &str) -> Outcome {
    let limit = format!("[store]\nmax-bytes = \"1K\"\ndata = \"{data}\"\n");
    docker.bench.set_node_file(&limit)
}

fn a_full_store_leaves_it_to_docker(docker: &Docker<'_>) -> Outcome {
    tiny(docker, "auto")?;
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    has_everything(&container)
}

fn a_store_that_is_a_must_and_full_refuses(docker: &Docker<'_>) -> Outcome {
    tiny(docker, "store")?;
    let container = counting(docker, &[])?;
    let refusal = container.checkpoint_refusal("one")?;
    ensure!(refusal.contains("may hold 1.0 KiB"), "{refusal}");
    container.is_well()?;
    container.rm()
}

fn a_folder_of_the_clients_own_gets_everything(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    let folder = docker.bench.fresh_folder("elsewhere")?;
    let option = format!("--checkpoint-dir={}", folder.display());
    docker.call(&["checkpoint", "create", &option, &container.name, "one"])?;
    let made = folder.join(&container.id).join("checkpoints/one");
    let made = if made.exists() { made } else { folder.join("one") };
    ensure!(names(&made)?.iter().any(|name| name == "pages-1.img.zst"), "{:?}", names(&made)?);
    ensure_eq!(entries(&container)?.len(), 0, "checkpoints in the store");
    container.rm()
}

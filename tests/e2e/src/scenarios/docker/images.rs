//! Checkpoints that are damaged, hostile or not there: refused by a sentence, and the
//! container can still be started and removed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::counting;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(a_checkpoint_that_is_not_there_is_named),
        docker_scenario!(a_truncated_checkpoint_is_refused),
        docker_scenario!(a_missing_part_is_named),
        docker_scenario!(a_damaged_inventory_is_refused),
        docker_scenario!(a_damaged_process_is_refused),
        docker_scenario!(an_empty_checkpoint_is_refused),
        docker_scenario!(a_missing_folder_of_the_host_is_named),
        docker_scenario!(another_root_filesystem_is_refused),
        docker_scenario!(a_link_in_a_checkpoint_is_not_followed),
        docker_scenario!(a_checkpoint_of_somebody_else_is_refused),
        docker_scenario!(a_checkpoint_that_others_may_change_is_refused),
        docker_scenario!(a_checkpoint_of_the_same_name_is_refused),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

/// One sentence with one of these words in it: daemons have their own.
#[track_caller]
fn is_a_sentence(said: &str, words: &[&str]) -> Outcome {
    ensure!(words.iter().any(|word| said.contains(word)), "none of {words:?} is in {said:?}");
    ensure_eq!(said.trim().lines().count(), 1, "lines of {said:?}");
    Ok(())
}

/// Nothing is left of the refused start, and the container is as good as new.
fn starts_afresh(container: &Container<'_>) -> Outcome {
    ensure!(container.status()? != "running", "it runs");
    let lines = container.logs()?.lines().filter(|line| *line == "3").count();
    container.start()?;
    container.wait_for_lines(lines + 1, "3")?;
    container.come_back("sound")?;
    container.wait_for_counting(3)?;
    container.rm()
}

/// What Docker keeps is the whole image, as it is where the node does without a store.
fn all_of_it(docker: &Docker<'_>) -> Outcome {
    docker.bench.set_node_file("[store]\ndata = \"client\"\n")
}

/// Makes a checkpoint, spoils it, and expects that nobody can start from it.
fn spoiled(docker: &Docker<'_>, words: &[&str], spoil: impl FnOnce(&Path) -> Outcome) -> Outcome {
    all_of_it(docker)?;
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    spoil(&container.checkpoint_folder("one"))?;
    is_a_sentence(&container.start_refusal("one")?, words)?;
    starts_afresh(&container)
}

fn part(folder: &Path, prefix: &str) -> Outcome<PathBuf> {
    let parts = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let wanted =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    parts.into_iter().find(wanted).ok_or_else(|| Failure::new(format!("there is no {prefix}")))
}

/// Changes bytes in the middle of a part of an image.
fn damage(folder: &Path, prefix: &str) -> Outcome {
    let path = part(folder, prefix)?;
    let mut bytes = fs::read(&path)?;
    let middle = bytes.len() / 2;
    bytes[middle..].iter_mut().take(16).for_each(|byte| *byte ^= 0xff);
    Ok(fs::write(path, bytes)?)
}

const DAMAGED: [&str; 3] = ["changed since", "damaged", "is not what"];

fn a_checkpoint_that_is_not_there_is_named(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    is_a_sentence(&container.start_refusal("other")?, &["checkpoint other does not exist"])?;
    starts_afresh(&container)
}

fn a_truncated_checkpoint_is_refused(docker: &Docker<'_>) -> Outcome {
    spoiled(docker, &DAMAGED, |folder| {
        let path = part(folder, "pages-")?;
        let bytes = fs::read(&path)?;
        Ok(fs::write(path, &bytes[..bytes.len() / 2])?)
    })
}

fn a_missing_part_is_named(docker: &Docker<'_>) -> Outcome {
    spoiled(docker, &["pstree.img"], |folder| Ok(fs::remove_file(folder.join("pstree.img"))?))
}

fn a_damaged_inventory_is_refused(docker: &Docker<'_>) -> Outcome {
    spoiled(docker, &DAMAGED, |folder| damage(folder, "inventory.img"))
}

fn a_damaged_process_is_refused(docker: &Docker<'_>) -> Outcome {
    spoiled(docker, &DAMAGED, |folder| damage(folder, "core-"))
}

fn an_empty_checkpoint_is_refused(docker: &Docker<'_>) -> Outcome {
    spoiled(docker, &["holds no checkpoint"], |folder| {
        fs::remove_dir_all(folder)?;
        Ok(fs::create_dir(folder)?)
    })
}

fn a_missing_folder_of_the_host_is_named(docker: &Docker<'_>) -> Outcome {
    let folder = docker.bench.fresh_folder("bound")?;
    let mount = format!("type=bind,source={},target=/data", folder.display());
    let container = counting(docker, &["--mount", &mount])?;
    container.checkpoint("one")?;
    fs::remove_dir(&folder)?;
    is_a_sentence(&container.start_refusal("one")?, &[&folder.display().to_string()])?;
    fs::create_dir(&folder)?;
    container.start_from("one")?;
    container.is_well()?;
    container.rm()
}

fn another_root_filesystem_is_refused(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.copy("one")?;
    // The same image without the program.
    let changed = docker.run(&[], &["rm", "/bin/guest"])?;
    changed.wait()?;
    let image = format!("{}-changed", container.name);
    docker.call(&["commit", &changed.name, &image])?;
    let name = docker.bench.next_id();
    let runtime = docker.bench.runtime().binary();
    let id = docker.call(&["create", "--name", &name, "--runtime", runtime, &image, "sleep", "1000"])?;
    let other = Container::new(docker, name, id.trim().to_owned());
    container.hand_over("one", &other)?;
    is_a_sentence(&other.start_refusal("one")?, &["bin/guest"])?;
    other.start()?;
    ensure_eq!(other.status()?, "running", "after a start without the checkpoint");
    other.rm()?;
    container.is_well()?;
    container.rm()
}

fn a_link_in_a_checkpoint_is_not_followed(docker: &Docker<'_>) -> Outcome {
    let outside = docker.bench.fresh_folder("elsewhere")?.join("secret");
    spoiled(docker, &["link", "regular file", "not a file"], |folder| {
        let path = part(folder, "core-")?;
        fs::rename(&path, &outside)?;
        Ok(symlink(&outside, path)?)
    })?;
    ensure!(outside.exists(), "what the link leads to is gone");
    Ok(())
}

fn a_checkpoint_of_somebody_else_is_refused(docker: &Docker<'_>) -> Outcome {
    spoiled(docker, &["owner", "root's", "belongs to"], |folder| {
        docker.bench.shell("chown -R 1000:1000 \"$1\"", &[folder]).map(drop)
    })
}

fn a_checkpoint_that_others_may_change_is_refused(docker: &Docker<'_>) -> Outcome {
    spoiled(docker, &["others may change"], |folder| {
        // Files too: Docker 26 sends those to containerd, and the folder's mode gets lost.
        docker.bench.shell("chmod -R go+w \"$1\"", &[folder]).map(drop)
    })
}

fn a_checkpoint_of_the_same_name_is_refused(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.copy("one")?;
    let said = container.checkpoint_refusal("one")?;
    is_a_sentence(&said, &["already exists"])?;
    container.is_well()?;
    container.come_back("two")?;
    container.rm()
}

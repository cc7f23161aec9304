//! What a container has changed in its root file system, where Docker gives it another one.

use super::kept::{cryo, entries};
use super::{counting, names};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let all = vec![
        docker_scenario!(dockers_own_checkpoints_carry_no_files),
        docker_scenario!(a_copy_has_the_files_that_its_original_had_changed),
        docker_scenario!(files_are_for_containers_of_the_same_image),
        docker_scenario!(the_nodes_owner_has_files_carried_for_all),
    ];
    let without = "the stock shim leaves files to Docker";
    all.into_iter().map(|scenario| scenario.comes_back().cryo_only(without)).collect()
}

const KEEP: [&str; 2] = ["--annotation", "cryo.rootfs=keep"];
const WRITE: &str = "echo text >/file; echo more >>/etc/passwd; rm /bin/wget";
const LOOK: &str = "cat /file; tail -n 1 /etc/passwd; ls /bin/wget 2>/dev/null || true";
const FOUND: &str = "text\nmore\n";

/// They are in the container's own snapshot, which stays as it is.
fn dockers_own_checkpoints_carry_no_files(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.shell(WRITE)?;
    container.checkpoint("one")?;
    ensure!(!entries(&container)?[0].join("rootfs-diff.tar").exists(), "they are in the store");
    container.start_from("one")?;
    ensure_eq!(container.shell(LOOK)?, FOUND, "files");
    container.rm()
}

fn a_copy_has_the_files_that_its_original_had_changed(docker: &Docker<'_>) -> Outcome {
    docker.bench.set_node_file("restore_from = [\"/var/lib/cryo/store\"]\n")?;
    let first = counting(docker, &KEEP)?;
    first.shell(WRITE)?;
    first.copy("one")?;
    let entry = entries(&first)?.remove(0);
    ensure!(entry.join("rootfs-diff.tar").exists(), "they aren't in the store");
    let id = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
    cryo(docker, &["store", "name", &id, "warm"])?;
    ensure!(cryo(docker, &["store", "verify", "warm"])?.contains("good"), "it isn't good");
    first.shell("echo later >/file")?;
    let second = docker.create(&[], &["guest", "count"])?;
    first.hand_over("one", &second)?;
    second.start_from("one")?;
    let third = docker.run(&["--annotation", "cryo.restore-from=warm"], &["true"])?;
    for copy in [&second, &third] {
        copy.wait_for_counting(3)?;
        ensure_eq!(copy.shell(LOOK)?, FOUND, "files of a copy");
    }
    ensure_eq!(first.shell("cat /file")?, "later\n", "the original's file");
    // Each start of it begins at the checkpoint again.
    third.shell("echo own >/file")?;
    third.call(&["kill"])?;
    third.wait_for_status("exited")?;
    third.start()?;
    ensure_eq!(third.shell(LOOK)?, FOUND, "files after another start");
    // In its own container nothing is put back.
    first.call(&["kill"])?;
    first.wait_for_status("exited")?;
    first.start_from("one")?;
    ensure_eq!(first.shell("cat /file")?, "later\n", "the original's file");
    for container in [first, second, third] {
        container.rm()?;
    }
    Ok(())
}

fn files_are_for_containers_of_the_same_image(docker: &Docker<'_>) -> Outcome {
    let first = counting(docker, &KEEP)?;
    first.shell(WRITE)?;
    first.copy("one")?;
    docker.call(&["commit", &first.name, "another:1"])?;
    let runtime = docker.bench.runtime().binary();
    let other = docker.call(&["create", "--runtime", runtime, "another:1", "guest", "count"])?;
    let other = Container::new(docker, other.trim().to_owned(), other.trim().to_owned());
    first.hand_over("one", &other)?;
    let refusal = other.start_refusal("one")?;
    names(&refusal, &["changes of another image", "cryo.rootfs=leave"])?;
    other.rm()?;
    first.rm()?;
    docker.call(&["image", "prune", "--force"])?;
    docker.call(&["image", "rm", "another:1"]).map(drop)
}

fn the_nodes_owner_has_files_carried_for_all(docker: &Docker<'_>) -> Outcome {
    docker.bench.set_node_file("[defaults]\nrootfs = \"keep\"\n")?;
    let first = counting(docker, &[])?;
    first.shell(WRITE)?;
    first.checkpoint("one")?;
    let second = docker.create(&[], &["guest", "count"])?;
    first.hand_over("one", &second)?;
    second.start_from("one")?;
    ensure_eq!(second.shell(LOOK)?, FOUND, "files of a copy");
    second.rm()?;
    first.rm()
}

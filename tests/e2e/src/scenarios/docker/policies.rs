//! What containers may ask for, and what the node's owner says to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{counting, names, ready};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(an_annotation_that_nobody_knows_is_refused),
        docker_scenario!(what_the_owner_does_not_allow_is_refused),
        docker_scenario!(the_owners_defaults_hold_for_those_who_say_nothing),
        docker_scenario!(a_broken_node_file_is_in_nobodys_way),
        docker_scenario!(a_larger_deleted_file_is_carried_along_if_asked_for),
        docker_scenario!(a_lock_that_is_not_to_be_kept_is_in_the_way),
        docker_scenario!(the_network_is_locked_by_either_firewall),
        docker_scenario!(whatever_is_done_with_cgroups_it_comes_back_into_its_own),
        docker_scenario!(a_container_starts_from_a_folder_that_is_allowed),
        docker_scenario!(a_folder_that_is_not_allowed_is_refused),
    ]
}

/// A container that isn't made: nothing of it runs, and it can be removed.
fn refused(docker: &Docker<'_>, annotation: &str, words: &[&str]) -> Outcome {
    let container = docker.create(&["--annotation", annotation], &["guest", "count"])?;
    names(&docker.refusal(&["start", &container.name])?, words)?;
    ensure!(container.status()? != "running", "it runs");
    container.rm()
}

fn an_annotation_that_nobody_knows_is_refused(docker: &Docker<'_>) -> Outcome {
    refused(docker, "cryo.tpc=close", &["annotation cryo.tpc", "cryo.tcp"])?;
    refused(docker, "cryo.timeout=soon", &["cryo.timeout=\"soon\"", "90s"])?;
    refused(docker, "cryo.ghost-limit=", &["cryo.ghost-limit=\"\"", "64M"])
}

fn what_the_owner_does_not_allow_is_refused(docker: &Docker<'_>) -> Outcome {
    let profile = "cryo.lsm-profile=apparmor:unconfined";
    refused(docker, profile, &["allow = [\"cryo.lsm-profile\"]", "/etc/cryo/config.toml"])?;
    refused(docker, "cryo.ghost-limit=2G", &["cryo.ghost-limit", "1G at most"])?;
    docker.bench.set_node_file("deny = [\"cryo.tcp\"]\n[limits]\ntimeout = \"1m\"")?;
    refused(docker, "cryo.tcp=established", &["cryo.tcp", "doesn't allow"])?;
    refused(docker, "cryo.timeout=61s", &["cryo.timeout", "1m at most"])
}

fn the_owners_defaults_hold_for_those_who_say_nothing(docker: &Docker<'_>) -> Outcome {
    docker.bench.set_node_file("[defaults]\ntcp = \"established\"")?;
    let container = ready(docker, &[], &["connected"])?;
    container.come_back("one")?;
    container.asks(1, "passed")?;
    // Read anew each time.
    docker.bench.set_node_file("")?;
    names(&container.checkpoint_refusal("two")?, &["open TCP connections"])?;
    container.rm()
}

fn a_broken_node_file_is_in_nobodys_way(docker: &Docker<'_>) -> Outcome {
    docker.bench.set_node_file("restore_form = [\"/\"]")?;
    let container = counting(docker, &[])?;
    container.come_back("one")?;
    container.is_well()?;
    container.rm()?;
    refused(docker, "cryo.restore-from=/tmp", &["/etc/cryo/config.toml", "restore_form"])
}

fn a_larger_deleted_file_is_carried_along_if_asked_for(docker: &Docker<'_>) -> Outcome {
    let ghost = ["ghost", "/tmp/file", &(65 << 20).to_string()];
    let container = ready(docker, &["--annotation", "cryo.ghost-limit=70M"], &ghost)?;
    container.come_back("one")?;
    container.asks(1, "same")?;
    container.rm()?;
    let container = ready(docker, &["--annotation", "cryo.ghost-limit=60M"], &ghost)?;
    names(&container.checkpoint_refusal("one")?, &["ghost"])?;
    container.asks(1, "same")?;
    container.rm()
}

fn a_lock_that_is_not_to_be_kept_is_in_the_way(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &["--annotation", "cryo.file-locks=false"], &["lock", "/tmp/file"])?;
    names(&container.checkpoint_refusal("one")?, &["lock"])?;
    container.rm()
}

fn the_network_is_locked_by_either_firewall(docker: &Docker<'_>) -> Outcome {
    for lock in ["cryo.network-lock=nftables", "cryo.network-lock=iptables"] {
        let options = ["--annotation", "cryo.tcp=established", "--annotation", lock];
        let container = ready(docker, &options, &["stream"])?;
        container.come_back("one")?;
        container.asks(1, "flows")?;
        container.copy("two")?;
        container.asks(2, "flows")?;
        container.rm()?;
    }
    let both = ["--annotation", "cryo.tcp=established", "--annotation", "cryo.network-lock=skip"];
    let container = docker.create(&both, &["guest", "connected"])?;
    names(&docker.refusal(&["start", &container.name])?, &["cryo.network-lock=skip", "cryo.tcp=close"])?;
    container.rm()
}

fn whatever_is_done_with_cgroups_it_comes_back_into_its_own(docker: &Docker<'_>) -> Outcome {
    docker.bench.set_node_file("allow = [\"cryo.cgroups\"]")?;
    // runc 1.1 doesn't know "ignore".
    for mode in ["soft", "full"] {
        let annotation = format!("cryo.cgroups={mode}");
        let container = counting(docker, &["--annotation", &annotation, "--memory", "64m"])?;
        container.come_back("one").during(|| annotation.clone())?;
        container.is_well()?;
        ensure_eq!(cgroup::processes(&container.cgroup()), [container.pid()?], "processes in its cgroup");
        ensure_eq!(cgroup::memory_limit(&container.cgroup())?, 64 << 20, "its memory limit");
        container.rm()?;
    }
    Ok(())
}

/// A copy of the checkpoint of a container that counts, in a folder of the owner's.
pub(super) fn stored(docker: &Docker<'_>, first: &Container<'_>) -> Outcome<PathBuf> {
    let store = docker.bench.fresh_folder("store")?;
    first.copy("one")?;
    let image = store.join("counter");
    docker.bench.shell("cp -a \"$1\" \"$2\"", &[&first.checkpoint_folder("one"), &image])?;
    fs::set_permissions(&image, fs::Permissions::from_mode(0o700))?;
    Ok(image)
}

pub(super) fn allow(docker: &Docker<'_>, folder: &Path) -> Outcome {
    docker.bench.set_node_file(&format!("restore_from = [{folder:?}]"))
}

fn a_container_starts_from_a_folder_that_is_allowed(docker: &Docker<'_>) -> Outcome {
    let first = counting(docker, &[])?;
    let image = stored(docker, &first)?;
    allow(docker, image.parent().unwrap_or(&image))?;
    let from = format!("cryo.restore-from={}", image.display());
    for _ in 0..2 {
        let copy = docker.run(&["--annotation", &from], &["true"])?;
        copy.wait_for_counting(3)?;
        ensure!(*copy.counted()?.start() > 1, "it begins afresh");
        // Each start begins at the checkpoint again.
        copy.call(&["kill"])?;
        copy.wait_for_status("exited")?;
        let lines = copy.logs()?.lines().count();
        copy.start()?;
        eventually("it counts again", || (copy.logs().ok()?.lines().count() > lines + 3).then_some(()))?;
        ensure_eq!(copy.exec(&["echo", "well"])?, "well\n", "what an exec prints");
        copy.rm()?;
    }
    first.is_well()?;
    first.rm()
}

fn a_folder_that_is_not_allowed_is_refused(docker: &Docker<'_>) -> Outcome {
    let first = counting(docker, &[])?;
    let image = stored(docker, &first)?;
    let from = format!("cryo.restore-from={}", image.display());
    refused(docker, &from, &["cryo.restore-from", "doesn't allow", "/etc/cryo/config.toml"])?;
    allow(docker, &image.join("below"))?;
    refused(docker, &from, &["doesn't allow"])?;
    allow(docker, image.parent().unwrap_or(&image))?;
    fs::set_permissions(&image, fs::Permissions::from_mode(0o755))?;
    refused(docker, &from, &["chmod 700"])?;
    refused(docker, &format!("{from}/../counter"), &["without '..'"])?;
    refused(docker, &format!("{from}-gone"), &["no such folder"])?;
    refused(docker, "cryo.restore-from=counter", &["doesn't allow restores from its store"])?;
    refused(docker, "cryo.restore-from=./counter", &["absolute path"])?;
    first.rm()
}

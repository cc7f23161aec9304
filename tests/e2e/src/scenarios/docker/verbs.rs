//! `cryo checkpoint` and `cryo restore` with Docker's containers.

use serde_json::Value;

use super::counting;
use crate::harness::cryo::{cryo, cryo_prints, cryo_refuses};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ours = "the stock shim has no store";
    let all = vec![
        docker_scenario!(a_container_of_dockers_runs_on_after_its_checkpoint),
        docker_scenario!(a_container_of_dockers_that_ended_goes_on),
        docker_scenario!(a_container_on_cryos_own_name_goes_on),
        docker_scenario!(a_restart_policy_waits_for_the_restore),
        docker_scenario!(what_docker_has_to_do_itself_is_said),
        docker_scenario!(a_checkpoint_of_dockers_own_goes_on_as_well),
    ];
    all.into_iter().map(|scenario| scenario.comes_back().cryo_only(ours)).collect()
}

/// A store of this trial's own, from which containers may start.
fn own_store(docker: &Docker<'_>) -> Outcome {
    let store = docker.bench.fresh_folder("store")?;
    docker.bench.set_node_file(&format!("restore_from = [{store:?}]\n[store]\npath = {store:?}\n"))
}

fn shown(container: &Container<'_>) -> Outcome<String> {
    let filter = format!("name={}", container.name);
    container.docker.call(&["ps", "--all", "--filter", &filter, "--format", "{{.Status}}"])
}

fn a_container_of_dockers_runs_on_after_its_checkpoint(docker: &Docker<'_>) -> Outcome {
    own_store(docker)?;
    let container = counting(docker, &[])?;
    let pid = container.pid()?;
    let said = cryo(docker.bench, &["checkpoint", &container.name, "one"])?;
    ensure_eq!((said.status, said.out.as_str()), (0, "one\n"), "what is said");
    let status = shown(&container)?;
    ensure!(status.starts_with("Up ") && !status.contains("Paused"), "{status}");
    ensure_eq!(container.pid()?, pid, "its process");
    container.wait_for_counting(3)?;
    container.counted()?;
    ensure_eq!(
        docker.call(&["checkpoint", "ls", &container.name])?.lines().count(),
        1,
        "Docker's own checkpoints"
    );
    let name = cryo_prints(docker.bench, &["checkpoint", &container.name])?;
    ensure!(name.starts_with(&format!("{}-2", container.name)), "{name}");
    let said = cryo_refuses(docker.bench, &["restore", "one"])?;
    ensure!(said.contains("is running") && said.contains("docker kill"), "{said}");
    container.rm()
}

/// Ends it, and has it go on, twice from the same checkpoint.
fn goes_on(docker: &Docker<'_>, container: &Container<'_>) -> Outcome {
    let said = cryo(docker.bench, &["checkpoint", "--exit", &container.name, "one"])?;
    ensure!(said.status == 0 && said.errors.contains("it was stopped"), "{}", said.errors);
    container.wait_for_status("exited")?;
    ensure!(shown(container)?.starts_with("Exited (137)"), "{}", shown(container)?);
    for round in 0..2 {
        let said = cryo(docker.bench, &["restore", "one"])?;
        ensure!(said.status == 0 && said.out.trim() == container.id, "{}", said.errors);
        ensure_eq!(container.status()?, "running", "its state right after");
        container.wait_for_counting(3)?;
        if round == 0 {
            container.counted()?;
        }
        ensure!(container.exec(&["cat", "/etc/hostname"])?.trim().len() == 12, "it has no name");
        container.call(&["kill"])?;
        container.wait_for_status("exited")?;
    }
    // Docker has seen a checkpoint for that long only.
    ensure_eq!(
        docker.call(&["checkpoint", "ls", &container.name])?.lines().count(),
        1,
        "Docker's own checkpoints"
    );
    cryo_prints(docker.bench, &["store", "verify", "one"])?;
    Ok(())
}

fn a_container_of_dockers_that_ended_goes_on(docker: &Docker<'_>) -> Outcome {
    own_store(docker)?;
    let container = counting(docker, &[])?;
    goes_on(docker, &container)?;
    // And afresh, as ever.
    container.start()?;
    container.wait_for_lines(2, "1")?;
    container.rm()
}

fn a_container_on_cryos_own_name_goes_on(docker: &Docker<'_>) -> Outcome {
    own_store(docker)?;
    let container = counting(docker, &["--runtime", "cryo"])?;
    goes_on(docker, &container)?;
    container.rm()
}

fn a_restart_policy_waits_for_the_restore(docker: &Docker<'_>) -> Outcome {
    own_store(docker)?;
    let container = counting(docker, &["--restart", "always"])?;
    cryo_prints(docker.bench, &["checkpoint", "--exit", &container.name, "one"])?;
    container.wait_for_status("exited")?;
    holds_for(std::time::Duration::from_secs(1), "it stays stopped", || Ok(container.status()? == "exited"))?;
    cryo_prints(docker.bench, &["restore", "one"])?;
    container.wait_for_counting(3)?;
    container.counted()?;
    container.rm()
}

fn what_docker_has_to_do_itself_is_said(docker: &Docker<'_>) -> Outcome {
    own_store(docker)?;
    let container = counting(docker, &[])?;
    cryo_prints(docker.bench, &["checkpoint", "--exit", &container.name, "one"])?;
    container.wait_for_status("exited")?;
    let command = "docker run -d --annotation cryo.restore-from=one";
    let said = cryo_refuses(docker.bench, &["restore", "one", "--id", "other"])?;
    ensure!(said.contains(command), "{said}");
    container.rm()?;
    let said = cryo_refuses(docker.bench, &["restore", "one"])?;
    ensure!(said.contains("any longer") && said.contains("cryo.restore-from=one"), "{said}");
    // As it says.
    let other = docker.run(&["--annotation", "cryo.restore-from=one"], &["guest", "count"])?;
    other.wait_for_counting(3)?;
    ensure!(!other.logs()?.starts_with("1\n"), "it begins afresh");
    other.rm()
}

fn a_checkpoint_of_dockers_own_goes_on_as_well(docker: &Docker<'_>) -> Outcome {
    own_store(docker)?;
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    let text = cryo_prints(docker.bench, &["ls", "--json"])?;
    let all: Vec<Value> = serde_json::from_str(&text).during(|| text.clone())?;
    let id = all[0]["id"].as_str().unwrap_or_default();
    cryo_prints(docker.bench, &["restore", id])?;
    container.wait_for_counting(3)?;
    container.counted()?;
    container.call(&["kill"])?;
    container.wait_for_status("exited")?;
    container.start_from("one")?;
    container.wait_for_counting(3)?;
    container.rm()
}

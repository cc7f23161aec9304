//! Checkpoints made, listed, removed, and started from.

use super::{counting, ready};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(checkpoints_are_listed_until_they_are_removed),
        docker_scenario!(a_checkpoint_may_leave_it_running),
        docker_scenario!(a_checkpoint_ends_it_otherwise),
        docker_scenario!(it_counts_on_from_a_checkpoint).comes_back(),
        docker_scenario!(a_checkpoint_can_be_started_from_at_once).comes_back(),
        docker_scenario!(a_checkpoint_can_be_started_from_ten_times).comes_back(),
        docker_scenario!(checkpoints_may_follow_each_other_at_once).comes_back(),
        docker_scenario!(five_generations_count_on).comes_back(),
        docker_scenario!(memory_comes_back).comes_back(),
        docker_scenario!(all_processes_come_back).comes_back(),
        docker_scenario!(it_may_start_afresh_although_there_is_a_checkpoint),
        docker_scenario!(a_changed_root_filesystem_is_found_again).comes_back(),
        docker_scenario!(a_paused_container_comes_back_running).comes_back(),
        docker_scenario!(under_our_own_name_it_comes_back_too).comes_back(),
        docker_scenario!(two_names_of_one_shim_work_side_by_side).comes_back(),
    ]
}

fn checkpoints_are_listed_until_they_are_removed(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    let listed = || -> Outcome<Vec<String>> {
        Ok(container.call(&["checkpoint", "ls"])?.split_whitespace().skip(2).map(str::to_owned).collect())
    };
    ensure_eq!(listed()?, [""; 0], "before");
    container.copy("one")?;
    container.copy("two")?;
    ensure_eq!(listed()?, ["one", "two"], "the checkpoints");
    docker.call(&["checkpoint", "rm", &container.name, "one"])?;
    ensure_eq!(listed()?, ["two"], "after one was removed");
    ensure!(!container.checkpoint_folder("one").exists(), "its folder is still there");
    container.is_well()?;
    container.rm()
}

fn a_checkpoint_may_leave_it_running(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    let pid = container.pid()?;
    container.copy("one")?;
    ensure_eq!(container.pid()?, pid, "the pid");
    ensure_eq!(container.inspect(".State.Paused")?, "false", "whether it is paused");
    container.is_well()?;
    container.rm()
}

fn a_checkpoint_ends_it_otherwise(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    ensure_eq!(container.inspect(".State.ExitCode")?, "137", "the exit code");
    ensure_eq!(container.pid()?, 0, "the pid");
    ensure_eq!(container.inspect(".State.Paused")?, "false", "whether it is paused");
    ensure_eq!(container.inspect(".State.OOMKilled")?, "false", "whether memory was the reason");
    ensure_eq!(container.wait()?, 137, "what wait says");
    let all = docker.call(&["ps", "--all", "--format", "{{.Status}}"])?;
    ensure!(all.starts_with("Exited (137)"), "docker ps says {all:?}");
    container.rm()
}

fn it_counts_on_from_a_checkpoint(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    let before = container.counted()?;
    container.start_from("one")?;
    ensure_eq!(container.status()?, "running", "after the start");
    let pid = container.pid()?;
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    ensure!(command.starts_with("guest\0count"), "the pid is that of {command:?}");
    ensure_eq!(container.inspect(".State.ExitCode")?, "0", "the exit code");
    container.wait_for_counting(3)?;
    ensure!(container.counted()?.end() > before.end(), "it doesn't count on");
    container.is_well()?;
    container.rm()
}

fn a_checkpoint_can_be_started_from_at_once(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    docker.call(&["checkpoint", "create", &container.name, "one"])?;
    // Docker still shows it as paused for a moment, and refuses before that.
    eventually("it has started", || container.start_from("one").ok())?;
    container.is_well()?;
    container.rm()
}

fn a_checkpoint_can_be_started_from_ten_times(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &[], &["heap", "4"])?;
    container.checkpoint("one")?;
    for time in 1..=10 {
        container.start_from("one")?;
        container.asks(time, "same")?;
        container.call(&["kill"])?;
        container.wait_for_status("exited")?;
    }
    container.rm()
}

fn checkpoints_may_follow_each_other_at_once(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    for name in ["one", "two", "three", "four", "five"] {
        container.copy(name)?;
    }
    container.come_back("six")?;
    container.is_well()?;
    container.rm()
}

fn five_generations_count_on(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    for generation in ["one", "two", "three", "four", "five"] {
        container.come_back(generation)?;
        container.wait_for_counting(3)?;
    }
    container.is_well()?;
    container.rm()
}

fn memory_comes_back(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &[], &["heap", "64"])?;
    container.come_back("one")?;
    container.asks(1, "same")?;
    container.rm()
}

fn all_processes_come_back(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &[], &["tree", "20"])?;
    container.come_back("one")?;
    container.asks(1, "alive 20")?;
    ensure_eq!(container.call(&["top"])?.lines().count(), 22, "lines of docker top");
    container.rm()
}

fn it_may_start_afresh_although_there_is_a_checkpoint(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    container.start()?;
    container.wait_for_lines(2, "3")?;
    container.rm()
}

fn a_changed_root_filesystem_is_found_again(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.shell("echo changed >/etc/motd")?;
    container.come_back("one")?;
    ensure_eq!(container.exec(&["cat", "/etc/motd"])?, "changed\n", "the file");
    container.rm()
}

fn a_paused_container_comes_back_running(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.call(&["pause"])?;
    container.come_back("one")?;
    container.is_well()?;
    container.rm()
}

/// Docker tells a shim of any other name nothing about the end of a checkpoint.
fn under_our_own_name_it_comes_back_too(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--runtime", "cryo"])?;
    container.come_back("one")?;
    container.is_well()?;
    container.rm()
}

fn two_names_of_one_shim_work_side_by_side(docker: &Docker<'_>) -> Outcome {
    let ours = counting(docker, &["--runtime", "cryo"])?;
    let in_place = counting(docker, &[])?;
    for container in [&ours, &in_place] {
        container.come_back("one")?;
    }
    for container in [&ours, &in_place] {
        container.is_well()?;
        container.rm()?;
    }
    Ok(())
}

//! dockerd and containerd end and start again, and containers don't mind.

use std::thread;

use nix::sys::signal::Signal;

use super::{back, counting};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(dockerd_may_restart_before_a_checkpoint),
        docker_scenario!(a_restarted_dockerd_stops_what_the_annotation_does_not_spare),
        docker_scenario!(dockerd_may_restart_between_checkpoint_and_restore),
        docker_scenario!(dockerd_may_restart_after_a_restore),
        docker_scenario!(containerd_may_restart_between_checkpoint_and_restore),
        docker_scenario!(containerd_may_restart_after_a_restore),
        docker_scenario!(an_exit_while_dockerd_is_away_is_told_afterwards),
        docker_scenario!(dockerd_may_be_killed_during_a_checkpoint),
        docker_scenario!(dockerd_may_be_killed_during_a_checkpoint_that_leaves_it_running),
        docker_scenario!(dockerd_may_be_killed_during_a_restore),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

const BOTH: [Signal; 2] = [Signal::SIGTERM, Signal::SIGKILL];

fn dockerd_may_restart_before_a_checkpoint(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    docker.restart(Signal::SIGTERM, &[&container])?;
    container.is_well()?;
    container.come_back("one")?;
    container.is_well()?;
    container.rm()
}

/// Then it sends no options any more, whatever is asked of it.
fn a_restarted_dockerd_stops_what_the_annotation_does_not_spare(docker: &Docker<'_>) -> Outcome {
    let spared = counting(docker, &["--annotation", "cryo.checkpoint.exit=false"])?;
    let stopped = counting(docker, &[])?;
    docker.restart(Signal::SIGKILL, &[&spared, &stopped])?;
    spared.copy("one")?;
    spared.is_well()?;
    stopped.ask_for_copy("one")?;
    stopped.wait_for_status("exited")?;
    ensure_eq!(stopped.inspect(".State.ExitCode")?, "137", "the exit code");
    // Nothing is lost, and it is as it should be once it is back.
    stopped.start_from("one")?;
    stopped.copy("two")?;
    for container in [spared, stopped] {
        container.is_well()?;
        container.rm()?;
    }
    Ok(())
}

fn dockerd_may_restart_between_checkpoint_and_restore(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    for (signal, name) in BOTH.into_iter().zip(["one", "two"]) {
        container.checkpoint(name)?;
        docker.restart(signal, &[])?;
        ensure_eq!(container.status()?, "exited", "after {signal}");
        container.start_from(name)?;
        container.is_well()?;
    }
    container.rm()
}

fn dockerd_may_restart_after_a_restore(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    for (signal, name) in BOTH.into_iter().zip(["two", "three"]) {
        let pid = container.pid()?;
        docker.restart(signal, &[&container])?;
        ensure_eq!(container.pid()?, pid, "its pid after {signal}");
        container.is_well()?;
        container.come_back(name)?;
        container.is_well()?;
    }
    container.rm()
}

/// dockerd connects to containerd again by itself.
fn restart_containerd(docker: &Docker<'_>, signal: Signal) -> Outcome {
    docker.bench.restart_containerd(signal)?;
    let can_run = || docker.output_of(&["--network", "none"], &["true"]).ok();
    eventually("dockerd has found containerd", can_run).map(drop)
}

fn containerd_may_restart_between_checkpoint_and_restore(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    for (signal, name) in BOTH.into_iter().zip(["one", "two"]) {
        container.checkpoint(name)?;
        restart_containerd(docker, signal)?;
        container.start_from(name)?;
        container.is_well()?;
    }
    container.rm()
}

fn containerd_may_restart_after_a_restore(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    for (signal, name) in BOTH.into_iter().zip(["two", "three"]) {
        restart_containerd(docker, signal)?;
        container.is_well()?;
        container.come_back(name)?;
        container.is_well()?;
    }
    container.rm()
}

fn an_exit_while_dockerd_is_away_is_told_afterwards(docker: &Docker<'_>) -> Outcome {
    let container = super::ready(docker, &[], &["signals"])?;
    container.come_back("one")?;
    let pid = container.pid()?;
    docker.stop(Signal::SIGKILL)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGTERM)?;
    eventually("it has ended", || cgroup::processes(&container.cgroup()).is_empty().then_some(()))?;
    docker.start()?;
    container.wait_for_status("exited")?;
    ensure_eq!(container.inspect(".State.ExitCode")?, "42", "the exit code");
    container.start_from("one")?;
    container.rm()
}

/// Kills dockerd while CRIU waits before its door, and lets it in afterwards.
fn dockerd_dies_during(docker: &Docker<'_>, args: &[&str]) -> Outcome {
    let gate = Gate::before_criu(docker.bench)?;
    thread::scope(|scope| {
        scope.spawn(|| drop(docker.try_call(args)));
        let arrived = gate.wait_for_arrival();
        docker.stop(Signal::SIGKILL)?;
        gate.open()?;
        arrived
    })?;
    docker.start()
}

/// dockerd's client of containerd pauses a container around a checkpoint; one that was
/// killed in between leaves it so.
fn goes_on(container: &Container<'_>) -> Outcome {
    if container.status()? == "paused" {
        container.call(&["unpause"])?;
    }
    container.is_well()
}

fn dockerd_may_be_killed_during_a_checkpoint(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    dockerd_dies_during(docker, &["checkpoint", "create", &container.name, "one"])?;
    // Ended by a finished dump, or still there: both are whole.
    let ended = || container.status().ok().filter(|status| status == "exited");
    if eventually("it is ended", ended).is_err() {
        goes_on(&container)?;
        container.call(&["kill"])?;
        container.wait_for_status("exited")?;
    }
    container.start()?;
    container.wait_for_lines(2, "3")?;
    container.come_back("two")?;
    container.wait_for_counting(3)?;
    container.rm()
}

fn dockerd_may_be_killed_during_a_checkpoint_that_leaves_it_running(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    let pid = container.pid()?;
    dockerd_dies_during(docker, &["checkpoint", "create", "--leave-running", &container.name, "one"])?;
    ensure_eq!(container.pid()?, pid, "its pid");
    goes_on(&container)?;
    container.come_back("two")?;
    container.is_well()?;
    container.rm()
}

fn dockerd_may_be_killed_during_a_restore(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    container.checkpoint("one")?;
    dockerd_dies_during(docker, &["start", "--checkpoint", "one", &container.name])?;
    let settled = || container.status().ok().filter(|status| status == "running" || status == "exited");
    if eventually("it is settled", settled)? == "running" {
        container.is_well()?;
        return container.rm();
    }
    // Whichever shim serves it: a task that started unseen runs without Docker's knowing, and
    // `docker start` takes its end for its successor's. So it has to end before.
    let tasks = docker.bench.api().in_namespace("moby");
    let is_over = || tasks.state(&container.id, "").map_or(true, |task| task.status() != Status::Created);
    eventually("the restore is over", || is_over().then_some(()))?;
    if tasks.kill(&container.id, "", Signal::SIGKILL as u32, true).is_ok() {
        eventually("the forgotten task is gone", || tasks.state(&container.id, "").is_err().then_some(()))?;
    }
    // It may have been back for a moment, and said what it says again now.
    container.start_from("one")?;
    let lines = || container.logs().map_or(0, |logs| logs.lines().count());
    let before = lines();
    eventually("it counts", || (lines() > before + 3).then_some(()))?;
    ensure_eq!(container.exec(&["echo", "well"])?, "well\n", "what an exec prints");
    container.rm()
}

//! A container comes back into a cgroup of its own with the limits it was given.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::{back, counting};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(limits_of_its_cgroup_are_its_own),
        docker_scenario!(limits_changed_before_are_the_changed_ones),
        docker_scenario!(limits_of_its_processes_are_the_same),
        docker_scenario!(descriptors_on_their_way_are_named),
        docker_scenario!(a_memory_limit_ends_it_still),
        docker_scenario!(a_cgroup_namespace_of_the_host_or_its_own_comes_back),
        docker_scenario!(it_becomes_healthy_again),
        docker_scenario!(its_health_may_be_asked_for_all_the_time),
        docker_scenario!(an_out_of_memory_score_comes_back),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

fn limits_of_its_cgroup_are_its_own(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &["--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"])?;
    let own = container.cgroup();
    ensure!(cgroup::processes(&own).contains(&container.pid()?), "it isn't in {own}");
    ensure_eq!(cgroup::memory_limit(&own)?, 64 << 20, "the memory limit");
    ensure_eq!(cgroup::pids_limit(&own)?, 50, "the limit of processes");
    ensure_eq!(cgroup::cpu_limit(&own)?, 500, "the processor limit");
    container.is_well()?;
    container.rm()
}

fn limits_changed_before_are_the_changed_ones(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--memory", "64m"])?;
    container.call(&["update", "--memory", "80m", "--memory-swap", "80m", "--cpus", "0.4"])?;
    container.come_back("one")?;
    ensure_eq!(cgroup::memory_limit(&container.cgroup())?, 80 << 20, "the memory limit");
    ensure_eq!(cgroup::cpu_limit(&container.cgroup())?, 400, "the processor limit");
    container.rm()
}

fn limits_of_its_processes_are_the_same(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--ulimit", "nofile=999:1999", "--ulimit", "core=0"])?;
    let limits = || container.exec(&["cat", "/proc/1/limits"]);
    let before = limits()?;
    container.come_back("one")?;
    ensure_eq!(limits()?, before, "its limits");
    ensure_eq!(container.shell("ulimit -n")?, "999\n", "the limit of an added process");
    container.rm()
}

/// As the kernel counts them for each user: many checkpoints at once hand over many.
fn descriptors_on_their_way_are_named(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--ulimit", "nofile=40"])?;
    let (one, other) = UnixStream::pair()?;
    for _ in 0..50 {
        let passed = [ControlMessage::ScmRights(&[one.as_raw_fd()])];
        sendmsg::<()>(one.as_raw_fd(), &[IoSlice::new(b"x")], &passed, MsgFlags::empty(), None)?;
    }
    let refusal = container.checkpoint_refusal("one")?;
    ensure!(refusal.contains("limit of open files"), "{refusal}");
    container.is_well()?;
    drop((one, other));
    // Others may have some on their way.
    eventually("it is checkpointed", || container.checkpoint("one").ok())?;
    container.start_from("one")?;
    container.is_well()?;
    container.rm()
}

fn a_memory_limit_ends_it_still(docker: &Docker<'_>) -> Outcome {
    let options = ["--memory", "24m", "--memory-swap", "24m"];
    let container = super::ready(docker, &options, &["oom"])?;
    container.come_back("one")?;
    container.call(&["kill", "--signal", "USR1"])?;
    ensure_eq!(container.wait()?, 137, "the exit code");
    container.wait_for_status("exited")?;
    ensure_eq!(container.inspect(".State.OOMKilled")?, "true", "whether memory was the reason");
    container.rm()
}

fn a_cgroup_namespace_of_the_host_or_its_own_comes_back(docker: &Docker<'_>) -> Outcome {
    for kind in ["host", "private"] {
        let container = counting(docker, &["--cgroupns", kind])?;
        let line = if cgroup::is_v2() { "^0:" } else { ":pids:" };
        let view = || container.shell(&format!("grep {line} /proc/1/cgroup | cut -d : -f 3"));
        let before = view()?;
        container.come_back("one")?;
        ensure_eq!(view()?, before, "its view of a {kind} namespace");
        container.is_well()?;
        container.rm()?;
    }
    Ok(())
}

fn it_becomes_healthy_again(docker: &Docker<'_>) -> Outcome {
    let options = ["--health-cmd", "true", "--health-interval", "1s", "--health-start-interval", "200ms"];
    let container = counting(docker, &options)?;
    let healthy = || container.inspect(".State.Health.Status").ok().filter(|found| found == "healthy");
    eventually("it is healthy", healthy)?;
    container.come_back("one")?;
    ensure!(container.inspect(".State.Health.Status")? != "unhealthy", "it is unhealthy");
    eventually("it is healthy again", healthy)?;
    container.rm()
}

fn its_health_may_be_asked_for_all_the_time(docker: &Docker<'_>) -> Outcome {
    let asking = "touch /tmp/asked; sleep 0.9";
    let container = counting(docker, &["--health-cmd", asking, "--health-interval", "100ms"])?;
    let healthy = || container.inspect(".State.Health.Status").ok().filter(|found| found == "healthy");
    let is_asked = || -> Outcome {
        container.shell("rm -f /tmp/asked")?;
        eventually("it is being asked", || container.exec(&["test", "-e", "/tmp/asked"]).ok()).map(drop)
    };
    for round in ["one", "two"] {
        is_asked()?;
        container.copy(&format!("{round}-copy"))?;
        // Docker takes whoever is paused for unhealthy, until it has asked again.
        eventually("it is healthy after a copy", healthy)?;
        is_asked()?;
        container.come_back(round)?;
        eventually("it is healthy after it came back", healthy)?;
    }
    container.is_well()?;
    container.rm()
}

fn an_out_of_memory_score_comes_back(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &["--oom-score-adj", "321"])?;
    ensure_eq!(container.exec(&["cat", "/proc/1/oom_score_adj"])?, "321\n", "its score");
    container.rm()
}

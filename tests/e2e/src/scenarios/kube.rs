//! What a node of Kubernetes may rely on, through the CRI of an unmodified containerd.

mod annotated;
mod checkpoints;
mod confinement;
mod daemons;
mod execs;
mod faults;
mod figures;
mod handlers;
mod installs;
mod lives;
mod logs;
mod many;
mod pods;
mod sharing;
mod talks;
mod upgrades;
mod volumes;

use std::fs;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let areas = [
        pods::scenarios(),
        sharing::scenarios(),
        lives::scenarios(),
        execs::scenarios(),
        logs::scenarios(),
        figures::scenarios(),
        confinement::scenarios(),
        volumes::scenarios(),
        checkpoints::scenarios(),
        annotated::scenarios(),
        talks::scenarios(),
        many::scenarios(),
        upgrades::scenarios(),
        faults::scenarios(),
        handlers::scenarios(),
        installs::scenarios(),
        daemons::scenarios(),
    ];
    areas.into_iter().flatten().collect()
}

/// A container that has begun to count.
#[track_caller]
fn counting<'p, 'b>(pod: &'p Pod<'b>) -> Outcome<PodContainer<'p, 'b>> {
    let container = pod.run(&["count"])?;
    container.wait_for_counting(3)?;
    Ok(container)
}

/// A container whose guest says that it is ready.
#[track_caller]
fn ready<'p, 'b>(pod: &'p Pod<'b>, guest: &[&str]) -> Outcome<PodContainer<'p, 'b>> {
    let container = pod.run(guest)?;
    container.wait_for_line("ready")?;
    Ok(container)
}

/// A container that does what a script says.
fn script<'p, 'b>(pod: &'p Pod<'b>, script: &str) -> ContainerPlan<'p, 'b> {
    pod.container(&["/bin/sh", "-ec", script]).name("script")
}

/// The shims that were started for one of these.
fn shims_of(kubelet: Kubelet<'_>, ids: &[&str]) -> Vec<u32> {
    let mut shims = cgroup::processes(&kubelet.bench.slot.daemon_cgroup());
    shims.retain(|pid| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        ids.iter().any(|id| command.contains(&format!("\0-id\0{id}\0")))
    });
    shims
}

/// How many guests there are among the processes that a container sees.
#[track_caller]
fn guests_in(container: &PodContainer<'_, '_>) -> Outcome<usize> {
    Ok(container
        .shell("cat /proc/[0-9]*/comm 2>/dev/null || true")?
        .lines()
        .filter(|name| *name == "guest")
        .count())
}

/// A line of a process's status, without its name.
#[track_caller]
fn status_of(pid: u32, name: &str) -> Outcome<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    Ok(line.ok_or_else(|| Failure::new(format!("no {name} in the status of {pid}")))?.trim().to_owned())
}

//! Many rounds: nothing grows.

use std::fs;

use super::counting;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(fifty_rounds_leave_everything_as_small_as_five).long().comes_back(),
        docker_scenario!(a_shim_stays_small_over_thirty_checkpoints).long(),
    ]
}

#[derive(Debug)]
struct Size {
    descriptors: usize,
    memory_kib: u64,
    processes: usize,
    mounts: usize,
}

impl Size {
    /// Of the container's shim, and of all that runs and is mounted in the slot.
    fn of(container: &Container<'_>) -> Outcome<Self> {
        let shim = container.shim()?;
        let status = fs::read_to_string(format!("/proc/{shim}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = resident.and_then(|text| text.split_whitespace().next());
        Ok(Size {
            descriptors: fs::read_dir(format!("/proc/{shim}/fd"))?.count(),
            memory_kib: number.ok_or_else(|| Failure::new("a shim without memory"))?.parse()?,
            processes: cgroup::processes(&container.docker.bench.slot.daemon_cgroup()).len(),
            mounts: fs::read_to_string(format!("/proc/{shim}/mountinfo"))?.lines().count(),
        })
    }

    #[track_caller]
    fn is_no_bigger_than(&self, before: &Size) -> Outcome {
        let grown = self.descriptors > before.descriptors
            || self.processes > before.processes
            || self.mounts > before.mounts
            || self.memory_kib > before.memory_kib + before.memory_kib / 4;
        ensure!(!grown, "it was {before:?} and is {self:?}");
        Ok(())
    }
}

fn fifty_rounds_leave_everything_as_small_as_five(docker: &Docker<'_>) -> Outcome {
    stays_small(docker, 50, |container| container.come_back("round"))
}

fn a_shim_stays_small_over_thirty_checkpoints(docker: &Docker<'_>) -> Outcome {
    stays_small(docker, 30, |container| container.copy("round"))
}

fn stays_small(
    docker: &Docker<'_>,
    rounds: usize,
    checkpoint: impl Fn(&Container<'_>) -> Outcome,
) -> Outcome {
    let container = counting(docker, &[])?;
    let round = || -> Outcome {
        checkpoint(&container)?;
        docker.call(&["checkpoint", "rm", &container.name, "round"]).map(drop)
    };
    (0..5).try_for_each(|_| round())?;
    let before = Size::of(&container)?;
    (5..rounds).try_for_each(|_| round())?;
    container.is_well()?;
    // What works for the store in the background may end a moment later.
    let is_small = || Size::of(&container)?.is_no_bigger_than(&before);
    eventually("nothing has grown", || is_small().ok()).or_else(|_| is_small())?;
    container.rm()
}

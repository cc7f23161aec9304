//! containerd, shims and first containers that end in the middle of things.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::checkpoints::archive;
use super::{counting, ready, shims_of};
use crate::harness::cri::ContainerState;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let shared = "the stock shim is one for a pod";
    vec![
        kube_scenario!(containers_of_every_state_are_found_again),
        kube_scenario!(what_ended_meanwhile_is_told_afterwards)
            .cryo_only("containerd drops what the stock shim can't tell the processes of"),
        kube_scenario!(containerd_may_start_again_many_times),
        kube_scenario!(a_killed_shim_ends_its_container_alone).cryo_only(shared),
        kube_scenario!(a_container_whose_shim_was_killed_is_started_again).cryo_only(shared),
        kube_scenario!(a_pod_whose_first_container_ended_is_replaced)
            .cryo_only("the stock shim stays behind"),
        kube_scenario!(a_shim_of_a_container_from_an_archive_may_be_killed)
            .cryo_only("the stock shim leaves the container's cgroup")
            .impossible_if(
                |_, settings| settings.containerd < Version(2, 0),
                "the CRI of containerd 1 has no checkpoints",
            ),
        kube_scenario!(a_pod_goes_on_while_its_first_shim_is_gone).cryo_only(shared),
        kube_scenario!(shims_that_died_while_containerd_was_away_leave_nothing).cryo_only(shared),
    ]
}

fn end(pid: u32, signal: Signal) -> Outcome {
    Ok(kill(Pid::from_raw(pid as i32), signal)?)
}

#[track_caller]
fn kill_shims(kubelet: Kubelet<'_>, ids: &[&str]) -> Outcome {
    let shims = shims_of(kubelet, ids);
    ensure_eq!(shims.len(), ids.len(), "shims");
    shims.into_iter().try_for_each(|pid| end(pid, Signal::SIGKILL))
}

fn containers_of_every_state_are_found_again(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let running = counting(&pod)?;
    let exited = pod.run(&["exit", "7"])?;
    exited.wait()?;
    let created = pod.container(&["/bin/guest", "count"]).create()?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        kubelet.bench.restart_containerd(signal)?;
        ensure!(pod.is_ready()?, "the pod isn't ready");
        ensure_eq!(running.state()?, ContainerState::ContainerRunning, "the running one");
        running.wait_for_counting(2)?;
        ensure_eq!(running.output_of(&["echo", "well"])?, "well\n", "a probe");
        ensure_eq!(exited.status()?.exit_code, 7, "the exit code of the exited one");
        ensure_eq!(created.state()?, ContainerState::ContainerCreated, "the created one");
    }
    created.start()?;
    created.wait_for_counting(2)?;
    running.stop(0)?;
    exited.remove()?;
    pod.end()
}

fn what_ended_meanwhile_is_told_afterwards(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = ready(&pod, &["signals"])?;
    let pid = container.pid()?;
    kubelet.bench.stop_containerd(Signal::SIGKILL)?;
    end(pid, Signal::SIGTERM)?;
    eventually("it is gone", || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        (state.is_empty() || state.contains("State:\tZ")).then_some(())
    })?;
    kubelet.bench.start_containerd()?;
    ensure_eq!(container.wait()?.exit_code, 42, "the exit code");
    ensure!(pod.is_ready()?, "the pod isn't ready");
    pod.end()
}

fn containerd_may_start_again_many_times(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = counting(&pod)?;
    let pid = container.pid()?;
    for _ in 0..5 {
        kubelet.bench.restart_containerd(Signal::SIGKILL)?;
    }
    ensure_eq!(container.pid()?, pid, "the pid");
    container.wait_for_counting(3)?;
    ensure_eq!(container.output_of(&["echo", "well"])?, "well\n", "a probe");
    container.stop(0)?;
    ensure_eq!(container.status()?.exit_code, 137, "the exit code");
    pod.end()
}

fn a_killed_shim_ends_its_container_alone(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let (victim, other) = (counting(&pod)?, counting(&pod)?);
    let cgroup = victim.cgroup();
    kill_shims(kubelet, &[&victim.id])?;
    let ended = victim.wait()?;
    // Which one it is depends on whether containerd asks or is told first.
    ensure!([137, 255].contains(&ended.exit_code), "the exit code is {}", ended.exit_code);
    eventually("its processes are gone", || cgroup::processes(&cgroup).is_empty().then_some(()))?;
    ensure!(pod.is_ready()?, "the pod isn't ready");
    other.wait_for_counting(3)?;
    ensure_eq!(other.output_of(&["echo", "well"])?, "well\n", "a probe of the other one");
    victim.remove()?;
    pod.end()
}

fn a_container_whose_shim_was_killed_is_started_again(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let plan = pod.container(&["/bin/guest", "count"]).name("again");
    let first = plan.clone().start()?;
    first.wait_for_counting(2)?;
    kill_shims(kubelet, &[&first.id])?;
    first.wait()?;
    let second = plan.attempt(1).start()?;
    second.wait_for_counting(3)?;
    first.remove()?;
    second.wait_for_counting(1)?;
    pod.end()
}

/// The kubelet stops such a pod and makes it anew.
fn a_pod_whose_first_container_ended_is_replaced(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = counting(&pod)?;
    end(pod.pid()?, Signal::SIGKILL)?;
    eventually("the pod isn't ready", || (!pod.is_ready().ok()?).then_some(()))?;
    container.stop(0)?;
    kubelet.cri().stop_pod(&pod.id)?;
    let plan = pod.plan.clone().change(|config| config.metadata.get_or_insert_default().attempt = 1);
    let second = plan.start()?;
    counting(&second)?;
    pod.end()?;
    second.end()
}

fn a_pod_goes_on_while_its_first_shim_is_gone(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = counting(&pod)?;
    kill_shims(kubelet, &[&pod.id])?;
    eventually("the pod isn't ready", || (!pod.is_ready().ok()?).then_some(()))?;
    container.wait_for_counting(3)?;
    ensure_eq!(container.output_of(&["echo", "well"])?, "well\n", "a probe");
    container.stop(0)?;
    ensure_eq!(container.status()?.exit_code, 137, "the exit code");
    pod.end()
}

/// As after a crash of the machine's memory: all at once.
fn shims_that_died_while_containerd_was_away_leave_nothing(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let (one, two) = (counting(&pod)?, counting(&pod)?);
    let cgroups = [one.cgroup(), two.cgroup()];
    kubelet.bench.stop_containerd(Signal::SIGKILL)?;
    kill_shims(kubelet, &[&pod.id, &one.id, &two.id])?;
    kubelet.bench.start_containerd()?;
    for container in [&one, &two] {
        ensure!(container.wait()?.exit_code != 0, "it ended well");
    }
    for cgroup in &cgroups {
        eventually("its processes are gone", || cgroup::processes(cgroup).is_empty().then_some(()))?;
    }
    ensure!(!pod.is_ready()?, "the pod is ready");
    pod.end()
}

/// containerd 2.1 forgets the path of our shim when it restores, and starts the stock one,
/// which finds ours already there: that of the pod.
fn a_shim_of_a_container_from_an_archive_may_be_killed(kubelet: Kubelet<'_>) -> Outcome {
    let _registry = kubelet.published_image()?;
    let pod = kubelet.pod()?;
    let original = pod.container(&["/bin/guest", "count"]).image(kube::PUBLISHED).start()?;
    original.wait_for_counting(2)?;
    let file = archive(kubelet)?;
    original.checkpoint(&file)?;
    let copy = pod.container(&[]).name("copy").image(&file.display().to_string()).start()?;
    copy.wait_for_counting(2)?;
    let cgroup = copy.cgroup();
    shims_of(kubelet, &[&pod.id, &copy.id]).into_iter().try_for_each(|pid| end(pid, Signal::SIGKILL))?;
    copy.wait()?;
    eventually("its processes are gone", || cgroup::processes(&cgroup).is_empty().then_some(()))?;
    original.wait_for_counting(2)?;
    eventually("the pod is removed", || pod.end().ok())
}

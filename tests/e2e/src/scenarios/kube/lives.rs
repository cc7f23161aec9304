//! Containers as the kubelet drives them: before others, beside them, again, and to their end.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{counting, ready, script};
use crate::harness::cri::ContainerState;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        kube_scenario!(containers_before_others_end_first),
        kube_scenario!(a_sidecar_runs_on_while_others_come_and_go),
        kube_scenario!(a_container_is_started_again_with_a_next_attempt),
        kube_scenario!(exit_codes_come_as_they_are),
        kube_scenario!(a_container_has_its_grace_to_end),
        kube_scenario!(a_container_that_stays_is_killed_after_its_grace),
        kube_scenario!(a_container_may_be_removed_before_it_starts),
        kube_scenario!(a_running_container_can_be_removed_by_force),
        kube_scenario!(a_command_that_is_not_there_is_named),
        kube_scenario!(times_and_pids_are_told),
        kube_scenario!(a_process_that_was_killed_says_by_what),
        kube_scenario!(all_processes_of_a_container_end_with_it),
        kube_scenario!(what_happens_is_told_at_once),
        kube_scenario!(environment_folder_and_arguments_are_as_asked),
    ]
}

fn containers_before_others_end_first(kubelet: Kubelet<'_>) -> Outcome {
    let volume = kubelet.bench.fresh_folder("volume")?;
    let pod = kubelet.pod()?;
    for number in ["1", "2"] {
        let first = script(&pod, &format!("echo {number} >>/volume/done"));
        let first = first.name(&format!("init-{number}")).mount(&volume, "/volume").start()?;
        let ended = first.wait()?;
        ensure_eq!((ended.exit_code, ended.reason.as_str()), (0, "Completed"), "of init container {number}");
        ensure!(ended.finished_at > ended.created_at && ended.started_at > ended.created_at, "{ended:?}");
    }
    let container = pod.container(&["/bin/guest", "count"]).mount(&volume, "/volume").start()?;
    ensure_eq!(container.shell("cat /volume/done")?, "1\n2\n", "what those before did");
    pod.end()
}

fn a_sidecar_runs_on_while_others_come_and_go(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let sidecar = counting(&pod)?;
    for _ in 0..3 {
        let other = pod.run(&["exit", "0"])?;
        ensure_eq!(other.wait()?.exit_code, 0, "the exit code");
        other.remove()?;
    }
    sidecar.wait_for_counting(3)?;
    ensure_eq!(*sidecar.counted()?.start(), 1, "the first number");
    // The kubelet stops sidecars when all others have ended.
    sidecar.stop(1)?;
    pod.end()
}

fn a_container_is_started_again_with_a_next_attempt(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let mut last: Option<PodContainer<'_, '_>> = None;
    for attempt in 0..3 {
        let plan = script(&pod, &format!("echo attempt {attempt}; exit 1")).attempt(attempt);
        let container = plan.start()?;
        let ended = container.wait()?;
        ensure_eq!((ended.exit_code, ended.reason.as_str()), (1, "Error"), "of attempt {attempt}");
        container.wait_for_line(&format!("attempt {attempt}"))?;
        ensure_eq!(container.lines()?, [format!("attempt {attempt}")], "its log");
        // The kubelet keeps the last one before.
        if let Some(last) = last.replace(container) {
            last.remove()?;
        }
    }
    ensure_eq!(kubelet.cri().containers(&pod.id)?.len(), 1, "containers that are known");
    pod.end()
}

fn exit_codes_come_as_they_are(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    for code in [0, 1, 42, 255] {
        let container = pod.run(&["exit", &code.to_string()])?;
        ensure_eq!(container.wait()?.exit_code, code, "the exit code");
    }
    pod.end()
}

fn a_container_has_its_grace_to_end(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = ready(&pod, &["signals"])?;
    container.stop(20)?;
    let ended = container.status()?;
    ensure_eq!((ended.exit_code, ended.state()), (42, ContainerState::ContainerExited), "its end");
    container.wait_for_line("SIGTERM")?;
    ensure_eq!(container.lines()?, ["ready", "SIGTERM"], "what it saw");
    pod.end()
}

fn a_container_that_stays_is_killed_after_its_grace(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = script(&pod, "trap 'echo term' TERM; echo ready; while :; do sleep 0.1; done").start()?;
    container.wait_for_line("ready")?;
    let begun = Instant::now();
    container.stop(1)?;
    ensure!(begun.elapsed() >= Duration::from_secs(1), "it was killed after {:?}", begun.elapsed());
    ensure_eq!(container.status()?.exit_code, 137, "the exit code");
    container.wait_for_line("term")?;
    ensure_eq!(container.lines()?, ["ready", "term"], "what it saw");
    pod.end()
}

fn a_container_may_be_removed_before_it_starts(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "idle"]).create()?;
    ensure_eq!(container.state()?, ContainerState::ContainerCreated, "its state");
    container.remove()?;
    pod.end()
}

fn a_running_container_can_be_removed_by_force(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = counting(&pod)?;
    container.remove()?;
    ensure!(container.status().is_err(), "it is still known");
    pod.end()
}

fn a_command_that_is_not_there_is_named(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/no-such-program"]).create()?;
    let said = refused(container.start(), &[])?;
    ensure!(said.contains("no-such-program") && said.to_lowercase().contains("no such file"), "{said}");
    let ended = container.status()?;
    ensure_eq!((ended.exit_code, ended.reason.as_str()), (128, "StartError"), "its end");
    ensure!(ended.message.contains("no-such-program"), "{}", ended.message);
    container.remove()?;
    pod.end()
}

fn times_and_pids_are_told(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let status = container.status()?;
    ensure!(status.created_at > 0 && status.started_at >= status.created_at, "{status:?}");
    ensure_eq!(status.finished_at, 0, "when it ended");
    let command = format!("/proc/{}/cmdline", container.pid()?);
    // crun's start ends a moment before its process has become the program.
    eventually("the process of its pid is the program", || {
        (std::fs::read(&command).ok()? == b"/bin/guest\0idle\0").then_some(())
    })?;
    container.stop(0)?;
    let ended = container.status()?;
    ensure!(ended.finished_at > ended.started_at, "{ended:?}");
    pod.end()
}

fn a_process_that_was_killed_says_by_what(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    container.signal(Signal::SIGKILL)?;
    let ended = container.wait()?;
    ensure_eq!((ended.exit_code, ended.reason.as_str()), (137, "Error"), "its end");
    pod.end()
}

fn all_processes_of_a_container_end_with_it(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = ready(&pod, &["tree", "3"])?;
    container.shell("(setsid sh -c 'while :; do sleep 1; done' >/dev/null 2>&1 &); true")?;
    ensure!(cgroup::processes(&container.cgroup()).len() >= 5, "too few processes");
    container.stop(0)?;
    ensure_eq!(cgroup::processes(&container.cgroup()), [0u32; 0], "processes");
    pod.end()
}

fn environment_folder_and_arguments_are_as_asked(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let plan = script(&pod, "pwd; echo $COLOUR; echo \"$0 $1\"; umask").env("COLOUR", "light blue");
    let plan = plan.change(|config| {
        config.working_dir = "/tmp/deep/er".into();
        config.args = vec!["name".into(), "an argument".into()];
    });
    let container = plan.start()?;
    container.wait()?;
    let said = container.lines()?;
    ensure_eq!(said, ["/tmp/deep/er", "light blue", "name an argument", "0022"], "what it sees");
    pod.end()
}

/// Which saves the kubelet asking again and again.
fn what_happens_is_told_at_once(kubelet: Kubelet<'_>) -> Outcome {
    use cri::ContainerEventType::{
        ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted, ContainerStartedEvent as Started,
        ContainerStoppedEvent as Stopped,
    };
    let events = kubelet.cri().events();
    let pod = kubelet.pod()?;
    let container = pod.run(&["exit", "3"])?;
    eventually("its end is told", || events.of(&container.id).contains(&Stopped).then_some(()))?;
    container.remove()?;
    pod.end()?;
    for id in [&container.id, &pod.id] {
        let all = || events.of(id) == [Created, Started, Stopped, Deleted];
        eventually("all is told", || all().then_some(()))
            .map_err(|_| Failure::new(format!("told of {id}: {:?}", events.of(id))))?;
    }
    // containerd 1.7 goes on telling, and shares what happens among all whom it tells.
    kubelet.bench.restart_containerd(Signal::SIGTERM)
}

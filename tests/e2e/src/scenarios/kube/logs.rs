//! Logs as the kubelet reads them.

use std::fs;

use super::{counting, script};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        kube_scenario!(lines_are_logged_with_time_and_stream),
        kube_scenario!(long_lines_are_logged_in_parts),
        kube_scenario!(a_line_without_an_end_is_logged_at_the_end),
        kube_scenario!(a_log_is_rotated_without_loss),
        kube_scenario!(a_terminals_output_is_logged),
        kube_scenario!(all_of_a_burst_is_logged),
        kube_scenario!(logs_go_on_over_a_restart_of_containerd),
    ]
}

fn lines_are_logged_with_time_and_stream(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = script(&pod, "echo one; echo; echo two >&2; echo 'with  spaces '").start()?;
    container.wait()?;
    container.wait_for_line("with  spaces ")?;
    container.wait_for_line("two")?;
    let log = container.log()?;
    let mut out: Vec<_> = log.iter().filter(|entry| entry.stream == "stdout").collect();
    ensure_eq!(out.iter().map(|one| &*one.text).collect::<Vec<_>>(), ["one", "", "with  spaces "], "stdout");
    out.sort_by_key(|entry| &entry.time);
    ensure_eq!(out.first().map(|one| &*one.text), Some("one"), "the first one by its time");
    let err: Vec<_> = log.iter().filter(|entry| entry.stream == "stderr").map(|one| &*one.text).collect();
    ensure_eq!(err, ["two"], "stderr");
    ensure!(log.iter().all(|entry| !entry.is_part && entry.time.starts_with("20")), "{log:?}");
    pod.end()
}

fn long_lines_are_logged_in_parts(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = script(&pod, "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short").start()?;
    container.wait()?;
    container.wait_for_line("short")?;
    let log = container.log()?;
    ensure!(log.len() > 3 && log[0].is_part, "{} entries", log.len());
    let whole: String = log.iter().map(|entry| entry.text.as_str()).collect();
    ensure_eq!(whole, "x".repeat(40000) + "short", "all of it");
    let ends: Vec<_> = log.iter().filter(|entry| !entry.is_part).collect();
    ensure_eq!(ends.len(), 2, "entries that end a line");
    pod.end()
}

fn a_line_without_an_end_is_logged_at_the_end(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = script(&pod, "printf 'no end'").start()?;
    container.wait()?;
    container.wait_for_line("no end")?;
    pod.end()
}

/// The kubelet renames the file, and has it opened anew.
fn a_log_is_rotated_without_loss(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "count", "--interval-ms", "2"]).start()?;
    let mut files = Vec::new();
    for round in 0..3 {
        container.wait_for_counting(20)?;
        let rotated = container.log_file().with_extension(format!("{round}"));
        fs::rename(container.log_file(), &rotated)?;
        let request = cri::ReopenContainerLogRequest { container_id: container.id.clone() };
        kube::call(kubelet.cri().runtime().reopen_container_log(request))?;
        files.push(rotated);
    }
    container.wait_for_counting(20)?;
    container.stop(0)?;
    files.push(container.log_file());
    // Not before: what containerd had in hand goes to the old file when the new one is open.
    let whole = files.iter().map(fs::read_to_string).collect::<Result<String, _>>()?;
    let lines: Vec<_> = kube::entries(&whole)?.into_iter().map(|entry| entry.text).collect();
    ensure_eq!(*counted(&(lines.join("\n") + "\n"))?.start(), 1, "the first number");
    pod.end()
}

fn a_terminals_output_is_logged(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = script(&pod, "tty; echo err >&2").terminal().start()?;
    container.wait()?;
    container.wait_for_line("err")?;
    let log = container.log()?;
    ensure!(log.iter().all(|entry| entry.stream == "stdout"), "{log:?}");
    let text: Vec<_> = log.iter().map(|entry| entry.text.trim_end()).collect();
    ensure_eq!(text, ["/dev/pts/0", "err"], "what is logged");
    pod.end()
}

fn all_of_a_burst_is_logged(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = script(&pod, "seq 1 50000").start()?;
    container.wait()?;
    container.wait_for_line("50000")?;
    ensure_eq!(container.counted()?, 1..=50000, "the numbers");
    pod.end()
}

fn logs_go_on_over_a_restart_of_containerd(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = counting(&pod)?;
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGKILL] {
        kubelet.restart_containerd(signal, &[&container])?;
        container.wait_for_counting(5)?;
    }
    ensure_eq!(*container.counted()?.start(), 1, "the first number");
    pod.end()
}

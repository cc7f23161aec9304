//! Pods made, shared and removed.

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        kube_scenario!(a_pod_comes_and_goes),
        kube_scenario!(each_container_has_a_shim_of_its_own)
            .impossible_if(|_, settings| !settings.shim.is_cryo(), "the stock shim is one for a pod"),
        kube_scenario!(a_port_of_a_pod_is_forwarded),
        kube_scenario!(an_added_program_has_streams),
    ]
}

fn a_pod_comes_and_goes(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    ensure!(pod.is_ready()?, "it isn't ready");
    let container = pod.run(&["count"])?;
    container.wait_for_counting(3)?;
    ensure_eq!(container.state()?, cri::ContainerState::ContainerRunning, "its container's state");
    ensure_eq!(container.output_of(&["hostname"])?.trim(), pod.plan.config.hostname, "its name");
    container.stop(0)?;
    ensure_eq!(container.wait()?.exit_code, 137, "the exit code");
    ensure_eq!(*container.counted()?.start(), 1, "the first number");
    container.remove()?;
    pod.end()?;
    ensure!(pod.status().is_err(), "it is still known");
    Ok(())
}

fn each_container_has_a_shim_of_its_own(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let containers = [pod.run(&["idle"])?, pod.run(&["idle"])?];
    let ids = [&pod.id, &containers[0].id, &containers[1].id];
    let mut shims = Vec::new();
    for id in ids {
        let own = format!("\0-id\0{id}\0");
        for pid in cgroup::processes(&kubelet.bench.slot.daemon_cgroup()) {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            shims.extend(command.contains(&own).then_some(pid));
        }
    }
    ensure_eq!(shims.len(), 3, "shims of {ids:?}");
    pod.end()
}

fn a_port_of_a_pod_is_forwarded(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let server = pod.run(&["listen", "8080"])?;
    server.wait_for_line("ready")?;
    let connection = pod.forward(8080)?;
    connection.write(b"hello")?;
    connection.output().wait_for_text("hello")?;
    let nobody = pod.forward(9090)?;
    nobody.errors().wait_for_text("refused")?;
    pod.end()
}

fn an_added_program_has_streams(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let streams = container.exec(&["/bin/sh", "-c", "read line; echo $line; echo no >&2; exit 3"], false)?;
    streams.write(b"yes\n")?;
    ensure_eq!(streams.wait()?, 3, "its status");
    ensure_eq!(streams.stdout().text(), "yes\n", "its output");
    ensure_eq!(streams.stderr().text(), "no\n", "its errors");
    pod.end()
}

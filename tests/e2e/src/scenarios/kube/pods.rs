//! Pods made, seen and removed.

use super::{counting, shims_of};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        kube_scenario!(a_pod_comes_and_goes),
        kube_scenario!(each_container_has_a_shim_of_its_own)
            .impossible_if(|_, settings| !settings.shim.is_cryo(), "the stock shim is one for a pod"),
        kube_scenario!(a_pod_that_stops_takes_its_containers_along),
        kube_scenario!(stopping_and_removing_may_be_said_twice),
        kube_scenario!(a_stopped_pod_keeps_what_it_was_until_it_is_removed),
        kube_scenario!(a_pod_of_a_name_that_is_taken_is_refused),
        kube_scenario!(a_next_attempt_takes_a_pods_place),
        kube_scenario!(annotations_and_labels_come_back_as_they_were),
        kube_scenario!(a_pod_is_removed_although_its_shim_was_killed)
            .cryo_only("the stock shim leaves the container's cgroup"),
        kube_scenario!(images_that_are_used_stay_and_unused_ones_go),
        kube_scenario!(pods_have_addresses_and_reach_each_other),
        kube_scenario!(a_port_of_a_pod_is_forwarded),
        kube_scenario!(a_port_of_the_hosts_network_is_forwarded),
    ]
}

fn a_pod_comes_and_goes(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    ensure!(pod.is_ready()?, "it isn't ready");
    let container = counting(&pod)?;
    ensure_eq!(container.state()?, cri::ContainerState::ContainerRunning, "its container's state");
    container.stop(0)?;
    ensure_eq!(container.wait()?.exit_code, 137, "the exit code");
    ensure_eq!(*container.counted()?.start(), 1, "the first number");
    container.remove()?;
    ensure_eq!(kubelet.cri().containers(&pod.id)?.len(), 0, "containers");
    pod.end()?;
    ensure!(pod.status().is_err(), "it is still known");
    Ok(())
}

fn each_container_has_a_shim_of_its_own(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let (one, two) = (pod.run(&["idle"])?, pod.run(&["idle"])?);
    for id in [&pod.id, &one.id, &two.id] {
        ensure_eq!(shims_of(kubelet, &[id]).len(), 1, "shims of {id}");
    }
    one.stop(0)?;
    one.remove()?;
    eventually("its shim ends with it", || shims_of(kubelet, &[&one.id]).is_empty().then_some(()))?;
    ensure_eq!(shims_of(kubelet, &[&pod.id, &two.id]).len(), 2, "the others' shims");
    pod.end()
}

fn a_pod_that_stops_takes_its_containers_along(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let running = [counting(&pod)?, counting(&pod)?];
    kubelet.cri().stop_pod(&pod.id)?;
    ensure!(!pod.is_ready()?, "it is still ready");
    for container in &running {
        ensure_eq!(container.status()?.exit_code, 137, "the exit code");
    }
    pod.end()
}

fn stopping_and_removing_may_be_said_twice(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    container.stop(0)?;
    container.stop(0)?;
    container.remove()?;
    container.remove()?;
    pod.end()?;
    pod.end()
}

fn a_stopped_pod_keeps_what_it_was_until_it_is_removed(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["exit", "7"])?;
    container.wait()?;
    kubelet.cri().stop_pod(&pod.id)?;
    ensure_eq!(container.status()?.exit_code, 7, "the exit code");
    ensure!(container.log_file().exists(), "its log is gone");
    ensure_eq!(kubelet.cri().pods()?.len(), 1, "pods that are known");
    pod.end()?;
    ensure_eq!(kubelet.cri().pods()?.len(), 0, "pods that are known");
    Ok(())
}

fn a_pod_of_a_name_that_is_taken_is_refused(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let again = pod.plan.clone().refusal()?;
    ensure!(again.contains("reserve"), "{again}");
    let container = pod.container(&["/bin/guest", "idle"]).name("one");
    let one = container.clone().start()?;
    let again = container.refusal()?;
    ensure!(again.contains("reserve"), "{again}");
    one.stop(0)?;
    pod.end()
}

/// After a reboot, or when its first container is gone.
fn a_next_attempt_takes_a_pods_place(kubelet: Kubelet<'_>) -> Outcome {
    let first = kubelet.pod()?;
    kubelet.cri().stop_pod(&first.id)?;
    let plan = first.plan.clone().change(|config| config.metadata.get_or_insert_default().attempt = 1);
    let second = plan.start()?;
    counting(&second)?;
    ensure_eq!(second.status()?.metadata.unwrap_or_default().attempt, 1, "the attempt");
    first.end()?;
    ensure!(second.is_ready()?, "it isn't ready");
    second.end()
}

fn annotations_and_labels_come_back_as_they_were(kubelet: Kubelet<'_>) -> Outcome {
    let labelled = kubelet.plan().annotation("example.org/a", "ä \"b\"").change(|config| {
        config.labels.insert("app".into(), "tests".into());
    });
    let pod = labelled.start()?;
    let plan = pod.container(&["/bin/guest", "idle"]).annotation("io.kubernetes.container.hash", "4f");
    let container = plan.start()?;
    let status = pod.status()?;
    ensure_eq!(status.annotations, pod.plan.config.annotations, "annotations of the pod");
    ensure_eq!(status.labels, pod.plan.config.labels, "labels");
    ensure_eq!(container.status()?.annotations, container.plan.config.annotations, "of its container");
    pod.end()
}

fn a_pod_is_removed_although_its_shim_was_killed(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = counting(&pod)?;
    for pid in shims_of(kubelet, &[&pod.id, &container.id]) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)?;
    }
    let ended = container.wait()?;
    ensure!([137, 255].contains(&ended.exit_code), "the exit code is {}", ended.exit_code);
    eventually("the pod isn't ready any more", || (!pod.is_ready().ok()?).then_some(()))?;
    eventually("it is removed", || pod.end().ok())
}

/// As the kubelet's garbage collection does it.
fn images_that_are_used_stay_and_unused_ones_go(kubelet: Kubelet<'_>) -> Outcome {
    const NAME: &str = "cryo.test/other:1";
    let tag = "ctr --namespace k8s.io images tag cryo.test/guest:1 $1";
    kubelet.bench.shell(tag, &[NAME.as_ref()])?;
    let found = eventually("the CRI knows it", || kubelet.cri().image(NAME).ok().flatten())?;
    ensure!(found.repo_tags.iter().any(|tag| tag == NAME), "{found:?}");
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "count"]).image(NAME).start()?;
    container.wait_for_counting(2)?;
    // By its name alone: what it consists of is still used under the other one.
    kubelet.bench.shell("ctr --namespace k8s.io images rm $1", &[NAME.as_ref()])?;
    container.wait_for_counting(2)?;
    pod.end()
}

fn pods_have_addresses_and_reach_each_other(kubelet: Kubelet<'_>) -> Outcome {
    let (server, client) = (kubelet.pod()?, kubelet.pod()?);
    let listening = server.run(&["listen", "8080"])?;
    listening.wait_for_line("ready")?;
    let talking = client.run(&["talk", &server.address()?, "8080"])?;
    talking.wait_for_line("ready")?;
    talking.asks(1, "passed")?;
    ensure!(server.address()? != client.address()?, "they have the same address");
    server.end()?;
    client.end()
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

fn a_port_of_the_hosts_network_is_forwarded(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.plan().in_host_network().start()?;
    let server = pod.run(&["listen", "18080"])?;
    server.wait_for_line("ready")?;
    let connection = pod.forward(18080)?;
    connection.write(b"hello")?;
    connection.output().wait_for_text("hello")?;
    pod.end()
}

//! What containers of a pod share, and what they share with their node.

use std::fs;
use std::path::PathBuf;

use super::{guests_in, ready, script};
use crate::harness::cri::NamespaceMode;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        kube_scenario!(containers_of_a_pod_share_network_and_names_but_not_processes),
        kube_scenario!(containers_of_a_pod_share_memory),
        kube_scenario!(containers_of_a_pod_talk_over_loopback),
        kube_scenario!(a_pod_may_share_processes),
        kube_scenario!(what_a_container_leaves_is_reaped_by_its_pod),
        kube_scenario!(a_debugging_container_sees_its_targets_processes),
        kube_scenario!(a_pod_may_be_in_the_hosts_network),
        kube_scenario!(a_pod_may_see_the_hosts_processes),
        kube_scenario!(a_pod_may_share_the_hosts_memory),
        kube_scenario!(settings_of_the_kernel_are_the_pods),
        kube_scenario!(a_setting_that_is_not_of_a_namespace_is_refused),
    ]
}

#[track_caller]
fn namespace(pid: u32, kind: &str) -> Outcome<PathBuf> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?)
}

/// The kinds of namespaces that two processes have in common.
#[track_caller]
fn shared(one: u32, other: u32) -> Outcome<Vec<&'static str>> {
    let mut kinds = vec!["ipc", "mnt", "net", "pid", "user", "uts"];
    for (at, kind) in kinds.clone().into_iter().enumerate().rev() {
        if namespace(one, kind)? != namespace(other, kind)? {
            kinds.remove(at);
        }
    }
    Ok(kinds)
}

fn containers_of_a_pod_share_network_and_names_but_not_processes(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let (one, two) = (pod.run(&["idle"])?, pod.run(&["idle"])?);
    ensure_eq!(shared(one.pid()?, two.pid()?)?, ["ipc", "net", "user", "uts"], "between containers");
    ensure_eq!(shared(one.pid()?, pod.pid()?)?, ["ipc", "net", "user", "uts"], "with the pod");
    ensure_eq!(shared(one.pid()?, std::process::id())?, ["user"], "with the host");
    ensure_eq!(one.output_of(&["hostname"])?.trim(), pod.plan.config.hostname, "its name");
    ensure_eq!(one.shell("cat /proc/1/comm")?.trim(), "guest", "its first process");
    pod.end()
}

/// System V's, POSIX's, and /dev/shm.
fn containers_of_a_pod_share_memory(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let (one, two) = (pod.run(&["idle"])?, pod.run(&["idle"])?);
    one.shell("echo text >/dev/shm/file")?;
    ensure_eq!(two.shell("cat /dev/shm/file; stat -f -c %T /dev/shm")?, "text\ntmpfs\n", "in /dev/shm");
    pod.end()
}

fn containers_of_a_pod_talk_over_loopback(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    ready(&pod, &["listen", "8080"])?;
    let talking = ready(&pod, &["talk", "127.0.0.1", "8080"])?;
    talking.asks(1, "passed")?;
    pod.end()
}

fn a_pod_may_share_processes(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.plan().namespaces(|namespaces| namespaces.pid = NamespaceMode::Pod as i32).start()?;
    let (one, two) = (pod.run(&["idle"])?, pod.run(&["idle"])?);
    ensure_eq!(shared(one.pid()?, two.pid()?)?, ["ipc", "net", "pid", "user", "uts"], "between them");
    ensure_eq!(two.shell("tr '\\0' ' ' </proc/1/cmdline")?, "/bin/guest pause ", "the first process");
    ensure_eq!(guests_in(&two)?, 3, "processes");
    // The first one's end is nobody else's.
    one.stop(0)?;
    ensure_eq!(guests_in(&two)?, 2, "processes");
    pod.end()
}

fn what_a_container_leaves_is_reaped_by_its_pod(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.plan().namespaces(|namespaces| namespaces.pid = NamespaceMode::Pod as i32).start()?;
    let container = pod.run(&["idle"])?;
    container.shell("(sh -c 'sleep 0.2' &); true")?;
    eventually("nobody is left as a zombie", || {
        let states = container.shell("cat /proc/[0-9]*/stat 2>/dev/null | cut -d ' ' -f 3").ok()?;
        (!states.contains('Z')).then_some(())
    })?;
    pod.end()
}

/// kubectl debug --target.
fn a_debugging_container_sees_its_targets_processes(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let target = pod.run(&["idle"])?;
    let plan = script(&pod, "tr '\\0' ' ' </proc/1/cmdline; echo; exec guest idle").security(|context| {
        let namespaces = context.namespace_options.get_or_insert_default();
        namespaces.pid = NamespaceMode::Target as i32;
        namespaces.target_id = target.id.clone();
    });
    let debugging = plan.start()?;
    debugging.wait_for_line("/bin/guest idle ")?;
    ensure_eq!(namespace(debugging.pid()?, "pid")?, namespace(target.pid()?, "pid")?, "the namespace");
    debugging.stop(0)?;
    ensure_eq!(target.state()?, cri::ContainerState::ContainerRunning, "the target's state");
    pod.end()
}

fn a_pod_may_be_in_the_hosts_network(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.plan().in_host_network().start()?;
    let container = pod.run(&["idle"])?;
    let daemon = kubelet.bench.slot.daemon().pid().unwrap_or_default();
    ensure_eq!(namespace(container.pid()?, "net")?, namespace(daemon, "net")?, "the network");
    ensure_eq!(namespace(container.pid()?, "uts")?, namespace(daemon, "uts")?, "the names");
    ensure!(container.shell("ls /sys/class/net")?.contains("cni0"), "it doesn't see the bridge");
    pod.end()
}

fn a_pod_may_see_the_hosts_processes(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.plan().namespaces(|namespaces| namespaces.pid = NamespaceMode::Node as i32).start()?;
    let container = pod.run(&["tree", "3"])?;
    container.wait_for_line("ready")?;
    ensure_eq!(namespace(container.pid()?, "pid")?, namespace(std::process::id(), "pid")?, "the namespace");
    let inside = container.shell(&format!("cat /proc/{}/comm", std::process::id()))?;
    ensure_eq!(inside.trim(), "cryo-e2e", "what it sees");
    // With nobody to end them but the shim.
    let (cgroup, pid) = (container.cgroup(), container.pid()?);
    container.stop(0)?;
    ensure!(!PathBuf::from(format!("/proc/{pid}")).exists(), "it is still there");
    ensure_eq!(cgroup::processes(&cgroup), [0u32; 0], "its children");
    pod.end()
}

fn a_pod_may_share_the_hosts_memory(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.plan().namespaces(|namespaces| namespaces.ipc = NamespaceMode::Node as i32).start()?;
    let container = pod.run(&["idle"])?;
    ensure_eq!(namespace(container.pid()?, "ipc")?, namespace(std::process::id(), "ipc")?, "the namespace");
    let name = format!("/dev/shm/{}", container.id);
    container.shell(&format!("echo text >{name}"))?;
    ensure_eq!(fs::read_to_string(&name)?, "text\n", "what the host sees");
    fs::remove_file(name)?;
    pod.end()
}

fn settings_of_the_kernel_are_the_pods(kubelet: Kubelet<'_>) -> Outcome {
    let set = [("net.ipv4.ip_local_port_range", "20000 20100"), ("kernel.shm_rmid_forced", "1")];
    let pod = kubelet
        .plan()
        .change(|config| {
            let linux = config.linux.get_or_insert_default();
            linux.sysctls = set.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        })
        .start()?;
    let container = pod.run(&["idle"])?;
    let found =
        container.shell("cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced")?;
    ensure_eq!(found.split_whitespace().collect::<Vec<_>>(), ["20000", "20100", "1"], "in a container");
    pod.end()
}

fn a_setting_that_is_not_of_a_namespace_is_refused(kubelet: Kubelet<'_>) -> Outcome {
    let plan = kubelet.plan().change(|config| {
        config.linux.get_or_insert_default().sysctls.insert("vm.swappiness".into(), "10".into());
    });
    let said = plan.refusal()?;
    ensure!(said.contains("vm.swappiness"), "{said}");
    ensure_eq!(kubelet.cri().pods()?.len(), 0, "pods");
    Ok(())
}

//! What a container uses, what it may use, and what happens beyond that.

use super::{ready, status_of};
use crate::harness::cri::{
    ContainerStatsRequest, LinuxContainerResources, ListContainerStatsRequest, ListPodSandboxStatsRequest,
    PodSandboxStatsRequest, UpdateContainerResourcesRequest,
};
use crate::harness::kube::call;
use crate::harness::*;

const MIB: u64 = 1 << 20;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        kube_scenario!(a_containers_figures_tell_what_it_uses),
        kube_scenario!(a_pods_figures_have_its_network_and_containers),
        kube_scenario!(figures_of_all_are_listed_at_once),
        kube_scenario!(a_container_that_ended_has_no_figures),
        kube_scenario!(limits_hold_from_the_start),
        kube_scenario!(limits_can_be_changed_while_it_runs),
        kube_scenario!(limits_of_one_that_did_not_start_can_be_changed),
        kube_scenario!(running_out_of_memory_is_the_reason),
        kube_scenario!(running_out_of_memory_in_a_child_is_not_the_end),
        kube_scenario!(the_score_for_running_out_of_memory_is_as_asked),
        kube_scenario!(a_container_knows_its_processors),
    ]
}

fn a_containers_figures_tell_what_it_uses(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = ready(&pod, &["heap", "24"])?;
    let request = ContainerStatsRequest { container_id: container.id.clone() };
    let stats = call(kubelet.cri().runtime().container_stats(request))?.stats.unwrap_or_default();
    ensure_eq!(stats.attributes.unwrap_or_default().id, container.id, "whose they are");
    let memory = stats.memory.unwrap_or_default();
    let used = memory.working_set_bytes.unwrap_or_default().value;
    ensure!((24 * MIB..64 * MIB).contains(&used), "it uses {used}");
    let time = stats.cpu.unwrap_or_default().usage_core_nano_seconds.unwrap_or_default().value;
    ensure!((1_000_000..60_000_000_000).contains(&time), "processor time {time}");
    pod.end()
}

fn a_pods_figures_have_its_network_and_containers(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = ready(&pod, &["heap", "24"])?;
    let request = PodSandboxStatsRequest { pod_sandbox_id: pod.id.clone() };
    let stats = call(kubelet.cri().runtime().pod_sandbox_stats(request))?.stats.unwrap_or_default();
    let linux = stats.linux.unwrap_or_default();
    ensure_eq!(linux.containers.len(), 1, "containers");
    ensure_eq!(linux.containers[0].attributes.clone().unwrap_or_default().id, container.id, "which one");
    let used = linux.memory.unwrap_or_default().working_set_bytes.unwrap_or_default().value;
    ensure!(used > 24 * MIB, "the pod uses {used}");
    let network = linux.network.unwrap_or_default().default_interface.unwrap_or_default();
    ensure_eq!(network.name, "eth0", "its network device");
    pod.end()
}

fn figures_of_all_are_listed_at_once(kubelet: Kubelet<'_>) -> Outcome {
    let pods = [kubelet.pod()?, kubelet.pod()?];
    let mut wanted = Vec::new();
    for pod in &pods {
        wanted.extend([pod.run(&["idle"])?.id, pod.run(&["idle"])?.id]);
    }
    let request = ListContainerStatsRequest::default();
    let stats = call(kubelet.cri().runtime().list_container_stats(request))?.stats;
    let mut found: Vec<_> = stats.into_iter().map(|one| one.attributes.unwrap_or_default().id).collect();
    found.sort();
    wanted.sort();
    ensure_eq!(found, wanted, "containers with figures");
    let request = ListPodSandboxStatsRequest::default();
    let stats = call(kubelet.cri().runtime().list_pod_sandbox_stats(request))?.stats;
    ensure_eq!(stats.len(), 2, "pods with figures");
    pods.iter().try_for_each(Pod::end)
}

fn a_container_that_ended_has_no_figures(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["exit", "0"])?;
    container.wait()?;
    let stats = call(kubelet.cri().runtime().list_container_stats(ListContainerStatsRequest::default()))?;
    let with_memory = stats.stats.iter().filter(|one| one.memory.is_some()).count();
    ensure_eq!(with_memory, 0, "containers that use memory");
    pod.end()
}

fn asked(resources: &mut LinuxContainerResources) {
    resources.memory_limit_in_bytes = 64 * MIB as i64;
    resources.cpu_period = 100_000;
    resources.cpu_quota = 20_000;
    resources.cpu_shares = 512;
}

fn limits_hold_from_the_start(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "idle"]).resources(asked).start()?;
    ensure_eq!(cgroup::memory_limit(&container.cgroup())?, 64 * MIB, "memory");
    ensure_eq!(cgroup::cpu_limit(&container.cgroup())?, 200, "processor time");
    let told = container.status()?.resources.unwrap_or_default().linux.unwrap_or_default();
    ensure_eq!(told.memory_limit_in_bytes, 64 * MIB as i64, "memory that the CRI tells");
    ensure_eq!((told.cpu_quota, told.cpu_shares), (20_000, 512), "processor time that it tells");
    pod.end()
}

/// In-place resize.
fn limits_can_be_changed_while_it_runs(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "count"]).resources(asked).start()?;
    for (memory, quota) in [(128, 50_000), (96, 10_000)] {
        let resources = LinuxContainerResources {
            memory_limit_in_bytes: memory * MIB as i64,
            cpu_period: 100_000,
            cpu_quota: quota,
            cpu_shares: 256,
            ..Default::default()
        };
        update(kubelet, &container, resources)?;
        ensure_eq!(cgroup::memory_limit(&container.cgroup())?, memory as u64 * MIB, "memory");
        ensure_eq!(cgroup::cpu_limit(&container.cgroup())?, quota as u64 / 100, "processor time");
        let told = container.status()?.resources.unwrap_or_default().linux.unwrap_or_default();
        ensure_eq!(told.memory_limit_in_bytes, memory * MIB as i64, "memory that the CRI tells");
        ensure_eq!((told.cpu_quota, told.cpu_shares), (quota, 256), "processor time that it tells");
    }
    container.wait_for_counting(3)?;
    pod.end()
}

fn limits_of_one_that_did_not_start_can_be_changed(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "idle"]).resources(asked).create()?;
    let resources = LinuxContainerResources { memory_limit_in_bytes: 48 * MIB as i64, ..Default::default() };
    update(kubelet, &container, resources)?;
    container.start()?;
    ensure_eq!(cgroup::memory_limit(&container.cgroup())?, 48 * MIB, "memory");
    pod.end()
}

#[track_caller]
fn update(
    kubelet: Kubelet<'_>,
    container: &PodContainer<'_, '_>,
    resources: LinuxContainerResources,
) -> Outcome {
    let request = UpdateContainerResourcesRequest {
        container_id: container.id.clone(),
        linux: Some(resources),
        ..Default::default()
    };
    call(kubelet.cri().runtime().update_container_resources(request))?;
    Ok(())
}

fn running_out_of_memory_is_the_reason(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let plan = pod.container(&["/bin/guest", "oom"]);
    let container = plan.resources(|wanted| wanted.memory_limit_in_bytes = 32 * MIB as i64).start()?;
    container.wait_for_line("ready")?;
    container.signal(nix::sys::signal::Signal::SIGUSR1)?;
    let ended = container.wait()?;
    ensure_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"), "its end");
    pod.end()
}

/// Only the first process's end is the container's.
fn running_out_of_memory_in_a_child_is_not_the_end(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let plan = pod.container(&["/bin/guest", "idle"]);
    let container = plan.resources(|wanted| wanted.memory_limit_in_bytes = 32 * MIB as i64).start()?;
    let greedy = "guest oom >/said & until grep -q ready /said; do sleep 0.1; done
        kill -USR1 $!; wait $!; code=$?; cat /said; echo $code";
    ensure_eq!(container.shell(&format!("set +e; {greedy}"))?, "ready\n137\n", "the child's end");
    ensure_eq!(container.state()?, cri::ContainerState::ContainerRunning, "the container's state");
    container.stop(0)?;
    ensure_eq!(container.status()?.exit_code, 137, "its own end");
    pod.end()
}

fn the_score_for_running_out_of_memory_is_as_asked(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let score = |plan: ContainerPlan<'_, '_>| -> Outcome<String> {
        let container = plan.start()?;
        Ok(std::fs::read_to_string(format!("/proc/{}/oom_score_adj", container.pid()?))?.trim().to_owned())
    };
    let plan = pod.container(&["/bin/guest", "idle"]);
    ensure_eq!(score(plan.resources(|wanted| wanted.oom_score_adj = 1000))?, "1000", "of the best effort");
    pod.end()
}

fn a_container_knows_its_processors(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let plan = pod.container(&["/bin/guest", "idle"]);
    let container = plan.resources(|wanted| wanted.cpuset_cpus = "0".into()).start()?;
    ensure_eq!(status_of(container.pid()?, "Cpus_allowed_list")?, "0", "processors");
    ensure_eq!(container.output_of(&["nproc"])?.trim(), "1", "what it counts");
    pod.end()
}

//! How a node has pods run by our shim: RuntimeClasses and what is behind them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::{counting, shims_of};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let no_names = |_: &Combination, settings: &Settings| settings.shim != Shim::Cryo;
    vec![
        kube_scenario!(pods_of_all_handlers_live_side_by_side)
            .impossible_if(no_names, "handlers are compared when each has its own shim"),
        kube_scenario!(what_the_runtime_can_is_told)
            .impossible_if(|_, settings| settings.containerd < Version(2, 0), "the CRI can't say it"),
        kube_scenario!(a_handler_that_is_not_there_is_named),
        kube_scenario!(a_shim_that_is_not_there_is_named).impossible_if(no_names, "only a path can be wrong"),
        kube_scenario!(an_annotation_reaches_us_only_if_it_is_allowed)
            .impossible_if(no_names, "the stock shim knows no annotations"),
        kube_scenario!(an_older_configuration_does_it_too)
            .impossible_if(|_, settings| settings.containerd < Version(2, 0), "it is the usual one"),
        kube_scenario!(the_doctor_sees_what_pods_can_tell_us)
            .impossible_if(no_names, "it is our own handlers that the doctor looks at"),
        kube_scenario!(our_shim_may_be_the_default).impossible_if(no_names, "only a path can be the default"),
    ]
}

/// The programs that shims of a pod and its containers are.
#[track_caller]
pub(super) fn programs(kubelet: Kubelet<'_>, ids: &[&str]) -> Outcome<Vec<String>> {
    let name = |pid: u32| -> Outcome<PathBuf> { Ok(fs::read_link(format!("/proc/{pid}/exe"))?) };
    let mut found = Vec::new();
    for pid in shims_of(kubelet, ids) {
        found.push(name(pid)?.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    Ok(found)
}

pub(super) const OURS: &str = "containerd-shim-cryo-v2";
pub(super) const STOCK: &str = "containerd-shim-runc-v2";

fn pods_of_all_handlers_live_side_by_side(kubelet: Kubelet<'_>) -> Outcome {
    let crun = kubelet.bench.runtime() == Runtime::Crun;
    let called = |handler: &str| if crun { format!("{handler}-crun") } else { handler.to_owned() };
    let mut pods = Vec::new();
    for (handler, program) in [("cryo", OURS), ("own", OURS), ("named", STOCK)] {
        let pod = kubelet.plan().handler(&called(handler)).start()?;
        let id = counting(&pod)?.id;
        let found = programs(kubelet, &[&pod.id, &id])?;
        ensure!(found.iter().all(|name| name == program), "{handler}: the shims are {found:?}");
        ensure_eq!(pod.status()?.runtime_handler, called(handler), "the handler that the CRI tells");
        pods.push(pod);
    }
    for pod in &pods {
        let container = pod.run(&["idle"])?;
        ensure_eq!(container.output_of(&["echo", "well"])?, "well\n", "of {}", pod.plan.handler);
    }
    pods.iter().try_for_each(Pod::end)
}

/// By -info, when containerd starts.
fn what_the_runtime_can_is_told(kubelet: Kubelet<'_>) -> Outcome {
    let handlers = kubelet.cri().status()?.runtime_handlers;
    let features = |name: &str| {
        let handler = handlers.iter().find(|handler| handler.name == name);
        handler.and_then(|handler| handler.features)
    };
    for (ours, stock) in [("cryo", "named"), ("cryo-crun", "named-crun")] {
        ensure_eq!(features(ours), features(stock), "what {ours} can, and what {stock}");
    }
    // The CRI asks no shim of another name: README says so.
    ensure_eq!(features("own"), None, "what own can");
    let runc = features("cryo").ok_or_else(|| Failure::new(format!("nothing is told: {handlers:?}")))?;
    ensure!(runc.recursive_read_only_mounts && runc.user_namespaces, "runc can {runc:?}");
    Ok(())
}

fn a_handler_that_is_not_there_is_named(kubelet: Kubelet<'_>) -> Outcome {
    let said = kubelet.plan().handler("no-such-handler").refusal()?;
    ensure!(said.contains("no-such-handler"), "{said}");
    ensure_eq!(kubelet.cri().pods()?.len(), 0, "pods");
    Ok(())
}

fn a_shim_that_is_not_there_is_named(kubelet: Kubelet<'_>) -> Outcome {
    kubelet.reconfigure(|text| text.replacen("/bin/containerd-shim-cryo-v2", "/bin/no-such-shim", 1))?;
    for _ in 0..2 {
        let said = kubelet.plan().handler("cryo").refusal()?;
        ensure!(said.contains("no-such-shim") && said.contains("no such file"), "{said}");
    }
    ensure_eq!(kubelet.cri().pods()?.len(), 0, "pods");
    Ok(())
}

/// One that nobody knows is refused when it reaches us.
fn an_annotation_reaches_us_only_if_it_is_allowed(kubelet: Kubelet<'_>) -> Outcome {
    let plan = kubelet.plan().annotation("cryo.nonsense", "1");
    let said = plan.clone().refusal()?;
    ensure!(said.contains("cryo.nonsense"), "{said}");
    let pod = plan.handler("deaf").start()?;
    counting(&pod)?;
    pod.end()
}

fn an_older_configuration_does_it_too(kubelet: Kubelet<'_>) -> Outcome {
    let older = kube::version_2(&kubelet.bench.slot);
    kubelet.reconfigure(|text| kube::head_of(text) + &older)?;
    let pod = kubelet.pod()?;
    let id = counting(&pod)?.id;
    let program = if settings().shim == Shim::Cryo { OURS } else { STOCK };
    let found = programs(kubelet, &[&pod.id, &id])?;
    ensure!(
        settings().shim == Shim::DropIn || found.iter().all(|name| name == program),
        "the shims are {found:?}"
    );
    pod.end()
}

/// All pods that name no RuntimeClass.
fn our_shim_may_be_the_default(kubelet: Kubelet<'_>) -> Outcome {
    kubelet.reconfigure(|text| {
        let section = if settings().containerd < Version(2, 0) { "grpc.v1.cri" } else { "cri.v1.runtime" };
        let heading = format!("[plugins.\"io.containerd.{section}\".containerd]\n");
        let heading = heading + "  default_runtime_name = \"cryo\"\n";
        text.replacen("[plugins.", &(heading + "[plugins."), 1)
    })?;
    let pod = kubelet.plan().handler("").start()?;
    let id = counting(&pod)?.id;
    let found = programs(kubelet, &[&pod.id, &id])?;
    ensure!(found.iter().all(|name| name == OURS), "the shims are {found:?}");
    pod.end()
}

/// Of the containerd of this slot, and of nobody else's.
fn findings(kubelet: Kubelet<'_>) -> Outcome<BTreeMap<String, (String, String)>> {
    // It may say that the machine isn't ready: that isn't what is asked for.
    let said: Value = serde_json::from_str(&kubelet.bench.shell("cryo doctor --json || true", &[])?)?;
    let own = kubelet.bench.slot.folder.display().to_string();
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let all = said["findings"].as_array().into_iter().flatten();
    let ours = all.filter(|finding| text(finding, "remedy").contains(&format!("{own}/containerd.toml")));
    Ok(ours.map(|one| (text(one, "what"), (text(one, "state"), text(one, "remedy")))).collect())
}

fn the_doctor_sees_what_pods_can_tell_us(kubelet: Kubelet<'_>) -> Outcome {
    let found = findings(kubelet)?;
    let (state, remedy) = found.get("handler deaf").cloned().unwrap_or_default();
    ensure_eq!(state, "warn", "what it thinks of the handler without a list: {found:?}");
    ensure!(remedy.contains("pod_annotations = [\"cryo.*\"]"), "{remedy}");
    ensure!(!found.contains_key("handler cryo"), "it complains of ours: {found:?}");
    if settings().containerd < Version(2, 0) {
        kubelet.configure(|text| text.replace("runtimes.runc", "runtimes.other"))?;
        let (state, remedy) = findings(kubelet)?.get("handler runc").cloned().unwrap_or_default();
        ensure_eq!(state, "missing", "what it thinks of a default that nothing describes");
        ensure!(remedy.contains("CRI doesn't start"), "{remedy}");
    }
    Ok(())
}

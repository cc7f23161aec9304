//! A pod as it is going to be.

use std::fs;
use std::path::Path;

use super::super::cgroup;
use super::super::failure::{Failure, Outcome};
use super::super::settings::settings;
use super::super::slot::Slot;
use super::cri::{
    DnsConfig, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, SecurityProfile,
};
use super::{Kubelet, Pod};

#[derive(Clone)]
pub(crate) struct PodPlan<'b> {
    pub(crate) kubelet: Kubelet<'b>,
    pub(crate) config: PodSandboxConfig,
    pub(crate) handler: String,
}

impl<'b> PodPlan<'b> {
    pub(super) fn new(kubelet: Kubelet<'b>, name: String) -> Self {
        let cgroup = cgroup_of(&kubelet.bench.slot, &name);
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: name.clone(),
                namespace: "tests".into(),
                attempt: 0,
            }),
            hostname: name,
            dns_config: Some(DnsConfig { servers: vec!["10.88.0.1".into()], ..Default::default() }),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: cgroup,
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(usual_namespaces()),
                    // The kubelet's choice for first containers of pods: RuntimeDefault.
                    seccomp: Some(SecurityProfile::default()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        PodPlan { kubelet, config, handler: kubelet.handler().into() }
    }

    pub(crate) fn handler(mut self, name: &str) -> Self {
        self.handler = name.into();
        self
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut PodSandboxConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn annotation(self, name: &str, value: &str) -> Self {
        self.change(|config| drop(config.annotations.insert(name.into(), value.into())))
    }

    pub(crate) fn security(mut self, change: impl FnOnce(&mut LinuxSandboxSecurityContext)) -> Self {
        change(self.config.linux.get_or_insert_default().security_context.get_or_insert_default());
        self
    }

    /// Changes what is shared, and with whom: also for the pod's containers.
    pub(crate) fn namespaces(self, change: impl FnOnce(&mut NamespaceOption)) -> Self {
        self.security(|context| change(context.namespace_options.get_or_insert_default()))
    }

    /// In the network of the node.
    pub(crate) fn in_host_network(self) -> Self {
        let plan = self.namespaces(|namespaces| namespaces.network = NamespaceMode::Node as i32);
        plan.change(|config| config.hostname.clear())
    }

    #[track_caller]
    pub(crate) fn start(self) -> Outcome<Pod<'b>> {
        let plan = self.prepared()?;
        let id = plan.kubelet.cri().run_pod(plan.config.clone(), &plan.handler)?;
        Ok(Pod::new(plan, id))
    }

    /// The words by which it is refused.
    #[track_caller]
    pub(crate) fn refusal(self) -> Outcome<String> {
        let plan = self.prepared()?;
        match plan.kubelet.cri().run_pod(plan.config.clone(), &plan.handler) {
            Ok(id) => Err(Failure::new(format!("the pod wasn't refused: {id}"))),
            Err(status) => Ok(status.message().to_owned()),
        }
    }

    /// What the kubelet makes before: a cgroup, and a folder for logs.
    fn prepared(mut self) -> Outcome<Self> {
        if self.config.log_directory.is_empty() {
            self.config.log_directory = self.kubelet.bench.fresh_folder("logs")?.display().to_string();
        }
        let cgroup = self.config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
        // systemd makes its slices when it needs them.
        if !settings().systemd {
            for root in cgroup::roots() {
                fs::create_dir_all(root.join(cgroup.trim_start_matches('/')))?;
                cgroup::inherit_cpuset(&root, &cgroup)?;
            }
        }
        Ok(self)
    }
}

/// As for a pod that says nothing: a process namespace for each container.
fn usual_namespaces() -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::Container as i32, ..Default::default() }
}

const POD: &str = "pod";

fn cgroup_of(slot: &Slot, name: &str) -> String {
    let parent = slot.containers_cgroup();
    if settings().systemd {
        // A dash means: in the slice that is called like what is before it.
        format!("{parent}/{}-{POD}{}.slice", slot.slice_name(), name.replace('-', "_"))
    } else {
        format!("{parent}/{POD}-{name}")
    }
}

pub(super) fn is_pod_cgroup(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(&format!("{POD}-")) || name.contains(&format!("-{POD}"))
}

//! A pod that there is.

use std::path::Path;

use super::super::api::Answer;
use super::super::failure::{Failure, Outcome};
use super::cri::{PodSandboxState, PodSandboxStatus};
use super::{ContainerPlan, Forwarded, PodContainer, PodPlan};

pub(crate) struct Pod<'b> {
    pub(crate) plan: PodPlan<'b>,
    pub(crate) id: String,
}

impl<'b> Pod<'b> {
    pub(super) fn new(plan: PodPlan<'b>, id: String) -> Self {
        Pod { plan, id }
    }

    /// Where the logs of its containers lie.
    pub(crate) fn folder(&self) -> &Path {
        Path::new(&self.plan.config.log_directory)
    }

    /// A container of it, called after what it does.
    pub(crate) fn container(&self, command: &[&str]) -> ContainerPlan<'_, 'b> {
        let number = self.plan.kubelet.bench.next_id();
        ContainerPlan::new(self, &format!("{}-{number}", command.get(1).unwrap_or(&"container")), command)
    }

    /// One that runs the guest.
    #[track_caller]
    pub(crate) fn run(&self, guest: &[&str]) -> Outcome<PodContainer<'_, 'b>> {
        self.container(&[&["/bin/guest"], guest].concat()).start()
    }

    pub(crate) fn status(&self) -> Answer<PodSandboxStatus> {
        Ok(self.plan.kubelet.cri().pod_status(&self.id)?.status.unwrap_or_default())
    }

    pub(crate) fn is_ready(&self) -> Answer<bool> {
        Ok(self.status()?.state == PodSandboxState::SandboxReady as i32)
    }

    #[track_caller]
    pub(crate) fn address(&self) -> Outcome<String> {
        let address = self.status()?.network.map(|network| network.ip).unwrap_or_default();
        if address.is_empty() { Err(Failure::new("the pod has no address")) } else { Ok(address) }
    }

    /// Of its first container, the one that only pauses.
    #[track_caller]
    pub(crate) fn pid(&self) -> Outcome<u32> {
        pid_in(self.plan.kubelet.cri().pod_status(&self.id)?.info.get("info"))
    }

    pub(crate) fn cgroup(&self) -> String {
        self.plan.config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default()
    }

    /// A connection to one of its ports, by the node's kubelet.
    #[track_caller]
    pub(crate) fn forward(&self, port: u16) -> Outcome<Forwarded> {
        Forwarded::to(self, port)
    }

    /// Stops and removes it with all that is in it.
    #[track_caller]
    pub(crate) fn end(&self) -> Outcome {
        let cri = self.plan.kubelet.cri();
        cri.stop_pod(&self.id)?;
        cri.remove_pod(&self.id)?;
        Ok(())
    }
}

/// What the CRI says about a first process.
#[track_caller]
pub(super) fn pid_in(info: Option<&String>) -> Outcome<u32> {
    let info: serde_json::Value = serde_json::from_str(info.map(String::as_str).unwrap_or_default())?;
    let pid = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    pid.ok_or_else(|| Failure::new(format!("no pid in {info}")))
}

//! A container of a pod as it is going to be.

use std::path::Path;

use super::super::failure::{Failure, Outcome};
use super::super::image;
use super::cri::{
    ContainerConfig, ContainerMetadata, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, Mount, SecurityProfile, image_of, security_profile, words,
};
use super::{Pod, PodContainer};

#[derive(Clone)]
pub(crate) struct ContainerPlan<'p, 'b> {
    pub(crate) pod: &'p Pod<'b>,
    pub(crate) config: ContainerConfig,
}

impl<'p, 'b> ContainerPlan<'p, 'b> {
    pub(super) fn new(pod: &'p Pod<'b>, name: &str, command: &[&str]) -> Self {
        let of_pod = pod.plan.config.linux.as_ref().and_then(|linux| linux.security_context.clone());
        let unconfined = SecurityProfile {
            profile_type: security_profile::ProfileType::Unconfined as i32,
            ..Default::default()
        };
        let security = LinuxContainerSecurityContext {
            namespace_options: of_pod.and_then(|context| context.namespace_options),
            seccomp: Some(unconfined),
            ..Default::default()
        };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(image_of(image::NAME)),
            command: words(command),
            log_path: format!("{name}/0.log"),
            linux: Some(LinuxContainerConfig { resources: None, security_context: Some(security) }),
            ..Default::default()
        };
        ContainerPlan { pod, config }
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut ContainerConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn name(self, name: &str) -> Self {
        self.called(name, 0)
    }

    /// The same container, started once more.
    pub(crate) fn attempt(self, attempt: u32) -> Self {
        let name = self.config.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
        self.called(&name, attempt)
    }

    fn called(self, name: &str, attempt: u32) -> Self {
        self.change(|config| {
            config.metadata = Some(ContainerMetadata { name: name.into(), attempt });
            config.log_path = format!("{name}/{attempt}.log");
        })
    }

    pub(crate) fn image(self, name: &str) -> Self {
        self.change(|config| config.image = Some(image_of(name)))
    }

    pub(crate) fn env(self, key: &str, value: &str) -> Self {
        self.change(|config| config.envs.push(KeyValue { key: key.into(), value: value.into() }))
    }

    pub(crate) fn annotation(self, name: &str, value: &str) -> Self {
        self.change(|config| drop(config.annotations.insert(name.into(), value.into())))
    }

    pub(crate) fn security(self, change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Self {
        self.change(|config| {
            change(config.linux.get_or_insert_default().security_context.get_or_insert_default());
        })
    }

    pub(crate) fn resources(self, change: impl FnOnce(&mut LinuxContainerResources)) -> Self {
        self.change(|config| change(config.linux.get_or_insert_default().resources.get_or_insert_default()))
    }

    pub(crate) fn mount(self, host: &Path, inside: &str) -> Self {
        self.mount_with(host, inside, |_| {})
    }

    pub(crate) fn mount_with(self, host: &Path, inside: &str, change: impl FnOnce(&mut Mount)) -> Self {
        let mut mount = Mount {
            host_path: host.display().to_string(),
            container_path: inside.into(),
            ..Default::default()
        };
        change(&mut mount);
        self.change(|config| config.mounts.push(mount))
    }

    /// With a stdin for those who attach; the first of them closes it at his end if `once`.
    pub(crate) fn stdin(self, once: bool) -> Self {
        self.change(|config| {
            config.stdin = true;
            config.stdin_once = once;
        })
    }

    pub(crate) fn terminal(self) -> Self {
        self.change(|config| config.tty = true)
    }

    #[track_caller]
    pub(crate) fn create(self) -> Outcome<PodContainer<'p, 'b>> {
        let cri = self.pod.plan.kubelet.cri();
        let id = cri.create(&self.pod.id, self.config.clone(), self.pod.plan.config.clone())?;
        Ok(PodContainer::new(self, id))
    }

    #[track_caller]
    pub(crate) fn start(self) -> Outcome<PodContainer<'p, 'b>> {
        let container = self.create()?;
        container.start()?;
        Ok(container)
    }

    /// The words by which it is refused, when it is made or when it is started.
    #[track_caller]
    pub(crate) fn refusal(self) -> Outcome<String> {
        let cri = self.pod.plan.kubelet.cri();
        let created = cri.create(&self.pod.id, self.config, self.pod.plan.config.clone());
        match created.and_then(|id| cri.start(&id)) {
            Ok(()) => Err(Failure::new("the container wasn't refused")),
            Err(status) => Ok(status.message().to_owned()),
        }
    }
}

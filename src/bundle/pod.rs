//! What people call a container, as far as its specification says: which one of which pod it is,
//! as the CRI notes it, or nerdctl's name for it.

use super::Spec;

/// For nerdctl's hooks.
const NERDCTL_NAME: &str = "nerdctl/name";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// As its pod calls it.
    pub container: &'a str,
}

impl Spec {
    /// None also for the container that only holds a pod's namespaces.
    pub fn pod(&self) -> Option<Pod<'_>> {
        let said = |key: &str| Some(self.annotations.get(&format!("io.kubernetes.cri.{key}"))?.as_str());
        let (namespace, name) = (said("sandbox-namespace")?, said("sandbox-name")?);
        Some(Pod { namespace, name, container: said("container-name")? })
    }

    pub fn nerdctl_name(&self) -> Option<&str> {
        self.annotations.get(NERDCTL_NAME).map(String::as_str)
    }
}

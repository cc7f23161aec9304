//! Which container of which pod it is, as the CRI notes it.

use super::Spec;

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
}

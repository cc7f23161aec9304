//! What an image of a checkpoint says of itself: CRI-O and containerd take it for one by
//! these annotations. The names are those of checkpointctl's library.

use serde_json::Value;

use super::layout;
use super::oci::Annotations;
use crate::checkpoint::manifest::Manifest;

/// The image that the container was made of.
pub(super) const ROOTFS_IMAGE: &str = "org.criu.checkpoint.rootfsImageName";
const OCI_REFERENCE: &str = "org.opencontainers.image.ref.name";
/// By which containerd's importer names an image.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What containerd's CRI plugin notes in the configuration of a container of Kubernetes'.
const OF_PODS: [(&str, &str); 4] = [
    ("io.kubernetes.cri.sandbox-name", "pod.name"),
    ("io.kubernetes.cri.sandbox-id", "pod.id"),
    ("io.kubernetes.cri.sandbox-namespace", "pod.namespace"),
    ("io.kubernetes.cri.sandbox-uid", "pod.uid"),
];

/// Of the checkpoint itself; `spec` is the container's configuration, if it is there.
pub(super) fn of_checkpoint(
    manifest: &Manifest,
    name: &str,
    rootfs_image: Option<&str>,
    spec: &Value,
) -> Annotations {
    let mut all = Annotations::new();
    let mut add = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            all.insert(format!("org.criu.checkpoint.{key}"), value.to_owned());
        }
    };
    add("engine.name", Some("cryo"));
    add("container.name", Some(name));
    for (key, ours) in OF_PODS {
        add(ours, noted(spec, key));
    }
    let image = rootfs_image.or_else(|| noted(spec, "io.kubernetes.cri.image-name"));
    add("rootfsImageUserRequested", image);
    add("runtime.name", Some(&manifest.runtime.name));
    add("runtime.version", Some(&manifest.runtime.version));
    add("criu.version", manifest.criu.as_deref());
    add("host.arch", Some(&manifest.architecture));
    add("host.kernel", Some(&manifest.kernel));
    all.extend(image.map(|image| (ROOTFS_IMAGE.to_owned(), image.to_owned())));
    if let Some(time) = layout::time(manifest.taken_at) {
        all.insert("org.opencontainers.image.created".to_owned(), time);
    }
    all.insert("org.opencontainers.image.title".to_owned(), format!("checkpoint of {name}"));
    all
}

/// Of its name, if it has one: `localhost/checkpoint/web:before`.
pub(super) fn of_name(reference: &str) -> Annotations {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let tag = last.split_once(':').map_or("latest", |(_, tag)| tag);
    [(OCI_REFERENCE, tag), (CONTAINERD_NAME, reference)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

/// The container's name as its users know it.
pub(super) fn container_name(spec: &Value) -> Option<&str> {
    noted(spec, "io.kubernetes.cri.container-name")
}

fn noted<'a>(spec: &'a Value, key: &str) -> Option<&'a str> {
    spec.get("annotations")?.get(key)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_gives_its_tag_and_a_port_is_none() {
        let tag = |reference| of_name(reference)[OCI_REFERENCE].clone();
        assert_eq!(tag("localhost/checkpoint/web:before"), "before");
        assert_eq!(tag("localhost:5000/web"), "latest");
    }
}

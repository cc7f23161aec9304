//! The checkpoint that a container itself asks to start from, by an annotation. What a client
//! names goes before: it may be a later one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lifecycle::in_force;
use super::{Create, Node};
use crate::bundle::Spec;
use crate::checkpoint::manifest::Manifest;
use crate::message::{cut, shown};
use crate::operation::aside;
use crate::policy::{Member, NodeFile, Source, Wish};

/// For one that comes from elsewhere, if nobody says anything.
const FETCH_DEADLINE: Duration = Duration::from_secs(600);
const SHOWN: usize = 63;

/// Which container of a pod is meant isn't clear.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "annotation cryo.restore-from: this pod has other containers ({others}): say that this one is meant with cryo.restore-from.{ours}"
    )]
    Several { others: String, ours: String },
    #[error(
        "annotation cryo.restore-from: the checkpoint is one of container {theirs}, and this is {ours}: if it is meant for it, say cryo.restore-from.{ours}"
    )]
    Another { theirs: String, ours: String },
}

pub(super) async fn checkpoint(create: &Create, node: &Node) -> Result<Option<PathBuf>, super::Error> {
    let spec = Spec::read(&create.bundle)?;
    let Some(Wish { value, unclear }) = Wish::of(&spec.annotations) else { return Ok(None) };
    if let Some(member) = unclear.clone() {
        let bundle = create.bundle.clone();
        aside(move || check_alone(&bundle, &member)).await?;
    }
    let file = node.policy.clone();
    let folder = match aside(move || NodeFile::restore_source(&file, &value)).await? {
        Source::Folder(folder) => folder,
        Source::Reference(reference) => {
            let policy = in_force(&spec.annotations, &node.policy).await?;
            let deadline = policy.deadline().unwrap_or(FETCH_DEADLINE);
            node.outside.fetch(node.reaper, &reference, (&node.policy, &create.bundle), deadline).await?
        }
    };
    if let Some(member) = unclear {
        let folder = folder.clone();
        aside(move || check_meant(&folder, &member)).await?;
    }
    Ok(Some(folder))
}

/// Each container of a pod would come back as the same one.
fn check_alone(bundle: &Path, member: &Member) -> Result<(), Error> {
    // Bundles of a namespace lie side by side.
    let bundles = bundle.parent().map(fs::read_dir).and_then(Result::ok).into_iter().flatten().flatten();
    let members = bundles.filter_map(|entry| Member::of(&Spec::read(&entry.path()).ok()?.annotations));
    let others = members.filter(|other| other.pod == member.pod && other.name != member.name);
    let mut others: Vec<_> = others.map(|other| other.name).collect();
    if others.is_empty() {
        return Ok(());
    }
    others.sort();
    let others = cut(&shown(&others.join(", ")), SHOWN);
    Err(Error::Several { others, ours: cut(&shown(&member.name), SHOWN) })
}

/// A container that prepares its pod must not come back as the one that it prepares it for.
fn check_meant(folder: &Path, member: &Member) -> Result<(), Error> {
    // What can't be read is refused by whoever restores it.
    let theirs = Manifest::read(folder).ok().and_then(|manifest| manifest.name);
    match theirs.filter(|theirs| *theirs != member.name) {
        None => Ok(()),
        Some(theirs) => {
            let [theirs, ours] = [&theirs, &member.name].map(|name| cut(&shown(name), SHOWN));
            Err(Error::Another { theirs, ours })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(namespace: &Path, id: &str, kind: &str, name: &str) -> PathBuf {
        let bundle = namespace.join(id);
        fs::create_dir(&bundle).unwrap();
        let config = serde_json::json!({ "annotations": {
            "io.kubernetes.cri.container-type": kind,
            "io.kubernetes.cri.sandbox-id": "pod",
            "io.kubernetes.cri.container-name": name,
        }});
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        bundle
    }

    #[test]
    fn a_container_is_alone_with_its_pod_and_its_own_past() {
        let namespace = tempfile::tempdir().unwrap();
        bundle(namespace.path(), "pod", "sandbox", "");
        bundle(namespace.path(), "old", "container", "web");
        let ours = bundle(namespace.path(), "new", "container", "web");
        let member = Member { pod: "pod".into(), name: "web".into() };
        check_alone(&ours, &member).unwrap();
        check_alone(&ours, &Member { pod: "another".into(), name: "x".into() }).unwrap();
        bundle(namespace.path(), "log", "container", "log");
        let error = check_alone(&ours, &member).unwrap_err().to_string();
        assert!(
            error.contains("other containers (log)") && error.ends_with("cryo.restore-from.web"),
            "{error}"
        );
    }
}

//! What annotations say a container starts from: a folder, a name in the node's store, or an
//! image in a registry.
//!
//! containerd hands the annotations of a pod to all of its containers. So each may be named:
//! `cryo.restore-from.CONTAINER`.

use std::path::PathBuf;

use super::{Annotations, RESTORE_FROM};

/// As containerd's CRI calls what it makes.
const KIND: &str = "io.kubernetes.cri.container-type";
const SANDBOX: &str = "sandbox";
const NAME: &str = "io.kubernetes.cri.container-name";
const POD: &str = "io.kubernetes.cri.sandbox-id";
/// Of a reference, before what registries call an image.
pub(super) const SCHEME: &str = "oci://";
const LONGEST_REFERENCE: usize = 1024;

/// What a container asks to start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub value: String,
    /// The pod and the container in it, if nobody said which container of the pod is meant.
    pub unclear: Option<Member>,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub pod: String,
    pub name: String,
}

/// Where it is, if the node's owner allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Folder(PathBuf),
    /// Without the scheme.
    Reference(String),
}

impl Member {
    /// None of the container that only holds a pod's namespaces, nor outside of pods.
    pub fn of(annotations: &Annotations) -> Option<Member> {
        let said = |key| annotations.get(key).filter(|said| !said.is_empty()).cloned();
        (!is_sandbox(annotations)).then_some(())?;
        Some(Member { pod: said(POD)?, name: said(NAME)? })
    }
}

impl Wish {
    pub fn of(annotations: &Annotations) -> Option<Wish> {
        if is_sandbox(annotations) {
            return None;
        }
        let member = Member::of(annotations);
        let named =
            member.as_ref().and_then(|member| annotations.get(&format!("{RESTORE_FROM}.{}", member.name)));
        if let Some(value) = named {
            return Some(Wish { value: value.clone(), unclear: None });
        }
        Some(Wish { value: annotations.get(RESTORE_FROM)?.clone(), unclear: member })
    }
}

/// Whether an annotation is one of these, for this container or another of its pod.
pub(super) fn is_wish(name: &str, annotations: &Annotations) -> bool {
    let in_pod = annotations.contains_key(KIND);
    let other = name.strip_prefix(RESTORE_FROM).and_then(|rest| rest.strip_prefix('.'));
    name == RESTORE_FROM || other.is_some_and(|container| in_pod && !container.is_empty())
}

fn is_sandbox(annotations: &Annotations) -> bool {
    annotations.get(KIND).is_some_and(|kind| kind == SANDBOX)
}

/// `REGISTRY/REPOSITORY` with a tag or a digest, or both.
pub(super) fn is_reference(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let Some((registry, rest)) = text.split_once('/') else { return false };
    let is_host = registry == "localhost" || registry.contains(['.', ':']);
    let parts = || rest.split('/');
    let repository = rest.split(['@']).next().unwrap_or_default();
    is_host
        && text.len() <= LONGEST_REFERENCE
        && text.bytes().all(plain)
        && registry.starts_with(|first: char| first.is_ascii_alphanumeric())
        && parts().all(|part| part.starts_with(|first: char| first.is_ascii_alphanumeric()))
        && (rest.contains('@') || repository.rsplit('/').next().is_some_and(|last| last.contains(':')))
}

/// Whether a reference is what is allowed, or lies below it: a registry, a repository, or one
/// tag or digest of one.
pub(super) fn is_within(reference: &str, allowed: &str) -> bool {
    let allowed = allowed.trim_end_matches('/');
    match reference.strip_prefix(allowed) {
        Some("") => true,
        Some(rest) if rest.starts_with('/') => true,
        // After a registry alone it would be another port.
        Some(rest) => allowed.contains('/') && rest.starts_with([':', '@']),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(pairs: &[(&str, &str)]) -> Option<Wish> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Wish::of(&pairs.collect())
    }

    #[test]
    fn each_container_of_a_pod_takes_its_own_and_the_sandbox_none() {
        let [one, two] = [("cryo.restore-from.web", "one"), ("cryo.restore-from", "two")];
        let of = |name| [(KIND, "container"), (POD, "p"), (NAME, name)];
        let in_pod = |name, pairs: &[_]| wish(&[&of(name)[..], pairs].concat());
        assert_eq!(in_pod("web", &[one, two]), Some(Wish { value: "one".into(), unclear: None }));
        let unclear = Some(Member { pod: "p".into(), name: "log".into() });
        assert_eq!(in_pod("log", &[one, two]), Some(Wish { value: "two".into(), unclear }));
        assert_eq!(in_pod("log", &[one]), None);
        assert_eq!(wish(&[(KIND, "sandbox"), (POD, "p"), one, two]), None);
        assert_eq!(wish(&[two]), Some(Wish { value: "two".into(), unclear: None }));
        assert_eq!(wish(&[one]), None);
        let pod: Annotations = [(KIND.to_owned(), "container".to_owned())].into();
        assert!(is_wish("cryo.restore-from.web", &pod) && is_wish("cryo.restore-from", &pod));
        assert!(
            !is_wish("cryo.restore-from.", &pod) && !is_wish("cryo.restore-from.web", &Annotations::new())
        );
    }

    #[test]
    fn references_are_whole_or_refused() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        for good in ["r.io/a:1", "localhost/a/b:x", "127.0.0.1:5000/a:1", &format!("r.io/a/b{digest}")] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            "busybox:1",
            "library/busybox:1",
            "r.io/a",
            "r.io/",
            "r.io/../a:1",
            "r.io//a:1",
            "r.io/a b:1",
            "-r.io/a:1",
            "r.io/a:1\n",
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_allowed_ends_where_a_name_does() {
        for (reference, allowed) in [
            ("r.io/a:1", "r.io"),
            ("r.io/a:1", "r.io/"),
            ("r.io/a/b:1", "r.io/a"),
            ("r.io/a:1", "r.io/a"),
            ("r.io/a@sha256:0", "r.io/a"),
            ("r.io/a:1", "r.io/a:1"),
        ] {
            assert!(is_within(reference, allowed), "{reference} {allowed}");
        }
        for (reference, allowed) in [
            ("r.io:5000/a:1", "r.io"),
            ("r.io.evil/a:1", "r.io"),
            ("r.io/ab:1", "r.io/a"),
            ("r.io/a:12", "r.io/a:1"),
            ("evil.io/r.io/a:1", "r.io"),
        ] {
            assert!(!is_within(reference, allowed), "{reference} {allowed}");
        }
    }
}

//! Whether an image can come back in this container at all.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::bundle::{self, CONFIG, IdMapping, Sharing, Spec, User};
use crate::checkpoint::image::{self, Image};
use crate::checkpoint::manifest::{Manifest, Network as NetworkKind};
use crate::container::Subject;
use crate::criu::filters::Filters;
use crate::criu::namespaces::Namespaces;
use crate::criu::processes::{self, Process};
use crate::rights::{Granted, Rights, filter};
use crate::runtime::{Flavour, Version};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot restore: the checkpoint was taken with {theirs}, this container runs with {ours}: give it the same runtime"
    )]
    Runtime { theirs: String, ours: &'static str },
    #[error(
        "cannot restore: the checkpoint is for {theirs}, this machine is {ours}: restore it on a machine like the original"
    )]
    Architecture { theirs: String, ours: String },
    #[error(
        "cannot restore: the checkpoint has {theirs}, this container {ours}: give it the same kind of network"
    )]
    Network { theirs: &'static str, ours: &'static str },
    #[error(
        "cannot restore: the checkpoint has {theirs} {kind} namespace, this container {ours}: give it the same kind"
    )]
    Namespace { kind: &'static str, theirs: &'static str, ours: &'static str },
    #[error(
        "cannot restore: the checkpoint's user namespace maps its users to others than this container's: give it the same mapping"
    )]
    Users,
    #[error(
        "cannot restore: the checkpoint's program was started as user {theirs}, this container's as {ours}: give it the same user and groups"
    )]
    User { theirs: String, ours: String },
    #[error(
        "cannot restore: {program} (pid {number} in the checkpoint) {what}, which this container isn't allowed: give it the rights of the original"
    )]
    Rights { program: String, number: u32, what: String },
    #[error(
        "cannot restore: the checkpoint's seccomp profile allows more than this container's: give it the profile of the original"
    )]
    Filter,
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error("cannot restore: the container's config.json can't be read: {0}: create the container anew")]
    Config(io::Error),
}

/// Nothing that an image says gives its processes more than the new configuration does.
pub(super) fn check(image: &Image, version: &Version, subject: &Subject) -> Result<Fit, Error> {
    let spec = &subject.spec;
    if let Some(manifest) = &image.manifest {
        check_machine(manifest, version)?;
        check_network(manifest, &spec.sharing("network"))?;
    }
    check_namespaces(image, spec)?;
    let filters = Filters::of(&image.place()).map_err(|problem| image.damaged(&problem))?;
    let processes = processes::all(&image.place(), &filters).map_err(|problem| image.damaged(&problem))?;
    check_user(image, &processes, spec)?;
    check_rights(&processes, spec)?;
    let noted = image.manifest.as_ref().and_then(|manifest| manifest.started.as_ref());
    if let Some(noted) = noted.filter(|_| spec.linux.is_filtered) {
        let config = fs::read(subject.bundle.join(CONFIG)).and_then(|config| bundle::filter(&config));
        if !filter::is_as_strict(&noted.seccomp, &config.map_err(Error::Config)?) {
            return Err(Error::Filter);
        }
    }
    // crun forgets the filter.
    let needs_filter = version.flavour == Flavour::Crun && spec.linux.is_filtered;
    let number = processes.first().and_then(|first| first.filter).filter(|_| needs_filter);
    let program = number.and_then(|number| filters.program(number, own_filters()));
    Ok(Fit { lsm_profile: lsm_profile(&processes, spec, is_enforced), filter: program.map(<[u8]>::to_vec) })
}

/// Under which the shim itself is, and all whom it starts.
fn own_filters() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or_default()
}

/// What a restore has to know besides.
#[derive(Debug)]
pub(super) struct Fit {
    /// What confines the processes, if the image says something else.
    pub(super) lsm_profile: Option<String>,
    /// The filter of system calls for processes that are added later, if the runtime forgets it.
    pub(super) filter: Option<Vec<u8>>,
}

fn check_machine(manifest: &Manifest, version: &Version) -> Result<(), Error> {
    let ours = version.flavour.name();
    if manifest.runtime.name != ours {
        return Err(Error::Runtime { theirs: manifest.runtime.name.clone(), ours });
    }
    let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
    if manifest.architecture != machine {
        return Err(Error::Architecture { theirs: manifest.architecture.clone(), ours: machine });
    }
    Ok(())
}

fn check_network(manifest: &Manifest, sharing: &Sharing) -> Result<(), Error> {
    let own = |kind| if kind == NetworkKind::Host { "the host's network" } else { "a network of its own" };
    let (theirs, ours) = (own(manifest.network), own(NetworkKind::from(sharing)));
    if theirs == ours { Ok(()) } else { Err(Error::Network { theirs, ours }) }
}

fn check_namespaces(image: &Image, spec: &Spec) -> Result<(), Error> {
    let folder = image.place();
    let namespaces = Namespaces::of(&folder).map_err(|problem| image.damaged(&problem))?;
    let own = |is_hosts| if is_hosts { "the host's" } else { "its own" };
    for (kind, wanted) in Granted::of(spec).hosts {
        let wanted = wanted.unwrap_or(false);
        if namespaces.is_hosts(kind).is_some_and(|is_hosts| is_hosts != wanted) {
            return Err(Error::Namespace { kind, theirs: own(!wanted), ours: own(wanted) });
        }
    }
    let ours = [&spec.linux.uid_mappings, &spec.linux.gid_mappings].map(|mapping| sorted(mapping.clone()));
    // One that is given by a path may be described besides.
    let is_described = spec.sharing("user") == Sharing::Private || !ours[0].is_empty();
    if namespaces.is_hosts("user") == Some(true) || !is_described {
        return Ok(());
    }
    let theirs = namespaces.mappings(&folder).map_err(|problem| image.damaged(&problem))?.map(sorted);
    if theirs == ours { Ok(()) } else { Err(Error::Users) }
}

fn sorted(mapping: Vec<IdMapping>) -> BTreeSet<IdMapping> {
    mapping.into_iter().collect()
}

/// Programs may have become others by their own right; what counts is who started them. If
/// that isn't known, the first process has to be who it would be here.
fn check_user(image: &Image, processes: &[Process], spec: &Spec) -> Result<(), Error> {
    let ours = &spec.process.user;
    let differ = |theirs: String| Err(Error::User { theirs, ours: words(ours) });
    if let Some(noted) = image.manifest.as_ref().and_then(|manifest| manifest.started.as_ref()) {
        let theirs = &noted.user;
        let has_group = |group: &u32| *group == ours.gid || ours.groups.contains(group);
        let is_same = theirs.uid == ours.uid && theirs.gid == ours.gid;
        return if is_same && theirs.groups.iter().all(has_group) { Ok(()) } else { differ(words(theirs)) };
    }
    match processes.first() {
        Some(process) if ours.uid != 0 && process.user != ours.uid => differ(process.user.to_string()),
        _ => Ok(()),
    }
}

fn words(user: &User) -> String {
    let groups: Vec<String> = user.groups.iter().take(8).map(u32::to_string).collect();
    let rest = if groups.is_empty() { String::new() } else { format!(" ({})", groups.join(", ")) };
    format!("{}:{}{rest}", user.uid, user.gid)
}

fn check_rights(processes: &[Process], spec: &Spec) -> Result<(), Error> {
    let granted = Rights::granted(spec);
    let more = processes.iter().find_map(|process| Some((process, process.rights.beyond(&granted)?)));
    match more {
        None => Ok(()),
        Some((Process { program, number, .. }, what)) => {
            Err(Error::Rights { program: crate::message::shown(program), number: *number, what })
        }
    }
}

/// A clone gets its own label. Who was confined stays so, even if that isn't asked for here.
fn lsm_profile(processes: &[Process], spec: &Spec, is_enforced: impl Fn(&str) -> bool) -> Option<String> {
    let process = &spec.process;
    let wanted = [("apparmor", &process.apparmor_profile), ("selinux", &process.selinux_label)];
    let (module, label) =
        wanted.into_iter().find(|(_, label)| !label.is_empty() && *label != "unconfined")?;
    let is_another = processes.iter().any(|process| process.label.as_ref() != Some(label));
    (is_another && is_enforced(module)).then(|| format!("{module}:{label}"))
}

fn is_enforced(module: &str) -> bool {
    match module {
        "apparmor" => fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text == b"Y\n"),
        _ => Path::new("/sys/fs/selinux/enforce").exists(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::*;

    fn spec(text: &str) -> Spec {
        serde_json::from_str(text).unwrap()
    }

    fn process(label: Option<&str>) -> Process {
        Process {
            number: 7,
            program: "redis".into(),
            user: 0,
            rights: Rights { capabilities: CapabilitySet::KILL, may_gain: true, unfiltered: true },
            filter: None,
            label: label.map(str::to_owned),
        }
    }

    #[test]
    fn who_has_more_than_is_granted_is_named() {
        let error = check_rights(&[process(None)], &spec("{}")).unwrap_err().to_string();
        assert!(error.contains("redis (pid 7 in the checkpoint) has CAP_KILL, which"), "{error}");
        let granting = r#"{"process": {"capabilities": {"bounding": ["CAP_KILL"]}}}"#;
        check_rights(&[process(None)], &spec(granting)).unwrap();
    }

    #[test]
    fn a_copy_gets_its_own_label() {
        let of = |label, spec_text: &str| lsm_profile(&[process(label)], &spec(spec_text), |_| true);
        let docker = r#"{"process": {"apparmorProfile": "docker-default"}}"#;
        assert_eq!(of(Some("docker-default"), docker), None);
        assert_eq!(of(Some("other"), docker).as_deref(), Some("apparmor:docker-default"));
        assert_eq!(of(None, docker).as_deref(), Some("apparmor:docker-default"));
        assert_eq!(of(Some("other"), r#"{"process": {"apparmorProfile": "unconfined"}}"#), None);
        assert_eq!(of(Some("other"), "{}"), None);
        let label = r#"{"process": {"selinuxLabel": "system_u:system_r:container_t:s0:c1,c2"}}"#;
        let wanted = "selinux:system_u:system_r:container_t:s0:c1,c2";
        assert_eq!(of(Some("system_u:system_r:container_t:s0:c3,c4"), label).as_deref(), Some(wanted));
        assert_eq!(lsm_profile(&[process(None)], &spec(docker), |_| false), None);
    }
}

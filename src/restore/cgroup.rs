//! A restored container has a cgroup of its own, whatever its specification was copied
//! from.

use std::path::Path;

use crate::bundle::{self, edit_config, set};
use crate::cgroup::Cgroup;
use crate::cgroup::nested::{self, Restorer};
use crate::container::{Subject, is_occupied, is_shared};
use crate::reaper::Process;

/// Where the container is to be put. Clients that clone a container copy its cgroup
/// path too; while the original lives there, the clone goes beside it, under its own id.
/// The bundle says so from now on: whoever cleans up must not end the original.
pub(crate) fn take_own_cgroup(subject: &Subject) -> Result<String, bundle::Error> {
    let wanted = &subject.spec.linux.cgroups_path;
    // Or will live there: of clones that are made at once none has a process yet.
    if !is_occupied(&subject.spec) && !is_shared(&subject.bundle, &subject.spec) {
        return Ok(wanted.clone());
    }
    let mut beside = beside(wanted, &subject.id);
    if beside == *wanted {
        // The original has the same id, in another namespace of containerd's.
        beside = format!("{beside}-{}", subject.namespace);
    }
    tracing::info!(id = subject.id, wanted, beside, "another container lives in this one's cgroup");
    edit_config(&subject.bundle, |config| set(config, "linux", "cgroupsPath", beside.as_str().into()))?;
    Ok(beside)
}

fn beside(path: &str, id: &str) -> String {
    match path.rsplit_once(['/', ':']) {
        Some((parent, _)) => format!("{parent}{}{id}", &path[parent.len()..=parent.len()]),
        None => id.to_owned(),
    }
}

/// Says where the container's first process is if it isn't in the container's cgroup.
pub(super) fn check(subject: &Subject, process: &Process) -> Result<(), String> {
    put_back(subject, process)?;
    let wanted = &subject.spec.linux.cgroups_path;
    // systemd makes its own path of it, and without one the runtime chooses.
    if wanted.is_empty() || wanted.contains(':') {
        return Ok(());
    }
    let there = Cgroup::of_process(process.pid()).map_err(|error| error.to_string())?.to_string();
    let wanted = Path::new(wanted.trim_start_matches('/'));
    // In it, or in one that the container has made below.
    let inside = Path::new(&there).ancestors().any(|folder| folder.ends_with(wanted));
    // A dead process has left its cgroup, and may be gone as soon as it is back.
    if inside || process.is_dead() {
        Ok(())
    } else {
        Err(format!("it is in {there}, not in /{}", wanted.display()))
    }
}

/// What is inside the container's cgroup and couldn't be set before its runtime was done.
fn put_back(subject: &Subject, process: &Process) -> Result<(), String> {
    if !subject.bundle.join(nested::FILE).exists() || process.is_dead() {
        return Ok(());
    }
    let cgroup = Cgroup::of_container(process.pid(), &subject.spec.linux.cgroups_path);
    let cgroup = cgroup.map_err(|error| error.to_string())?;
    let restored = cgroup.restore_nested(process.pid(), &subject.bundle, &Restorer::IsGone);
    for error in restored.map_err(|error| error.to_string())? {
        tracing::warn!(id = subject.id, %error, "a cgroup inside the container isn't what it was");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Spec;

    #[test]
    fn a_clone_goes_beside_its_original() {
        assert_eq!(beside("/default/c1", "c2"), "/default/c2");
        assert_eq!(beside("system.slice:docker:c1", "c2"), "system.slice:docker:c2");
        assert_eq!(beside("c1", "c2"), "c2");
    }

    #[test]
    fn a_place_without_processes_is_free() {
        for path in ["/no/such/cgroup", "", "system.slice:no:such"] {
            let mut spec = Spec::default();
            spec.linux.cgroups_path = path.to_owned();
            assert!(!is_occupied(&spec));
        }
    }
}

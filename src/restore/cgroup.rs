//! A restored container has a cgroup of its own, whatever its specification was copied
//! from.

use crate::cgroup::Cgroup;
use crate::container::Subject;

/// Where the container is to be put. Clients that clone a container copy its cgroup
/// path too; while the original lives there, the clone goes beside it, under its own id.
pub(crate) fn own_cgroups_path(subject: &Subject) -> String {
    let wanted = &subject.spec.linux.cgroups_path;
    if !is_occupied(wanted) {
        return wanted.clone();
    }
    let beside = beside(wanted, &subject.id);
    tracing::info!(id = subject.id, wanted, beside, "another container lives in this one's cgroup");
    beside
}

fn is_occupied(path: &str) -> bool {
    // Of a systemd path only systemd knows the folder; names there are taken or not.
    let folder = if path.contains(':') { None } else { Cgroup::at_path(path).ok() };
    let processes = folder.and_then(|cgroup| cgroup.processes().ok());
    path.len() > 1 && processes.is_some_and(|processes| !processes.is_empty())
}

fn beside(path: &str, id: &str) -> String {
    match path.rsplit_once(['/', ':']) {
        Some((parent, _)) => format!("{parent}{}{id}", &path[parent.len()..=parent.len()]),
        None => id.to_owned(),
    }
}

/// Its own limits hold only in its own cgroup: says where the process is instead.
pub(super) fn check(subject: &Subject, pid: u32) -> Result<(), String> {
    let wanted = &subject.spec.linux.cgroups_path;
    // systemd makes its own path of it, and without one the runtime chooses.
    if wanted.is_empty() || wanted.contains(':') {
        return Ok(());
    }
    let there = Cgroup::of_process(pid).map_err(|error| error.to_string())?.to_string();
    let inside = there.ends_with(wanted.as_str()) || there.contains(&format!("{wanted}/"));
    if inside { Ok(()) } else { Err(format!("it is in {there}, not in {wanted}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_goes_beside_its_original() {
        assert_eq!(beside("/default/c1", "c2"), "/default/c2");
        assert_eq!(beside("system.slice:docker:c1", "c2"), "system.slice:docker:c2");
        assert_eq!(beside("c1", "c2"), "c2");
    }

    #[test]
    fn a_place_without_processes_is_free() {
        assert!(!is_occupied("/no/such/cgroup"));
        assert!(!is_occupied(""));
    }
}

//! What CRIU is asked to carry along.

use serde::{Deserialize, Serialize};

use crate::policy::{Policy, Tcp};

/// In force at the dump, written into the image and applied again at the restore: a lock
/// that was dumped is never lost silently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    pub tcp_established: bool,
    /// At the restore: connections that were open come back closed.
    pub tcp_close: bool,
    pub external_unix_sockets: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub empty_namespaces: Vec<String>,
    pub cgroups_mode: Option<String>,
    /// For a restore and never from an image: what confines the processes.
    #[serde(skip)]
    pub lsm_profile: Option<String>,
}

impl Options {
    /// What a client asks for at a checkpoint, and what the container does.
    pub fn for_dump(self, policy: &Policy) -> Options {
        let keeps = matches!(policy.tcp(), Some(Tcp::Established | Tcp::Close));
        Options {
            tcp_established: self.tcp_established || keeps,
            tcp_close: self.tcp_close || policy.tcp() == Some(Tcp::Close),
            external_unix_sockets: self.external_unix_sockets || policy.external_unix_sockets(),
            file_locks: self.file_locks || policy.keeps_file_locks(),
            cgroups_mode: self.cgroups_mode.clone().or_else(|| policy.cgroups_mode().map(str::to_owned)),
            ..self
        }
    }

    /// What was in force at the dump, unless the container says otherwise now.
    pub fn for_restore(self, policy: &Policy) -> Options {
        let tcp_close = self.tcp_close || policy.tcp() == Some(Tcp::Close);
        Options {
            tcp_close,
            tcp_established: self.tcp_established && !tcp_close,
            cgroups_mode: policy.cgroups_mode().map(str::to_owned).or(self.cgroups_mode).map(possible),
            lsm_profile: policy.lsm_profile().map(str::to_owned),
            ..self
        }
    }
}

/// The runtime makes the container's cgroup before CRIU comes to it, and in strict mode
/// CRIU wants none to be there.
fn possible(cgroups_mode: String) -> String {
    if cgroups_mode == "strict" { "soft".to_owned() } else { cgroups_mode }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::NodeFile;
    use std::path::Path;

    fn policy(name: &str, value: &str) -> Policy {
        let annotations = [(format!("cryo.{name}"), value.to_owned())].into();
        Policy::of(&annotations, &NodeFile::default(), Path::new("/")).unwrap()
    }

    #[test]
    fn the_client_goes_before_the_container() {
        let asked = Options { file_locks: true, tcp_established: true, ..Options::default() };
        assert!(asked.clone().for_dump(&policy("file-locks", "false")).file_locks);
        assert!(!Options::default().for_dump(&policy("file-locks", "false")).file_locks);
        assert!(asked.for_dump(&policy("tcp", "refuse")).tcp_established);
        assert!(Options::default().for_dump(&policy("tcp", "close")).tcp_established);
    }

    #[test]
    fn what_was_kept_at_the_dump_is_kept_at_the_restore_or_closed() {
        let dumped = || Options { tcp_established: true, file_locks: true, ..Options::default() };
        let kept = dumped().for_restore(&Policy::default());
        assert!(kept.tcp_established && !kept.tcp_close && kept.file_locks);
        let closed = dumped().for_restore(&policy("tcp", "close"));
        assert!(!closed.tcp_established && closed.tcp_close);
    }

    #[test]
    fn no_cgroup_mode_makes_a_restore_impossible() {
        let dumped = Options { cgroups_mode: Some("strict".into()), ..Options::default() };
        assert_eq!(dumped.for_restore(&Policy::default()).cgroups_mode.as_deref(), Some("soft"));
    }
}

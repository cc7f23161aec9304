//! What a container's configuration lets its processes do, and who could do more.
//!
//! A restored process has the rights of its image, whatever the new configuration says.
//! Those that it doesn't grant are a reason to refuse.

pub mod filter;

use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use crate::bundle::{Sharing, Spec};

/// Kinds of namespaces that CRIU makes, or leaves out, as an image says.
pub const KINDS: [&str; 5] = ["user", "pid", "ipc", "uts", "mount"];
/// The kernel's number for who is under a filter of system calls.
pub const FILTERED: u32 = 2;
/// How many capabilities a sentence has room for.
const NAMED: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    pub capabilities: CapabilitySet,
    /// It may get more by running a program that has more.
    pub may_gain: bool,
    /// It may call whatever the kernel offers.
    pub unfiltered: bool,
}

/// All that a configuration grants.
#[derive(Clone, Debug)]
pub struct Granted {
    pub rights: Rights,
    /// Whether a namespace of each kind is to be the host's, if that can be told.
    pub hosts: [(&'static str, Option<bool>); KINDS.len()],
}

impl Granted {
    pub fn of(spec: &Spec) -> Granted {
        let hosts = KINDS.map(|kind| (kind, is_hosts(&spec.sharing(kind), kind)));
        Granted { rights: Rights::granted(spec), hosts }
    }
}

impl Rights {
    pub fn granted(spec: &Spec) -> Rights {
        let granted = spec.process.capabilities.all();
        let named = granted.map(|name| CapabilitySet::from_name(name.trim_start_matches("CAP_")));
        // Of a name that is too new for us the number isn't known.
        let all: CapabilitySet = CapabilitySet::all().iter_names().map(|(_, one)| one).collect();
        let later = CapabilitySet::from_bits_retain(!all.bits());
        Rights {
            capabilities: named.map(|known| known.unwrap_or(later)).collect(),
            may_gain: !spec.process.no_new_privileges,
            unfiltered: !spec.linux.is_filtered,
        }
    }

    /// What these have beyond those, in words.
    pub fn beyond(&self, granted: &Rights) -> Option<String> {
        let more = self.capabilities.difference(granted.capabilities);
        if !more.is_empty() {
            return Some(format!("has {}", names(more)));
        }
        if self.may_gain && !granted.may_gain {
            return Some("may gain rights (no_new_privs isn't set)".to_owned());
        }
        (self.unfiltered && !granted.unfiltered).then(|| "is under no seccomp filter".to_owned())
    }
}

fn names(set: CapabilitySet) -> String {
    let mut names: Vec<String> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    // The library knows no newer ones.
    if names.is_empty() {
        names.push(format!("capabilities {:#x}", set.bits()));
    }
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let list = names.join(", ");
    if more == 0 { list } else { format!("{list} and {more} more") }
}

/// Whether a namespace of a kind ("pid", "user", …) is to be the host's: said, or by a path.
fn is_hosts(sharing: &Sharing, kind: &str) -> Option<bool> {
    match sharing {
        Sharing::Host => Some(true),
        Sharing::Private => Some(false),
        Sharing::With(path) => is_same(path, &PathBuf::from(format!("/proc/self/ns/{}", in_proc(kind)))),
    }
}

/// The kernel's name for what the specification calls otherwise.
pub fn in_proc(kind: &str) -> &str {
    if kind == "mount" { "mnt" } else { kind }
}

fn is_same(one: &Path, other: &Path) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    Some(inode(one)? == inode(other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(process: &str, linux: &str) -> Spec {
        serde_json::from_str(&format!(r#"{{"process": {process}, "linux": {linux}}}"#)).unwrap()
    }

    #[test]
    fn what_is_granted_is_said_in_any_of_the_sets() {
        let process =
            r#"{"capabilities": {"bounding": ["CAP_KILL"], "ambient": ["CAP_CHOWN", "CAP_OF_THE_FUTURE"]}}"#;
        let rights = Rights::granted(&spec(process, "{}"));
        assert!(rights.capabilities.contains(CapabilitySet::KILL | CapabilitySet::CHOWN));
        assert!(!rights.capabilities.intersects(CapabilitySet::SYS_ADMIN));
        assert!(rights.capabilities.contains(CapabilitySet::from_bits_retain(1 << 41)));
        assert!(rights.may_gain && rights.unfiltered);
        let process = r#"{"noNewPrivileges": true}"#;
        let rights = Rights::granted(&spec(process, r#"{"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}"#));
        assert_eq!(rights.capabilities, CapabilitySet::empty());
        assert!(!rights.may_gain && !rights.unfiltered);
    }

    #[test]
    fn who_has_more_is_told_what() {
        let all = Rights { capabilities: CapabilitySet::all(), may_gain: true, unfiltered: true };
        let some = CapabilitySet::CHOWN | CapabilitySet::KILL;
        let few = Rights { capabilities: some, may_gain: true, unfiltered: true };
        assert_eq!(few.beyond(&all), None);
        assert_eq!(few.beyond(&few), None);
        let text = all.beyond(&few).unwrap();
        assert!(text.starts_with("has CAP_DAC_OVERRIDE, ") && text.ends_with(" more"), "{text}");
        let strict = Rights { may_gain: false, ..few };
        assert_eq!(few.beyond(&strict).as_deref(), Some("may gain rights (no_new_privs isn't set)"));
        assert_eq!(strict.beyond(&few), None);
        let filtered = Rights { unfiltered: false, ..few };
        assert_eq!(few.beyond(&filtered).as_deref(), Some("is under no seccomp filter"));
        let new = Rights { capabilities: CapabilitySet::from_bits_retain(1 << 60), ..few };
        assert_eq!(new.beyond(&few).as_deref(), Some("has capabilities 0x1000000000000000"));
    }

    #[test]
    fn a_namespace_may_be_the_hosts_by_its_path() {
        let path = |path: &str| Sharing::With(path.into());
        for (sharing, kind, expected) in [
            (Sharing::Host, "pid", Some(true)),
            (Sharing::Private, "pid", Some(false)),
            (path("/proc/self/ns/mnt"), "mount", Some(true)),
            (path("/proc/self/ns/uts"), "pid", Some(false)),
            (path("/no/such/file"), "pid", None),
        ] {
            assert_eq!(is_hosts(&sharing, kind), expected, "{sharing:?} {kind}");
        }
    }
}

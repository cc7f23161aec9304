//! Who a process is, and what it may do.

use cryo::rights::FILTERED;
use prost::Message;
use rustix::thread::CapabilitySet;
use serde::Serialize;

/// Of one thread; CRIU writes those of each.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(uint32, tag = "1")]
    pub(super) user: u32,
    #[prost(uint32, tag = "2")]
    pub(super) group: u32,
    #[prost(uint32, tag = "3")]
    pub(super) effective_user: u32,
    #[prost(uint32, tag = "4")]
    pub(super) effective_group: u32,
    #[prost(uint32, tag = "5")]
    pub(super) saved_user: u32,
    #[prost(uint32, tag = "6")]
    pub(super) saved_group: u32,
    #[prost(uint32, repeated, packed = "false", tag = "9")]
    pub(super) inheritable: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "10")]
    pub(super) permitted: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "11")]
    pub(super) effective: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "12")]
    pub(super) bounding: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "14")]
    pub(super) groups: Vec<u32>,
    #[prost(string, optional, tag = "15")]
    pub(super) label: Option<String>,
    #[prost(uint32, tag = "18")]
    pub(super) no_new_privileges: u32,
    #[prost(uint32, repeated, packed = "false", tag = "19")]
    pub(super) ambient: Vec<u32>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Credentials {
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) effective_user: u32,
    pub(crate) effective_group: u32,
    pub(crate) saved_user: u32,
    pub(crate) saved_group: u32,
    /// The supplementary ones.
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: Capabilities,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Seccomp,
    /// What a security module calls it.
    pub(crate) label: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Capabilities {
    pub(crate) effective: Vec<String>,
    pub(crate) permitted: Vec<String>,
    pub(crate) inheritable: Vec<String>,
    pub(crate) bounding: Vec<String>,
    pub(crate) ambient: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Seccomp {
    Disabled,
    Strict,
    Filter,
    Unknown,
}

impl Credentials {
    pub(super) fn of(entry: Entry, seccomp: u32) -> Credentials {
        Credentials {
            user: entry.user,
            group: entry.group,
            effective_user: entry.effective_user,
            effective_group: entry.effective_group,
            saved_user: entry.saved_user,
            saved_group: entry.saved_group,
            groups: entry.groups,
            capabilities: Capabilities {
                effective: names(&entry.effective),
                permitted: names(&entry.permitted),
                inheritable: names(&entry.inheritable),
                bounding: names(&entry.bounding),
                ambient: names(&entry.ambient),
            },
            no_new_privileges: entry.no_new_privileges != 0,
            seccomp: match seccomp {
                0 => Seccomp::Disabled,
                1 => Seccomp::Strict,
                FILTERED => Seccomp::Filter,
                _ => Seccomp::Unknown,
            },
            label: entry.label,
        }
    }
}

/// As `capsh` and OCI configurations write them; a number if nobody has named it yet.
fn names(words: &[u32]) -> Vec<String> {
    let word = |at: usize| u64::from(words.get(at).copied().unwrap_or_default());
    let bits = word(0) | word(1) << 32;
    let name = |number| {
        let one = CapabilitySet::from_bits(1u64 << number)?;
        one.iter_names().next().map(|(name, _)| format!("CAP_{name}"))
    };
    let held = (0..u64::BITS).filter(|number| bits & 1 << number != 0);
    held.map(|number| name(number).unwrap_or_else(|| number.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_their_usual_names() {
        assert_eq!(names(&[1 << 5 | 1, 1 << 8]), ["CAP_CHOWN", "CAP_KILL", "CAP_CHECKPOINT_RESTORE"]);
        assert_eq!(names(&[0, 1 << 31]), ["63"]);
        assert!(names(&[]).is_empty());
    }
}

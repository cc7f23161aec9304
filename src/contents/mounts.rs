//! What is mounted in a container, and where each mount comes from.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use prost::Message;
use serde::Serialize;

use super::all as messages;

const MOUNTS: u32 = 0x5556_3928;
const READ_ONLY: u32 = 1;
/// CRIU's numbers of file systems; 16 is one whose name it notes.
const TYPES: [&str; 24] = [
    "unknown",
    "proc",
    "sysfs",
    "devtmpfs",
    "binfmt_misc",
    "tmpfs",
    "devpts",
    "simfs",
    "pstore",
    "securityfs",
    "fusectl",
    "debugfs",
    "cgroup",
    "aufs",
    "mqueue",
    "fuse",
    "unknown",
    "overlay",
    "autofs",
    "tracefs",
    "rpc_pipefs",
    "nfs",
    "nfs4",
    "cgroup2",
];

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(uint32, tag = "1")]
    pub(super) kind: u32,
    #[prost(uint32, tag = "2")]
    pub(super) id: u32,
    #[prost(uint32, tag = "4")]
    pub(super) parent: u32,
    #[prost(uint32, tag = "5")]
    pub(super) flags: u32,
    #[prost(string, tag = "6")]
    pub(super) root: String,
    #[prost(string, tag = "7")]
    pub(super) place: String,
    #[prost(string, tag = "8")]
    pub(super) source: String,
    #[prost(string, tag = "9")]
    pub(super) options: String,
    #[prost(uint32, optional, tag = "10")]
    pub(super) shared: Option<u32>,
    #[prost(uint32, optional, tag = "11")]
    pub(super) master: Option<u32>,
    #[prost(string, optional, tag = "14")]
    pub(super) type_name: Option<String>,
    #[prost(uint32, optional, tag = "17")]
    pub(super) file_system_flags: Option<u32>,
    #[prost(string, optional, tag = "18")]
    pub(super) key: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Mount {
    pub(crate) mount_point: String,
    /// Which folder or file of the file system is seen there.
    pub(crate) root: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) source: String,
    /// The file system's own; those of the mount are fields of their own.
    pub(crate) options: String,
    pub(crate) read_only: bool,
    /// `private`, `shared`, `slave` or `shared,slave`.
    pub(crate) propagation: &'static str,
    /// By which the runtime hands it over at a restore; null if the image tells all of it.
    pub(crate) external: Option<String>,
    pub(crate) id: u32,
    pub(crate) parent: u32,
    /// CRIU's number of the mount namespace that it is in.
    pub(crate) namespace: u32,
}

/// Of all mount namespaces with the given numbers.
pub(super) fn all(folder: &Path, namespaces: impl Iterator<Item = u32>) -> io::Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for namespace in namespaces.collect::<BTreeSet<_>>() {
        let entries: Vec<Entry> = messages(folder, &format!("mountpoints-{namespace}.img"), MOUNTS)?;
        let mut these: Vec<_> = entries.into_iter().map(|entry| Mount::of(entry, namespace)).collect();
        // CRIU writes the latest first; what is mounted over another comes after it.
        these.sort_by(|one, other| one.mount_point.cmp(&other.mount_point).then(one.id.cmp(&other.id)));
        mounts.append(&mut these);
    }
    Ok(mounts)
}

impl Mount {
    fn of(entry: Entry, namespace: u32) -> Mount {
        let known = usize::try_from(entry.kind).ok().and_then(|number| TYPES.get(number));
        let named = entry.type_name.filter(|name| !name.is_empty());
        let flags = entry.flags | entry.file_system_flags.unwrap_or_default();
        let is = |peers: Option<u32>| peers.is_some_and(|group| group != 0);
        Mount {
            mount_point: entry.place,
            root: entry.root,
            kind: named.unwrap_or_else(|| (*known.unwrap_or(&"unknown")).to_owned()),
            source: entry.source,
            options: entry.options,
            read_only: flags & READ_ONLY != 0,
            propagation: match (is(entry.shared), is(entry.master)) {
                (false, false) => "private",
                (true, false) => "shared",
                (false, true) => "slave",
                (true, true) => "shared,slave",
            },
            external: entry.key.filter(|key| !key.is_empty()),
            id: entry.id,
            parent: entry.parent,
            namespace,
        }
    }
}

//! Which namespaces the first process has to itself.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use cryo::criu::namespaces;
use serde::Serialize;

const KINDS: [&str; 8] = ["mount", "pid", "network", "ipc", "uts", "user", "cgroup", "time"];

/// True if it is the container's, false if the host's; one that the image doesn't tell is missing.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Namespaces(pub(crate) BTreeMap<&'static str, bool>);

impl Namespaces {
    pub(super) fn read(folder: &Path) -> io::Result<Namespaces> {
        let found = namespaces::Namespaces::of(folder)?;
        let own = |kind| Some((kind, !found.is_hosts(kind)?));
        Ok(Namespaces(KINDS.into_iter().filter_map(own).collect()))
    }
}

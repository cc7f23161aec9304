//! The container's cgroups with their limits and other settings.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use cryo::criu::images::CGROUP_FILE;
use prost::Message;
use serde::Serialize;

use super::first;

const CGROUP: u32 = 0x5938_3330;
/// Deeper ones aren't shown: nobody makes them, and a damaged image mustn't either.
const DEEPEST: usize = 32;

#[derive(Clone, PartialEq, Message)]
pub(super) struct All {
    #[prost(message, repeated, tag = "2")]
    pub(super) hierarchies: Vec<Hierarchy>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Hierarchy {
    #[prost(string, repeated, tag = "1")]
    pub(super) controllers: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    pub(super) folders: Vec<Folder>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Folder {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) children: Vec<Folder>,
    #[prost(message, repeated, tag = "3")]
    pub(super) settings: Vec<Setting>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Setting {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Cgroup {
    /// Of its hierarchy; none in version 2.
    pub(crate) controllers: Vec<String>,
    pub(crate) path: String,
    /// By the names of the kernel's files: `memory.max`, `pids.max`.
    pub(crate) settings: BTreeMap<String, String>,
}

pub(super) fn all(folder: &Path) -> io::Result<Vec<Cgroup>> {
    let all: All = first(folder, CGROUP_FILE, CGROUP)?.unwrap_or_default();
    let mut cgroups = Vec::new();
    for Hierarchy { controllers, folders } in all.hierarchies {
        for folder in folders {
            add(folder, "", &controllers, 0, &mut cgroups);
        }
    }
    Ok(cgroups)
}

fn add(folder: Folder, above: &str, controllers: &[String], depth: usize, cgroups: &mut Vec<Cgroup>) {
    let path = format!("{above}/{}", folder.name.trim_matches('/'));
    let settings = folder.settings.into_iter().map(|setting| (setting.name, setting.value)).collect();
    cgroups.push(Cgroup { controllers: controllers.to_vec(), path: path.clone(), settings });
    if depth < DEEPEST {
        for child in folder.children {
            add(child, &path, controllers, depth + 1, cgroups);
        }
    }
}

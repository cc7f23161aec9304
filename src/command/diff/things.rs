//! Things that have names: which are gone, which are new, and what changed in the others.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::values::{Change, changes, description};
use crate::contents::{Cgroup, Contents, File, Kind, Process};

/// Before the name of a variable.
const ENVIRONMENT: &str = "environment.";

#[derive(Debug, Default, Serialize)]
pub(super) struct Changes {
    pub(super) gone: Vec<String>,
    pub(super) new: Vec<String>,
    pub(super) changed: Vec<Changed>,
}

#[derive(Debug, Serialize)]
pub(super) struct Changed {
    pub(super) name: String,
    pub(super) changes: Vec<Change>,
}

/// By what makes two of them the same one: a name for people and what there is to compare.
type Things = BTreeMap<Vec<String>, (String, Value)>;

impl Changes {
    fn between(mut old: Things, new: Things) -> Changes {
        let mut found = Changes::default();
        for (key, (name, after)) in new {
            match old.remove(&key) {
                None => found.new.push(name),
                // What another place tells of isn't told here.
                Some((_, before)) if before.is_null() || after.is_null() => {}
                Some((_, before)) => {
                    let changes = changes(&before, &after);
                    if !changes.is_empty() {
                        found.changed.push(Changed { name, changes });
                    }
                }
            }
        }
        found.gone = old.into_values().map(|(name, _)| name).collect();
        found
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty() && self.changed.is_empty()
    }
}

pub(super) fn processes(old: &Contents, new: &Contents) -> Changes {
    let mut found = Changes::between(of_processes(old), of_processes(new));
    let changes = found.changed.iter_mut().flat_map(|process| &mut process.changes);
    // Passwords are handed over like this.
    for change in changes.filter(|change| change.what.starts_with(ENVIRONMENT)) {
        for value in [&mut change.before, &mut change.after].into_iter().filter(|value| !value.is_null()) {
            *value = "…".into();
        }
    }
    found
}

/// Those with one number are one process: CRIU gives it back to it.
fn of_processes(contents: &Contents) -> Things {
    let thing = |process: &Process| {
        let mut value = description(process, &["files", "memory", "environment", "mount_namespace"]);
        let variables = process.environment.iter().flatten();
        let member = |name: &str| format!("{ENVIRONMENT}{name}");
        let variables = variables.map(|variable| (member(&variable.name), variable.value.clone().into()));
        value.as_object_mut().into_iter().for_each(|members| members.extend(variables.clone()));
        (vec![number(process.pid)], (named(process), value))
    };
    contents.processes.iter().map(thing).collect()
}

pub(super) fn files(old: &Contents, new: &Contents) -> Changes {
    Changes::between(of_files(old, new), of_files(new, old))
}

/// By descriptor, of the processes that both have: of the others all are gone or new.
fn of_files(contents: &Contents, other: &Contents) -> Things {
    let mut things = Things::new();
    let known: BTreeSet<_> = other.processes.iter().map(|process| process.pid).collect();
    for (file, holders) in contents.open() {
        let held = holders.iter().filter(|(process, _)| known.contains(&process.pid));
        for (place, (process, fd)) in held.enumerate().filter(|_| file.socket.is_none()) {
            // What changed in one that many hold is told once.
            let value = if place == 0 { of_file(file) } else { Value::Null };
            // Numbers of pipes are others after a restore.
            let what = if file.path.is_none() { format!("[{}]", file.kind.name()) } else { file.what() };
            let key = vec![number(process.pid), number(*fd), what.clone()];
            things.insert(key, (format!("pid {} fd {fd}: {what}", process.pid), value));
        }
    }
    things
}

/// Without numbers of CRIU's own and times that run by themselves.
fn of_file(file: &File) -> Value {
    let running = if file.kind == Kind::Timerfd { "detail" } else { "id" };
    description(file, &["id", "pipe", "socket", running])
}

pub(super) fn sockets(old: &Contents, new: &Contents) -> Changes {
    Changes::between(of_sockets(old), of_sockets(new))
}

fn of_sockets(contents: &Contents) -> Things {
    let mut things = Things::new();
    for (socket, holders) in contents.sockets() {
        let first = holders.first().map(|(process, fd)| format!("{}:{fd}", process.pid)).unwrap_or_default();
        let name = format!("pid:fd {first}: {} {}", socket.what(), socket.state);
        let ends = [socket.protocol.clone(), socket.what(), first];
        things.insert(ends.into(), (name, description(socket, &[])));
    }
    things
}

pub(super) fn mounts(old: &Contents, new: &Contents) -> Changes {
    Changes::between(of_mounts(old), of_mounts(new))
}

/// One may lie over another in the same place.
fn of_mounts(contents: &Contents) -> Things {
    let mut things = Things::new();
    let mut layers: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    for mount in &contents.mounts {
        let layer = layers.entry((mount.namespace, &mount.mount_point)).or_default();
        *layer += 1;
        let key = vec![mount.mount_point.clone(), layer.to_string(), mount.kind.clone(), mount.root.clone()];
        let value = description(mount, &["id", "parent", "namespace"]);
        things.insert(key, (format!("{} ({})", mount.mount_point, mount.kind), value));
    }
    things
}

pub(super) fn cgroups(old: &Contents, new: &Contents) -> Changes {
    Changes::between(of_cgroups(old), of_cgroups(new))
}

fn of_cgroups(contents: &Contents) -> Things {
    let thing = |cgroup: &Cgroup| {
        let controllers = cgroup.controllers.join(",");
        let name = format!("{controllers}:{}", cgroup.path);
        (vec![controllers, cgroup.path.clone()], (name, description(&cgroup.settings, &[])))
    };
    contents.cgroups.iter().map(thing).collect()
}

pub(super) fn named(process: &Process) -> String {
    format!("pid {} ({})", process.pid, process.name)
}

/// Sorts as the number does.
fn number(number: u32) -> String {
    format!("{number:010}")
}

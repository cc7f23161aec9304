//! What a checkpoint holds, decoded from CRIU's image files: processes with their open files
//! and memory, mounts, namespaces, cgroups.
//!
//! `cryo inspect --json` prints it as it stands here, so the names of fields are a promise:
//! new ones may come, none changes. What an image doesn't tell is null or missing. Numbers of
//! processes, users and mounts are those inside the container.

mod cgroups;
mod credentials;
mod descriptors;
mod files;
mod memory;
mod mounts;
mod namespaces;
mod pages;
mod process;
mod socket;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

use cryo::criu::images;
use cryo::criu::messages::{MOST_LISTED, Messages};
use prost::Message;
use serde::Serialize;

pub(crate) use cgroups::Cgroup;
pub(crate) use credentials::{Credentials, Seccomp};
use descriptors::Descriptor;
pub(crate) use files::{File, Kind};
pub(crate) use memory::Mapping;
pub(crate) use mounts::Mount;
pub(crate) use namespaces::Namespaces;
pub(crate) use pages::{PAGE, Pages};
pub(crate) use process::{Limit, Process};
pub(crate) use socket::Socket;

#[derive(Debug, Serialize)]
pub(crate) struct Contents {
    pub(crate) totals: Totals,
    /// The container's first process before the others.
    pub(crate) processes: Vec<Process>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) namespaces: Namespaces,
    pub(crate) cgroups: Vec<Cgroup>,
}

pub(crate) type Holder<'a> = (&'a Process, u32);

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    pub(crate) processes: usize,
    pub(crate) threads: usize,
    /// Open files that aren't sockets; one that several processes share counts once.
    pub(crate) files: usize,
    pub(crate) sockets: usize,
    pub(crate) mounts: usize,
    /// Bytes of memory whose content is in the image; what processes share counts once.
    pub(crate) dumped: u64,
}

impl Contents {
    pub(crate) fn read(folder: &Path) -> io::Result<Contents> {
        images::check_inventory(folder)?;
        let files = files::all(folder)?;
        let processes = process::all(folder, &files)?;
        let mounts = mounts::all(folder, processes.iter().filter_map(|process| process.mount_namespace))?;
        let totals = Totals::of(folder, &processes, mounts.len())?;
        let namespaces = Namespaces::read(folder)?;
        Ok(Contents { totals, processes, mounts, namespaces, cgroups: cgroups::all(folder)? })
    }

    /// All that is open, once each, with who holds it: process and descriptor.
    pub(crate) fn open(&self) -> Vec<(&File, Vec<Holder<'_>>)> {
        let mut open: Vec<(&File, Vec<_>)> = Vec::new();
        let mut places = HashMap::new();
        for process in &self.processes {
            for Descriptor { fd, file, .. } in &process.files {
                let place = *places.entry(file.id).or_insert_with(|| {
                    open.push((file, Vec::new()));
                    open.len() - 1
                });
                open[place].1.push((process, *fd));
            }
        }
        open
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = (&Socket, Vec<Holder<'_>>)> {
        self.open().into_iter().filter_map(|(file, holders)| Some((file.socket.as_ref()?, holders)))
    }
}

impl Totals {
    fn of(folder: &Path, processes: &[Process], mounts: usize) -> io::Result<Totals> {
        let open = processes.iter().flat_map(|process| &process.files);
        let seen: BTreeSet<_> = open.map(|open| (open.file.socket.is_some(), open.file.id)).collect();
        let sockets = seen.iter().filter(|(is_socket, _)| *is_socket).count();
        let own: u64 = processes.iter().filter_map(|process| process.memory.as_ref()).map(|m| m.dumped).sum();
        Ok(Totals {
            processes: processes.len(),
            threads: processes.iter().map(|process| process.threads.len()).sum(),
            files: seen.len() - sockets,
            sockets,
            mounts,
            dumped: own.saturating_add(pages::shared(folder)?),
        })
    }
}

/// All messages of a file of CRIU's; one that isn't there has none.
fn all<M: Message + Default>(folder: &Path, name: &str, magic: u32) -> io::Result<Vec<M>> {
    match Messages::open(&folder.join(name), magic, MOST_LISTED) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        messages => messages?.collect(),
    }
}

/// The first message of a file that need not be there.
fn first<M: Message + Default>(folder: &Path, name: &str, magic: u32) -> io::Result<Option<M>> {
    match Messages::open(&folder.join(name), magic, MOST_LISTED) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        messages => messages?.first().map(Some),
    }
}

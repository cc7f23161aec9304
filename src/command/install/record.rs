//! What was changed on this machine and what was there before, kept in a file of our own.
//!
//! It is written before anything is changed: whoever was interrupted runs the same command
//! again, and what is done already is recognised by its content.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Content};
use crate::command::Daemon;
use crate::command::root::Root;

pub(super) const PATH: &str = "/var/lib/cryo/install.json";
const VERSION: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// Made by us, outer ones first.
    pub(super) folders: Vec<PathBuf>,
    pub(super) files: BTreeMap<PathBuf, Entry>,
    /// containerd hasn't been restarted since its configuration was changed for Kubernetes.
    #[serde(default)]
    pub(super) restart_due: bool,
    /// The shim that pods are started with.
    #[serde(default)]
    pub(super) handler: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// For whom it was made; it goes with the last of them.
    pub(super) daemons: BTreeSet<Daemon>,
    pub(super) before: Option<Content>,
    pub(super) wrote: Content,
    /// What of ours was there when this was about to be written.
    #[serde(default)]
    pub(super) replaced: Option<Content>,
}

impl Entry {
    pub(super) fn is_program(&self) -> bool {
        matches!(self.wrote, Content::Program(_))
    }

    pub(super) fn is_ours(&self, now: Option<&Content>) -> bool {
        now.is_some() && (now == Some(&self.wrote) || now == self.replaced.as_ref())
    }
}

impl Record {
    pub(super) fn read(root: &Root) -> io::Result<Record> {
        let Some(Content::Text(text)) = disk::look(root, PATH.as_ref())? else {
            return Ok(Record::default());
        };
        let record: Record = serde_json::from_str(&text)?;
        if record.version > VERSION {
            return Err(io::Error::other("it was written by a newer version of cryo"));
        }
        Ok(record)
    }

    pub(super) fn write(&self, root: &Root) -> io::Result<()> {
        let record = Record { version: VERSION, ..self.clone() };
        let text = serde_json::to_string_pretty(&record)? + "\n";
        // daemon.json may hold what isn't for everybody, a proxy's password for instance.
        disk::write(root, PATH.as_ref(), text.as_bytes(), 0o600)
    }

    pub(super) fn daemons(&self) -> BTreeSet<Daemon> {
        self.files.values().flat_map(|entry| entry.daemons.iter().copied()).collect()
    }

    /// This one, with what is about to be released still in it: good for either outcome.
    pub(super) fn with_all_of(&self, older: &Record) -> Record {
        let mut all = self.clone();
        for (path, entry) in &older.files {
            all.files.entry(path.clone()).or_insert_with(|| entry.clone());
        }
        all
    }

    /// Notes the folders that will have to be made for a path.
    pub(super) fn note_folders(&mut self, root: &Root, path: &Path) {
        let missing: Vec<_> =
            path.ancestors().skip(1).take_while(|folder| !root.at(folder).exists()).collect();
        for folder in missing.into_iter().rev() {
            if !self.folders.iter().any(|known| known == folder) {
                self.folders.push(folder.to_owned());
            }
        }
    }
}

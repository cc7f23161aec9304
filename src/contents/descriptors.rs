//! Which files a process has open, by its descriptors.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use prost::Message;
use serde::ser::{Serialize, Serializer};

use super::all as messages;
use super::files::File;

const DESCRIPTORS: u32 = 0x5621_3732;
const CLOSED_BY_EXEC: u32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(uint32, tag = "2")]
    pub(super) flags: u32,
    #[prost(uint32, tag = "3")]
    pub(super) kind: u32,
    #[prost(uint32, tag = "4")]
    pub(super) fd: u32,
}

/// In JSON, the file's own fields stand beside these two.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) fd: u32,
    pub(crate) close_on_exec: bool,
    pub(crate) file: Rc<File>,
}

pub(super) fn all(folder: &Path, table: u32, files: &BTreeMap<u32, Rc<File>>) -> io::Result<Vec<Descriptor>> {
    let entries: Vec<Entry> = messages(folder, &format!("fdinfo-{table}.img"), DESCRIPTORS)?;
    let descriptor = |entry: Entry| Descriptor {
        fd: entry.fd,
        close_on_exec: entry.flags & CLOSED_BY_EXEC != 0,
        file: files.get(&entry.id).cloned().unwrap_or_else(|| Rc::new(File::unknown(entry.id, entry.kind))),
    };
    let mut all: Vec<_> = entries.into_iter().map(descriptor).collect();
    all.sort_by_key(|descriptor| descriptor.fd);
    Ok(all)
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Joined<'a> {
            fd: u32,
            close_on_exec: bool,
            #[serde(flatten)]
            file: &'a File,
        }
        let Descriptor { fd, close_on_exec, file } = self;
        Joined { fd: *fd, close_on_exec: *close_on_exec, file }.serialize(serializer)
    }
}

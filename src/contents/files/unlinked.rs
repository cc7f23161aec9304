//! Files that a process has open although their names are gone. CRIU keeps their content in
//! the image, or gives them another name for the time of the restore.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use cryo::criu::messages::Messages;
use prost::Message;

use super::super::all;
use super::File;

const REMAPS: u32 = 0x5913_3954;
const GHOST: u32 = 0x5258_3605;
/// Of the ways in which CRIU remembers a file without a name: its content.
const AS_GHOST: u32 = 1;
/// By an older CRIU.
const GHOST_BIT: u32 = 1 << 31;

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Remap {
    #[prost(uint32, tag = "1")]
    pub(in super::super) file: u32,
    #[prost(uint32, tag = "2")]
    pub(in super::super) other: u32,
    #[prost(uint32, optional, tag = "3")]
    pub(in super::super) kind: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Ghost {
    #[prost(uint32, tag = "3")]
    pub(in super::super) mode: u32,
    #[prost(uint64, optional, tag = "10")]
    pub(in super::super) size: Option<u64>,
}

pub(super) fn mark(folder: &Path, files: &mut BTreeMap<u32, File>) -> io::Result<()> {
    let remaps: Vec<Remap> = all(folder, "remap-fpath.img", REMAPS)?;
    for remap in remaps {
        let Some(file) = files.get_mut(&remap.file) else { continue };
        file.deleted = true;
        if remap.kind == Some(AS_GHOST) || remap.other & GHOST_BIT != 0 {
            file.size = size(folder, remap.other & !GHOST_BIT)?.or(file.size);
        }
    }
    Ok(())
}

/// Of big ones CRIU notes it; of small ones the content is what follows the description.
fn size(folder: &Path, number: u32) -> io::Result<Option<u64>> {
    let path = folder.join(format!("ghost-file-{number:x}.img"));
    let mut messages = match Messages::<Ghost>::open(&path, GHOST, u64::MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        messages => messages?,
    };
    let ghost: Ghost = messages.head()?;
    Ok(ghost.size.or(Some(messages.left())))
}

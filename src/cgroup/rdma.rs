//! RDMA devices, which both versions count in the same files.

use std::path::Path;

use super::{Error, file};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rdma {
    pub current: Vec<RdmaEntry>,
    pub limit: Vec<RdmaEntry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdmaEntry {
    pub device: String,
    pub hca_handles: u32,
    pub hca_objects: u32,
}

impl Rdma {
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let current = file::text(&folder.join("rdma.current"))?;
        let limit = file::text(&folder.join("rdma.max"))?;
        let (Some(current), Some(limit)) = (current, limit) else { return Ok(None) };
        let parse = |text: &str| text.lines().filter_map(RdmaEntry::parse).collect();
        Ok(Some(Self { current: parse(&current), limit: parse(&limit) }))
    }
}

impl RdmaEntry {
    /// `mlx4_0 hca_handle=2 hca_object=max`
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let mut entry = Self { device: words.next()?.to_owned(), ..Self::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = if value == "max" { u32::MAX } else { value.parse().ok()? };
            match key {
                "hca_handle" => entry.hca_handles = value,
                "hca_object" => entry.hca_objects = value,
                _ => {}
            }
        }
        Some(entry)
    }
}

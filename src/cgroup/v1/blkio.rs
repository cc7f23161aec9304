//! Block devices, by device and kind of operation.

use std::{collections::HashMap, path::Path};

use super::super::{Error, file};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlkIo {
    pub io_service_bytes_recursive: Vec<BlkIoEntry>,
    pub io_serviced_recursive: Vec<BlkIoEntry>,
    pub io_queued_recursive: Vec<BlkIoEntry>,
    pub io_service_time_recursive: Vec<BlkIoEntry>,
    pub io_wait_time_recursive: Vec<BlkIoEntry>,
    pub io_merged_recursive: Vec<BlkIoEntry>,
    pub io_time_recursive: Vec<BlkIoEntry>,
    pub sectors_recursive: Vec<BlkIoEntry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlkIoEntry {
    /// `Read`, `Write` and so on; empty for a plain sum.
    pub op: String,
    /// Path in /dev; empty if the device has gone.
    pub device: String,
    pub major: u64,
    pub minor: u64,
    pub value: u64,
}

impl BlkIo {
    /// Which files count depends on the I/O scheduler. The old CFQ's are the
    /// richest. Without it, and for devices that it doesn't serve, throttling
    /// counts bytes and operations.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, Error> {
        if !folder.is_dir() {
            return Ok(None);
        }
        let partitions = file::text(Path::new("/proc/partitions"))?.unwrap_or_default();
        let devices = Devices::parse(&partitions);
        let entries = |name: &str| devices.entries(&folder.join(format!("blkio.{name}")));
        let of_cfq = Self {
            io_service_bytes_recursive: entries("io_service_bytes_recursive")?,
            io_serviced_recursive: entries("io_serviced_recursive")?,
            io_queued_recursive: entries("io_queued_recursive")?,
            io_service_time_recursive: entries("io_service_time_recursive")?,
            io_wait_time_recursive: entries("io_wait_time_recursive")?,
            io_merged_recursive: entries("io_merged_recursive")?,
            io_time_recursive: entries("time_recursive")?,
            sectors_recursive: entries("sectors_recursive")?,
        };
        if of_cfq != Self::default() {
            return Ok(Some(of_cfq));
        }
        Ok(Some(Self {
            io_service_bytes_recursive: entries("throttle.io_service_bytes")?,
            io_serviced_recursive: entries("throttle.io_serviced")?,
            ..Self::default()
        }))
    }
}

/// Names of block devices by their numbers.
struct Devices(HashMap<(u64, u64), String>);

impl Devices {
    /// /proc/partitions: `major minor blocks name`, below a heading.
    fn parse(partitions: &str) -> Self {
        let mut names = HashMap::new();
        for line in partitions.lines() {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            if let [major, minor, _, name] = words[..]
                && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
            {
                names.entry((major, minor)).or_insert_with(|| format!("/dev/{name}"));
            }
        }
        Self(names)
    }

    fn entries(&self, path: &Path) -> Result<Vec<BlkIoEntry>, Error> {
        let text = file::text(path)?.unwrap_or_default();
        // The last line is a sum over all devices.
        let lines = text.lines().filter(|line| !line.starts_with("Total "));
        let entry = |line| self.entry(line).ok_or_else(|| Error::malformed(path, line));
        lines.map(entry).collect()
    }

    /// `8:0 Read 4096`, or `8:0 4096`.
    fn entry(&self, line: &str) -> Option<BlkIoEntry> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let (device, op, value) = match words[..] {
            [device, op, value] => (device, op, value),
            [device, value] => (device, "", value),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        Some(BlkIoEntry {
            op: op.to_owned(),
            device: self.0.get(&(major, minor)).cloned().unwrap_or_default(),
            major,
            minor,
            value: value.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PARTITIONS: &str = "\
major minor  #blocks  name

 254        0    2560000 vda
  11        0    1048575 sr0
";

    fn read(files: &[(&str, &str)]) -> Result<BlkIo, Error> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Ok(BlkIo::read(folder.path())?.unwrap())
    }

    #[test]
    fn devices_are_named_as_long_as_they_exist() {
        let devices = Devices::parse(PARTITIONS);
        let entry = |op: &str, device: &str, major, value| BlkIoEntry {
            op: op.into(),
            device: device.into(),
            major,
            minor: 0,
            value,
        };
        assert_eq!(devices.entry("254:0 Read 4096"), Some(entry("Read", "/dev/vda", 254, 4096)));
        assert_eq!(devices.entry("11:0 7"), Some(entry("", "/dev/sr0", 11, 7)));
        assert_eq!(devices.entry("8:0 Write 1"), Some(entry("Write", "", 8, 1)));
    }

    #[test]
    fn throttling_counts_where_the_scheduler_does_not() {
        let blkio = read(&[
            ("blkio.io_serviced_recursive", "Total 0\n"),
            ("blkio.throttle.io_serviced", "254:0 Read 10\n254:0 Total 10\nTotal 10\n"),
            ("blkio.throttle.io_service_bytes", "254:0 Read 512\n254:0 Total 512\nTotal 512\n"),
        ])
        .unwrap();
        let values = |entries: &[BlkIoEntry]| entries.iter().map(|entry| entry.value).collect::<Vec<_>>();
        assert_eq!(values(&blkio.io_serviced_recursive), [10, 10]);
        assert_eq!(values(&blkio.io_service_bytes_recursive), [512, 512]);
    }

    #[test]
    fn the_figures_of_the_scheduler_come_first() {
        let blkio = read(&[
            ("blkio.time_recursive", "254:0 99\n"),
            ("blkio.sectors_recursive", "254:0 8\n"),
            ("blkio.throttle.io_serviced", "254:0 Read 10\n"),
        ])
        .unwrap();
        assert_eq!(blkio.io_time_recursive[0].value, 99);
        assert_eq!(blkio.sectors_recursive[0].value, 8);
        assert!(blkio.io_serviced_recursive.is_empty());
    }

    #[test]
    fn a_damaged_line_is_named() {
        for line in ["254 Read 1", "254:0", "254:0 Read x", "a:b Read 1", "254:0 Read 1 2"] {
            let error = read(&[("blkio.throttle.io_serviced", line)]).unwrap_err().to_string();
            assert!(error.contains("blkio.throttle.io_serviced"), "{error}");
            assert!(error.contains(line), "{error}");
        }
    }
}

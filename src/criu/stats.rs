//! What CRIU measured: `stats-dump` and `stats-restore`, which it writes beside its logs.

use std::io;
use std::path::Path;

use prost::Message;

use super::messages::{Messages, bad};

/// Of files that aren't part of an image, and of statistics.
const HEAD: [[u8; 4]; 2] = [0x5510_5940_u32.to_le_bytes(), 0x5709_3306_u32.to_le_bytes()];
/// They are some dozens of bytes.
const MOST_BYTES: u64 = 64 << 10;

#[derive(Clone, PartialEq, Message)]
struct Stats {
    #[prost(message, optional, tag = "1")]
    dump: Option<Dump>,
    #[prost(message, optional, tag = "2")]
    restore: Option<Restore>,
}

/// Times are in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Dump {
    #[prost(uint32, tag = "1")]
    pub freezing_time: u32,
    #[prost(uint32, tag = "2")]
    pub frozen_time: u32,
    #[prost(uint32, tag = "4")]
    pub memwrite_time: u32,
    #[prost(uint64, tag = "7")]
    pub pages_written: u64,
    /// Memory that processes share, which the pages above don't count.
    #[prost(uint64, tag = "14")]
    pub shared_pages_written: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Restore {
    #[prost(uint32, tag = "4")]
    pub restore_time: u32,
    #[prost(uint64, tag = "5")]
    pub pages_restored: u64,
}

pub const DUMP_FILE: &str = "stats-dump";
pub const RESTORE_FILE: &str = "stats-restore";

/// Of the dump whose files are in a folder.
pub fn of_dump(work: &Path) -> io::Result<Dump> {
    read(&work.join(DUMP_FILE))?.dump.ok_or_else(|| bad("it tells of no dump"))
}

/// Of the restore whose files are in a folder.
pub fn of_restore(work: &Path) -> io::Result<Restore> {
    read(&work.join(RESTORE_FILE))?.restore.ok_or_else(|| bad("it tells of no restore"))
}

fn read(path: &Path) -> io::Result<Stats> {
    Messages::after(path, &HEAD.concat(), MOST_BYTES)?.first()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Written by CRIU 4.2.1.
    const DUMP: &[u8] = b"\x40\x59\x10\x55\x06\x33\x09\x57\x22\0\0\0\x0a\x20\x08\xb6\x02\x10\xe9\xe5\x0d\
        \x18\x93\x05\x20\x53\x28\x19\x30\0\x38\x12\x40\0\x48\0\x50\x04\x58\x04\x60\0\x68\0\x70\0";
    const RESTORE: &[u8] = b"\x40\x59\x10\x55\x06\x33\x09\x57\x0e\0\0\0\x12\x0c\x08\0\x10\0\x18\x03\
        \x20\xe6\xf4\x09\x28\x12";

    #[test]
    fn what_criu_has_measured_is_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(DUMP_FILE), DUMP).unwrap();
        fs::write(folder.path().join(RESTORE_FILE), RESTORE).unwrap();
        let dump = of_dump(folder.path()).unwrap();
        assert_eq!((dump.freezing_time, dump.frozen_time, dump.memwrite_time), (310, 226_025, 83));
        assert_eq!((dump.pages_written, dump.shared_pages_written), (18, 0));
        let restore = of_restore(folder.path()).unwrap();
        assert_eq!((restore.restore_time, restore.pages_restored), (162_406, 18));
    }

    #[test]
    fn what_can_not_be_read_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        assert!(of_dump(folder.path()).is_err());
        let path = folder.path().join(DUMP_FILE);
        for bytes in [b"stats", RESTORE, &DUMP[..20], b""] {
            fs::write(&path, bytes).unwrap();
            assert!(of_dump(folder.path()).is_err(), "{bytes:?}");
        }
    }
}

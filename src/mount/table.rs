//! The kernel's list of mounts, as /proc tells of it.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use super::unescape;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Of the file system: two numbers.
    pub(crate) device: String,
    /// What part of the file system it shows.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    /// Those of the mount alone.
    pub(crate) options: String,
    /// Others hear of what is mounted below it.
    pub(crate) is_shared: bool,
    pub(crate) kind: String,
    /// Those of the file system, with what it was made from before them.
    pub(crate) settings: String,
}

impl Entry {
    pub(crate) fn parse(line: &str) -> Option<Entry> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(2);
        let (kind, settings) = after.split_once(' ').unwrap_or((after, ""));
        Some(Entry {
            device: fields.next()?.to_owned(),
            root: unescape(fields.next()?).into(),
            point: unescape(fields.next()?).into(),
            options: fields.next()?.to_owned(),
            is_shared: fields.any(|field| field.starts_with("shared:")),
            kind: kind.to_owned(),
            settings: settings.to_owned(),
        })
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.root.as_os_str() == "/"
    }
}

pub(crate) fn parse(text: &str) -> Vec<Entry> {
    text.lines().filter_map(Entry::parse).collect()
}

/// What a process sees mounted; nothing of one that is gone.
pub(crate) fn of(process: impl Display) -> Vec<Entry> {
    let text = fs::read(format!("/proc/{process}/mountinfo")).unwrap_or_default();
    parse(&String::from_utf8_lossy(&text))
}

/// What a container's process sees mounted; nothing of one that sees what we do, whose mounts
/// are the host's.
pub(crate) fn of_container(process: u32) -> Vec<Entry> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    if namespace(&process.to_string()) == namespace("self") { Vec::new() } else { of(process) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_mounted_where_and_how() {
        let line =
            r"503 500 8:1 /var/a\040b /etc/hosts ro,nosuid shared:7 master:2 - ext4 /dev/sda1 rw,discard";
        let entry = Entry::parse(line).unwrap();
        assert_eq!((entry.device.as_str(), entry.kind.as_str()), ("8:1", "ext4"));
        assert_eq!((entry.root, entry.point), ("/var/a b".into(), "/etc/hosts".into()));
        assert!(entry.options == "ro,nosuid" && entry.is_shared);
        assert_eq!(entry.settings, "/dev/sda1 rw,discard");
        let plain = Entry::parse("500 400 0:50 / / rw,relatime master:3 - overlay overlay rw").unwrap();
        assert!(!plain.is_shared && plain.is_whole());
        assert_eq!(Entry::parse("garbled"), None);
    }

    #[test]
    fn who_is_gone_sees_nothing() {
        // Above the largest number the kernel gives out.
        assert_eq!(of(5_000_000), []);
        assert_eq!(of_container(std::process::id()), []);
        assert!(of("self").iter().any(|entry| entry.point.as_os_str() == "/"));
    }
}

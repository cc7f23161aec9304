//! Memory that is more than memory: rings shared with the kernel, devices, and deleted files.

use std::fs;
use std::path::Path;

use super::process::Process;
use super::{Finding, What, files};

/// What is mapped outside of every file system, though its name looks like a path.
const SHARED: [&str; 4] = ["/memfd:", "/SYSV", "/dev/zero", "/anon_hugepage"];

#[derive(Debug, PartialEq, Eq)]
enum Mapped<'a> {
    Aio,
    IoUring,
    Secret,
    /// At this range, from this path.
    File(&'a str, &'a str),
}

/// Mappings of a process that stand in the way, each kind or file once.
pub(super) fn mapped(process: &Process, ghost_limit: u64) -> Vec<Finding> {
    let maps = fs::read(format!("/proc/{}/maps", process.pid)).unwrap_or_default();
    let maps = String::from_utf8_lossy(&maps);
    let mut found = Vec::new();
    for line in maps.lines() {
        let judged = match Mapped::parse(line) {
            Some(Mapped::Aio) => Some((What::Aio, false, "memory")),
            Some(Mapped::IoUring) => Some((What::IoUring, true, "memory")),
            Some(Mapped::Secret) => Some((What::SecretMemory, true, "memory")),
            Some(Mapped::File(range, path)) => {
                file(process.pid, range, path, ghost_limit).map(|(what, blocks)| (what, blocks, path))
            }
            None => None,
        };
        found.extend(judged.map(|(what, blocks, path)| Finding::new(what, process, path.to_owned(), blocks)));
    }
    found
}

fn file(pid: u32, range: &str, path: &str, ghost_limit: u64) -> Option<(What, bool)> {
    let status = files::look_at(rustix::fs::CWD, Path::new(&format!("/proc/{pid}/map_files/{range}")))?;
    files::device(path, &status).or_else(|| files::nameless(path, &status, ghost_limit))
}

impl Mapped<'_> {
    /// A line of /proc/PID/maps that deserves a second look.
    fn parse(line: &str) -> Option<Mapped<'_>> {
        // Nothing before the path has a slash, and few lines have the other word.
        let Some(path) = line.find('/').map(|at| &line[at..]) else {
            return line.ends_with("anon_inode:[io_uring]").then_some(Mapped::IoUring);
        };
        if path.starts_with("/[aio]") {
            return Some(Mapped::Aio);
        }
        if path.starts_with("/secretmem (deleted)") {
            return Some(Mapped::Secret);
        }
        let is_odd = path.starts_with("/dev/") || path.ends_with(" (deleted)");
        if !is_odd || SHARED.iter().any(|prefix| path.starts_with(prefix)) {
            return None;
        }
        Some(Mapped::File(line.split(' ').next()?, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_odd_mappings_get_a_second_look() {
        let range = "7f0e1c000000-7f0e1c021000";
        let parse = |path: &str| {
            Mapped::parse(&format!("{range} rw-s 00000000 00:01 77   {path}")).map(|m| format!("{m:?}"))
        };
        assert_eq!(parse("/[aio] (deleted)").as_deref(), Some("Aio"));
        assert_eq!(parse("/secretmem (deleted)").as_deref(), Some("Secret"));
        assert_eq!(parse("anon_inode:[io_uring]").as_deref(), Some("IoUring"));
        for odd in ["/dev/nvidia0", "/tmp/a b (deleted)", "/dev/shm/x (deleted)"] {
            assert_eq!(parse(odd), Some(format!("File({range:?}, {odd:?})")));
        }
        for plain in [
            "/usr/lib/x.so",
            "[heap]",
            "",
            "/memfd:m (deleted)",
            "/dev/zero (deleted)",
            "/SYSV00000000 (deleted)",
        ] {
            assert_eq!(parse(plain), None, "{plain}");
        }
    }

    #[test]
    fn an_ordinary_program_maps_nothing_odd() {
        let process = Process { pid: std::process::id(), ..Process::default() };
        assert_eq!(mapped(&process, 1 << 20), []);
    }
}

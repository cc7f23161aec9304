//! What stands above all sections: whose checkpoint it is, when and with what it was taken.

use std::fmt::Write;
use std::path::Path;

use cryo::checkpoint::Figures;
use cryo::checkpoint::manifest::{Manifest, Network};
use cryo::criu;
use cryo::rootfs::Had;

use super::limits;
use crate::command::answer::time;
use crate::command::table::{count, duration, plain, size};
use crate::contents::Contents;

const WIDTH: usize = 11;

pub(super) fn text(folder: &Path, manifest: Option<&Manifest>, contents: &Contents) -> String {
    let mut lines = manifest.map_or_else(|| foreign(folder), |manifest| ours(folder, manifest));
    lines.push(("Holds", holds(contents)));
    lines.push(("Limits", limits::text(&contents.cgroups)));
    lines.push(("Namespaces", namespaces(contents)));
    let mut text = String::new();
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{name:WIDTH$} {}", plain(value));
    }
    text
}

fn foreign(folder: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("Checkpoint", folder.display().to_string()),
        ("Taken", "not by Cryo: there is no cryo.json".to_owned()),
    ]
}

fn ours(folder: &Path, manifest: &Manifest) -> Vec<(&'static str, String)> {
    let taken = time(manifest.taken_at).unwrap_or_default();
    let called = manifest.called.as_ref().map(|called| format!("{called}: ")).unwrap_or_default();
    let left = if manifest.left_running { "left running" } else { "stopped by it" };
    let files = count(manifest.files.len(), "file", "files");
    let criu = manifest.criu.as_deref().unwrap_or("of unknown version");
    let runtime = &manifest.runtime;
    // As runtimes tell it: "runc version 1.3.6".
    let version = runtime.version.rsplit(' ').next().unwrap_or_default();
    let state = if manifest.sealed { "" } else { " (never completed: it can't be restored)" };
    vec![
        ("Checkpoint", format!("{}{state}", folder.display())),
        ("Container", format!("{called}{} in namespace {}, {left}", manifest.container, manifest.namespace)),
        ("Taken", format!("{taken}, in {}", duration(manifest.took.saturating_mul(1000)))),
        ("By", format!("{} {version}, CRIU {criu}", runtime.name)),
        ("On", format!("Linux {} {}", manifest.kernel, manifest.architecture)),
        ("Network", network(manifest.network).to_owned()),
        ("Options", options(&manifest.options)),
        ("Times", times(&manifest.figures)),
        ("Size", sizes(manifest, &files)),
        ("Files", manifest.rootfs.as_ref().map_or_else(String::new, changes)),
    ]
}

/// What was changed in the root file system.
fn changes(had: &Had) -> String {
    let of = had.base.image.as_ref().map(|image| format!(", of {image}")).unwrap_or_default();
    match (&had.layer, &had.left) {
        (Some(layer), _) => {
            let files = count(usize::try_from(layer.files).unwrap_or(usize::MAX), "file", "files");
            format!("{} in {files} changed in the root file system{of}", size(layer.bytes))
        }
        (None, Some(left)) => format!("changed ones aren't here: {left}"),
        (None, None) => String::new(),
    }
}

fn holds(contents: &Contents) -> String {
    let totals = &contents.totals;
    let words = [
        count(totals.processes, "process", "processes"),
        count(totals.threads, "thread", "threads"),
        count(totals.files, "open file", "open files"),
        count(totals.sockets, "socket", "sockets"),
        count(totals.mounts, "mount", "mounts"),
        format!("{} of memory", size(totals.dumped)),
    ];
    words.join(", ")
}

fn namespaces(contents: &Contents) -> String {
    let names = |own: bool| {
        let found = contents.namespaces.0.iter().filter(|(_, its)| **its == own);
        found.map(|(kind, _)| *kind).collect::<Vec<_>>().join(", ")
    };
    let parts = [("its own", names(true)), ("the host's", names(false))];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    parts.map(|(whose, names)| format!("{whose}: {names}")).collect::<Vec<_>>().join("; ")
}

fn network(network: Network) -> &'static str {
    match network {
        Network::Host => "the host's",
        Network::Private => "its own",
        Network::Shared => "another container's, or one named by a path",
    }
}

/// Those in force, by their names in `cryo.json`.
fn options(options: &criu::Options) -> String {
    let switches = [
        (options.tcp_established, "tcp_established"),
        (options.tcp_close, "tcp_close"),
        (options.external_unix_sockets, "external_unix_sockets"),
        (options.shell_job, "shell_job"),
        (options.file_locks, "file_locks"),
    ];
    let mut words: Vec<_> =
        switches.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()).collect();
    if !options.empty_namespaces.is_empty() {
        words.push(format!("empty_namespaces={}", options.empty_namespaces.join("+")));
    }
    words.extend(options.cgroups_mode.iter().map(|mode| format!("cgroups_mode={mode}")));
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn times(figures: &Figures) -> String {
    let frozen = figures.frozen_us.map(|frozen| {
        let by_criu = figures.frozen_by_criu_us.map(|time| format!(" ({} by CRIU)", duration(time)));
        format!("stood still for {}{}", duration(frozen), by_criu.unwrap_or_default())
    });
    let others = [
        ("freeze", figures.freeze_us),
        ("dump", figures.dump_us),
        ("writing memory", figures.write_us),
        ("compression", figures.compress_us),
        ("resume", figures.resume_us),
    ];
    let others = others.iter().filter_map(|(name, time)| Some(format!("{name} {}", duration((*time)?))));
    frozen.into_iter().chain(others).collect::<Vec<_>>().join(", ")
}

fn sizes(manifest: &Manifest, files: &str) -> String {
    let Figures { pages, shared_bytes, .. } = manifest.figures;
    let pages = pages.map(|pages| format!(", {pages} pages of memory")).unwrap_or_default();
    let shared = shared_bytes.filter(|bytes| *bytes > 0);
    let shared = shared.map(|bytes| format!(", {} of it shared", size(bytes))).unwrap_or_default();
    format!("{} in {files}{pages}{shared}", size(manifest.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::tests::Sample;
    use serde_json::json;

    fn manifest(sealed: bool) -> Manifest {
        let json = json!({
            "version": 1, "sealed": sealed, "container": "web", "namespace": "default",
            "taken_at": 1_700_000_000_000_u64, "left_running": true,
            "runtime": {"name": "runc", "version": "1.3.6"}, "criu": "4.2.1", "kernel": "6.12.0",
            "architecture": "x86_64", "options": {"tcp_established": true, "cgroups_mode": "soft"},
            "terminal": false, "stdio": {"stdin": "null", "stdout": "fifo", "stderr": "fifo", "pipes": []},
            "network": "private", "own_users": false, "cgroup": "/web", "mounts": [], "spec_digest": "",
            "files": {"pages-1.img": 2048, "core-1.img": 1024}, "took": 1234,
            "figures": {"frozen_us": 43_210, "frozen_by_criu_us": 41_000, "freeze_us": 310, "dump_us": 90_000,
                "write_us": 2_000, "resume_us": 120, "pages": 12, "shared_bytes": 8192}
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn it_tells_whose_checkpoint_it_is_and_how_it_was_taken() {
        let folder = tempfile::tempdir().unwrap();
        Sample::default().write(folder.path());
        let contents = Contents::read(folder.path()).unwrap();
        let shown = text(Path::new("/image\u{1b}"), Some(&manifest(true)), &contents);
        let expected = "Checkpoint  /image\\u{1b}\n\
            Container   web in namespace default, left running\n\
            Taken       2023-11-14T22:13:20Z, in 1.2 s\n\
            By          runc 1.3.6, CRIU 4.2.1\n\
            On          Linux 6.12.0 x86_64\n\
            Network     its own\n\
            Options     tcp_established, cgroups_mode=soft\n\
            Times       stood still for 43 ms (41 ms by CRIU), freeze 310 us, dump 90 ms, writing memory 2 ms, resume 120 us\n\
            Size        3.0 KiB in 2 files, 12 pages of memory, 8.0 KiB of it shared\n\
            Holds       2 processes, 1 thread, 3 open files, 3 sockets, 2 mounts, 20 KiB of memory\n\
            Namespaces  its own: pid; the host's: mount\n";
        assert_eq!(shown, expected);
        assert!(text(Path::new("/image"), Some(&manifest(false)), &contents).contains("never completed"));
    }
}

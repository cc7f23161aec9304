//! What Prometheus is told: a file that node_exporter's textfile collector reads.
//!
//! Shims are many and live as long as their containers, so the counters are in the file: each
//! shim reads it, adds what it has to add and puts a new one in its place, under a lock. That
//! is done in a thread of its own, since no operation waits for it, and given up if others keep
//! the lock for too long: a checkpoint that isn't counted is no damage.

mod text;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::criu::images;
use crate::policy::MetricsSection;
use crate::store::lock::{How, Lock};
use crate::store::{Extent, Store};
use text::{Family, Kind, Text};

const CHECKPOINTS: &str = "cryo_checkpoints_total";
const RESTORES: &str = "cryo_restores_total";
const FAILURES: &str = "cryo_failures_total";
const FROZEN: &str = "cryo_checkpoint_frozen_seconds";
const CHECKPOINT_TIME: &str = "cryo_checkpoint_duration_seconds";
const RESTORE_TIME: &str = "cryo_restore_duration_seconds";
const BYTES: &str = "cryo_checkpoint_bytes_total";
const PAGES: &str = "cryo_checkpoint_pages_total";
const STORE_BYTES: &str = "cryo_store_bytes";
const STORE_ENTRIES: &str = "cryo_store_entries";

const FAMILIES: [Family; 10] = [
    family(CHECKPOINTS, Kind::Counter, "Checkpoints that were taken."),
    family(RESTORES, Kind::Counter, "Containers that came back from a checkpoint."),
    family(FAILURES, Kind::Counter, "Checkpoints and restores that failed or were refused."),
    family(FROZEN, Kind::Histogram, "How long containers stood still for a checkpoint."),
    family(CHECKPOINT_TIME, Kind::Histogram, "How long checkpoints took, from the request to the answer."),
    family(RESTORE_TIME, Kind::Histogram, "How long restores took, without the client's part."),
    family(BYTES, Kind::Counter, "Bytes of the files of checkpoints."),
    family(PAGES, Kind::Counter, "Memory pages in checkpoints."),
    family(STORE_BYTES, Kind::Gauge, "What the checkpoint store takes on the disk."),
    family(STORE_ENTRIES, Kind::Gauge, "Checkpoints in the store."),
];

/// Others add a few numbers; a disk that is busy with a dump may keep them for a while.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those that write, so that the end of a process can wait for them.
static WRITING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// What is to be counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    Checkpoint { took: Duration, frozen: Option<Duration>, bytes: u64, pages: u64 },
    Restore { took: Duration },
    Failure { operation: &'static str },
}

const fn family(name: &'static str, kind: Kind, help: &'static str) -> Family {
    Family { name, kind, help }
}

/// Counts beside everything else.
pub(crate) fn count(section: &MetricsSection, store: &Path, namespace: &str, sample: Sample) {
    let Some(path) = section.path.clone() else { return };
    let (store, namespace) = (store.to_owned(), namespace.to_owned());
    let write = move || {
        // Others don't change it; it may be big.
        let changed = matches!(sample, Sample::Checkpoint { .. }).then_some(&*store);
        if let Err(error) = change(&path, changed, |text| add(text, &namespace, sample)) {
            tracing::warn!(%error, path = %path.display(), "an operation isn't counted in the metrics");
        }
    };
    match thread::Builder::new().name("cryo-metrics".to_owned()).spawn(write) {
        Ok(writer) => {
            let mut writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
            writing.retain(|writer| !writer.is_finished());
            writing.push(writer);
        }
        Err(error) => tracing::warn!(%error, "an operation isn't counted in the metrics"),
    }
}

/// For the end of a process; each has a deadline of its own.
pub fn await_counting() {
    let writing = std::mem::take(&mut *WRITING.lock().unwrap_or_else(PoisonError::into_inner));
    for writer in writing {
        // It has told what it had to tell.
        let _ = writer.join();
    }
}

/// Notes how big the store is now, for whoever has changed it.
pub fn note_store(section: &MetricsSection, store: &Path) -> io::Result<()> {
    section.path.as_ref().map_or(Ok(()), |path| change(path, Some(store), |_| {}))
}

fn change(path: &Path, store: Option<&Path>, change: impl FnOnce(&mut Text)) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    // For everybody to read, as node_exporter isn't root.
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let _lock = Lock::take(Lock::file(&beside(path, "lock"))?, How::Alone, PATIENCE)?;
    // Under the lock: whoever writes last has to have looked last.
    let extent = store.map(Store::extent).transpose()?;
    let bytes = match images::read_small(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes?,
    };
    let mut text = Text::parse(&String::from_utf8_lossy(&bytes), &FAMILIES);
    change(&mut text);
    known(&mut text);
    if let Some(Extent { entries, bytes }) = extent {
        text.set(STORE_BYTES, bytes as f64);
        text.set(STORE_ENTRIES, entries as f64);
    }
    put(path, &text.write(&FAMILIES))
}

fn add(text: &mut Text, namespace: &str, sample: Sample) {
    let namespace = text.label(namespace, CHECKPOINTS);
    let counter = |name: &str| format!("{name}{{{namespace}}}");
    let failures = |operation: &str| format!("{FAILURES}{{{namespace},operation=\"{operation}\"}}");
    // Whoever counts what is added has to have seen what was there before.
    for series in [counter(CHECKPOINTS), counter(RESTORES), failures("checkpoint"), failures("restore")] {
        text.add(series, 0.0);
    }
    match sample {
        Sample::Checkpoint { took, frozen, bytes, pages } => {
            text.add(counter(CHECKPOINTS), 1.0);
            text.observe(CHECKPOINT_TIME, Some(took.as_secs_f64()));
            text.observe(FROZEN, frozen.map(|frozen| frozen.as_secs_f64()));
            text.add(BYTES, bytes as f64);
            text.add(PAGES, pages as f64);
        }
        Sample::Restore { took } => {
            text.add(counter(RESTORES), 1.0);
            text.observe(RESTORE_TIME, Some(took.as_secs_f64()));
        }
        Sample::Failure { operation } => text.add(failures(operation), 1.0),
    }
}

/// What nobody has counted yet is zero, and not missing.
fn known(text: &mut Text) {
    [FROZEN, CHECKPOINT_TIME, RESTORE_TIME].iter().for_each(|name| text.observe(name, None));
    [BYTES, PAGES].iter().for_each(|name| text.add(*name, 0.0));
}

/// In one step. What a writer that was killed has left is written over by the next.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let new = beside(path, "new");
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    let mut file =
        File::options().write(true).create(true).truncate(true).custom_flags(no_link).open(&new)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

/// node_exporter reads nothing with such an ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut beside = path.to_owned();
    beside.as_mut_os_string().push(format!(".{ending}"));
    beside
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node {
        folder: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Node {
            Node { folder: tempfile::tempdir().unwrap() }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("metrics/cryo.prom")
        }

        fn store(&self) -> PathBuf {
            self.folder.path().join("store")
        }

        fn count(&self, namespace: &str, sample: Sample) {
            change(&self.path(), Some(&self.store()), |text| add(text, namespace, sample)).unwrap();
        }

        fn text(&self) -> String {
            fs::read_to_string(self.path()).unwrap()
        }

        fn has(&self, line: &str) -> bool {
            self.text().lines().any(|found| found == line)
        }
    }

    const FAILURE: Sample = Sample::Failure { operation: "checkpoint" };

    fn taken(frozen: u64) -> Sample {
        let frozen = Some(Duration::from_millis(frozen));
        Sample::Checkpoint { took: Duration::from_secs(2), frozen, bytes: 1 << 20, pages: 256 }
    }

    #[test]
    fn what_happened_is_added_up() {
        let node = Node::new();
        node.count("moby", taken(40));
        node.count("moby", taken(400));
        node.count("k8s.io", FAILURE);
        node.count("moby", Sample::Restore { took: Duration::from_millis(300) });
        for line in [
            "cryo_checkpoints_total{namespace=\"moby\"} 2",
            "cryo_checkpoints_total{namespace=\"k8s.io\"} 0",
            "cryo_failures_total{namespace=\"k8s.io\",operation=\"checkpoint\"} 1",
            "cryo_failures_total{namespace=\"moby\",operation=\"checkpoint\"} 0",
            "cryo_restores_total{namespace=\"moby\"} 1",
            "cryo_checkpoint_frozen_seconds_bucket{le=\"0.05\"} 1",
            "cryo_checkpoint_frozen_seconds_bucket{le=\"0.5\"} 2",
            "cryo_checkpoint_frozen_seconds_bucket{le=\"+Inf\"} 2",
            "cryo_checkpoint_frozen_seconds_count 2",
            "cryo_checkpoint_duration_seconds_sum 4",
            "cryo_restore_duration_seconds_sum 0.3",
            "cryo_checkpoint_bytes_total 2097152",
            "cryo_checkpoint_pages_total 512",
            "cryo_store_entries 0",
            "cryo_store_bytes 0",
        ] {
            assert!(node.has(line), "{line} isn't in\n{}", node.text());
        }
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let node = Node::new();
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| node.count("moby", FAILURE));
            }
        });
        assert!(node.has("cryo_failures_total{namespace=\"moby\",operation=\"checkpoint\"} 20"));
    }

    #[test]
    fn the_store_is_measured_and_never_made() {
        let node = Node::new();
        let section = MetricsSection { path: Some(node.path()) };
        note_store(&section, &node.store()).unwrap();
        assert!(!node.store().exists());
        Store::open(&node.store()).unwrap();
        note_store(&section, &node.store()).unwrap();
        assert!(node.has("cryo_store_entries 0") && !node.has("cryo_store_bytes 0"), "{}", node.text());
        note_store(&MetricsSection { path: None }, &node.store()).unwrap();
    }

    #[test]
    fn whatever_is_there_already_the_next_one_can_be_read() {
        let node = Node::new();
        let later = "# HELP cryo_new_total Of a later version.\n# TYPE cryo_new_total counter\ncryo_new_total{a=\"b\"} 7\n";
        let foreign =
            "node_cpu 1\ncryo_checkpoints_total{namespace=\"moby\"} many\n\u{0}\ncryo_checkpoints_total\n";
        fs::create_dir(node.path().parent().unwrap()).unwrap();
        fs::write(node.path(), [later, foreign].concat()).unwrap();
        fs::write(beside(&node.path(), "new"), "half of").unwrap();
        node.count("moby", taken(1));
        assert!(node.has("cryo_checkpoints_total{namespace=\"moby\"} 1"), "{}", node.text());
        assert!(node.text().ends_with(later) && !node.text().contains("node_cpu"), "{}", node.text());
    }

    #[test]
    fn nobody_fills_it_with_names() {
        let node = Node::new();
        for number in 0..100 {
            node.count(&format!("of\"{number}"), FAILURE);
        }
        let counted = node.text().lines().filter(|line| line.starts_with("cryo_checkpoints_total{")).count();
        assert_eq!(counted, 33);
        assert!(node.has("cryo_failures_total{namespace=\"(others)\",operation=\"checkpoint\"} 68"));
        assert!(node.has("cryo_failures_total{namespace=\"of\\\"0\",operation=\"checkpoint\"} 1"));
    }

    #[test]
    fn a_link_in_its_place_is_not_written_through() {
        let node = Node::new();
        fs::create_dir(node.path().parent().unwrap()).unwrap();
        let target = node.folder.path().join("target");
        fs::write(&target, "mine").unwrap();
        std::os::unix::fs::symlink(&target, beside(&node.path(), "new")).unwrap();
        assert!(change(&node.path(), None, |_| {}).is_err());
        assert_eq!(fs::read_to_string(target).unwrap(), "mine");
    }

    /// As strictly as Prometheus reads it.
    #[test]
    fn every_line_follows_the_format() {
        let node = Node::new();
        node.count("a\\b\"c", taken(3));
        let (text, mut family) = (node.text(), "");
        let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(words) = line.strip_prefix("# HELP ") {
                family = words.split_once(' ').unwrap().0;
                assert!(seen.insert(line.to_owned()), "{family} comes twice");
                continue;
            }
            if let Some(words) = line.strip_prefix("# TYPE ") {
                let (name, kind) = words.split_once(' ').unwrap();
                assert!(name == family && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().unwrap().is_finite() && seen.insert(series.to_owned()), "{line}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(is_name(name) && name.starts_with(family) && labels.ends_with('}'), "{line}");
            assert_eq!(labels.replace("\\\"", "").matches('"').count() % 2, 0, "{line}");
        }
        assert!(text.ends_with('\n') && seen.len() > 50, "{text}");
    }
}

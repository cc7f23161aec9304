//! What Prometheus is told.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;

use super::{cryo, cryo_prints, cryo_refuses};
use crate::harness::*;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(what_was_done_and_what_failed_is_counted).fifo_only(),
        scenario!(twenty_at_once_are_counted_right).fifo_only().long(),
        scenario!(who_wants_no_metrics_gets_none).fifo_only(),
    ]
}

/// Where they are, with a store of the trial's own.
fn node(bench: &Bench) -> Outcome<PathBuf> {
    let folder = bench.fresh_folder("node")?;
    let (store, metrics) = (folder.join("store"), folder.join("textfile/cryo.prom"));
    bench.set_node_file(&format!("[store]\npath = {store:?}\n[metrics]\npath = {metrics:?}\n"))?;
    Ok(metrics)
}

/// Every series with its value; what isn't one ends the trial.
fn read(metrics: &PathBuf) -> Outcome<BTreeMap<String, f64>> {
    let text = fs::read_to_string(metrics).during(|| metrics.display().to_string())?;
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let parsed = line.rsplit_once(' ').and_then(|(series, value)| Some((series, value.parse().ok()?)));
        let (series, value) = parsed.ok_or_else(|| Failure::new(format!("{line:?} is no sample")))?;
        ensure!(all.insert(series.to_owned(), value).is_none(), "{series} is there twice");
    }
    Ok(all)
}

/// They are written beside the answer, a moment later.
#[track_caller]
fn counts(metrics: &PathBuf, series: &str, wanted: f64) -> Outcome {
    let mut last = None;
    let seen = eventually(series, || {
        last = read(metrics).ok()?.get(series).copied();
        (last == Some(wanted)).then_some(())
    });
    seen.map_err(|_| Failure::new(format!("{series} is {last:?}, not {wanted}")))
}

fn what_was_done_and_what_failed_is_counted(bench: &Bench) -> Outcome {
    let metrics = node(bench)?;
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    cryo_prints(bench, &["checkpoint", &task.id, "one"])?;
    cryo_refuses(bench, &["checkpoint", &task.id, "one"])?;
    cryo_prints(bench, &["checkpoint", "--exit", &task.id, "two"])?;
    cryo_prints(bench, &["restore", "two"])?;
    let namespace = format!("namespace={:?}", bench.slot.containerd_namespace());
    counts(&metrics, &format!("cryo_checkpoints_total{{{namespace}}}"), 2.0)?;
    counts(&metrics, &format!("cryo_restores_total{{{namespace}}}"), 1.0)?;
    counts(&metrics, &format!("cryo_failures_total{{{namespace},operation=\"checkpoint\"}}"), 1.0)?;
    counts(&metrics, &format!("cryo_failures_total{{{namespace},operation=\"restore\"}}"), 0.0)?;
    counts(&metrics, "cryo_store_entries", 2.0)?;
    counts(&metrics, "cryo_checkpoint_frozen_seconds_count", 2.0)?;
    counts(&metrics, "cryo_restore_duration_seconds_bucket{le=\"+Inf\"}", 1.0)?;
    let all = read(&metrics)?;
    let thousandths = |series: &str| (all[series] * 1000.0) as u64;
    ensure!(thousandths("cryo_checkpoint_frozen_seconds_sum") > 10, "{all:?}");
    ensure!(thousandths("cryo_checkpoint_bytes_total") > 50_000_000, "{all:?}");
    ensure!(thousandths("cryo_checkpoint_pages_total") > 5_000, "{all:?}");
    // node_exporter isn't root.
    let mode = |path: &std::path::Path| Ok::<_, Failure>(fs::metadata(path)?.permissions().mode() & 0o777);
    ensure_eq!(mode(&metrics)?, 0o644, "who may read it");
    ensure_eq!(metrics.parent().map_or(Ok(0), mode)?, 0o755, "who may look there");
    cryo_prints(bench, &["rm", "one"])?;
    counts(&metrics, "cryo_store_entries", 1.0)?;
    task.end()?;
    // A restore that fails is one, too.
    fs::write(damaged(bench)?, "nothing")?;
    cryo_refuses(bench, &["restore", "two"])?;
    counts(&metrics, &format!("cryo_failures_total{{{namespace},operation=\"restore\"}}"), 1.0)
}

/// A file of the only checkpoint.
fn damaged(bench: &Bench) -> Outcome<PathBuf> {
    let node: String = fs::read_to_string(bench.slot.folder.join("etc/config.toml"))?;
    let store = node.lines().find_map(|line| line.strip_prefix("path = ")).unwrap_or_default();
    let script = "find $1/entries -name pages-1.img | head -n 1";
    Ok(bench.shell(script, &[store.trim_matches('"').as_ref()])?.trim().into())
}

fn twenty_at_once_are_counted_right(bench: &Bench) -> Outcome {
    let metrics = node(bench)?;
    let mut tasks = Vec::new();
    for _ in 0..20 {
        tasks.push(bench.run(&["count"])?);
    }
    tasks.iter().try_for_each(|task| task.stdout().wait_for_counting(3))?;
    let all: Vec<Outcome<_>> = thread::scope(|scope| {
        let asked: Vec<_> = tasks
            .iter()
            .map(|task| scope.spawn(|| cryo(bench, &["checkpoint", "--exit", &task.id])))
            .collect();
        asked.into_iter().map(|thread| thread.join().expect("it ends")).collect()
    });
    for said in all {
        let said = said?;
        ensure!(said.status == 0, "{}", said.errors);
    }
    let namespace = format!("namespace={:?}", bench.slot.containerd_namespace());
    counts(&metrics, &format!("cryo_checkpoints_total{{{namespace}}}"), 20.0)?;
    counts(&metrics, "cryo_checkpoint_duration_seconds_count", 20.0)?;
    counts(&metrics, "cryo_checkpoint_frozen_seconds_bucket{le=\"+Inf\"}", 20.0)?;
    counts(&metrics, "cryo_store_entries", 20.0)?;
    for task in tasks {
        task.wait()?;
        task.delete()?;
    }
    Ok(())
}

fn who_wants_no_metrics_gets_none(bench: &Bench) -> Outcome {
    let metrics = node(bench)?;
    let file = bench.slot.folder.join("etc/config.toml");
    fs::write(&file, format!("{}enabled = false\n", fs::read_to_string(&file)?))?;
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    cryo_prints(bench, &["checkpoint", &task.id, "one"])?;
    cryo_prints(bench, &["rm", "one"])?;
    task.end()?;
    ensure!(!metrics.exists() && metrics.parent().is_some_and(|folder| !folder.exists()), "there are some");
    Ok(())
}

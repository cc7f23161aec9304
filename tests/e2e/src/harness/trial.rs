//! Runs one scenario in one combination, and judges it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use super::bench::Bench;
use super::cgroup;
use super::failure::{Failure, Outcome};
use super::leaks;
use super::matrix::{Combination, Scenario, Skip};
use super::settings::settings;
use super::slot::{self, Daemons, Slot};

/// Held shared by every trial, and alone by those that measure time.
static MACHINE: RwLock<()> = RwLock::new(());
static NUMBER: AtomicUsize = AtomicUsize::new(0);
static TIMES: std::sync::Mutex<Vec<(Duration, String)>> = std::sync::Mutex::new(Vec::new());

/// What would be run, and why the rest isn't.
pub(crate) struct Plan {
    pub(crate) trials: Vec<Trial>,
    pub(crate) skipped: Vec<(String, Skip)>,
}

/// Long trials first, so that they run beside the others; those that must be alone last.
pub(crate) fn plan(mut scenarios: Vec<Scenario>) -> Plan {
    scenarios.sort_by_key(|scenario| (scenario.alone, !scenario.long));
    let mut plan = Plan { trials: Vec::new(), skipped: Vec::new() };
    for scenario in scenarios {
        for (combination, skip) in scenario.combinations() {
            let name = scenario.title(&combination);
            let (run, alone, daemons) = (scenario.run, scenario.alone, scenario.daemons);
            let trial = Trial::test(name.clone(), {
                let name = name.clone();
                move || conduct(&name, combination, daemons, run, alone).map_err(Failed::from)
            });
            plan.trials.push(trial.with_ignored_flag(skip.is_some()));
            plan.skipped.extend(skip.map(|skip| (name, skip)));
        }
    }
    plan
}

fn conduct(
    name: &str,
    combination: Combination,
    daemons: Daemons,
    run: fn(&Bench) -> Outcome,
    alone: bool,
) -> Result<(), String> {
    // A trial that panics poisons nothing: the lock protects no data.
    let _shared;
    let _exclusive;
    if alone {
        _exclusive = MACHINE.write();
    } else {
        _shared = MACHINE.read();
    }
    let slot = slot::borrow(daemons).map_err(|failure| failure.to_string())?;
    let bench = Bench::new(slot, combination, NUMBER.fetch_add(1, Ordering::Relaxed));
    let log_before = bench.slot.daemon().log_size();
    let started = Instant::now();
    let outcome = scenario_outcome(&bench, run);
    if outcome.is_err() {
        keep_logs_of_criu(name, &bench.slot);
    }
    // The slot of a failed trial is destroyed as it is: what hangs in it hangs the tidying too.
    let verdict = outcome.map_err(|failure| failure.to_string()).and_then(|()| check_what_is_left(&bench));
    note_time(name, started.elapsed());
    let Bench { slot, .. } = bench;
    match verdict {
        Ok(()) => {
            slot::give_back(slot);
            Ok(())
        }
        Err(text) => {
            let log = slot.daemon().log_since(log_before);
            keep_named_logs(name, &text);
            slot.destroy();
            Err(format!("{text}\n{}", keep(name, &log)))
        }
    }
}

fn check_what_is_left(bench: &Bench) -> Result<(), String> {
    bench.tidy().map_err(|failure| format!("while tidying up: {failure}"))?;
    let left = leaks::left_in(&bench.slot);
    if left.is_empty() { Ok(()) } else { Err(format!("left behind:\n  {}", left.join("\n  "))) }
}

fn scenario_outcome(bench: &Bench, run: fn(&Bench) -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(bench)))
        .unwrap_or_else(|_| Err(Failure::new("the scenario panicked; its message is above")))
}

/// Stores the log of a failed trial where asked to, and returns its last lines.
fn keep(name: &str, log: &str) -> String {
    const LAST_LINES: usize = 12;
    let lines: Vec<&str> = log.lines().filter(|line| !line.contains("loading plugin")).collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
    if let Some(folder) = &settings().out {
        // The report goes on without it.
        let _ = fs::create_dir_all(folder);
        let _ = fs::write(folder.join(format!("{}.log", name.replace("::", "."))), log);
    }
    format!("the daemons' last words:\n  {last}")
}

/// Stores CRIU's and the runtime's logs before the tasks are deleted, and they with them.
fn keep_logs_of_criu(name: &str, slot: &Slot) {
    let Some(out) = &settings().out else { return };
    let folders = ["work", "run", "root/io.containerd.runtime.v2.task"]
        .map(|name| cgroup::tree(&slot.folder.join(name)));
    for path in folders.iter().flatten().flat_map(|folder| {
        ["dump.log", "criu-dump.log", "restore.log", "log.json"].map(|name| folder.join(name))
    }) {
        if path.exists() {
            let flat =
                path.strip_prefix(&slot.folder).unwrap_or(&path).display().to_string().replace('/', "_");
            let folder = out.join(name.replace("::", "."));
            // The report goes on without them.
            let _ = fs::create_dir_all(&folder);
            let _ = fs::copy(&path, folder.join(flat));
        }
    }
}

/// Stores the logs that a refusal names.
fn keep_named_logs(name: &str, text: &str) {
    let Some(out) = &settings().out else { return };
    for path in text.split("(log: ").skip(1).filter_map(|rest| rest.split(')').next()) {
        let folder = out.join(name.replace("::", "."));
        // The report goes on without them.
        let _ = fs::create_dir_all(&folder);
        let _ = fs::copy(path, folder.join(path.trim_start_matches('/').replace('/', "_")));
    }
}

fn note_time(name: &str, took: Duration) {
    if let Ok(mut times) = TIMES.lock() {
        times.push((took, name.to_owned()));
    }
}

/// The trials that took longest, longest first.
pub(crate) fn slowest(count: usize) -> Vec<(Duration, String)> {
    let mut times = TIMES.lock().map(|times| times.clone()).unwrap_or_default();
    times.sort_by_key(|(took, _)| std::cmp::Reverse(*took));
    times.truncate(count);
    times
}

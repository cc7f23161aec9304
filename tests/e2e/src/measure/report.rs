//! What is told at the end: a table for people, and a file for programs.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::book::{Book, Entry};
use super::{EmptyCalls, Extent, dumps, dumps::Route, table};
use crate::harness::*;
use crate::versions::{version, versions};

pub(super) fn report(book: &Book, extent: &Extent, empty_calls: &EmptyCalls, took: Duration) -> Outcome {
    let mut versions = versions()?.to_vec();
    if empty_calls.docker.is_some() {
        versions.push(("Docker", version("dockerd")?));
    }
    let machine = machine();
    let names: Vec<String> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    println!("\n{} on {machine}", names.join(", "));
    table::print(book);
    let notes = notes(extent, empty_calls);
    notes.iter().for_each(|note| println!("- {note}"));
    let reached = book.entries.iter().filter(|entry| entry.reached() == Some(true)).count();
    let missed: Vec<&Entry> = book.entries.iter().filter(|entry| entry.reached() == Some(false)).collect();
    let file = file();
    let document = json!({
        "host": host(),
        "machine": machine,
        "versions": versions.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect::<serde_json::Map<_, Value>>(),
        "unix_time": SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "seconds": took.as_secs(),
        "empty_call_ms": empty_calls.containerd,
        "empty_docker_call_ms": empty_calls.docker,
        "notes": notes,
        "figures": book.to_json(),
    });
    fs::write(&file, format!("{document:#}\n")).during(|| file.display().to_string())?;
    println!(
        "\n{reached} reached, {} missed; {:.0} s; figures: {}",
        missed.len(),
        took.as_secs_f64(),
        file.display()
    );
    for entry in missed {
        println!("  missed: {}: {}", entry.line.section, entry.line.what);
    }
    Ok(())
}

fn notes(extent: &Extent, empty_calls: &EmptyCalls) -> Vec<String> {
    let mut notes = vec![
        "median (smallest–biggest); stock and cryo in turns, who is first alternates; a first round isn't counted, \
         except with heaps"
            .into(),
    ];
    if let Some(empty_call) = empty_calls.containerd {
        notes.extend(notes_on_containerd(extent, empty_call));
    }
    if let Some(empty_call) = empty_calls.docker {
        notes.extend(notes_on_docker(extent, empty_call));
    }
    notes.extend([
        "alone is the runtime's own command line with --file-locks, which cryo always gives too: create + start, run, \
         exec, checkpoint, restore --detach. The stock shim doesn't give it"
            .into(),
        "alone, CRIU waits for the freezer of cgroup v1 in steps of 100 ms (cryo freezes before), and crun dumps the \
         network namespace (cryo leaves it out)"
            .into(),
        "images and the daemons' stores are on disk, synced before each checkpoint, not after; restores find them \
         cached"
            .into(),
    ]);
    notes
}

fn notes_on_containerd(extent: &Extent, empty_call_ms: f64) -> Vec<String> {
    let rounds: Vec<String> = extent
        .dumps
        .iter()
        .map(|dumps| {
            let route = if dumps.route == Route::Folder { "folder" } else { "content store" };
            format!("{} MiB {route} {}", dumps.mib, dumps.rounds)
        })
        .collect();
    vec![
        format!(
            "rounds: starts and execs {}, stdout {}, shims {} each; checkpoints and restores: {}",
            extent.starts,
            extent.flow_rounds,
            extent.idle_shims,
            rounds.join(", ")
        ),
        format!("shims are looked at {} s after their containers' start", extent.settling.as_secs()),
        format!("an empty call to containerd takes this client {empty_call_ms:.2} ms; it is part of every call"),
        "stock is io.containerd.runc.v2 and cryo io.containerd.runc.cryo.v2, in one containerd, called by its API"
            .into(),
    ]
}

fn notes_on_docker(extent: &Extent, empty_call_ms: f64) -> Vec<String> {
    let rounds: Vec<String> =
        extent.docker.iter().map(|(mib, rounds)| format!("{} {rounds}", dumps::size(*mib))).collect();
    vec![
        format!("Docker's rounds: starts and execs {}, checkpoints: {}", extent.starts, rounds.join(", ")),
        format!(
            "Docker is called by its client, from the beginning of that process to its end; an empty call takes \
             {empty_call_ms:.0} ms and is part of every one"
        ),
        "with Docker, stock and cryo are both io.containerd.runc.v2: one dockerd, and what has that name exchanged; \
         alone is a container without Docker's network and seccomp"
            .into(),
        "portable: the node file says data = \"client\", so that Docker has all of a checkpoint, compressed by cryo"
            .into(),
        "a restore by Docker that fails because something already exists is tried again at once, and the failed try \
         isn't part of the time; how many were needed is said above"
            .into(),
    ]
}

fn file() -> PathBuf {
    env::var_os("CRYO_BENCH_OUT").map_or_else(|| format!("bench-{}.json", host()).into(), PathBuf::from)
}

/// By the distribution's name if nobody says another.
fn host() -> String {
    env::var("CRYO_E2E_HOST").unwrap_or_else(|_| {
        let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        name.unwrap_or("unknown").trim_matches('"').to_owned()
    })
}

fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let cgroups = if cgroup::is_v2() { "v2" } else { "v1" };
    format!("Linux {}, cgroup {cgroups}, {processors} processors, load {load} at the end", kernel.trim())
}

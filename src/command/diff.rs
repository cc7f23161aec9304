//! `cryo diff`: what changed between two checkpoints of a container.

mod memory;
mod things;
mod values;
mod words;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use cryo::checkpoint::manifest::Manifest;
use serde::Serialize;

use super::answer::{finish, has_colours, say};
use super::{inspect, place};
use crate::contents::Contents;
use memory::MemoryChange;
use things::Changes;
use values::Change;

/// What `--json` prints. Fields may be added, none is renamed.
#[derive(Debug, Serialize)]
struct Difference {
    same: bool,
    /// How they were taken, by the names of `cryo.json`; what differs between any two is left out.
    manifest: Vec<Change>,
    /// By number and name; what changed in those that both have is under `processes.changed`.
    processes: Changes,
    files: Changes,
    sockets: Changes,
    mounts: Changes,
    /// Of cgroups, limits among them.
    cgroups: Changes,
    memory: MemoryChange,
}

pub(crate) fn run(before: &Path, after: &Path, json: bool) -> ExitCode {
    finish(compare(before, after).map(|difference| {
        say(&if json { in_json(&difference) } else { words::text(&difference, has_colours()) });
        // As diff(1) has it.
        if difference.same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }))
}

fn compare(before: &Path, after: &Path) -> Result<Difference, String> {
    let (old, new) = (place::find(before)?, place::find(after)?);
    let old = (old.folder.as_path(), inspect::read(&old.folder)?);
    let new = (new.folder.as_path(), inspect::read(&new.folder)?);
    difference(old, new).map_err(|error| format!("can't compare memory: {error}"))
}

type Checkpoint<'a> = (&'a Path, (Option<Manifest>, Contents));

fn difference(
    (old_folder, (old_manifest, old)): Checkpoint<'_>,
    (new_folder, (new_manifest, new)): Checkpoint<'_>,
) -> io::Result<Difference> {
    let mut difference = Difference {
        same: false,
        manifest: values::of_manifests(old_manifest.as_ref(), new_manifest.as_ref()),
        processes: things::processes(&old, &new),
        files: things::files(&old, &new),
        sockets: things::sockets(&old, &new),
        mounts: things::mounts(&old, &new),
        cgroups: things::cgroups(&old, &new),
        memory: memory::compare((old_folder, &old), (new_folder, &new))?,
    };
    let Difference { manifest, processes, files, sockets, mounts, cgroups, memory, .. } = &difference;
    let things = [processes, files, sockets, mounts, cgroups];
    difference.same =
        manifest.is_empty() && things.iter().all(|things| things.is_empty()) && memory.is_same();
    Ok(difference)
}

fn in_json(difference: &Difference) -> String {
    // Plain numbers and texts.
    let mut text = serde_json::to_string_pretty(difference).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;

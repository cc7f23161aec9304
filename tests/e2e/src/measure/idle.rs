//! What a shim costs while its container just runs.

use std::fs;
use std::thread;

use super::Extent;
use super::book::{Book, Column, Line, Reach};
use super::place::{Place, Side};
use crate::harness::*;

pub(super) fn measure(place: &Place, book: &mut Book, extent: &Extent) -> Outcome {
    let tasks = start(place, extent, extent.idle_shims)?;
    for (side, task) in &tasks {
        note(book, column_of(*side), place.shim_of(&task.id)?)?;
    }
    drop(tasks);
    place.clear()
}

/// What shims of one binary share costs once.
pub(super) fn crowd(place: &Place, book: &mut Book, extent: &Extent) -> Outcome {
    let section = format!("A shim among {} of its kind", extent.crowd);
    let reach = Some(Reach::BelowStock(1.0 / 6.0));
    let line = Line { section, what: "PSS".into(), unit: "MB", reach };
    let tasks = start(place, extent, extent.crowd)?;
    for (side, task) in &tasks {
        let memory = fs::read_to_string(format!("/proc/{}/smaps_rollup", place.shim_of(&task.id)?))?;
        book.note(&line, column_of(*side), figure(&memory, "Pss:")? * 1024.0 / 1e6);
    }
    drop(tasks);
    place.clear()
}

/// So many of each side, settled.
fn start<'p>(place: &'p Place, extent: &Extent, count: usize) -> Outcome<Vec<(Side, Task<'p>)>> {
    let mut tasks = Vec::new();
    for round in 0..count {
        for side in Side::both(round) {
            tasks.push((side, place.guest(side, Runtime::Runc, &["idle"]).start()?));
        }
    }
    // A collecting runtime gives memory back some time after it was used, not at once.
    thread::sleep(extent.settling);
    Ok(tasks)
}

pub(super) fn column_of(side: Side) -> Column {
    match side {
        Side::Stock => Column::Stock,
        Side::Ours => Column::Ours,
    }
}

fn note(book: &mut Book, column: Column, pid: u32) -> Outcome {
    let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = figure(&memory, "Rss:")?;
    let dirty = figure(&memory, "Private_Dirty:")?;
    let private = figure(&memory, "Private_Clean:")? + dirty;
    for (what, kib, reach) in [
        ("RSS", resident, Some(3.0)),
        ("PSS", figure(&memory, "Pss:")?, None),
        ("private", private, Some(1.0)),
        ("private and dirty", dirty, None),
    ] {
        book.note(&line(what, "MB", reach), column, kib * 1024.0 / 1e6);
    }
    book.note(&line("threads", "", Some(1.0)), column, figure(&status, "Threads:")?);
    Ok(())
}

fn line(what: &str, unit: &'static str, reach: Option<f64>) -> Line {
    let section = "A shim whose one container idles".into();
    Line { section, what: what.into(), unit, reach: reach.map(Reach::Below) }
}

/// The number after a name, in kB where the kernel tells so.
fn figure(text: &str, name: &str) -> Outcome<f64> {
    let line = text.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|word| word.parse().ok());
    number.ok_or_else(|| Failure::new(format!("the kernel tells no {name}")))
}

//! Starting containers and adding processes to them.

use std::time::Instant;

use super::book::{Book, Column, Line, Reach};
use super::by_hand::ByHand;
use super::idle::column_of;
use super::place::{Place, Side};
use super::{Extent, millis};
use crate::harness::*;

pub(super) fn measure(place: &Place, book: &mut Book, extent: &Extent, runtime: Runtime) -> Outcome {
    // The first round warms caches and isn't counted.
    for round in 0..=extent.starts {
        let mut scratch = Book::default();
        let book = if round == 0 { &mut scratch } else { &mut *book };
        for side in Side::both(round) {
            let column = column_of(side);
            book.note(&line("run -d: Create, Start", runtime, true), column, detached(place, side, runtime)?);
            place.clear()?;
            book.note(&line("run --rm true", runtime, false), column, to_its_end(place, side, runtime)?);
            place.clear()?;
        }
        let idle = ByHand::new(place, runtime, &["idle"])?;
        let took = idle.create()? + idle.start()?;
        book.note(&line("run -d: Create, Start", runtime, true), Column::Alone, took);
        idle.end()?;
        let brief = ByHand::new_program(place, runtime, &["/bin/true"])?;
        book.note(&line("run --rm true", runtime, false), Column::Alone, brief.run()?);
        brief.end()?;
        place.clear()?;
    }
    execs(place, book, extent, runtime)
}

fn line(what: &str, runtime: Runtime, reaches: bool) -> Line {
    // What crun takes is so little that what containerd itself takes outweighs it.
    let reach = (reaches && runtime == Runtime::Runc).then_some(Reach::BelowStock(0.75));
    Line { section: format!("Starting, with {}", runtime.binary()), what: what.into(), unit: "ms", reach }
}

fn detached(place: &Place, side: Side, runtime: Runtime) -> Outcome<f64> {
    let plan = place.guest(side, runtime, &["idle"]);
    let pipes = plan.pipes()?;
    let prepared = plan.prepare(pipes)?;
    let begun = Instant::now();
    let task = prepared.create()?;
    task.start()?;
    let took = millis(begun.elapsed());
    task.end()?;
    Ok(took)
}

fn to_its_end(place: &Place, side: Side, runtime: Runtime) -> Outcome<f64> {
    let plan = place.guest(side, runtime, &[]).program(&["/bin/true"]);
    let pipes = plan.pipes()?;
    let prepared = plan.prepare(pipes)?;
    let begun = Instant::now();
    let task = prepared.create()?;
    task.start()?;
    let status = task.wait()?;
    task.delete()?;
    let took = millis(begun.elapsed());
    ensure_eq!(status, 0, "the exit status of true");
    Ok(took)
}

fn execs(place: &Place, book: &mut Book, extent: &Extent, runtime: Runtime) -> Outcome {
    let line = line("exec true", runtime, true);
    let stock = place.guest(Side::Stock, runtime, &["idle"]).start()?;
    let ours = place.guest(Side::Ours, runtime, &["idle"]).start()?;
    let alone = ByHand::new(place, runtime, &["idle"])?;
    alone.create()?;
    alone.start()?;
    for round in 0..=extent.starts {
        let mut scratch = Book::default();
        let book = if round == 0 { &mut scratch } else { &mut *book };
        for side in Side::both(round) {
            let task = if side == Side::Stock { &stock } else { &ours };
            book.note(&line, column_of(side), exec(task)?);
        }
        book.note(&line, Column::Alone, alone.exec_true()?);
    }
    alone.end()?;
    place.clear()
}

fn exec(task: &Task<'_>) -> Outcome<f64> {
    let begun = Instant::now();
    let exec = task.exec(&["/bin/true"])?;
    exec.start()?;
    let status = exec.wait()?;
    exec.delete()?;
    let took = millis(begun.elapsed());
    ensure_eq!(status, 0, "the exit status of true");
    Ok(took)
}

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
            let took = detached(place, side, runtime)?;
            book.note(&line("run -d: Create, Start", runtime), column, took);
            place.clear()?;
            book.note(&line("run --rm true", runtime), column, to_its_end(place, side, runtime)?);
            place.clear()?;
            if runtime == Runtime::Crun && side == Side::Stock {
                let took = detached(place, side, Runtime::Runc)?;
                book.note(&to_stock_with_runc("run -d: Create, Start", 0.4), column, took);
                place.clear()?;
            } else if runtime == Runtime::Crun {
                book.note(&to_stock_with_runc("run -d: Create, Start", 0.4), column, took);
            }
        }
        let idle = ByHand::new(place, runtime, &["idle"])?;
        let took = idle.create()? + idle.start()?;
        book.note(&line("run -d: Create, Start", runtime), Column::Alone, took);
        idle.end()?;
        let brief = ByHand::new_program(place, runtime, &["/bin/true"])?;
        book.note(&line("run --rm true", runtime), Column::Alone, brief.run()?);
        brief.end()?;
        place.clear()?;
    }
    execs(place, book, extent, runtime)
}

fn line(what: &str, runtime: Runtime) -> Line {
    let reach = match (runtime, what) {
        (Runtime::Runc, "run -d: Create, Start") => Some(Reach::BelowStock(0.7)),
        (Runtime::Runc, "exec true") => Some(Reach::BelowStock(0.6)),
        // What crun takes is so little that what containerd itself takes outweighs it.
        _ => None,
    };
    Line { section: format!("Starting, with {}", runtime.binary()), what: what.into(), unit: "ms", reach }
}

/// What who lets the node choose gains over who has always had the usual.
fn to_stock_with_runc(what: &str, reach: f64) -> Line {
    let what = format!("{what}; stock with runc");
    Line { what, reach: Some(Reach::BelowStock(reach)), ..line("", Runtime::Crun) }
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
    let line = line("exec true", runtime);
    let usual = to_stock_with_runc("exec true", 0.6);
    let with_runc = place.guest(Side::Stock, Runtime::Runc, &["idle"]).start()?;
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
            let took = exec(task)?;
            book.note(&line, column_of(side), took);
            if runtime == Runtime::Crun {
                let took = if side == Side::Stock { exec(&with_runc)? } else { took };
                book.note(&usual, column_of(side), took);
            }
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

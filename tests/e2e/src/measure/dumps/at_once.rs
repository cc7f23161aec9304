//! Many restores of one checkpoint at the same moment: none waits for another, but for a
//! processor.

use std::path::Path;
use std::thread;
use std::time::Instant;

use super::{Case, Route, longest_pause, size};
use crate::harness::*;
use crate::measure::book::{Book, Column, Line, Reach};
use crate::measure::place::{Place, Side};
use crate::measure::{Extent, millis};

pub(in crate::measure) fn measure(
    place: &Place,
    book: &mut Book,
    extent: &Extent,
    runtime: Runtime,
) -> Outcome {
    let (count, mib) = extent.at_once;
    let case = Case { runtime, mib, route: Route::Folder };
    let original = place.guest(Side::Ours, runtime, &["pulse", &mib.to_string()]).start()?;
    original.stdout().wait_for_line("ready")?;
    let image = original.end_as_image()?;
    let what = |what: &str| format!("{}: {what}", size(mib));
    let section = format!("{count} restores of one checkpoint at once, with {}", runtime.binary());
    let line = |name, unit, reach| Line { section: section.clone(), what: what(name), unit, reach };
    let mut slowest: f64 = 0.0;
    for _ in 0..count {
        let took = together(&case, &original, &image, 1)?;
        book.note(&line("one alone", "ms", None), Column::Ours, took);
        slowest = slowest.max(took);
    }
    let took = together(&case, &original, &image, count)?;
    book.note(&line("all of them", "ms", None), Column::Ours, took);
    let processors = thread::available_parallelism()?.get() as f64;
    let share = slowest * count as f64 / processors;
    let reach = Some(Reach::Below(1.5));
    book.note(&line("all / the slowest one for each on a processor", "", reach), Column::Ours, took / share);
    place.clear()
}

/// So many copies, from the first Create to the last answer of a Start.
fn together(case: &Case, original: &Task<'_>, image: &Path, count: usize) -> Outcome<f64> {
    let plans = (0..count).map(|_| {
        let plan = original.clone_from(image);
        let pipes = plan.pipes()?;
        plan.prepare(pipes)
    });
    let prepared = plans.collect::<Outcome<Vec<_>>>()?;
    let begun = Instant::now();
    let started = thread::scope(|scope| {
        let starts: Vec<_> = prepared
            .into_iter()
            .map(|prepared| {
                scope.spawn(move || -> Outcome<_> {
                    let task = prepared.create()?;
                    task.start()?;
                    Ok(task)
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().expect("no thread panics")).collect::<Outcome<Vec<_>>>()
    });
    let (took, tasks) = (millis(begun.elapsed()), started?);
    for task in tasks {
        // It has all of its memory.
        longest_pause(task.stdout(), || Ok(task.kill(USR1)?)).during(|| case.name())?;
        task.end()?;
    }
    Ok(took)
}

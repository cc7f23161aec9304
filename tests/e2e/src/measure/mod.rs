//! Our shim and the stock one, side by side: in turns, in one containerd, on one
//! machine, and beside both what the runtime takes alone.

mod book;
mod by_hand;
mod clock;
mod dumps;
mod flow;
mod idle;
mod place;
mod report;
mod starts;
mod table;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::harness::*;
use book::Book;
use dumps::Route;
use place::Place;

/// How often and how much; the shorter one is for trying things out.
struct Extent {
    idle_shims: usize,
    settling: Duration,
    starts: usize,
    dumps: Vec<Dumps>,
    flow_gib: usize,
    flow_rounds: usize,
}

struct Dumps {
    mib: usize,
    route: Route,
    rounds: usize,
}

impl Extent {
    fn new(quick: bool) -> Self {
        let dumps = |mib, route, rounds| Dumps { mib, route, rounds };
        if quick {
            return Extent {
                idle_shims: 3,
                settling: Duration::from_secs(2),
                starts: 5,
                dumps: vec![
                    dumps(0, Route::Folder, 3),
                    dumps(256, Route::Folder, 2),
                    dumps(0, Route::Content, 2),
                    dumps(256, Route::Content, 1),
                ],
                flow_gib: 1,
                flow_rounds: 3,
            };
        }
        Extent {
            idle_shims: 5,
            settling: Duration::from_secs(10),
            starts: 15,
            dumps: vec![
                dumps(0, Route::Folder, 9),
                dumps(256, Route::Folder, 5),
                dumps(1024, Route::Folder, 3),
                dumps(0, Route::Content, 5),
                dumps(256, Route::Content, 3),
                dumps(1024, Route::Content, 1),
            ],
            flow_gib: 4,
            flow_rounds: 5,
        }
    }
}

pub(crate) fn main(args: &[String]) -> ExitCode {
    let quick = match args {
        [] => false,
        [only] if only == "--quick" => true,
        _ => {
            eprintln!("usage: cryo-e2e bench [--quick]");
            return ExitCode::from(64);
        }
    };
    match measure(quick) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("This bench has failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure(quick: bool) -> Outcome {
    let begun = Instant::now();
    read_settings(&mut vec!["--shim".into(), "cryo".into()])?;
    let extent = Extent::new(quick);
    let place = Place::set_up().inspect_err(|_| slot::tear_down())?;
    let mut book = Book::default();
    let measured = measure_at(&place, &mut book, &extent);
    let empty_call = empty_call(&place);
    place.close();
    // What came before a failure isn't lost.
    let reported = report::report(&book, &extent, empty_call?, begun.elapsed());
    measured.and(reported)
}

fn measure_at(place: &Place, book: &mut Book, extent: &Extent) -> Outcome {
    let say = |what: &str| eprintln!("bench: {what}");
    say("idle shims");
    idle::measure(place, book, extent).during(|| "idle".into())?;
    say("stdout");
    flow::measure(place, book, extent).during(|| "stdout".into())?;
    for runtime in [Runtime::Runc, Runtime::Crun] {
        let name = runtime.binary();
        say(&format!("starts and execs, {name}"));
        starts::measure(place, book, extent, runtime).during(|| format!("starting with {name}"))?;
        say(&format!("checkpoints and restores, {name}"));
        dumps::measure(place, book, extent, runtime).during(|| format!("checkpoints with {name}"))?;
    }
    Ok(())
}

/// What of every call is the client's and containerd's own.
fn empty_call(place: &Place) -> Outcome<f64> {
    const CALLS: u32 = 200;
    let api = place.bench.api();
    let begun = Instant::now();
    for _ in 0..CALLS {
        api.version()?;
    }
    Ok(millis(begun.elapsed()) / f64::from(CALLS))
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// An error that fits into a note, and is the same for every container.
fn brief(failure: &Failure) -> String {
    const LENGTH: usize = 100;
    let text = failure.text();
    // What the runtime said is at the end; paths name containers.
    let words: Vec<&str> = text
        .split_whitespace()
        .map(|word| if word.contains(['/', ':']) && word.len() > 20 { "…" } else { word })
        .collect();
    let text = words.join(" ");
    let cut = |count: usize, from_end: bool| -> String {
        let skipped = if from_end { text.chars().count().saturating_sub(count) } else { 0 };
        text.chars().skip(skipped).take(count).collect()
    };
    if text.chars().count() <= 2 * LENGTH {
        text
    } else {
        format!("{} … {}", cut(LENGTH, false), cut(LENGTH, true))
    }
}

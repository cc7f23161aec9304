//! Our shim and the stock one, side by side: in turns, in one containerd, on one
//! machine, and beside both what the runtime takes alone. Then the same through Docker.

mod book;
mod by_hand;
mod clock;
mod docker;
mod dumps;
mod flow;
mod idle;
mod packed;
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
    crowd: usize,
    settling: Duration,
    starts: usize,
    dumps: Vec<Dumps>,
    flow_gib: usize,
    flow_rounds: usize,
    /// So many restores at once, of so many MiB.
    at_once: (usize, usize),
    /// Through Docker: MiB of heap, and rounds.
    docker: Vec<(usize, usize)>,
    /// So many checkpoints of so many MiB.
    packed: (usize, usize),
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
                crowd: 20,
                settling: Duration::from_secs(2),
                starts: 5,
                dumps: vec![
                    dumps(0, Route::Folder, 3),
                    dumps(256, Route::Folder, 2),
                    dumps(0, Route::Content, 2),
                    dumps(256, Route::Content, 1),
                ],
                at_once: (4, 64),
                flow_gib: 1,
                flow_rounds: 3,
                docker: vec![(0, 3), (256, 2)],
                packed: (5, 64),
            };
        }
        Extent {
            idle_shims: 5,
            crowd: 200,
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
            at_once: (10, 256),
            flow_gib: 4,
            flow_rounds: 5,
            docker: vec![(0, 9), (256, 5), (1024, 3)],
            packed: (20, 1024),
        }
    }
}

/// What is measured with daemons of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Containerd,
    Docker,
}

/// What of every call is the client's and the daemon's own, in milliseconds.
#[derive(Debug, Default)]
struct EmptyCalls {
    containerd: Option<f64>,
    docker: Option<f64>,
}

pub(crate) fn main(args: &[String]) -> ExitCode {
    let quick = args.first().is_some_and(|first| first == "--quick");
    let parts = match args[usize::from(quick)..].iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => vec![Part::Containerd, Part::Docker],
        ["containerd"] => vec![Part::Containerd],
        ["docker"] => vec![Part::Docker],
        _ => {
            eprintln!("usage: cryo-e2e bench [--quick] [containerd|docker]");
            return ExitCode::from(64);
        }
    };
    match measure(quick, &parts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("This bench has failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure(quick: bool, parts: &[Part]) -> Outcome {
    let begun = Instant::now();
    read_settings(&mut vec!["--shim".into(), "cryo".into()])?;
    let extent = Extent::new(quick);
    let mut book = Book::default();
    let mut empty_calls = EmptyCalls::default();
    Place::prepare()?;
    let mut numbered = parts.iter().enumerate();
    let measured =
        numbered.try_for_each(|(number, part)| part.measure(number, &mut book, &mut empty_calls, &extent));
    Place::clean_up();
    // What came before a failure isn't lost.
    let reported = report::report(&book, &extent, &empty_calls, begun.elapsed());
    measured.and(reported)
}

impl Part {
    fn measure(
        self,
        number: usize,
        book: &mut Book,
        empty_calls: &mut EmptyCalls,
        extent: &Extent,
    ) -> Outcome {
        if self == Part::Docker && settings().docker.is_none() {
            eprintln!("bench: there is no Docker here");
            return Ok(());
        }
        let daemons = match self {
            Part::Containerd => slot::Daemons::Containerd,
            Part::Docker => slot::Daemons::Docker,
        };
        let place = Place::set_up(daemons, number)?;
        let measured = match self {
            Part::Containerd => with_containerd(&place, book, empty_calls, extent),
            Part::Docker => with_docker(&place, book, empty_calls, extent),
        };
        place.close();
        measured
    }
}

fn with_containerd(place: &Place, book: &mut Book, empty_calls: &mut EmptyCalls, extent: &Extent) -> Outcome {
    empty_calls.containerd = Some(empty_call(place)?);
    say("idle shims");
    idle::measure(place, book, extent).during(|| "idle".into())?;
    idle::crowd(place, book, extent).during(|| "many idle ones".into())?;
    say("stdout");
    flow::measure(place, book, extent).during(|| "stdout".into())?;
    for runtime in [Runtime::Runc, Runtime::Crun] {
        let name = runtime.binary();
        say(&format!("starts and execs, {name}"));
        starts::measure(place, book, extent, runtime).during(|| format!("starting with {name}"))?;
        say(&format!("checkpoints and restores, {name}"));
        dumps::measure(place, book, extent, runtime).during(|| format!("checkpoints with {name}"))?;
        say(&format!("restores at once, {name}"));
        dumps::at_once::measure(place, book, extent, runtime).during(|| format!("restores with {name}"))?;
    }
    Ok(())
}

fn with_docker(place: &Place, book: &mut Book, empty_calls: &mut EmptyCalls, extent: &Extent) -> Outcome {
    empty_calls.docker = Some(docker::empty_call(place)?);
    say("Docker's starts and execs");
    docker::starts(place, book, extent).during(|| "starting with Docker".into())?;
    say("Docker's checkpoints and restores");
    docker::dumps(place, book, extent).during(|| "checkpoints with Docker".into())?;
    say("Docker's checkpoints, packed");
    packed::measure(place, book, extent).during(|| "packing".into())?;
    Ok(())
}

fn say(what: &str) {
    eprintln!("bench: {what}");
}

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

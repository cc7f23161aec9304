//! The same through Docker: its own client is called, once with our shim in the stock
//! one's place and once with the stock one itself.

use std::fs;
use std::path::PathBuf;

use super::book::{Book, Column, Line, Reach};
use super::by_hand::ByHand;
use super::dumps::{longest_pause, size};
use super::idle::column_of;
use super::place::{Place, Side};
use super::{Extent, brief, clock};
use crate::harness::*;

/// A big checkpoint through the stock shim takes minutes on a slow machine.
const SECONDS: &str = "900";
/// Nearly every second restore with the stock shim fails; so many in a row do for a reason.
const TRIES: usize = 20;
const CHECKPOINT: &str = "one";
const RUNTIME: Runtime = Runtime::Runc;

pub(super) fn starts(place: &Place, book: &mut Book, extent: &Extent) -> Outcome {
    let docker = Docker::at(&place.bench);
    let client = Client::new(place);
    let (run, exec) = (line("run -d", None), line("exec true", None));
    // The first round warms caches and isn't counted.
    for round in 0..=extent.starts {
        let mut scratch = Book::default();
        let book = if round == 0 { &mut scratch } else { &mut *book };
        for side in Side::both(round) {
            let (took, container) = client.run(&docker, side, &["idle"])?;
            book.note(&run, column_of(side), took);
            book.note(&exec, column_of(side), client.call(&["exec", &container.name, "true"])?);
            clear(place)?;
        }
        let alone = ByHand::new(place, RUNTIME, &["idle"])?;
        book.note(&run, Column::Alone, alone.create()? + alone.start()?);
        book.note(&exec, Column::Alone, alone.exec_true()?);
        alone.end()?;
        clear(place)?;
    }
    Ok(())
}

pub(super) fn dumps(place: &Place, book: &mut Book, extent: &Extent) -> Outcome {
    let portable = extent.docker.iter().filter(|(mib, _)| *mib > 0).map(|case| (*case, true));
    for ((mib, rounds), is_portable) in extent.docker.iter().map(|case| (*case, false)).chain(portable) {
        let case = Case::new(place, mib, is_portable);
        // Only little ones are worth a round that isn't counted; big ones find all warm.
        let first = if mib == 0 { 0 } else { 1 };
        for round in first..=rounds {
            let mut scratch = Book::default();
            let book = if round == 0 { &mut scratch } else { &mut *book };
            for side in Side::both(round) {
                case.through_docker(book, side)?;
                clear(place)?;
            }
            case.by_hand(book)?;
            clear(place)?;
        }
    }
    Ok(())
}

/// What of every call is the client's and dockerd's own.
pub(super) fn empty_call(place: &Place) -> Outcome<f64> {
    const CALLS: u32 = 20;
    let client = Client::new(place);
    let mut sum = 0.0;
    for _ in 0..CALLS {
        sum += client.call(&["ps", "--quiet"])?;
    }
    Ok(sum / f64::from(CALLS))
}

fn line(what: &str, reach: Option<Reach>) -> Line {
    let section = format!("Docker, with {}", RUNTIME.binary());
    Line { section, what: what.into(), unit: "ms", reach }
}

fn clear(place: &Place) -> Outcome {
    place.clear()?;
    place.collect_garbage()
}

/// A container with a heap, checkpointed and restored.
struct Case<'p> {
    place: &'p Place,
    docker: Docker<'p>,
    client: Client<'p>,
    guest: Vec<String>,
    checkpoint: Line,
    start: Line,
    both: Line,
    node_file: &'static str,
}

impl<'p> Case<'p> {
    /// What is portable Docker has all of, and half of it compresses.
    fn new(place: &'p Place, mib: usize, is_portable: bool) -> Self {
        // There is nothing to reach where the stock shim restores nothing.
        let restores = settings().docker.is_some_and(|version| version < Version(28, 0));
        // Where memory is nearly all there is to carry.
        let (each, both) = match (mib >= 1024, is_portable) {
            (false, _) => (Some(1.0), None),
            (true, false) => (Some(0.1), None),
            (true, true) => (None, Some(1.0 / 3.0)),
        };
        let reach = |most: Option<f64>| most.map(Reach::BelowStock).filter(|_| restores);
        let name = if is_portable { format!("{}, half of it zeros, portable", size(mib)) } else { size(mib) };
        let guest = ["pulse", &mib.to_string(), "half"].map(str::to_owned);
        Case {
            place,
            docker: Docker::at(&place.bench),
            client: Client::new(place),
            guest: guest[..if is_portable { 3 } else { 2 }].to_vec(),
            checkpoint: line(&format!("{name}: checkpoint create"), reach(each)),
            start: line(&format!("{name}: start --checkpoint"), reach(each)),
            both: line(&format!("{name}: both"), reach(both)),
            node_file: if is_portable { "[store]\ndata = \"client\"\n" } else { "" },
        }
    }

    fn guest(&self) -> Vec<&str> {
        self.guest.iter().map(String::as_str).collect()
    }

    fn through_docker(&self, book: &mut Book, side: Side) -> Outcome {
        let (_, container) = self.client.run(&self.docker, side, &self.guest())?;
        container.wait_for_line("ready")?;
        self.place.bench.set_node_file(self.node_file)?;
        self.place.settle_disk();
        let column = column_of(side);
        let created = match self.client.call(&["checkpoint", "create", &container.name, CHECKPOINT]) {
            Ok(took) => took,
            Err(failure) => {
                book.note_failure(&self.checkpoint, column, &brief(&failure));
                return Ok(());
            }
        };
        book.note(&self.checkpoint, column, created);
        container.wait_for_status("exited")?;
        if let Some(started) = self.start_through_docker(book, column, &container) {
            book.note(&self.both, column, created + started);
            container.call(&["kill", "--signal", "USR1"])?;
            eventually("the guest answers", || container.logs().ok()?.contains("paused ").then_some(()))?;
        }
        Ok(())
    }

    /// How long that took, if it has started in the end.
    fn start_through_docker(
        &self,
        book: &mut Book,
        column: Column,
        container: &Container<'_>,
    ) -> Option<f64> {
        for _ in 0..TRIES {
            match self.client.call(&["start", "--checkpoint", CHECKPOINT, &container.name]) {
                Ok(took) => {
                    book.note(&self.start, column, took);
                    return Some(took);
                }
                // containerd hasn't yet forgotten the same files from the checkpoint.
                Err(failure) if failure.text().contains("already exists") => {
                    book.note_failed_try(&self.start, column);
                }
                Err(failure) => {
                    book.note_failure(&self.start, column, &brief(&failure));
                    return None;
                }
            }
        }
        book.note_failure(&self.start, column, &format!("something already exists at each of {TRIES} tries"));
        None
    }

    fn by_hand(&self, book: &mut Book) -> Outcome {
        let container = ByHand::new(self.place, RUNTIME, &self.guest())?;
        let result = self.cycle_by_hand(book, &container);
        container.end()?;
        result
    }

    fn cycle_by_hand(&self, book: &mut Book, container: &ByHand<'_>) -> Outcome {
        let (_, ends) = container.create_with_ends()?;
        container.start()?;
        ends.stdout.wait_for_line("ready")?;
        let bench = &self.place.bench;
        let (image, work) = (bench.fresh_folder("image")?, bench.fresh_folder("criu")?);
        self.place.settle_disk();
        let ended = container.checkpoint(&image, &work, false)?;
        book.note(&self.checkpoint, Column::Alone, ended);
        let (took, ends) = container.restore(&image, &work)?;
        book.note(&self.start, Column::Alone, took);
        book.note(&self.both, Column::Alone, ended + took);
        longest_pause(&ends.stdout, || container.signal("USR1"))?;
        Ok(())
    }
}

/// Docker's client, timed.
struct Client<'p> {
    place: &'p Place,
    times: PathBuf,
}

impl<'p> Client<'p> {
    fn new(place: &'p Place) -> Self {
        // Not in the folder that is emptied after each round.
        Client { place, times: place.bench.slot.folder.join("times") }
    }

    /// In the background, with one of the shims.
    fn run<'d>(&self, docker: &'d Docker<'_>, side: Side, guest: &[&str]) -> Outcome<(f64, Container<'d>)> {
        let shim = self.place.put_in_place(side)?;
        let name = self.place.bench.next_id();
        let options = ["run", "-d", "--name", &name, "--runtime", RUNTIME.binary(), DOCKER_IMAGE, "guest"];
        let (took, id) = self.output(&[&options, guest].concat())?;
        let container = Container::new(docker, name, id);
        let running = fs::read_link(format!("/proc/{}/exe", container.shim()?))?;
        ensure_eq!(running, fs::canonicalize(shim)?, "the shim that was started");
        Ok((took, container))
    }

    fn call(&self, args: &[&str]) -> Outcome<f64> {
        Ok(self.output(args)?.0)
    }

    fn output(&self, args: &[&str]) -> Outcome<(f64, String)> {
        let mut command = clock::command(&self.place.bench.slot, &self.times);
        let output = command.args(["timeout", "--foreground", SECONDS, "docker"]).args(args).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let took = clock::read(&self.times)?.ok_or_else(|| Failure::new(errors.trim()))?;
        Ok((took, String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    }
}

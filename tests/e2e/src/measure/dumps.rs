//! Checkpoints and restores: of a tiny container and of big heaps, into a folder and
//! through containerd's content store, by both shims and by the runtime alone.

pub(super) mod at_once;
mod frozen;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use containerd_client::types::Descriptor;

use super::book::{Book, Column, Line, Reach};
use super::by_hand::ByHand;
use super::idle::column_of;
use super::place::{Place, Side};
use super::{Extent, brief, millis};
use crate::harness::*;

const CRIU_IMAGE: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Folder,
    Content,
}

/// What one container is and where its image goes.
#[derive(Clone, Copy, Debug)]
struct Case {
    runtime: Runtime,
    mib: usize,
    route: Route,
}

enum Image {
    Folder(PathBuf),
    Content(Descriptor),
}

pub(super) fn measure(place: &Place, book: &mut Book, extent: &Extent, runtime: Runtime) -> Outcome {
    for plan in &extent.dumps {
        let case = Case { runtime, mib: plan.mib, route: plan.route };
        // Only little ones are worth a round that isn't counted; big ones find all warm.
        let first = if plan.mib == 0 { 0 } else { 1 };
        for round in first..=plan.rounds {
            let mut scratch = Book::default();
            let book = if round == 0 { &mut scratch } else { &mut *book };
            for side in Side::both(round) {
                case.through_shim(place, book, side)?;
                place.clear()?;
            }
            if case.route == Route::Folder {
                case.by_hand(place, book)?;
                place.clear()?;
            }
        }
    }
    Ok(())
}

impl Case {
    fn name(&self) -> String {
        let route = match self.route {
            Route::Folder => "folder",
            Route::Content => "content store",
        };
        format!("{}, {route}", size(self.mib))
    }

    fn line(&self, what: &str) -> Line {
        let section = format!("Checkpoint and restore, with {}", self.runtime.binary());
        // What a shim has to do besides weighs less the bigger the memory.
        let most = if self.mib >= 1024 { 1.1 } else { 1.25 };
        let reach = (self.route == Route::Folder).then_some(Reach::BelowAlone(most));
        Line { section, what: format!("{}: {what}", self.name()), unit: "ms", reach }
    }

    fn frozen_line(&self, what: &str) -> Line {
        let section =
            format!("Standing still while a checkpoint leaves it running, with {}", self.runtime.binary());
        Line { section, what: format!("{}: {what}", self.name()), unit: "ms", reach: None }
    }

    /// What is seen inside, as a multiple of what CRIU says.
    fn stretched_line(&self) -> Line {
        let reach = (self.mib >= 1024).then_some(Reach::Below(1.05));
        Line { unit: "", reach, ..self.frozen_line("seen inside / CRIU's figure") }
    }

    /// Notes a failure where there is nothing to measure, and goes on.
    fn noted<T>(&self, book: &mut Book, what: &str, column: Column, step: Outcome<(f64, T)>) -> Option<T> {
        match step {
            Ok((took, result)) => {
                book.note(&self.line(what), column, took);
                Some(result)
            }
            Err(failure) => {
                book.note_failure(&self.line(what), column, &brief(&failure));
                None
            }
        }
    }

    fn through_shim(&self, place: &Place, book: &mut Book, side: Side) -> Outcome {
        let column = column_of(side);
        let task = place.guest(side, self.runtime, &["pulse", &self.mib.to_string()]).start()?;
        task.stdout().wait_for_line("ready")?;
        longest_pause(task.stdout(), || Ok(task.kill(USR1)?))?;
        let work = place.bench.fresh_folder("criu")?;
        let left = self.dump(place, &task, &work, false);
        if let Some(image) = self.noted(book, "checkpoint, leave running", column, left) {
            self.note_standstill(book, column, &work, task.stdout(), || Ok(task.kill(USR1)?))?;
            image.remove()?;
        }
        let work = place.bench.fresh_folder("criu")?;
        let ended = self.dump(place, &task, &work, true);
        let Some(image) = self.noted(book, "checkpoint, exit", column, ended) else { return Ok(()) };
        // The stock shim can't delete what crun has removed; another id is free.
        let id = if task.delete().is_ok() { task.id.clone() } else { place.bench.next_id() };
        let restored = self.restore(task.blueprint.clone().id(id), &image);
        if let Some(task) = self.noted(book, "restore", column, restored) {
            longest_pause(task.stdout(), || Ok(task.kill(USR1)?))?;
            task.end()?;
        }
        image.remove()
    }

    /// A checkpoint, until its answer, and until the task has ended if it is to.
    fn dump(&self, place: &Place, task: &Task<'_>, work: &Path, exit: bool) -> Outcome<(f64, Image)> {
        let folder = place.bench.fresh_folder("image")?;
        let request = match self.route {
            Route::Folder => Checkpoint::into_folder(&folder).work_folder(work),
            Route::Content => Checkpoint::into_content(),
        };
        let request = if exit { request.exit() } else { request };
        // The store keeps what belongs to a lease. It must have lost what an earlier
        // checkpoint left: containerd 1.7 can't store the same specification twice.
        place.bench.api().delete_leases()?;
        let api = place.bench.api().with_lease(&task.id)?;
        place.settle_disk();
        let begun = Instant::now();
        let stored = api.checkpoint(&task.id, request.packed(), DEADLINE)?;
        if exit {
            task.wait()?;
        }
        let took = millis(begun.elapsed());
        let image = match self.route {
            Route::Folder => Image::Folder(folder),
            Route::Content => Image::Content(
                stored
                    .into_iter()
                    .find(|descriptor| descriptor.media_type == CRIU_IMAGE)
                    .ok_or_else(|| Failure::new("no image of CRIU is among what was stored"))?,
            ),
        };
        Ok((took, image))
    }

    fn restore<'b>(&self, plan: Blueprint<'b>, image: &Image) -> Outcome<(f64, Task<'b>)> {
        let plan = match image {
            Image::Folder(folder) => plan.restoring_folder(folder),
            Image::Content(descriptor) => plan.restoring_content(descriptor.clone()),
        };
        let pipes = plan.pipes()?;
        let prepared = plan.prepare(pipes)?;
        let begun = Instant::now();
        let task = prepared.create()?;
        task.start()?;
        Ok((millis(begun.elapsed()), task))
    }

    fn by_hand(&self, place: &Place, book: &mut Book) -> Outcome {
        let container = ByHand::new(place, self.runtime, &["pulse", &self.mib.to_string()])?;
        let result = self.cycle_by_hand(place, book, &container);
        container.end()?;
        result
    }

    fn cycle_by_hand(&self, place: &Place, book: &mut Book, container: &ByHand<'_>) -> Outcome {
        let column = Column::Alone;
        let (_, ends) = container.create_with_ends()?;
        container.start()?;
        ends.stdout.wait_for_line("ready")?;
        longest_pause(&ends.stdout, || container.signal("USR1"))?;
        let (image, work) = (place.bench.fresh_folder("image")?, place.bench.fresh_folder("criu")?);
        place.settle_disk();
        let left = container.checkpoint(&image, &work, true).map(|took| (took, ()));
        if self.noted(book, "checkpoint, leave running", column, left).is_some() {
            self.note_standstill(book, column, &work, &ends.stdout, || container.signal("USR1"))?;
        }
        std::fs::remove_dir_all(&image)?;
        let (image, work) = (place.bench.fresh_folder("image")?, place.bench.fresh_folder("criu")?);
        place.settle_disk();
        let ended = container.checkpoint(&image, &work, false).map(|took| (took, ()));
        if self.noted(book, "checkpoint, exit", column, ended).is_none() {
            return Ok(());
        }
        let restored = container.restore(&image, &work);
        if let Some(ends) = self.noted(book, "restore", column, restored) {
            longest_pause(&ends.stdout, || container.signal("USR1"))?;
        }
        Ok(())
    }

    /// What CRIU says, and what the container saw.
    fn note_standstill(
        &self,
        book: &mut Book,
        column: Column,
        work: &Path,
        stdout: &Output,
        ask: impl Fn() -> Outcome,
    ) -> Outcome {
        let pause = longest_pause(stdout, ask)?;
        if self.route == Route::Folder {
            let frozen = frozen::by_criu(&work.join("stats-dump"))?;
            book.note(&self.frozen_line("by CRIU's figures"), column, frozen);
            book.note(&self.frozen_line("as seen inside"), column, pause);
            book.note(&self.stretched_line(), column, pause / frozen);
        }
        Ok(())
    }
}

impl Image {
    fn remove(&self) -> Outcome {
        if let Image::Folder(folder) = self {
            std::fs::remove_dir_all(folder)?;
        }
        // What the store holds is free once its lease is.
        Ok(())
    }
}

/// A container's, by its heap.
pub(super) fn size(mib: usize) -> String {
    match mib {
        0 => "tiny".into(),
        mib if mib % 1024 == 0 => format!("{} GiB", mib / 1024),
        mib => format!("{mib} MiB"),
    }
}

/// The guest's longest pause since it was asked last, in milliseconds.
pub(super) fn longest_pause(stdout: &Output, ask: impl Fn() -> Outcome) -> Outcome<f64> {
    let before = stdout.lines().len();
    ask()?;
    let answer = eventually("the guest answers", || stdout.lines().get(before).cloned())?;
    let micros = answer.strip_prefix("paused ").and_then(|number| number.parse::<f64>().ok());
    micros.map(|micros| micros / 1000.0).ok_or_else(|| Failure::new(format!("the guest answered {answer:?}")))
}

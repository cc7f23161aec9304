//! How fast a container's output gets to a client that reads as fast as it can.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::libc::O_NONBLOCK;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

use super::Extent;
use super::book::{Book, Column, Line, Reach};
use super::idle::column_of;
use super::place::{Place, Side};
use crate::harness::*;

const PIPE_BYTES: usize = 1 << 20;
const DEADLINE_MS: u16 = 20_000;

pub(super) fn measure(place: &Place, book: &mut Book, extent: &Extent) -> Outcome {
    let bytes = extent.flow_gib << 30;
    let what = format!("{} GiB from a fifo that is read into nowhere", extent.flow_gib);
    let reach = Some(Reach::AboveStock(3.0));
    let line = Line { section: "A container's stdout; alone: a bare pipe".into(), what, unit: "MB/s", reach };
    for round in 0..=extent.flow_rounds {
        let mut scratch = Book::default();
        let book = if round == 0 { &mut scratch } else { &mut *book };
        for side in Side::both(round) {
            book.note(&line, column_of(side), through_shim(place, side, bytes)?);
            place.clear()?;
        }
        book.note(&line, Column::Alone, through_pipe(place, bytes)?);
    }
    Ok(())
}

fn through_shim(place: &Place, side: Side, bytes: usize) -> Outcome<f64> {
    let plan = place.guest(side, Runtime::Runc, &["flood", &bytes.to_string()]);
    let fifo = place.bench.fresh_folder("flow")?.join("stdout");
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600))?;
    // Without waiting for the shim, which opens its end later.
    let reader = File::options().read(true).custom_flags(O_NONBLOCK).open(&fifo)?;
    let mut pipes = plan.pipes()?;
    pipes.stdio.stdout = fifo.display().to_string();
    let task = plan.prepare(pipes)?.create()?;
    task.start()?;
    let rate = drain(reader, bytes)?;
    ensure_eq!(task.wait()?, 0, "the guest's exit status");
    task.delete()?;
    Ok(rate)
}

fn through_pipe(place: &Place, bytes: usize) -> Outcome<f64> {
    let (reader, writer) = std::io::pipe()?;
    let mut guest = Command::new(place.bench.guest_outside());
    let mut guest = guest.args(["flood", &bytes.to_string()]).stdout(writer).spawn()?;
    let rate = drain(File::from(std::os::fd::OwnedFd::from(reader)), bytes)?;
    ensure!(guest.wait()?.success(), "the guest failed");
    Ok(rate)
}

/// Reads so many bytes, and tells how many millions of them came in a second.
fn drain(reader: File, bytes: usize) -> Outcome<f64> {
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32))?;
    let nowhere = File::options().write(true).open("/dev/null")?;
    let mut first = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    ensure!(poll(&mut first, PollTimeout::from(DEADLINE_MS))? > 0, "no output came");
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty()))?;
    let begun = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let count = splice(&reader, None, &nowhere, None, left.min(PIPE_BYTES), SpliceFFlags::empty())?;
        ensure!(count > 0, "the output ended {left} bytes too early");
        left -= count;
    }
    Ok(bytes as f64 / begun.elapsed().as_secs_f64() / 1e6)
}

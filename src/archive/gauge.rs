//! How far an export or import is, told often enough for a bar and seldom enough to cost nothing.

use std::cell::RefCell;
use std::io::{self, Read};

/// From one report to the next.
const STEP: u64 = 1 << 20;

/// What a bar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    /// Unknown until an archive has said how big it is; some never do.
    pub total: Option<u64>,
}

pub(super) struct Gauge<'a> {
    progress: Progress,
    reported: u64,
    report: &'a mut dyn FnMut(Progress),
}

impl<'a> Gauge<'a> {
    pub(super) fn new(total: Option<u64>, report: &'a mut dyn FnMut(Progress)) -> Gauge<'a> {
        Gauge { progress: Progress { done: 0, total }, reported: 0, report }
    }

    pub(super) fn advance(&mut self, bytes: u64) {
        self.progress.done = self.progress.done.saturating_add(bytes);
        if self.progress.done - self.reported >= STEP {
            self.tell();
        }
    }

    pub(super) fn expect(&mut self, total: u64) {
        self.progress.total = Some(total);
    }

    /// The bar is full.
    pub(super) fn finish(&mut self) {
        self.progress.done = self.progress.total.unwrap_or(self.progress.done);
        self.tell();
    }

    fn tell(&mut self) {
        self.reported = self.progress.done;
        let Progress { done, total } = self.progress;
        // Of an archive the total leaves out headers and padding.
        (self.report)(Progress { done: total.map_or(done, |total| done.min(total)), total });
    }
}

/// A reader that tells how much of it was read.
pub(super) struct Gauged<'a, 'r, R> {
    pub(super) input: R,
    pub(super) gauge: &'a RefCell<Gauge<'r>>,
}

impl<R: Read> Read for Gauged<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.gauge.borrow_mut().advance(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_moves_in_steps_and_ends_full() {
        let mut seen = Vec::new();
        let mut report = |progress: Progress| seen.push(progress.done);
        let mut gauge = Gauge::new(Some(3 * STEP), &mut report);
        for bytes in [1, STEP, 3 * STEP] {
            gauge.advance(bytes);
        }
        gauge.finish();
        assert_eq!(seen, [STEP + 1, 3 * STEP, 3 * STEP]);
    }
}

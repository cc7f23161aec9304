//! What has come of a counting guest: numbers, one a line.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc::O_NONBLOCK;
use rustix::pipe::{SpliceFlags, pipe, tee};

use super::failure::{Failure, Outcome};
use super::output::whole_lines;
use super::wait::eventually;

/// Longer than any number.
const LINE: usize = 32;

/// The first and the last of numbers that must have no gap and no repeat. What has no line
/// end yet isn't a number.
#[track_caller]
pub(crate) fn counted(text: &str) -> Outcome<RangeInclusive<u64>> {
    Lost::default().counted(text)
}

/// The numbers that a daemon took with it when it ended: those that it had read and not yet
/// logged. Whichever shim serves it, nobody else has them.
#[derive(Default)]
pub(crate) struct Lost(Mutex<BTreeSet<u64>>);

impl Lost {
    /// To be called when the daemon is gone and no other is there yet. What it hadn't read waits
    /// in the fifo for the next one, so only numbers between those that it logged and the first
    /// that waits are missed by nobody.
    #[track_caller]
    pub(crate) fn note(&self, logged: &str, fifo: &Path) -> Outcome {
        let logged: u64 = logged.parse()?;
        self.lock().extend(logged + 1..first_waiting(fifo)?.parse()?);
        Ok(())
    }

    /// As without them, where only they may be missing.
    #[track_caller]
    pub(crate) fn counted(&self, text: &str) -> Outcome<RangeInclusive<u64>> {
        let lines = whole_lines(text);
        let numbers: Option<Vec<u64>> = lines.iter().map(|line| line.parse().ok()).collect();
        let numbers = numbers.ok_or_else(|| Failure::new(format!("not all are numbers: {lines:?}")))?;
        let lost = self.lock();
        let follows = |pair: &[u64]| pair[0] < pair[1] && (pair[0] + 1..pair[1]).all(|n| lost.contains(&n));
        if let Some(gap) = numbers.windows(2).find(|pair| !follows(pair)) {
            return Err(Failure::new(format!("{} follows {}", gap[1], gap[0])));
        }
        match (numbers.first(), numbers.last()) {
            (Some(first), Some(last)) => Ok(*first..=*last),
            _ => Err(Failure::new("no number came")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first line in a fifo, which stays there.
#[track_caller]
fn first_waiting(fifo: &Path) -> Outcome<String> {
    let fifo = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(fifo)?;
    let (copy, into) = pipe()?;
    let (mut copy, mut text) = (File::from(copy), [0; LINE]);
    eventually("a line waits in the fifo", || {
        let count = tee(&fifo, &into, LINE, SpliceFlags::NONBLOCK).ok()?;
        copy.read_exact(&mut text[..count]).ok()?;
        whole_lines(&String::from_utf8_lossy(&text[..count])).into_iter().next()
    })
}

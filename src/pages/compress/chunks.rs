//! Work on the chunks of a file by several threads, whose results are taken in order.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::available_parallelism;

use crate::pages::Error;

/// Containers go on running on the others.
const MOST_THREADS: u64 = 4;
/// What a thread may be ahead of the one that takes results.
const AHEAD: usize = 2;

/// Has threads do the chunks of these numbers, each with a worker of its own, and shows the
/// results one after the other. Of what goes wrong the first is told.
pub(super) fn in_order<R, W>(
    numbers: Range<u64>,
    worker: impl Fn() -> Result<W, Error>,
    mut show: impl FnMut(u64, &R) -> Result<(), Error>,
) -> Result<(), Error>
where
    R: Default + Send,
    W: FnMut(u64, &mut R) -> Result<(), Error> + Send,
{
    let count = numbers.end.saturating_sub(numbers.start);
    let threads = available_parallelism().map_or(1, |threads| threads.get() as u64).min(MOST_THREADS);
    let threads = threads.min(count).max(1);
    std::thread::scope(|scope| {
        let mut lanes = Vec::new();
        for lane in 0..threads {
            let (done, results) = sync_channel(AHEAD);
            let (used, spare) = channel();
            let worker = worker()?;
            let numbers = (numbers.start + lane..numbers.end).step_by(threads as usize);
            scope.spawn(move || work(worker, numbers, &done, &spare));
            lanes.push((results, used));
        }
        for number in numbers.clone() {
            let (results, used) = &lanes[((number - numbers.start) % threads) as usize];
            let result = results.recv().unwrap_or(Err(Error::Cancelled))?;
            show(number, &result)?;
            // A thread that has done its last one doesn't take it.
            let _ = used.send(result);
        }
        Ok(())
    })
}

/// Ends early when nobody takes results any more.
fn work<R: Default>(
    mut worker: impl FnMut(u64, &mut R) -> Result<(), Error>,
    numbers: impl Iterator<Item = u64>,
    done: &SyncSender<Result<R, Error>>,
    spare: &Receiver<R>,
) {
    for number in numbers {
        let mut buffer = spare.try_recv().unwrap_or_default();
        let result = worker(number, &mut buffer).map(|()| buffer);
        let failed = result.is_err();
        if done.send(result).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Worker = Box<dyn FnMut(u64, &mut Vec<u8>) -> Result<(), Error> + Send>;

    fn numbers() -> Result<Worker, Error> {
        Ok(Box::new(|number, bytes| {
            bytes.clear();
            bytes.extend(number.to_le_bytes());
            if number == 70 { Err(Error::Cancelled) } else { Ok(()) }
        }))
    }

    #[test]
    fn results_come_in_order() {
        for range in [0..0, 0..1, 5..8, 0..70] {
            let mut shown = Vec::new();
            let show = |number: u64, bytes: &Vec<u8>| {
                assert_eq!(*bytes, number.to_le_bytes());
                shown.push(number);
                Ok(())
            };
            in_order(range.clone(), numbers, show).unwrap();
            assert_eq!(shown, range.collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_failure_ends_it_wherever_it_is() {
        let mut shown = 0;
        let result = in_order(0..1000, numbers, |_, _| {
            shown += 1;
            Ok(())
        });
        assert!(result.is_err() && shown == 70);
        assert!(
            in_order(0..1000, numbers, |number, _| if number == 5 { Err(Error::Cancelled) } else { Ok(()) })
                .is_err()
        );
        let no_worker = || -> Result<Worker, Error> { Err(Error::Cancelled) };
        assert!(in_order(0..10, no_worker, |_, _| Ok(())).is_err());
    }
}

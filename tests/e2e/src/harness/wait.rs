//! Waiting for things to become true, always with a deadline.

use std::time::{Duration, Instant};

use super::failure::{Failure, Outcome};

/// Long enough for a loaded machine: whoever waits this long has found a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Looks again and again until `look` finds something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> Outcome<T> {
    eventually_within(PATIENCE, what, look)
}

#[track_caller]
pub(crate) fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> Outcome<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(format!("not within {patience:?}: {what}")));
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// Checks that something stays true for a while, for what can only be seen not to happen.
#[track_caller]
pub(crate) fn holds_for(span: Duration, what: &str, mut look: impl FnMut() -> Outcome<bool>) -> Outcome {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if !look()? {
            return Err(Failure::new(format!("did not stay so for {span:?}: {what}")));
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Ok(())
}

//! Waiting for things to become true, always with a deadline.

use std::time::{Duration, Instant};

/// Long enough for a loaded machine: whoever waits this long has found a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// What is answered within this time didn't wait for anything that takes its time.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);
/// Between an event and what has to follow from it in the shim itself.
pub(crate) const SOON: Duration = Duration::from_secs(3);

const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// Looks again and again until `look` finds something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    until_within(PATIENCE, what, condition);
}

#[track_caller]
pub(crate) fn until_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    within(patience, what, || condition().then_some(()));
}

#[track_caller]
fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

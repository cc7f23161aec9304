//! Waiting for things to become true, always with a deadline.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::failure::{Failure, Outcome};

/// Long enough for a loaded machine: whoever waits this long has found a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How many times as long everything may take here, because the machine is emulated.
static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let times = std::env::var("CRYO_E2E_PATIENCE").ok().and_then(|times| times.parse().ok());
    times.unwrap_or(1)
});

const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
const LONGEST_BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// The end of a wait that begins now.
pub(crate) fn deadline(patience: Duration) -> Instant {
    Instant::now() + patient(patience)
}

/// What a machine of usual speed does in `usual`, this one does in the answer.
pub(crate) fn patient(usual: Duration) -> Duration {
    usual * *SLOWNESS
}

/// Looks again and again until `look` finds something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> Outcome<T> {
    eventually_within(PATIENCE, what, look)
}

#[track_caller]
pub(crate) fn eventually_within<T>(
    patience: Duration,
    what: &str,
    look: impl FnMut() -> Option<T>,
) -> Outcome<T> {
    // Many a look starts a program, and there are other trials.
    wait(patience, what, look, |waited| (waited / 5).clamp(BETWEEN_LOOKS, LONGEST_BETWEEN_LOOKS))
}

/// The same for what doesn't stay so for long.
#[track_caller]
pub(crate) fn at_every_moment<T>(what: &str, look: impl FnMut() -> Option<T>) -> Outcome<T> {
    wait(PATIENCE, what, look, |_| Duration::from_millis(1))
}

#[track_caller]
fn wait<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
    pause: impl Fn(Duration) -> Duration,
) -> Outcome<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        let waited = begun.elapsed();
        if waited >= patient(patience) {
            return Err(Failure::new(format!("not within {:?}: {what}", patient(patience))));
        }
        std::thread::sleep(pause(waited));
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

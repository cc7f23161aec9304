//! How long a checkpoint and its parts took, and how much it moved.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::account::micros;
use crate::criu::stats;
use crate::pages::PAGE;

/// In `cryo.json`. Times are in microseconds; null is what didn't happen, or what nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Until everything stood still.
    pub freeze_us: Option<u64>,
    /// For how long the container stood still: until it ran again, or until it had been dumped
    /// if it was to end. One that its client had paused did so from the beginning.
    pub frozen_us: Option<u64>,
    /// What CRIU says about that, which doesn't know what came before and after it.
    pub frozen_by_criu_us: Option<u64>,
    /// What the runtime and CRIU needed.
    pub dump_us: Option<u64>,
    /// Of that, for writing memory.
    pub write_us: Option<u64>,
    /// For memory that a client carries, after it was dumped: most is compressed until then.
    pub compress_us: Option<u64>,
    /// Until it ran again.
    pub resume_us: Option<u64>,
    /// Of memory.
    pub pages: Option<u64>,
    /// Of all files of the image.
    pub bytes: Option<u64>,
    /// Of memory that several processes share.
    pub shared_bytes: Option<u64>,
}

impl Figures {
    /// What CRIU has measured, in the folder of its log. Without it the image is as good.
    pub(super) fn with_criu(self, work: &Path) -> Figures {
        let dump = match stats::of_dump(work) {
            Ok(dump) => dump,
            Err(error) => {
                tracing::debug!(%error, "CRIU's figures can't be read");
                return self;
            }
        };
        Figures {
            freeze_us: self.freeze_us.or(Some(dump.freezing_time.into())),
            frozen_by_criu_us: Some(dump.frozen_time.into()),
            write_us: Some(dump.memwrite_time.into()),
            pages: Some(dump.pages_written.saturating_add(dump.shared_pages_written)),
            shared_bytes: Some(dump.shared_pages_written.saturating_mul(PAGE as u64)),
            ..self
        }
    }
}

/// A watch on a container that is dumped.
#[derive(Debug)]
pub(super) struct Watch {
    still_since: Instant,
    last: Instant,
    figures: Figures,
}

impl Watch {
    /// The container is about to be frozen, or has stood still since then.
    pub(super) fn start(still_since: Instant) -> Watch {
        Watch { still_since, last: Instant::now(), figures: Figures::default() }
    }

    pub(super) fn frozen(&mut self) {
        self.figures.freeze_us = Some(self.lap());
    }

    /// What comes now is the runtime's.
    pub(super) fn dump_begins(&mut self) {
        self.lap();
    }

    pub(super) fn dumped(&mut self) {
        self.figures.dump_us = Some(self.lap());
        self.figures.frozen_us = Some(micros(self.still_since.elapsed()));
    }

    pub(super) fn thawed(&mut self, runs_on: bool) {
        if runs_on {
            self.figures.resume_us = Some(self.lap());
            self.figures.frozen_us = Some(micros(self.still_since.elapsed()));
        }
    }

    pub(super) fn figures(self) -> Figures {
        self.figures
    }

    fn lap(&mut self) -> u64 {
        micros(std::mem::replace(&mut self.last, Instant::now()).elapsed())
    }
}

//! How long a restore and its parts took, and how much it moved.

use std::path::Path;
use std::time::Instant;

use crate::account::micros;
use crate::checkpoint::image::Image;
use crate::checkpoint::manifest::Manifest;
use crate::criu::stats;

/// Times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// What the runtime and CRIU needed.
    pub restore_us: Option<u64>,
    /// Of that, as CRIU tells, until the processes were what they had been.
    pub restore_by_criu_us: Option<u64>,
    /// From there until the container was left to itself.
    pub resume_us: Option<u64>,
    /// Of memory.
    pub pages: Option<u64>,
    /// Of all files of the image.
    pub bytes: Option<u64>,
}

/// A watch on a container that comes back.
#[derive(Debug)]
pub(super) struct Watch {
    last: Instant,
    figures: Figures,
}

impl Watch {
    pub(super) fn start() -> Watch {
        Watch { last: Instant::now(), figures: Figures::default() }
    }

    pub(super) fn restored(&mut self) {
        self.figures.restore_us = Some(micros(self.last.elapsed()));
        self.last = Instant::now();
    }

    /// CRIU's log is in the folder `work`.
    pub(super) fn stop(self, work: &Path, image: &Image) -> Figures {
        let resume_us = Some(micros(self.last.elapsed()));
        let bytes = image.manifest.as_ref().map(Manifest::bytes);
        Figures { resume_us, bytes, ..self.figures }.with_criu(work)
    }
}

impl Figures {
    fn with_criu(self, work: &Path) -> Figures {
        let restore = match stats::of_restore(work) {
            Ok(restore) => restore,
            Err(error) => {
                tracing::debug!(%error, "CRIU's figures can't be read");
                return self;
            }
        };
        Figures {
            restore_by_criu_us: Some(restore.restore_time.into()),
            pages: Some(restore.pages_restored),
            ..self
        }
    }
}

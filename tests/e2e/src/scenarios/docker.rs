//! What a user of Docker may rely on, through the unmodified client and daemon.

mod basics;

use crate::harness::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let areas = [basics::scenarios()];
    areas.into_iter().flatten().collect()
}

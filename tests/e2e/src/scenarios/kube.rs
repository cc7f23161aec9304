//! What a node of Kubernetes may rely on, through the CRI of an unmodified containerd.

mod pods;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let areas = [pods::scenarios()];
    areas.into_iter().flatten().collect()
}

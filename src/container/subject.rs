//! What never changes about a container.

use std::path::PathBuf;

use crate::bundle::Spec;
use crate::cgroup::Cgroup;
use crate::journal::Journal;
use crate::outside::Outside;
use crate::runtime::{Flavour, Runtime};
use crate::stdio::{Identity, Paths, Plan};

#[derive(Debug)]
pub struct Subject {
    pub namespace: String,
    pub id: String,
    pub bundle: PathBuf,
    pub spec: Spec,
    pub runtime: Runtime,
    pub paths: Paths,
    pub plan: Plan,
    pub identity: Identity,
    pub io_owner: Option<(u32, u32)>,
    pub no_pivot: bool,
    pub restore_work: Option<PathBuf>,
    pub journal: Journal,
    pub outside: Outside,
}

impl Subject {
    /// As it runs now: a restore may have given it the one it had before.
    pub fn has_terminal(&self) -> bool {
        Spec::read(&self.bundle).map_or(self.spec.process.terminal, |spec| spec.process.terminal)
    }

    pub fn cgroup(&self, pid: u32) -> Option<Cgroup> {
        match Cgroup::of_container(pid, &self.spec.linux.cgroups_path) {
            // A runtime that makes no cgroup leaves the container in ours: hands off.
            Ok(cgroup) if cgroup.processes().is_ok_and(|all| all.contains(&std::process::id())) => {
                tracing::warn!(pid, "the container has no cgroup of its own");
                None
            }
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                tracing::warn!(%error, pid, "no statistics and no OOM events for this container");
                None
            }
        }
    }

    /// The cgroup that the runtime freezes and names to CRIU, which can't thaw what is frozen
    /// above that.
    pub async fn freezer(&self, cgroup: &Cgroup) -> Cgroup {
        let is_below = self.runtime.systemd_cgroup
            && self.runtime.version().await.is_ok_and(|version| version.flavour == Flavour::Crun);
        if is_below { cgroup.of_crun() } else { cgroup.clone() }
    }
}

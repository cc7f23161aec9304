//! What CRIU is told about a dump that the runtime has no flag for.

use std::fs;

use super::{Attempt, Container};
use crate::bundle::Sharing;
use crate::criu::config::Config;
use crate::criu::{self, NETWORK_KEY, devices, hierarchies};
use crate::policy::NetworkLock;
use crate::runtime::Flavour;

/// In which CRIU has to have got hold of all processes, one after the other. They stand still
/// already: if it takes its time now, the machine is busy.
const COLLECT_SECONDS: &str = "60";

/// What the client asks for, and what is always good for a container.
pub(super) fn in_force(asked: &criu::Options, container: &Container<'_>) -> criu::Options {
    criu::Options { shell_job: asked.shell_job && container.subject.has_terminal(), ..asked.clone() }
}

impl Attempt<'_> {
    /// Of files that were deleted under one of their names. CRIU removes the names it gives
    /// them if the container runs on, and the image would lack them.
    pub(super) fn remaps_links(&self) -> bool {
        self.request.exit && self.request.policy.remaps_links()
    }

    pub(super) fn config(&self, has_hooks: bool) -> Config {
        let policy = &self.request.policy;
        let mut config = Config::new(policy).set("timeout", COLLECT_SECONDS);
        let keeps_files = self.had.as_ref().is_some_and(|had| had.overlay.is_some());
        if self.request.exit || has_hooks || keeps_files {
            // Called back while everything stands still; see `seal::from_criu`.
            config = config.set("action-script", criu::our_script());
        }
        if self.remaps_links() {
            config = config.flag("link-remap");
        }
        if policy.skips_in_flight() {
            config = config.flag("skip-in-flight");
        }
        if !self.options.tcp_established {
            // The lock keeps peers of open connections quiet. Without any there is
            // nothing to lock, and nothing to be left locked if CRIU is killed.
            config = config.set("network-lock", "skip");
        } else if let Some(lock) = policy.network_lock().filter(|lock| *lock != NetworkLock::Skip) {
            config = config.set("network-lock", lock.name());
        }
        config = hierarchies::of_container(config, self.container.process.pid());
        for mount in &self.injected {
            let point = mount.destination.display();
            config = config.set("external", format!("mnt[{point}]:{point}"));
        }
        if self.version.flavour == Flavour::Runc {
            return config;
        }
        let spec = &self.container.subject.spec;
        let own_users = spec.sharing("user") == Sharing::Private;
        config = devices::of_users_own(config, spec);
        if spec.sharing("network") == Sharing::Private && !own_users {
            // runc leaves the network out by itself; crun would dump all of it.
            if let Ok(namespace) = fs::metadata(format!("/proc/{}/ns/net", self.container.process.pid())) {
                let inode = std::os::unix::fs::MetadataExt::ino(&namespace);
                config = config.set("external", format!("net[{inode}]:{NETWORK_KEY}"));
            }
        }
        config
    }
}

//! What a restore is told.

use std::path::Path;
use std::time::Duration;

use super::{Attempt, guard, leftovers};
use crate::bundle::{Sharing, Spec};
use crate::cgroup::nested;
use crate::container::Subject;
use crate::criu::config::Config;
use crate::criu::{self, devices};
use crate::policy::{Member, Tcp};
use crate::runtime::Flavour;

const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);
const CRUN_EMPTY_FOLDER: &str = ".empty-directory";
const CRUN_EMPTY_IN_IMAGE: &str = "/run/crun/.empty-directory";

impl Attempt {
    /// What was in force at the dump; CRIU drops locks silently otherwise.
    pub(super) fn options(&self) -> criu::Options {
        let dumped = match &self.image.manifest {
            Some(manifest) => manifest.options.clone(),
            // Of somebody else's image nothing is known, and locks do no harm.
            None => criu::Options {
                file_locks: true,
                tcp_established: self.policy.tcp() == Some(Tcp::Established),
                ..criu::Options::default()
            },
        };
        let options = dumped.for_restore(&self.policy);
        let lsm_profile = options.lsm_profile.or_else(|| self.fit.lsm_profile.clone());
        criu::Options { lsm_profile, ..options }
    }

    pub(super) fn deadline(&self) -> Duration {
        self.policy.deadline().unwrap_or(DEFAULT_DEADLINE)
    }

    pub(super) fn config(&self, hold: Option<&Path>, has_hooks: bool) -> Config {
        let mut config = Config::new(&self.policy);
        let has_cgroups = || self.image.place().join(nested::FILE).exists();
        let Subject { bundle, spec, .. } = &*self.subject;
        let is_adjusted = self.new_name().is_some() || guard::is_needed(bundle, spec) || has_cgroups();
        if hold.is_some() || has_hooks || is_adjusted {
            config = config.set("action-script", criu::our_script());
        }
        if self.options().tcp_close {
            config = config.flag("tcp-close");
        }
        if self.options().tcp_established && self.network.is_some() {
            // Nothing of it is restored anyway. But only then CRIU locks the network until all
            // sockets are there; one that sends before gets an answer that ends it.
            config = config.set("empty-ns", "net");
        }
        if self.version.flavour == Flavour::Runc {
            return config;
        }
        // crun hides folders behind an empty one in its root folder. In the image it
        // calls that one by another root's name than the one it looks for now.
        let empty = match self.subject.spec.sharing("user") {
            Sharing::Private => leftovers::empty_folder(&self.subject.bundle),
            Sharing::Host | Sharing::With(_) => self.subject.runtime.root.join(CRUN_EMPTY_FOLDER),
        };
        devices::of_users_own(config, &self.subject.spec)
            .set("external", format!("mnt[{CRUN_EMPTY_IN_IMAGE}]:{}", empty.display()))
    }

    /// Of a copy: what the image calls it is the original's name. CRIU gives it that also in a
    /// namespace that it shares with its pod.
    pub(super) fn new_name(&self) -> Option<String> {
        let Subject { id, bundle, spec, .. } = &*self.subject;
        let is_copy = self.image.manifest.as_ref().is_some_and(|manifest| manifest.container != *id);
        let name = match spec.sharing("uts") {
            Sharing::Private => Some(spec.hostname.clone()),
            Sharing::With(_) => name_of_pod(bundle, spec),
            Sharing::Host => None,
        };
        name.filter(|name| is_copy && !name.is_empty())
    }

    /// The processes have the terminal they had, whatever the client asks for now.
    pub(super) fn terminal(&self) -> bool {
        match &self.image.manifest {
            Some(manifest) => manifest.terminal,
            None => self.subject.spec.process.terminal,
        }
    }
}

/// Bundles of a namespace lie side by side.
fn name_of_pod(bundle: &Path, spec: &Spec) -> Option<String> {
    let pod = Member::of(&spec.annotations)?.pod;
    let sandbox = bundle.with_file_name(&pod);
    (sandbox.file_name()? == pod.as_str()).then_some(())?;
    Some(Spec::read(&sandbox).ok()?.hostname)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_name_is_that_of_the_bundle_beside() {
        let namespace = tempfile::tempdir().unwrap();
        let named = |folder: &str, name: &str| {
            std::fs::create_dir_all(namespace.path().join(folder)).unwrap();
            let config = serde_json::json!({ "hostname": name });
            std::fs::write(namespace.path().join(folder).join("config.json"), config.to_string()).unwrap();
        };
        named("pod", "web-1");
        named("other/pod", "another");
        let name = |pod: &str| {
            let spec = serde_json::json!({ "annotations": {
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.sandbox-id": pod,
                "io.kubernetes.cri.container-name": "web",
            }});
            name_of_pod(&namespace.path().join("id"), &serde_json::from_value(spec).unwrap())
        };
        assert_eq!(name("pod").as_deref(), Some("web-1"));
        for pod in ["", "none", "other/pod", "../pod", "/etc"] {
            assert_eq!(name(pod), None, "{pod}");
        }
    }
}

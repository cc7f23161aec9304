//! Who may ask for what: the container's annotations, merged with what the client said,
//! within what the node's owner allows.

mod hooks;
mod metrics;
mod node_file;
mod source;
mod store;
mod wishes;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use hooks::{Hook, Stage};
pub use metrics::MetricsSection;
pub use node_file::{NodeFile, NotAllowed};
pub use source::{Member, Source, Wish};
pub use store::{Compress, Data, StoreSection};
use wishes::{NAMES, Problem, Wishes};
pub use wishes::{NetworkLock, Tcp};

/// The node's own configuration.
pub const NODE_FILE: &str = "/etc/cryo/config.toml";
/// The checkpoint that a container starts from.
pub const RESTORE_FROM: &str = "cryo.restore-from";
/// Docker's namespace in containerd.
pub const DOCKER: &str = "moby";

const PREFIX: &str = "cryo.";
/// Of a value that is shown.
const SHOWN: usize = 60;
/// Deleted files that are carried along if nobody says how large they may be.
const GHOST_BYTES: u64 = 64 << 20;

pub type Annotations = HashMap<String, String>;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("annotation {name}={value:?}: {expected}")]
    Value { name: String, value: String, expected: &'static str },
    #[error("annotation {0}: there is none of that name; there are {list}", list = names())]
    Unknown(String),
    #[error("annotation {name}: this node doesn't allow it: its owner does with allow = [\"{name}\"] in {}", file.display())]
    Forbidden { name: String, file: PathBuf },
    #[error("annotation {name}: this node doesn't allow it: its owner has it under deny in {}", file.display())]
    Denied { name: String, file: PathBuf },
    #[error("annotation {PREFIX}{name}: this node allows {most} at most: its owner changes that with {name} under [limits] in {}", file.display())]
    Above { name: &'static str, most: String, file: PathBuf },
    #[error("cryo.hooks: this node has no hook {name:?}: its owner adds one with [hooks.{name}] in {}", file.display())]
    NoHook { name: String, file: PathBuf },
    #[error(
        "annotation cryo.network-lock=skip: connections that are to be kept need the lock: leave it out, or set cryo.tcp=close"
    )]
    Unlocked,
}

/// What holds for a container's checkpoints and restores.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    wishes: Wishes,
    plugins: Option<PathBuf>,
    hooks: Vec<Hook>,
    store: StoreSection,
    metrics: MetricsSection,
    restore_folders: Vec<PathBuf>,
    runtime: Runtime,
}

/// What runs containers whose client leaves that to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    #[default]
    Runc,
    Crun,
    Auto,
}

impl Policy {
    /// Annotations, within what the node file at `path` says.
    pub fn of(annotations: &Annotations, node: &NodeFile, path: &Path) -> Result<Policy, Error> {
        let mut asked = Wishes::default();
        for (name, value) in annotations {
            let Some(wish) = name.strip_prefix(PREFIX) else { continue };
            if source::is_wish(name, annotations) {
                continue;
            }
            asked.take(wish, value).map_err(|problem| Error::of(problem, name, value))?;
            node.check(name, path)?;
        }
        node.check_limits(&asked, path)?;
        // The usual gives way to what is asked for: it isn't heeded where a lock is needed.
        let unlocked = asked.network_lock == Some(NetworkLock::Skip);
        let wishes = asked.or(node.usual.clone());
        if unlocked && wishes.tcp == Some(Tcp::Established) {
            return Err(Error::Unlocked);
        }
        let hooks = node.chosen(wishes.hooks.as_deref().unwrap_or_default(), path)?;
        let (store, metrics) = (node.store().clone(), node.metrics().clone());
        let (plugins, runtime) = (node.plugins.clone(), node.runtime());
        let restore_folders = node.restore_folders().to_owned();
        Ok(Policy { wishes, plugins, hooks, store, metrics, restore_folders, runtime })
    }

    /// What a checkpoint without options does. Docker means to stop the container, but tells
    /// so only to the stock shim.
    pub fn exits_after_checkpoint(&self, namespace: &str) -> bool {
        self.wishes.exit.unwrap_or(namespace == DOCKER)
    }

    /// Time after which a checkpoint or restore is given up.
    pub fn deadline(&self) -> Option<Duration> {
        self.wishes.timeout
    }

    /// Whether a container isn't checkpointed while processes run in it that were added by
    /// exec, and won't be in the image.
    pub fn refuses_execs(&self) -> bool {
        self.wishes.refuses_execs.unwrap_or(false)
    }

    /// What becomes of open TCP connections.
    pub fn tcp(&self) -> Option<Tcp> {
        self.wishes.tcp
    }

    /// Connections that nobody has accepted yet are left out: their other ends try again.
    /// Otherwise a container that has some isn't checkpointed.
    pub fn skips_in_flight(&self) -> bool {
        self.wishes.skips_in_flight.unwrap_or(true)
    }

    /// What is in memory that the client has mounted, like a /dev/shm that others share, is
    /// carried along.
    pub fn keeps_shm(&self) -> bool {
        self.wishes.keeps_shm.unwrap_or(true)
    }

    /// What the container changed in its root file system is carried along, or put back. If
    /// nobody says so, that goes by who else carries it.
    pub fn keeps_rootfs(&self) -> Option<bool> {
        self.wishes.keeps_rootfs
    }

    /// File locks are carried along, and taken again.
    pub fn keeps_file_locks(&self) -> bool {
        self.wishes.file_locks.unwrap_or(true)
    }

    /// Open files that lost one of their names are carried along.
    pub fn remaps_links(&self) -> bool {
        self.wishes.link_remap.unwrap_or(true)
    }

    /// Deleted files up to this size travel inside the image.
    pub fn ghost_limit(&self) -> u64 {
        self.wishes.ghost_limit.unwrap_or(GHOST_BYTES)
    }

    pub fn external_unix_sockets(&self) -> bool {
        self.wishes.external_unix_sockets.unwrap_or(false)
    }

    pub fn cgroups_mode(&self) -> Option<&str> {
        self.wishes.cgroups.as_deref()
    }

    /// How connections that are kept are protected.
    pub fn network_lock(&self) -> Option<NetworkLock> {
        self.wishes.network_lock
    }

    /// What confines the processes after a restore.
    pub fn lsm_profile(&self) -> Option<&str> {
        self.wishes.lsm_profile.as_deref()
    }

    /// The node's programs that run at stages of it, in their order.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// Where the node keeps checkpoints, and what it keeps there.
    pub fn store(&self) -> &StoreSection {
        &self.store
    }

    /// Where operations are counted.
    pub fn metrics(&self) -> &MetricsSection {
        &self.metrics
    }

    /// Where annotations may have containers restored from.
    pub fn restore_folders(&self) -> &[PathBuf] {
        &self.restore_folders
    }

    /// What runs containers whose client doesn't say.
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// Where CRIU finds its plugins.
    pub fn plugins(&self) -> Option<&Path> {
        self.plugins.as_deref()
    }
}

impl Error {
    fn of(problem: Problem, name: &str, value: &str) -> Error {
        match problem {
            Problem::Unknown => Error::Unknown(shown(name)),
            Problem::Value(expected) => Error::Value { name: name.to_owned(), value: shown(value), expected },
        }
    }
}

fn shown(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        text.to_owned()
    } else {
        text.chars().take(SHOWN).chain(['…']).collect()
    }
}

fn names() -> String {
    let mut names: Vec<String> = NAMES.iter().map(|name| format!("{PREFIX}{name}")).collect();
    names.push(RESTORE_FROM.to_owned());
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(pairs: &[(&str, &str)]) -> Annotations {
        pairs.iter().map(|(name, value)| (format!("cryo.{name}"), (*value).to_owned())).collect()
    }

    fn policy(node: &str, pairs: &[(&str, &str)]) -> Result<Policy, Error> {
        Policy::of(&annotated(pairs), &NodeFile::parse(node).unwrap(), Path::new("/node"))
    }

    #[test]
    fn without_options_docker_stops_and_others_run_on() {
        let usual = policy("", &[]).unwrap();
        assert!(usual.exits_after_checkpoint("moby") && !usual.exits_after_checkpoint("k8s.io"));
        let other = policy("", &[("checkpoint.exit", "false")]).unwrap();
        assert!(!other.exits_after_checkpoint("moby"));
    }

    #[test]
    fn what_can_not_be_understood_is_refused_in_a_sentence() {
        let error = policy("", &[("checkpoint.exit", "yes")]).unwrap_err();
        assert_eq!(error.to_string(), r#"annotation cryo.checkpoint.exit="yes": give true or false"#);
        let error = policy("", &[("tpc", "close")]).unwrap_err().to_string();
        assert!(error.starts_with("annotation cryo.tpc: ") && error.contains("cryo.tcp"), "{error}");
        let long = policy("", &[("tcp", &"x".repeat(5000))]).unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
        assert_eq!(
            policy("", &[("tcp", "established"), ("network-lock", "skip")]).unwrap_err(),
            Error::Unlocked
        );
        let foreign = [("io.cri-o.x".to_owned(), "y".to_owned())].into();
        assert!(Policy::of(&foreign, &NodeFile::default(), Path::new("/")).is_ok());
    }

    #[test]
    fn the_nodes_owner_has_the_last_word() {
        let profile = [("lsm-profile", "apparmor:unconfined")];
        let error = policy("", &profile).unwrap_err().to_string();
        assert!(error.contains("allow = [\"cryo.lsm-profile\"] in /node"), "{error}");
        assert!(policy("allow = [\"cryo.lsm-profile\"]", &profile).is_ok());
        let error = policy("deny = [\"cryo.tcp\"]", &[("tcp", "close")]).unwrap_err().to_string();
        assert!(error.contains("doesn't allow it") && error.contains("under deny in /node"), "{error}");
        let large = [("ghost-limit", "2G")];
        let error = policy("", &large).unwrap_err().to_string();
        assert!(error.contains("cryo.ghost-limit") && error.contains("/node"), "{error}");
        assert!(policy("[limits]\nghost-limit = \"4G\"", &large).is_ok());
        assert!(policy("[limits]\ntimeout = \"1m\"", &[("timeout", "2m")]).is_err());
    }

    #[test]
    fn annotations_go_before_the_nodes_defaults() {
        let node = "[defaults]\ntcp = \"established\"\nfile-locks = false\nghost-limit = \"2M\"";
        let usual = policy(node, &[]).unwrap();
        assert_eq!(usual.tcp(), Some(Tcp::Established));
        assert!(!usual.keeps_file_locks());
        assert_eq!(usual.ghost_limit(), 2 << 20);
        let refuses = policy(node, &[("tcp", "refuse"), ("ghost-limit", "4M")]).unwrap();
        assert_eq!((refuses.tcp(), refuses.ghost_limit()), (Some(Tcp::Refuse), 4 << 20));
    }
}

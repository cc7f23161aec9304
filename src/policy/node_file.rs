//! The node's own configuration: what its owner lets annotations ask for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::wishes::{NAMES, NetworkLock, Problem, Tcp, Wishes, bytes, duration};
use super::{PREFIX, RESTORE_FROM};

/// What could widen a container's rights or reach beyond it: only if the node's owner says so.
const RESTRICTED: [&str; 3] = ["cryo.external-unix-sockets", "cryo.cgroups", "cryo.lsm-profile"];
/// Deleted files can't fill a disk with their copies.
const GHOST_LIMIT: &str = "1G";

/// Read anew for each operation that needs it. A word that isn't known is an error: it
/// may be a limit that was misspelt.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeFile {
    /// Folders that containers may be restored from by annotation, with all below.
    restore_from: Vec<PathBuf>,
    /// Annotations that containers may have beyond those that are safe, and that they may not.
    allow: Vec<String>,
    deny: Vec<String>,
    /// CRIU's plugins, for devices.
    plugins: Option<PathBuf>,
    limits: Limits,
    /// What holds for containers that say nothing, named like the annotations.
    defaults: BTreeMap<String, toml::Value>,
}

/// The most that an annotation may ask for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Limits {
    ghost_limit: Option<String>,
    timeout: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum NotAllowed {
    #[error("cannot read {}: {problem}", path.display())]
    Unreadable { path: PathBuf, problem: String },
    #[error("annotation {RESTORE_FROM}={}: no such folder: {problem}", path.display())]
    Missing { path: PathBuf, problem: io::Error },
    #[error("annotation {RESTORE_FROM}={}: others than its owner can look into it or change it: chmod 700 it", .0.display())]
    Open(PathBuf),
    #[error("annotation {RESTORE_FROM}={}: give an absolute path without '..'", .0.display())]
    Relative(PathBuf),
    #[error(
        "annotation {RESTORE_FROM}={}: this node doesn't allow restores from there: its owner does with restore_from = [\"FOLDER\"] in {}",
        path.display(), file.display()
    )]
    Elsewhere { path: PathBuf, file: PathBuf },
}

impl NodeFile {
    /// Without a file, nothing is allowed but what is safe.
    pub fn read(path: &Path) -> Result<NodeFile, NotAllowed> {
        let problem = |problem: String| NotAllowed::Unreadable { path: path.to_owned(), problem };
        match fs::read_to_string(path) {
            Ok(text) => NodeFile::parse(&text).map_err(problem),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(NodeFile::default()),
            Err(error) => Err(problem(error.to_string())),
        }
    }

    pub(super) fn parse(text: &str) -> Result<NodeFile, String> {
        let node: NodeFile = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        for name in node.allow.iter().chain(&node.deny) {
            let known = name.strip_prefix(PREFIX).is_some_and(|wish| NAMES.contains(&wish));
            if !known && name != RESTORE_FROM {
                return Err(format!("allow and deny: there is no annotation {name:?}"));
            }
        }
        let Limits { ghost_limit, timeout } = &node.limits;
        if ghost_limit.as_deref().is_some_and(|size| bytes(size).is_none()) {
            return Err("limits.ghost-limit: give a size, like 64M or 1G".to_owned());
        }
        if timeout.as_deref().is_some_and(|time| duration(time).is_none()) {
            return Err("limits.timeout: give a time, like 90s, 15m or 1h".to_owned());
        }
        let mut wishes = Wishes::default();
        for (name, value) in &node.defaults {
            wishes.take(name, &plain(value)).map_err(|problem| match problem {
                Problem::Unknown => format!("defaults.{name}: there is no such setting"),
                Problem::Value(expected) => format!("defaults.{name}: {expected}"),
            })?;
        }
        if wishes.network_lock == Some(NetworkLock::Skip) && wishes.tcp == Some(Tcp::Established) {
            return Err("defaults.network-lock: connections that are kept need the lock".to_owned());
        }
        Ok(node)
    }

    pub(super) fn allows(&self, annotation: &str) -> bool {
        let among = |list: &[String]| list.iter().any(|name| name == annotation);
        !among(&self.deny) && (!RESTRICTED.contains(&annotation) || among(&self.allow))
    }

    /// What is asked for and too much: its name, what would do, and the key that says so.
    pub(super) fn check_limits(&self, asked: &Wishes) -> Result<(), (&'static str, String, &'static str)> {
        let size = self.limits.ghost_limit.as_deref().unwrap_or(GHOST_LIMIT);
        if asked.ghost_limit.zip(bytes(size)).is_some_and(|(asked, most)| asked > most) {
            return Err(("ghost-limit", size.to_owned(), "ghost-limit under [limits]"));
        }
        let Some(time) = self.limits.timeout.as_deref() else { return Ok(()) };
        if asked.timeout.zip(duration(time)).is_some_and(|(asked, most)| asked > most) {
            return Err(("timeout", time.to_owned(), "timeout under [limits]"));
        }
        Ok(())
    }

    /// Every one of them was understood when the file was read.
    pub(super) fn usual(&self) -> Wishes {
        let mut wishes = Wishes::default();
        for (name, value) in &self.defaults {
            let _ = wishes.take(name, &plain(value));
        }
        wishes
    }

    pub(super) fn plugins(&self) -> Option<PathBuf> {
        self.plugins.clone()
    }

    /// The folder that an annotation names, if the node file at `path` allows it: where it
    /// really is, whatever links lead there.
    pub fn restore_source(path: &Path, named: &Path) -> Result<PathBuf, NotAllowed> {
        if !named.is_absolute() || named.components().any(|part| part == Component::ParentDir) {
            return Err(NotAllowed::Relative(named.to_owned()));
        }
        let node = NodeFile::read(path)?;
        let allowed = if node.allows(RESTORE_FROM) { node.restore_from } else { Vec::new() };
        let elsewhere = || NotAllowed::Elsewhere { path: named.to_owned(), file: path.to_owned() };
        // Who may not restore from there isn't told what is there.
        if !allowed.iter().any(|folder| named.starts_with(folder)) {
            return Err(elsewhere());
        }
        let missing = |problem| NotAllowed::Missing { path: named.to_owned(), problem };
        let real = fs::canonicalize(named).map_err(missing)?;
        let is_below =
            |folder: &PathBuf| fs::canonicalize(folder).is_ok_and(|folder| real.starts_with(folder));
        if !allowed.iter().any(is_below) {
            return Err(elsewhere());
        }
        // The memory of a container is in it.
        let mode = fs::metadata(&real).map_err(missing)?.mode();
        if mode & 0o077 == 0 { Ok(real) } else { Err(NotAllowed::Open(named.to_owned())) }
    }
}

/// As an annotation would say it.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Boolean(switch) => switch.to_string(),
        toml::Value::Integer(number) => number.to_string(),
        // No setting takes any of the others.
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn source(text: Option<&str>, named: &Path) -> Result<PathBuf, NotAllowed> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        NodeFile::restore_source(&file, named)
    }

    #[test]
    fn nothing_is_allowed_until_the_owner_says_so() {
        for text in [None, Some(""), Some("restore_from = [\"/srv\"]")] {
            let error = source(text, Path::new("/etc")).unwrap_err().to_string();
            assert!(error.contains("doesn't allow restores from there"), "{error}");
        }
    }

    #[test]
    fn what_lies_in_an_allowed_folder_is_allowed_and_nothing_a_link_leads_to() {
        let allowed = tempfile::tempdir().unwrap();
        let text = format!("restore_from = [{:?}]", allowed.path());
        let image = allowed.path().join("image");
        fs::create_dir(&image).unwrap();
        fs::set_permissions(&image, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(source(Some(&text), &image), Err(NotAllowed::Open(_))));
        fs::set_permissions(&image, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(source(Some(&text), &image).unwrap(), fs::canonicalize(&image).unwrap());
        let link = allowed.path().join("link");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        assert!(matches!(source(Some(&text), &link), Err(NotAllowed::Elsewhere { .. })));
        let above = allowed.path().join("../../etc");
        assert!(source(Some(&text), &above).is_err());
        assert!(matches!(source(Some(&text), &allowed.path().join("no")), Err(NotAllowed::Missing { .. })));
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named() {
        for (text, named) in [
            ("allow = [\"cryo.tpc\"]", "cryo.tpc"),
            ("deny = [\"tcp\"]", "\"tcp\""),
            ("[limits]\nghost-limit = \"much\"", "limits.ghost-limit"),
            ("[limits]\ntimeout = \"1d\"", "limits.timeout"),
            ("[limits]\nmemory = \"1G\"", "memory"),
            ("[defaults]\ntcp = \"maybe\"", "defaults.tcp: give established"),
            ("[defaults]\nfile_locks = true", "defaults.file_locks"),
            ("[defaults]\nlink-remap = 9", "defaults.link-remap"),
            ("[defaults]\ntcp = \"established\"\nnetwork-lock = \"skip\"", "defaults.network-lock"),
        ] {
            let error = NodeFile::parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        assert!(NodeFile::parse("plugins = \"/usr/lib/criu\"").unwrap().plugins().is_some());
    }

    #[test]
    fn the_sample_says_what_holds_without_a_file() {
        let sample = NodeFile::parse(include_str!("../../deploy/node/config.toml")).unwrap();
        let without = NodeFile::default();
        assert!(sample.restore_from.is_empty() && sample.usual() == without.usual());
        for name in NAMES.map(|name| format!("{PREFIX}{name}")) {
            assert_eq!(sample.allows(&name), without.allows(&name), "{name}");
        }
        let asked = Wishes { ghost_limit: Some((1 << 30) + 1), ..Wishes::default() };
        assert!(sample.check_limits(&asked).is_err() && without.check_limits(&asked).is_err());
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = source(Some("restore_form = []"), Path::new("/srv")).unwrap_err().to_string();
        assert!(error.contains("restore_form"), "{error}");
        assert!(matches!(source(None, Path::new("srv")), Err(NotAllowed::Relative(_))));
    }
}

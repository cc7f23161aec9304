//! The node's own configuration: what its owner lets annotations ask for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::hooks::{self, Hook};
use super::metrics::{self, MetricsSection};
use super::source::{self, SCHEME, Source};
use super::store::{self, StoreSection};
use super::wishes::{NAMES, NetworkLock, Problem, Tcp, Wishes, bytes, duration};
use super::{Error, PREFIX, RESTORE_FROM, Runtime};
use crate::store::{Error as StoreError, Store};

/// What could widen a container's rights or reach beyond it: only if the node's owner says so.
const RESTRICTED: [&str; 3] = ["cryo.external-unix-sockets", "cryo.cgroups", "cryo.lsm-profile"];
/// As containerd's own documents call it.
const REGISTRY_HOSTS: &str = "/etc/containerd/certs.d";
/// Deleted files can't fill a disk with their copies.
const GHOST_LIMIT: &str = "1G";

/// Read anew for each operation that needs it.
#[derive(Clone, Debug)]
pub struct NodeFile {
    /// Folders that containers may be restored from by annotation, with all below.
    restore_from: Vec<PathBuf>,
    /// Of images in registries, where their references begin.
    references: Vec<String>,
    registry_hosts: PathBuf,
    /// Annotations that containers may have beyond those that are safe, and that they may not.
    allow: Vec<String>,
    deny: Vec<String>,
    /// CRIU's plugins, for devices.
    pub(super) plugins: Option<PathBuf>,
    /// The most that an annotation may ask for.
    ghost_limit: Limit<u64>,
    timeout: Option<Limit<Duration>>,
    /// What holds for containers that say nothing.
    pub(super) usual: Wishes,
    hooks: BTreeMap<String, Hook>,
    store: StoreSection,
    metrics: MetricsSection,
    runtime: Runtime,
}

/// A limit, and how its owner wrote it.
#[derive(Clone, Debug)]
struct Limit<T> {
    most: T,
    text: String,
}

/// As it is written. A word that isn't known is an error: it may be a limit that was
/// misspelt.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    restore_from: Vec<String>,
    registry_hosts: Option<PathBuf>,
    allow: Vec<String>,
    deny: Vec<String>,
    plugins: Option<PathBuf>,
    limits: Limits,
    /// Named like the annotations.
    defaults: BTreeMap<String, toml::Value>,
    hooks: BTreeMap<String, hooks::Written>,
    store: store::Written,
    metrics: metrics::Written,
    runtime: Runtime,
}

#[derive(Default, Deserialize)]
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
    #[error("annotation {RESTORE_FROM}={}: give the name of a checkpoint in the store, or an absolute path without '..'", .0.display())]
    Relative(PathBuf),
    #[error(
        "annotation {RESTORE_FROM}={SCHEME}{0}: give a registry, a repository and a tag or digest, like {SCHEME}registry.example/team/web:warm"
    )]
    Reference(String),
    #[error(
        "annotation {RESTORE_FROM}={SCHEME}{reference}: this node doesn't allow restores from there: its owner does with restore_from = [\"{SCHEME}REGISTRY/REPOSITORY\"] in {}",
        file.display()
    )]
    Foreign { reference: String, file: PathBuf },
    #[error(
        "annotation {RESTORE_FROM}={}: this node doesn't allow restores from there: its owner does with restore_from = [\"FOLDER\"] in {}",
        path.display(), file.display()
    )]
    Elsewhere { path: PathBuf, file: PathBuf },
    #[error(
        "annotation {RESTORE_FROM}={}: this node doesn't allow restores from its store: its owner does with restore_from = [{:?}] in {}",
        path.display(), store.display(), file.display()
    )]
    NotStored { path: PathBuf, store: PathBuf, file: PathBuf },
    #[error("annotation {RESTORE_FROM}: {0}")]
    Store(#[from] StoreError),
    #[error("annotation {RESTORE_FROM}: this node doesn't allow it: its owner has it under deny in {}", .0.display())]
    Denied(PathBuf),
}

impl Default for NodeFile {
    /// What holds without a file.
    fn default() -> NodeFile {
        NodeFile::parse("").expect("an empty file is a good one")
    }
}

impl<T> Limit<T> {
    fn of(text: String, read: impl Fn(&str) -> Option<T>) -> Option<Limit<T>> {
        Some(Limit { most: read(&text)?, text })
    }
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

    /// One that can't be read allows nothing beyond what is safe, and is complained about:
    /// containers without wishes must not suffer from it.
    pub fn read_or_default(path: &Path, complain: impl FnOnce(NotAllowed)) -> NodeFile {
        NodeFile::read(path).unwrap_or_else(|error| {
            complain(error);
            NodeFile::default()
        })
    }

    pub(super) fn parse(text: &str) -> Result<NodeFile, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let Written {
            restore_from,
            registry_hosts,
            allow,
            deny,
            plugins,
            limits,
            defaults,
            hooks,
            store,
            metrics,
            runtime,
        } = written;
        for name in allow.iter().chain(&deny) {
            let known = name.strip_prefix(PREFIX).is_some_and(|wish| NAMES.contains(&wish));
            if !known && name != RESTORE_FROM {
                return Err(format!("allow and deny: there is no annotation {name:?}"));
            }
        }
        let size = limits.ghost_limit.unwrap_or_else(|| GHOST_LIMIT.to_owned());
        let ghost_limit = Limit::of(size, bytes).ok_or("limits.ghost-limit: give a size, like 64M or 1G")?;
        let timeout = match limits.timeout {
            Some(time) => {
                let limit = Limit::of(time, duration);
                Some(limit.ok_or("limits.timeout: give a time, like 90s, 15m or 1h")?)
            }
            None => None,
        };
        let usual = usual(&defaults)?;
        let hooks = hooks::understood(hooks)?;
        if let Some(missing) = usual.hooks.iter().flatten().find(|name| !hooks.contains_key(*name)) {
            return Err(format!("defaults.hooks: there is no [hooks.{missing}]"));
        }
        let (store, metrics) = (store.understood()?, metrics.understood()?);
        let (references, restore_from) = sources(restore_from)?;
        Ok(NodeFile {
            restore_from,
            references,
            registry_hosts: registry_hosts.unwrap_or_else(|| REGISTRY_HOSTS.into()),
            allow,
            deny,
            plugins,
            ghost_limit,
            timeout,
            usual,
            hooks,
            store,
            metrics,
            runtime,
        })
    }

    /// Folders that containers may be restored from by annotation.
    pub fn restore_folders(&self) -> &[PathBuf] {
        &self.restore_from
    }

    /// Where containerd finds how to talk to registries.
    pub fn registry_hosts(&self) -> &Path {
        &self.registry_hosts
    }

    /// Where checkpoints are kept, and for how long.
    pub fn store(&self) -> &StoreSection {
        &self.store
    }

    /// What runs containers whose client doesn't say.
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// Where operations are counted.
    pub fn metrics(&self) -> &MetricsSection {
        &self.metrics
    }

    /// Whether containers may have the annotation; the file at `path` is this one.
    pub(super) fn check(&self, annotation: &str, path: &Path) -> Result<(), Error> {
        let (name, file) = (annotation.to_owned(), path.to_owned());
        if self.denies(annotation) {
            return Err(Error::Denied { name, file });
        }
        if RESTRICTED.contains(&annotation) && !self.allow.contains(&name) {
            return Err(Error::Forbidden { name, file });
        }
        Ok(())
    }

    pub(super) fn chosen(&self, names: &[String], path: &Path) -> Result<Vec<Hook>, Error> {
        let missing = |name: &String| Error::NoHook { name: name.clone(), file: path.to_owned() };
        names.iter().map(|name| self.hooks.get(name).cloned().ok_or_else(|| missing(name))).collect()
    }

    fn denies(&self, annotation: &str) -> bool {
        self.deny.iter().any(|name| name == annotation)
    }

    pub(super) fn check_limits(&self, asked: &Wishes, path: &Path) -> Result<(), Error> {
        let above =
            |name, text: &String| Err(Error::Above { name, most: text.clone(), file: path.to_owned() });
        if asked.ghost_limit.is_some_and(|size| size > self.ghost_limit.most) {
            return above("ghost-limit", &self.ghost_limit.text);
        }
        match asked.timeout.zip(self.timeout.as_ref()) {
            Some((time, limit)) if time > limit.most => above("timeout", &limit.text),
            _ => Ok(()),
        }
    }

    /// What an annotation names, if the node file at `path` allows it: of a folder, where it
    /// really is, whatever links lead there.
    pub fn restore_source(path: &Path, named: &str) -> Result<Source, NotAllowed> {
        if let Some(reference) = named.strip_prefix(SCHEME) {
            return NodeFile::reference(path, reference);
        }
        let named = Path::new(named);
        let by_name = is_name(named);
        let leaves = named.components().any(|part| part == Component::ParentDir);
        if !by_name && (!named.is_absolute() || leaves) {
            return Err(NotAllowed::Relative(named.to_owned()));
        }
        let node = NodeFile::read(path)?;
        if node.denies(RESTORE_FROM) {
            return Err(NotAllowed::Denied(path.to_owned()));
        }
        let folder = if by_name { node.stored(path, named) } else { node.allowed(path, named) };
        folder.map(Source::Folder)
    }

    fn reference(path: &Path, reference: &str) -> Result<Source, NotAllowed> {
        let shown = || super::shown(reference);
        if !source::is_reference(reference) {
            return Err(NotAllowed::Reference(shown()));
        }
        let node = NodeFile::read(path)?;
        if node.denies(RESTORE_FROM) {
            return Err(NotAllowed::Denied(path.to_owned()));
        }
        if !node.references.iter().any(|allowed| source::is_within(reference, allowed)) {
            return Err(NotAllowed::Foreign { reference: shown(), file: path.to_owned() });
        }
        Ok(Source::Reference(reference.to_owned()))
    }

    fn allowed(&self, path: &Path, named: &Path) -> Result<PathBuf, NotAllowed> {
        let allowed = &self.restore_from;
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

    /// One in the store, if its folder is one of those that are allowed.
    fn stored(&self, path: &Path, named: &Path) -> Result<PathBuf, NotAllowed> {
        let root = &self.store.path;
        if !self.restore_from.iter().any(|folder| root.starts_with(folder)) {
            let (store, path, file) = (root.clone(), named.to_owned(), path.to_owned());
            return Err(NotAllowed::NotStored { path, store, file });
        }
        let entry = Store::open(root).and_then(|store| store.find(&named.to_string_lossy()));
        Ok(entry?.folder)
    }
}

/// Images in registries, and folders.
fn sources(written: Vec<String>) -> Result<(Vec<String>, Vec<PathBuf>), String> {
    let (references, folders): (Vec<_>, Vec<_>) =
        written.into_iter().partition(|source| source.starts_with(SCHEME));
    let references: Vec<_> = references.iter().map(|source| source.replacen(SCHEME, "", 1)).collect();
    match references.iter().any(|reference| reference.trim_end_matches('/').is_empty()) {
        true => Err(format!("restore_from: name a registry after {SCHEME}")),
        false => Ok((references, folders.into_iter().map(PathBuf::from).collect())),
    }
}

fn is_name(named: &Path) -> bool {
    matches!(named.components().collect::<Vec<_>>()[..], [Component::Normal(_)])
}

fn usual(defaults: &BTreeMap<String, toml::Value>) -> Result<Wishes, String> {
    let mut wishes = Wishes::default();
    for (name, value) in defaults {
        wishes.take(name, &plain(value)).map_err(|problem| match problem {
            Problem::Unknown => format!("defaults.{name}: there is no such setting"),
            Problem::Value(expected) => format!("defaults.{name}: {expected}"),
        })?;
    }
    if wishes.network_lock == Some(NetworkLock::Skip) && wishes.tcp == Some(Tcp::Established) {
        return Err("defaults.network-lock: connections that are kept need the lock".to_owned());
    }
    Ok(wishes)
}

/// As an annotation would say it.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Boolean(switch) => switch.to_string(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        // No setting takes any of the others.
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn source(text: Option<&str>, named: impl AsRef<Path>) -> Result<PathBuf, NotAllowed> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        match NodeFile::restore_source(&file, named.as_ref().to_str().unwrap())? {
            Source::Folder(folder) => Ok(folder),
            Source::Reference(reference) => Ok(reference.into()),
        }
    }

    #[test]
    fn registries_are_allowed_by_where_references_begin() {
        let web = "oci://r.io/team/web:warm";
        for text in ["", "restore_from = [\"/\"]", "restore_from = [\"oci://r.io/other\"]"] {
            let error = source(Some(text), web).unwrap_err().to_string();
            assert!(
                error.contains("doesn't allow restores from there") && error.contains("oci://"),
                "{error}"
            );
        }
        let allowed = "restore_from = [\"oci://r.io/team\"]";
        assert_eq!(source(Some(allowed), web).unwrap(), Path::new("r.io/team/web:warm"));
        assert!(matches!(source(Some(allowed), "oci://r.io/team/web"), Err(NotAllowed::Reference(_))));
        let denied = format!("deny = [\"cryo.restore-from\"]\n{allowed}");
        assert!(matches!(source(Some(&denied), web), Err(NotAllowed::Denied(_))));
        assert!(NodeFile::parse("restore_from = [\"oci://\"]").unwrap_err().contains("name a registry"));
        assert!(NodeFile::parse(allowed).unwrap().restore_folders().is_empty());
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
        assert!(matches!(source(Some(&text), allowed.path().join("no")), Err(NotAllowed::Missing { .. })));
    }

    #[test]
    fn names_are_looked_up_where_the_store_is_allowed() {
        let store = tempfile::tempdir().unwrap();
        let section = format!("[store]\npath = {:?}", store.path());
        let named = |text: &str| source(Some(text), Path::new("counter")).unwrap_err();
        assert!(matches!(named(&section), NotAllowed::NotStored { .. }));
        let allowed = format!("restore_from = [{:?}]\n{section}", store.path());
        let error = named(&allowed).to_string();
        assert!(error.contains("there is no checkpoint \"counter\""), "{error}");
        assert!(matches!(
            named(&format!("deny = [\"cryo.restore-from\"]\n{allowed}")),
            NotAllowed::Denied(_)
        ));
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named() {
        for (text, named) in [
            ("allow = [\"cryo.tpc\"]", "cryo.tpc"),
            ("deny = [\"tcp\"]", "\"tcp\""),
            ("[limits]\nghost-limit = \"much\"", "limits.ghost-limit"),
            ("[limits]\ntimeout = \"1d\"", "limits.timeout"),
            ("[limits]\nmemory = \"1G\"", "memory"),
            ("[store]\nmax-age = \"long\"", "store.max-age"),
            ("[defaults]\ntcp = \"maybe\"", "defaults.tcp: give established"),
            ("[defaults]\nfile_locks = true", "defaults.file_locks"),
            ("[defaults]\nlink-remap = 9", "defaults.link-remap"),
            ("[defaults]\ntcp = \"established\"\nnetwork-lock = \"skip\"", "defaults.network-lock"),
        ] {
            let error = NodeFile::parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        assert!(NodeFile::parse("plugins = \"/usr/lib/criu\"").unwrap().plugins.is_some());
    }

    #[test]
    fn what_the_sample_suggests_is_understood() {
        let is_setting = |line: &str| {
            line.starts_with('[') || line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '))
        };
        let lines = include_str!("../../deploy/node/config.toml").lines();
        let said =
            lines.map(|line| line.strip_prefix("# ").filter(|words| is_setting(words)).unwrap_or(line));
        let node = NodeFile::parse(&said.collect::<Vec<_>>().join("\n")).unwrap();
        assert!(node.plugins.is_some() && node.timeout.is_some() && node.usual.tcp.is_some());
        assert_eq!(node.chosen(&["quiesce".to_owned()], Path::new("/")).unwrap().len(), 1);
        assert!(node.store.limits.max_bytes.is_some() && node.store.limits.max_age.is_some());
    }

    #[test]
    fn the_sample_says_what_holds_without_a_file() {
        let sample = NodeFile::parse(include_str!("../../deploy/node/config.toml")).unwrap();
        let without = NodeFile::default();
        assert!(sample.restore_from.is_empty() && sample.usual == without.usual);
        assert_eq!((&sample.store, &sample.metrics), (&without.store, &without.metrics));
        for name in NAMES.map(|name| format!("{PREFIX}{name}")) {
            let allowed = |node: &NodeFile| node.check(&name, Path::new("/")).is_ok();
            assert_eq!(allowed(&sample), allowed(&without), "{name}");
        }
        let asked = Wishes { ghost_limit: Some((1 << 30) + 1), ..Wishes::default() };
        for node in [sample, without] {
            assert!(node.check_limits(&asked, Path::new("/")).is_err());
        }
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = source(Some("restore_form = []"), Path::new("/srv")).unwrap_err().to_string();
        assert!(error.contains("restore_form"), "{error}");
        assert!(matches!(source(None, Path::new("./srv")), Err(NotAllowed::Relative(_))));
    }
}

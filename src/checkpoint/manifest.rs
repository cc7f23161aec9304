//! `cryo.json`: what CRIU's own files don't tell about a checkpoint.
//!
//! It lies beside them, so that every other tool can go on reading those. Written
//! before the dump without its seal, so that a full or read-only disk is found out
//! while the container still runs; sealed when everything else is complete.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Container;
use super::figures::Figures;
use super::injected::Injected;
use crate::bundle::{self, CONFIG, Pod, Sharing, Spec, User};
use crate::container::Subject;
use crate::criu::{self, images};
use crate::docker;
use crate::policy::{DOCKER, Member};
use crate::rootfs::Had;
use crate::runtime::{Flavour, Version};
use crate::store::Id;
use crate::store::claims::Reference;

pub const FILE_NAME: &str = "cryo.json";
/// Readers refuse a higher number than theirs; new optional keys need no new one.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    pub sealed: bool,
    pub container: String,
    /// What it is called in its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What people call it: Docker's or nerdctl's name, or namespace, pod and container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called: Option<String>,
    pub namespace: String,
    /// Milliseconds since 1970.
    pub taken_at: u64,
    pub left_running: bool,
    pub runtime: Runtime,
    /// Known once the dump has begun.
    pub criu: Option<String>,
    pub kernel: String,
    pub architecture: String,
    pub options: criu::Options,
    pub terminal: bool,
    pub stdio: Stdio,
    pub network: Network,
    /// It has a user namespace of its own.
    pub own_users: bool,
    /// How its program was started: by now it may have other rights.
    #[serde(default)]
    pub started: Option<Started>,
    pub cgroup: String,
    pub mounts: Vec<Mount>,
    /// Mounts of the host's that the configuration doesn't list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub injected: Vec<Injected>,
    /// Where the client had mounted memory, whose content is in the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shm: Vec<PathBuf>,
    /// Nothing if what the container has changed in its root file system is left to its client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Had>,
    /// SHA-256 of the configuration it ran with.
    pub spec_digest: String,
    /// Every file of the image but this one, with its size.
    pub files: BTreeMap<String, u64>,
    /// SHA-256 of those that are neither memory nor big.
    #[serde(default)]
    pub digests: BTreeMap<String, String>,
    /// Where its files are, if this is only a word of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Reference>,
    /// Where its memory went by itself, to be found beside it in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<PathBuf>,
    /// Milliseconds from when the container is about to be frozen to the finished image.
    pub took: u64,
    #[serde(default)]
    pub figures: Figures,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Runtime {
    pub name: String,
    pub version: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Started {
    pub user: User,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub seccomp: Value,
}

/// What the first process's streams were, and what the kernel called them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stdio {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub pipes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    Host,
    Private,
    /// Another container's, or one named by a path.
    Shared,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    pub destination: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub source: String,
}

impl Manifest {
    pub(super) fn describe(
        container: &Container<'_>,
        version: &Version,
        options: &criu::Options,
        left_running: bool,
    ) -> io::Result<Manifest> {
        let subject = container.subject;
        let config = fs::read(subject.bundle.join(CONFIG))?;
        // A restore may have changed it.
        let spec = Spec::parse(&config)?;
        let started = Started { user: spec.process.user, seccomp: bundle::filter(&config)? };
        let system = rustix::system::uname();
        Ok(Manifest {
            version: VERSION,
            sealed: false,
            container: subject.id.clone(),
            name: Member::of(&subject.spec.annotations).map(|member| member.name),
            called: called(subject),
            namespace: subject.namespace.clone(),
            taken_at: now(),
            left_running,
            runtime: Runtime { name: version.flavour.name().to_owned(), version: version.text.clone() },
            criu: None,
            kernel: system.release().to_string_lossy().into_owned(),
            architecture: system.machine().to_string_lossy().into_owned(),
            options: options.clone(),
            terminal: spec.process.terminal,
            stdio: Stdio {
                stdin: kind(&subject.paths.stdin),
                stdout: kind(&subject.paths.stdout),
                stderr: kind(&subject.paths.stderr),
                pipes: pipes(container.process.pid()),
            },
            network: Network::from(&subject.spec.sharing("network")),
            own_users: subject.spec.sharing("user") == Sharing::Private,
            started: Some(started),
            cgroup: container.cgroup.to_string(),
            mounts: Vec::deserialize(&spec.mounts).unwrap_or_default(),
            injected: Vec::new(),
            shm: Vec::new(),
            rootfs: None,
            spec_digest: digest(&config),
            files: BTreeMap::new(),
            digests: BTreeMap::new(),
            store: None,
            memory: None,
            took: 0,
            figures: Figures::default(),
        })
    }

    /// For a folder that only says where an image is: in an entry of this node's store.
    pub fn naming(self, entry: &Id, root: &Path) -> Manifest {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let reference = Reference { entry: entry.clone(), root: root.to_owned(), node };
        Manifest { store: Some(reference), files: BTreeMap::new(), digests: BTreeMap::new(), ..self }
    }

    /// Of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().fold(0, |sum, size| sum.saturating_add(*size))
    }

    pub fn read(folder: &Path) -> io::Result<Manifest> {
        let bytes = images::read_small(&folder.join(FILE_NAME))?;
        let probe: Probe = serde_json::from_slice(&bytes)?;
        if probe.version != VERSION {
            let problem = format!("it has version {}, this Cryo reads version {VERSION}", probe.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// A seal is on the disk when this returns; what isn't sealed needn't be.
    pub fn write(&self, folder: &Path, seals: bool) -> io::Result<()> {
        let path = folder.join(FILE_NAME);
        let mut new: PathBuf = path.clone();
        new.as_mut_os_string().push(".new");
        let mut file = options().open(&new)?;
        let written = serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .and_then(|text| file.write_all(&text))
            .and_then(|()| if seals { file.sync_data() } else { Ok(()) })
            .and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written?;
        if seals { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

/// As `taken_at` counts.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// All that a reader of any version can rely on.
#[derive(Deserialize)]
struct Probe {
    version: u32,
}

impl From<&Sharing> for Network {
    fn from(sharing: &Sharing) -> Network {
        match sharing {
            Sharing::Host => Network::Host,
            Sharing::Private => Network::Private,
            Sharing::With(_) => Network::Shared,
        }
    }
}

impl Flavour {
    pub fn name(self) -> &'static str {
        match self {
            Flavour::Runc => "runc",
            Flavour::Crun => "crun",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Flavour::Runc, Flavour::Crun].into_iter().find(|flavour| flavour.name() == name)
    }
}

fn options() -> fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
}

fn called(subject: &Subject) -> Option<String> {
    if let Some(Pod { namespace, name, container }) = subject.spec.pod() {
        return Some([namespace, name, container].join("/"));
    }
    match &*subject.namespace {
        DOCKER => docker::name(&subject.id, &subject.bundle),
        _ => subject.spec.nerdctl_name().map(str::to_owned),
    }
}

/// `fifo`, `file`, `binary` or `null`.
fn kind(path: &str) -> String {
    match path.split_once("://") {
        Some((scheme, _)) => scheme.to_owned(),
        None if path.is_empty() => "null".to_owned(),
        None => "fifo".to_owned(),
    }
}

fn pipes(pid: u32) -> Vec<String> {
    let target = |fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
    (0..3).map(|fd| target(fd).to_string_lossy().into_owned()).collect()
}

/// As containerd writes it, too.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    let mut text = String::from("sha256:");
    for byte in sha2::Sha256::digest(bytes) {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_the_future_is_refused_by_its_version() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE_NAME), r#"{"version":2,"new":true}"#).unwrap();
        let error = Manifest::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    /// What readers before there were figures know and need, and what writers then wrote.
    #[derive(Debug, Serialize, Deserialize)]
    struct Before {
        version: u32,
        sealed: bool,
        container: String,
        namespace: String,
        taken_at: u64,
        left_running: bool,
        runtime: Runtime,
        criu: Option<String>,
        kernel: String,
        architecture: String,
        options: criu::Options,
        terminal: bool,
        stdio: Stdio,
        network: Network,
        own_users: bool,
        cgroup: String,
        mounts: Vec<Mount>,
        spec_digest: String,
        files: BTreeMap<String, u64>,
        took: u64,
    }

    fn before() -> Before {
        let json = serde_json::json!({
            "version": 1, "sealed": true, "container": "web", "namespace": "default", "taken_at": 1,
            "left_running": true, "runtime": {"name": "runc", "version": "1.3.6"}, "criu": "4.2.1", "kernel": "6.12",
            "architecture": "x86_64", "options": {}, "terminal": false,
            "stdio": {"stdin": "null", "stdout": "fifo", "stderr": "fifo", "pipes": []}, "network": "private",
            "own_users": false, "cgroup": "/web", "mounts": [], "spec_digest": "", "files": {"core-1.img": 7},
            "took": 12,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn versions_without_figures_and_with_them_read_each_other() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE_NAME), serde_json::to_vec(&before()).unwrap()).unwrap();
        let mut manifest = Manifest::read(folder.path()).unwrap();
        assert_eq!((manifest.figures, manifest.took), (Figures::default(), 12));
        manifest.figures = Figures { frozen_us: Some(43_210), pages: Some(18), ..Figures::default() };
        manifest.write(folder.path(), true).unwrap();
        let bytes = fs::read(folder.path().join(FILE_NAME)).unwrap();
        let old: Before = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((old.took, old.files["core-1.img"]), (12, 7));
        assert_eq!(Manifest::read(folder.path()).unwrap().figures, manifest.figures);
        // Of a later version that has measured more.
        let text =
            String::from_utf8(bytes).unwrap().replace("\"frozen_us\"", "\"thawed_us\": 1, \"frozen_us\"");
        fs::write(folder.path().join(FILE_NAME), text).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap().figures, manifest.figures);
    }

    #[test]
    fn a_broken_manifest_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", "[]", r#"{"version":1}"#, "\u{0}"] {
            fs::write(folder.path().join(FILE_NAME), text).unwrap();
            assert!(Manifest::read(folder.path()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn streams_are_called_by_their_kind() {
        assert_eq!(kind(""), "null");
        assert_eq!(kind("/run/x"), "fifo");
        assert_eq!(kind("binary:///bin/log"), "binary");
    }
}

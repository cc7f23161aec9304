//! A container's bundle: the names in it, and the parts of `config.json` that matter
//! to us.
//!
//! The files are those the stock shim leaves, so that its `delete` can clean up after
//! ours and ours after its.

mod pod;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tokio::net::UnixListener;

use crate::container::Ended;
use crate::reaper::Exit;
pub use pod::Pod;

pub const ADDRESS: &str = "address";
pub const BOOTSTRAP: &str = "bootstrap.json";
/// Ours: says that nobody else was in the container's cgroup when it was made.
pub const OWN_CGROUP: &str = "cryo-own-cgroup";
pub const CONFIG: &str = "config.json";
pub const EXIT_STATUS: &str = "exitstatus.json";
pub const INIT_PID: &str = "init.pid";
pub const OPTIONS: &str = "options.json";
pub const ROOTFS: &str = "rootfs";
pub const RUNTIME: &str = "runtime";
pub const SHIM_BINARY_PATH: &str = "shim-binary-path";

/// What every container gets, asked for or not.
pub const DEFAULT_DEVICES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
const CONSOLE: &str = "/dev/console";

/// What we need to know of a container's configuration. Everything else in the file
/// is the runtime's business, so a key we have never heard of can't stop a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Spec {
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    pub hostname: String,
    pub annotations: HashMap<String, String>,
    pub root: SpecRoot,
    pub process: SpecProcess,
    pub linux: SpecLinux,
    pub mounts: Value,
    /// Read only by who runs them.
    pub hooks: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SpecRoot {
    /// From the bundle, if it isn't absolute.
    pub path: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SpecProcess {
    pub terminal: bool,
    pub user: User,
    pub capabilities: Capabilities,
    #[serde(rename = "noNewPrivileges")]
    pub no_new_privileges: bool,
    #[serde(rename = "apparmorProfile")]
    pub apparmor_profile: String,
    #[serde(rename = "selinuxLabel")]
    pub selinux_label: String,
}

fn is_filter<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Filter {
        default_action: String,
    }
    let filter: Option<Filter> = Option::deserialize(from)?;
    // Runtimes take one without a default for none.
    Ok(filter.is_some_and(|filter| !filter.default_action.is_empty()))
}

/// Which system calls a configuration lets through.
pub fn filter(config: &[u8]) -> io::Result<Value> {
    #[derive(Default, Deserialize)]
    struct Config {
        linux: Option<Linux>,
    }
    #[derive(Default, Deserialize)]
    struct Linux {
        seccomp: Option<Value>,
    }
    let Config { linux } = serde_json::from_slice(config)?;
    Ok(linux.unwrap_or_default().seccomp.unwrap_or_default())
}

/// As whom the first process starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    #[serde(rename = "additionalGids", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
}

/// By their names, CAP_CHOWN and so on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    bounding: Vec<String>,
    effective: Vec<String>,
    inheritable: Vec<String>,
    permitted: Vec<String>,
    ambient: Vec<String>,
}

impl Capabilities {
    /// Those of all sets.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        let Capabilities { bounding, effective, inheritable, permitted, ambient } = self;
        [bounding, effective, inheritable, permitted, ambient].into_iter().flatten()
    }
}

/// Users or groups of a user namespace, and who they are outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub struct IdMapping {
    #[serde(rename = "containerID")]
    pub inside: u32,
    #[serde(rename = "hostID")]
    pub outside: u32,
    #[serde(rename = "size")]
    pub count: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SpecLinux {
    pub cgroups_path: String,
    pub namespaces: Vec<Namespace>,
    /// By name, as sysctl(8) writes them.
    pub sysctl: BTreeMap<String, String>,
    pub devices: Vec<Device>,
    pub masked_paths: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    /// Some system calls are forbidden. Which ones is a long list that is read when it is needed.
    #[serde(rename = "seccomp", deserialize_with = "is_filter")]
    pub is_filtered: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    pub path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: Option<PathBuf>,
}

/// Whose namespace of one kind a container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sharing {
    Host,
    Private,
    With(PathBuf),
}

#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {source}", path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

impl Spec {
    pub fn read(bundle: &Path) -> Result<Spec, Error> {
        let path = bundle.join(CONFIG);
        let read = || Spec::parse(&fs::read(&path)?);
        read().map_err(|source| Error { path: path.clone(), source })
    }

    pub fn parse(text: &[u8]) -> io::Result<Spec> {
        if let Ok(spec) = serde_json::from_slice(text) {
            return Ok(spec);
        }
        // To runtimes written in Go, `null` is what isn't there.
        let mut config = serde_json::from_slice(text)?;
        drop_nulls(&mut config);
        Ok(Spec::deserialize(config)?)
    }

    /// How the namespace of a kind ("network", "pid", …) is shared.
    pub fn sharing(&self, kind: &str) -> Sharing {
        let namespace = self.linux.namespaces.iter().find(|namespace| namespace.kind == kind);
        match namespace.map(|namespace| &namespace.path) {
            None => Sharing::Host,
            Some(Some(path)) if !path.as_os_str().is_empty() => Sharing::With(path.clone()),
            Some(_) => Sharing::Private,
        }
    }

    /// Where mounts show something of the host: runtimes tell CRIU to leave them out.
    pub fn bound(&self) -> Vec<PathBuf> {
        let mounts = self.mounts.as_array().into_iter().flatten();
        mounts
            .filter(|mount| Spec::is_bind(mount))
            .filter_map(|mount| mount["destination"].as_str())
            .map(PathBuf::from)
            .collect()
    }

    /// Whether a mount, as it is in the configuration, shows something of the host.
    pub fn is_bind(mount: &Value) -> bool {
        let options = mount["options"].as_array().into_iter().flatten();
        mount["type"] == "bind" || options.into_iter().any(|option| option == "bind" || option == "rbind")
    }

    /// Wherever the runtime has mounted something.
    pub fn listed(&self) -> Vec<PathBuf> {
        let mounts = self.mounts.as_array().into_iter().flatten();
        let mounts = mounts.filter_map(|mount| mount["destination"].as_str()).map(PathBuf::from);
        let devices = self.linux.devices.iter().map(|device| PathBuf::from(&device.path));
        let hidden = self.linux.masked_paths.iter().chain(&self.linux.readonly_paths).cloned();
        let always = DEFAULT_DEVICES.iter().chain(&[CONSOLE]).map(PathBuf::from);
        mounts.chain(devices).chain(hidden).chain(always).collect()
    }

    /// Where the container's cgroup is below the root of each hierarchy; nothing if that
    /// is left to the runtime.
    pub fn cgroup_folder(&self) -> Option<String> {
        let path = &self.linux.cgroups_path;
        if !self.has_systemd_cgroup() {
            let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
            let leads_elsewhere = parts.is_empty() || parts.contains(&"..");
            return (!leads_elsewhere).then(|| format!("/{}", parts.join("/")));
        }
        let mut parts = path.split(':');
        let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        // a-b.slice lies in a.slice.
        let stem = slice.strip_suffix(".slice")?;
        let ends = stem.match_indices('-').map(|(end, _)| end).chain([stem.len()]);
        let folders: String = ends.map(|end| format!("/{}.slice", &stem[..end])).collect();
        let scope = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
        Some(format!("{folders}/{scope}.scope"))
    }

    /// Whether the cgroup path is in systemd's form, `slice:prefix:name`. Clients write
    /// it so even when they forget to pass the option that goes with it.
    pub fn has_systemd_cgroup(&self) -> bool {
        let mut parts = self.linux.cgroups_path.split(':');
        matches!((parts.next(), parts.next(), parts.next(), parts.next()), (Some(slice), Some(_), Some(name), None)
            if (slice.is_empty() || slice.ends_with(".slice")) && !name.is_empty())
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(elements) => {
            elements.retain(|element| !element.is_null());
            elements.iter_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

/// Whether its runtime is crun, going by the name of the binary; runc needn't be named.
pub fn has_crun(bundle: &Path) -> bool {
    let name = fs::read_to_string(bundle.join(RUNTIME)).unwrap_or_default();
    Path::new(name.trim()).file_name().is_some_and(|name| name.to_string_lossy().starts_with("crun"))
}

/// How the first process ended, as kept in the bundle.
#[derive(Debug, Deserialize, Serialize)]
pub struct ExitRecord {
    pub pid: u32,
    pub exit_status: u32,
    /// Seconds and nanoseconds since 1970.
    pub exited_at: (u64, u32),
}

impl ExitRecord {
    pub fn new(pid: u32, exit: Exit) -> ExitRecord {
        let since = exit.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        ExitRecord { pid, exit_status: exit.status, exited_at: (since.as_secs(), since.subsec_nanos()) }
    }

    pub fn exit(&self) -> Exit {
        let (seconds, nanoseconds) = self.exited_at;
        Exit { status: self.exit_status, at: UNIX_EPOCH + Duration::new(seconds, nanoseconds) }
    }
}

/// How the container ended as far as the bundle tells: as recorded, or killed with its
/// shim just now.
pub fn ended(bundle: &Path) -> Ended {
    let recorded = fs::read(bundle.join(EXIT_STATUS)).ok();
    match recorded.and_then(|bytes| serde_json::from_slice::<ExitRecord>(&bytes).ok()) {
        Some(record) => Ended { pid: record.pid, exit: record.exit() },
        None => Ended { pid: read_pid(&bundle.join(INIT_PID)).unwrap_or_default(), exit: Exit::killed() },
    }
}

/// A socket in a bundle, whose path may well be longer than a socket's name can be.
/// Goes when dropped.
#[derive(Debug)]
pub struct Socket {
    pub listener: UnixListener,
    folder: fs::File,
    path: PathBuf,
    name: String,
}

impl Socket {
    pub fn listen(bundle: &Path, name: &str) -> io::Result<Socket> {
        let (path, folder) = (bundle.join(name), fs::File::open(bundle)?);
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))?;
        Ok(Socket { listener, folder, path, name: name.to_owned() })
    }

    /// For programs that work in the bundle.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For programs that work anywhere, as long as this one lives.
    pub fn place(&self) -> PathBuf {
        format!("/proc/{}/fd/{}/{}", std::process::id(), self.folder.as_raw_fd(), self.name).into()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Changes `config.json`, leaving every key we don't know as it is.
pub fn edit_config(bundle: &Path, edit: impl FnOnce(&mut Value) -> io::Result<()>) -> Result<(), Error> {
    let path = bundle.join(CONFIG);
    let rewrite = || {
        let text = fs::read(&path)?;
        // Whatever it was before, it may be something else now.
        Spec::parse(&text)?;
        let mut config: Value = serde_json::from_slice(&text)?;
        edit(&mut config)?;
        write_atomically(&path, &serde_json::to_vec(&config)?)
    };
    rewrite().map_err(|source| Error { path: path.clone(), source })
}

/// Sets a key of an object in a configuration.
pub fn set(config: &mut Value, object: &str, key: &str, value: Value) -> io::Result<()> {
    let problem = || io::Error::new(io::ErrorKind::InvalidData, format!("'{object}' isn't an object"));
    let object = config.get_mut(object).and_then(Value::as_object_mut).ok_or_else(problem)?;
    object.insert(key.to_owned(), value);
    Ok(())
}

/// Writes a file for root's eyes; readers see the old one or the new one, whole.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    io::Write::write_all(&mut file, bytes)?;
    fs::rename(&temporary, path)
}

pub fn read_pid(path: &Path) -> io::Result<u32> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no pid")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(json: &str) -> Spec {
        Spec::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn null_is_what_is_not_there() {
        let spec = spec(
            r#"{"hostname":null,"process":{"capabilities":null,"user":{"additionalGids":null}},
                "linux":{"namespaces":[{"type":"pid","path":null},null],"sysctl":null,"seccomp":null}}"#,
        );
        assert_eq!((spec.hostname.as_str(), spec.process.user), ("", User::default()));
        assert_eq!(spec.linux.namespaces[0].path, None);
        assert!(!spec.linux.is_filtered);
    }

    #[test]
    fn namespaces_are_shared_with_the_host_unless_listed() {
        let spec = spec(
            r#"{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/var/run/netns/x"},{"type":"ipc","path":""}]}}"#,
        );
        assert_eq!(spec.sharing("pid"), Sharing::Private);
        assert_eq!(spec.sharing("ipc"), Sharing::Private);
        assert_eq!(spec.sharing("network"), Sharing::With("/var/run/netns/x".into()));
        assert_eq!(spec.sharing("uts"), Sharing::Host);
    }

    #[test]
    fn what_is_bound_from_the_host_is_told_by_type_or_options() {
        let spec = spec(
            r#"{"mounts":[{"destination":"/proc","type":"proc"},{"destination":"/a","type":"bind"},
                {"destination":"/b","type":"none","options":["ro","rbind"]},7]}"#,
        );
        assert_eq!(spec.bound(), [PathBuf::from("/a"), PathBuf::from("/b")]);
    }

    #[test]
    fn a_systemd_cgroup_path_is_known_by_its_form() {
        let with =
            |path: &str| spec(&format!(r#"{{"linux":{{"cgroupsPath":"{path}"}}}}"#)).has_systemd_cgroup();
        assert!(with("system.slice:docker:abc"));
        assert!(with(":cri-containerd:abc"));
        assert!(!with("/default/abc"));
        assert!(!with("/a:b:c"));
        assert!(!with(""));
    }

    #[test]
    fn the_folder_of_a_cgroup_is_known_for_both_drivers() {
        let folder = |path: &str| spec(&format!(r#"{{"linux":{{"cgroupsPath":"{path}"}}}}"#)).cgroup_folder();
        assert_eq!(folder("/default/abc").as_deref(), Some("/default/abc"));
        assert_eq!(folder("system.slice:docker:abc").as_deref(), Some("/system.slice/docker-abc.scope"));
        let pod = "/kubepods.slice/kubepods-pod1.slice/cri-abc.scope";
        assert_eq!(folder("kubepods-pod1.slice:cri:abc").as_deref(), Some(pod));
        assert_eq!(folder(""), None);
        assert_eq!(folder("/"), None);
        assert_eq!(folder("/a/../b"), None);
        assert_eq!(folder("//a/./b/").as_deref(), Some("/a/b"));
    }

    #[test]
    fn an_edit_keeps_what_we_do_not_know() {
        let bundle = tempfile::tempdir().unwrap();
        let path = bundle.path().join(CONFIG);
        fs::write(&path, r#"{"future":[1],"process":{"terminal":false}}"#).unwrap();
        edit_config(bundle.path(), |config| set(config, "process", "terminal", true.into())).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""future":[1]"#) && text.contains(r#""terminal":true"#), "{text}");
    }

    #[test]
    fn an_edit_of_what_is_no_object_fails() {
        for mut config in [json!([]), json!(7), json!({"process": []}), json!({})] {
            assert!(set(&mut config, "process", "terminal", true.into()).is_err(), "{config}");
        }
    }

    #[test]
    fn a_config_that_is_broken_or_missing_is_named() {
        let bundle = tempfile::tempdir().unwrap();
        assert!(Spec::read(bundle.path()).unwrap_err().to_string().contains("config.json"));
        fs::write(bundle.path().join(CONFIG), "{").unwrap();
        assert!(Spec::read(bundle.path()).is_err());
    }
}

//! containerd's messages to the core's types. Total: an option type we don't know is
//! named in the refusal, never guessed, and never a panic.

use std::path::PathBuf;

use cryo::container::{Options, Status};
use cryo::criu;
use cryo::mount::Mount;
use cryo_protos::api;
use cryo_protos::protobuf;
use cryo_protos::protobuf::well_known_types::any::Any;
use cryo_protos::{Named, is, linux_runc, runc, runtimeoptions};

const DEFAULT_ROOT: &str = "/run/containerd/runc";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("options of type {0} are for another shim: pass containerd.runc.v1.Options, or none")]
    ForeignType(String),
    #[error("options of type {name} can't be read: {source}")]
    Broken { name: &'static str, source: protobuf::Error },
    #[error("options in TOML can't be read{}: {problem}", place(.path))]
    Toml { path: Option<PathBuf>, problem: String },
}

fn place(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!(" from {}", path.display())).unwrap_or_default()
}

/// What a client asks of a checkpoint. `exit` is missing if it sent no options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointOptions {
    pub exit: Option<bool>,
    /// Where its client wants it; containerd has understood it, or not.
    pub image: Option<PathBuf>,
    pub work: Option<PathBuf>,
    pub criu: criu::Options,
}

/// Options for a new container, whatever generation of client sent them.
pub fn create_options(any: &Any) -> Result<runc::Options, Error> {
    if any.type_url.is_empty() && any.value.is_empty() {
        return Ok(runc::Options::default());
    }
    if is::<runc::Options>(any) {
        return read(any);
    }
    if is::<linux_runc::CreateOptions>(any) {
        return Ok(from_linux_create(read(any)?));
    }
    if is::<linux_runc::RuncOptions>(any) {
        return Ok(from_linux_runtime(read(any)?));
    }
    if is::<runtimeoptions::Options>(any) {
        return from_toml(&read(any)?);
    }
    Err(Error::ForeignType(any.type_url.clone()))
}

fn from_linux_create(old: linux_runc::CreateOptions) -> runc::Options {
    runc::Options {
        no_pivot_root: old.no_pivot_root,
        no_new_keyring: old.no_new_keyring,
        shim_cgroup: old.shim_cgroup,
        io_uid: old.io_uid,
        io_gid: old.io_gid,
        criu_image_path: old.criu_image_path,
        criu_work_path: old.criu_work_path,
        ..runc::Options::default()
    }
}

fn from_linux_runtime(old: linux_runc::RuncOptions) -> runc::Options {
    runc::Options {
        binary_name: old.runtime,
        root: old.runtime_root,
        systemd_cgroup: old.systemd_cgroup,
        ..runc::Options::default()
    }
}

pub fn checkpoint_options(any: Option<&Any>) -> Result<CheckpointOptions, Error> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty() || !any.value.is_empty()) else {
        return Ok(CheckpointOptions::default());
    };
    if is::<runc::CheckpointOptions>(any) {
        return Ok(from_checkpoint(read(any)?));
    }
    if is::<linux_runc::CheckpointOptions>(any) {
        let old: linux_runc::CheckpointOptions = read(any)?;
        return Ok(from_checkpoint(runc::CheckpointOptions {
            exit: old.exit,
            open_tcp: old.open_tcp,
            external_unix_sockets: old.external_unix_sockets,
            terminal: old.terminal,
            file_locks: old.file_locks,
            empty_namespaces: old.empty_namespaces,
            cgroups_mode: old.cgroups_mode,
            image_path: old.image_path,
            work_path: old.work_path,
            ..runc::CheckpointOptions::default()
        }));
    }
    Err(Error::ForeignType(any.type_url.clone()))
}

fn from_checkpoint(options: runc::CheckpointOptions) -> CheckpointOptions {
    CheckpointOptions {
        exit: Some(options.exit),
        image: path(&options.image_path),
        work: path(&options.work_path),
        criu: criu::Options {
            tcp_established: options.open_tcp,
            tcp_close: false,
            external_unix_sockets: options.external_unix_sockets,
            shell_job: options.terminal,
            file_locks: options.file_locks,
            empty_namespaces: options.empty_namespaces,
            cgroups_mode: Some(options.cgroups_mode).filter(|mode| !mode.is_empty()),
            lsm_profile: None,
        },
    }
}

fn read<M: Named>(any: &Any) -> Result<M, Error> {
    M::parse_from_bytes(&any.value).map_err(|source| Error::Broken { name: M::FULL_NAME, source })
}

/// The CRI hands on a section of containerd's configuration, spelled as there.
fn from_toml(options: &runtimeoptions::Options) -> Result<runc::Options, Error> {
    let file = path(&options.config_path).filter(|_| options.config_body.is_empty());
    let problem = |problem: String| Error::Toml { path: file.clone(), problem };
    let text = match &file {
        Some(path) => std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?,
        None => String::from_utf8_lossy(&options.config_body).into_owned(),
    };
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| problem(error.message().to_owned()))?;
    let mut found = runc::Options::default();
    for (key, value) in &table {
        set(&mut found, key, value).map_err(|expected| problem(format!("{key} has to be {expected}")))?;
    }
    Ok(found)
}

/// Keys of other shims are none of our business.
fn set(options: &mut runc::Options, key: &str, value: &toml::Value) -> Result<(), &'static str> {
    let text = || value.as_str().map(str::to_owned).ok_or("a string");
    let truth = || value.as_bool().ok_or("true or false");
    let number = || value.as_integer().and_then(|n| u32::try_from(n).ok()).ok_or("a number");
    match key.replace('_', "").to_ascii_lowercase().as_str() {
        "binaryname" => options.binary_name = text()?,
        "root" => options.root = text()?,
        "systemdcgroup" => options.systemd_cgroup = truth()?,
        "nopivotroot" => options.no_pivot_root = truth()?,
        "nonewkeyring" => options.no_new_keyring = truth()?,
        "shimcgroup" => options.shim_cgroup = text()?,
        "iouid" => options.io_uid = number()?,
        "iogid" => options.io_gid = number()?,
        "criuimagepath" => options.criu_image_path = text()?,
        "criuworkpath" => options.criu_work_path = text()?,
        _ => {}
    }
    Ok(())
}

/// The core's view of them.
pub fn core_options(options: &runc::Options, namespace: &str) -> Options {
    let root = path(&options.root).unwrap_or_else(|| DEFAULT_ROOT.into());
    Options {
        runtime: Some(&options.binary_name).filter(|name| !is_usual(name)).map(PathBuf::from),
        runtime_root: root.join(namespace),
        systemd_cgroup: options.systemd_cgroup,
        no_pivot: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        io_owner: (options.io_uid != 0 || options.io_gid != 0).then_some((options.io_uid, options.io_gid)),
        restore_work: path(&options.criu_work_path),
    }
}

/// Whether it leaves the choice to the node. Docker names the usual runtime for containers that
/// are to have the usual one.
pub(crate) fn is_usual(runtime: &str) -> bool {
    ["", "runc"].contains(&runtime)
}

pub fn mounts(mounts: Vec<api::Mount>) -> Vec<Mount> {
    let convert = |mount: api::Mount| Mount {
        kind: mount.type_,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(convert).collect()
}

pub fn status(status: Status) -> api::Status {
    match status {
        Status::Created => api::Status::CREATED,
        Status::Running => api::Status::RUNNING,
        Status::Pausing => api::Status::PAUSING,
        Status::Paused => api::Status::PAUSED,
        Status::Stopped => api::Status::STOPPED,
    }
}

pub fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use cryo_protos::pack;

    #[test]
    fn every_generation_of_create_options_is_read() {
        let new = runc::Options { binary_name: "crun".into(), systemd_cgroup: true, ..Default::default() };
        assert_eq!(create_options(&pack(&new).unwrap()).unwrap(), new);
        let old = linux_runc::CreateOptions { io_uid: 7, criu_image_path: "/i".into(), ..Default::default() };
        let read = create_options(&pack(&old).unwrap()).unwrap();
        assert_eq!((read.io_uid, read.criu_image_path.as_str()), (7, "/i"));
        let older = linux_runc::RuncOptions { runtime: "/bin/runc".into(), ..Default::default() };
        assert_eq!(create_options(&pack(&older).unwrap()).unwrap().binary_name, "/bin/runc");
        assert_eq!(create_options(&Any::default()).unwrap(), runc::Options::default());
    }

    #[test]
    fn a_type_url_may_have_a_host() {
        let mut any = pack(&runc::Options { root: "/r".into(), ..Default::default() }).unwrap();
        any.type_url = format!("types.containerd.io/{}", any.type_url);
        assert_eq!(create_options(&any).unwrap().root, "/r");
    }

    #[test]
    fn options_of_another_shim_are_named() {
        let any = Any { type_url: "kata.v1.Options".into(), value: vec![1, 2], ..Any::default() };
        assert!(create_options(&any).unwrap_err().to_string().contains("kata.v1.Options"));
        assert!(checkpoint_options(Some(&any)).is_err());
    }

    #[test]
    fn broken_options_are_an_error_and_no_panic() {
        let mut any = pack(&runc::Options::default()).unwrap();
        any.value = vec![0xff; 9];
        assert!(create_options(&any).unwrap_err().to_string().contains("containerd.runc.v1.Options"));
    }

    fn toml(body: &str) -> Result<runc::Options, Error> {
        let options = runtimeoptions::Options { config_body: body.into(), ..Default::default() };
        create_options(&pack(&options).unwrap())
    }

    #[test]
    fn toml_is_read_in_either_spelling() {
        let read = toml("SystemdCgroup = true\nbinary_name = 'crun'\nOther = 1").unwrap();
        assert!(read.systemd_cgroup);
        assert_eq!(read.binary_name, "crun");
        assert!(toml("SystemdCgroup = 'yes'").unwrap_err().to_string().contains("SystemdCgroup"));
        assert!(toml("a = [").is_err());
    }

    #[test]
    fn the_fields_of_old_checkpoint_options_have_other_numbers() {
        let old = linux_runc::CheckpointOptions {
            exit: true,
            work_path: "/w".into(),
            image_path: "/i".into(),
            ..Default::default()
        };
        let read = checkpoint_options(Some(&pack(&old).unwrap())).unwrap();
        assert_eq!((read.exit, read.work, read.image), (Some(true), Some("/w".into()), Some("/i".into())));
    }

    #[test]
    fn no_options_leave_the_choice_to_us() {
        assert_eq!(checkpoint_options(None).unwrap().exit, None);
        assert_eq!(checkpoint_options(Some(&Any::default())).unwrap().exit, None);
    }

    #[test]
    fn defaults_are_the_stock_shims() {
        let options = core_options(&runc::Options::default(), "moby");
        assert_eq!(options.runtime, None);
        assert_eq!(options.runtime_root, Path::new("/run/containerd/runc/moby"));
        assert_eq!(options.io_owner, None);
    }

    #[test]
    fn a_runtime_counts_as_named_if_it_is_not_the_usual_one() {
        let named = |name: &str| {
            let options = runc::Options { binary_name: name.into(), ..Default::default() };
            core_options(&options, "moby").runtime
        };
        assert_eq!((named(""), named("runc")), (None, None));
        assert_eq!(named("crun"), Some("crun".into()));
        assert_eq!(named("/usr/bin/runc"), Some("/usr/bin/runc".into()));
    }
}

//! The files that containerd and the stock shim look for in a bundle.

use std::io;
use std::path::Path;

use cryo::bundle::{OPTIONS, RUNTIME, SHIM_BINARY_PATH, write_atomically};
use cryo_protos::runc;
use serde::{Deserialize, Serialize};

use crate::convert::is_usual;

/// The options a container was made with, under the names that the stock shim gives
/// them; what it adds one day is none of our business.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    #[serde(skip_serializing_if = "is_default")]
    no_pivot_root: bool,
    #[serde(skip_serializing_if = "is_default")]
    no_new_keyring: bool,
    #[serde(skip_serializing_if = "is_default")]
    shim_cgroup: String,
    #[serde(skip_serializing_if = "is_default")]
    io_uid: u32,
    #[serde(skip_serializing_if = "is_default")]
    io_gid: u32,
    #[serde(skip_serializing_if = "is_default")]
    binary_name: String,
    #[serde(skip_serializing_if = "is_default")]
    root: String,
    #[serde(skip_serializing_if = "is_default")]
    systemd_cgroup: bool,
    #[serde(skip_serializing_if = "is_default")]
    criu_image_path: String,
    #[serde(skip_serializing_if = "is_default")]
    criu_work_path: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<&runc::Options> for Options {
    fn from(options: &runc::Options) -> Options {
        Options {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup.clone(),
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            binary_name: options.binary_name.clone(),
            root: options.root.clone(),
            systemd_cgroup: options.systemd_cgroup,
            criu_image_path: options.criu_image_path.clone(),
            criu_work_path: options.criu_work_path.clone(),
        }
    }
}

impl From<Options> for runc::Options {
    fn from(options: Options) -> runc::Options {
        runc::Options {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            binary_name: options.binary_name,
            root: options.root,
            systemd_cgroup: options.systemd_cgroup,
            criu_image_path: options.criu_image_path,
            criu_work_path: options.criu_work_path,
            ..runc::Options::default()
        }
    }
}

pub(crate) fn write(bundle: &Path, options: &runc::Options) -> io::Result<()> {
    write_atomically(&bundle.join(OPTIONS), &serde_json::to_vec(&Options::from(options))?)?;
    write_atomically(&bundle.join(RUNTIME), options.binary_name.as_bytes())?;
    // Without it, containerd may call another shim's `delete` on this bundle.
    let us = std::fs::read_link("/proc/self/exe")?;
    write_atomically(&bundle.join(SHIM_BINARY_PATH), place(us.as_os_str().as_encoded_bytes()))
}

/// Where a program lies. The kernel marks one that was replaced by a newer version, and that
/// one does for us as well.
fn place(link: &[u8]) -> &[u8] {
    link.strip_suffix(b" (deleted)").unwrap_or(link)
}

/// What a shim, ours or the stock one, left in the bundle; defaults if it got not even
/// that far.
pub(crate) fn read(bundle: &Path) -> runc::Options {
    let options: Options = std::fs::read(bundle.join(OPTIONS))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut options = runc::Options::from(options);
    // What the node has chosen is only noted there.
    if is_usual(&options.binary_name) {
        options.binary_name =
            std::fs::read_to_string(bundle.join(RUNTIME)).unwrap_or_default().trim().to_owned();
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_way_through_the_bundle() {
        let bundle = tempfile::tempdir().unwrap();
        let options = runc::Options { binary_name: "crun".into(), io_uid: 5, ..Default::default() };
        write(bundle.path(), &options).unwrap();
        assert_eq!(read(bundle.path()), options);
        let text = std::fs::read_to_string(bundle.path().join(OPTIONS)).unwrap();
        assert_eq!(text, r#"{"io_uid":5,"binary_name":"crun"}"#);
    }

    #[test]
    fn a_program_that_was_replaced_is_named_by_its_place() {
        assert_eq!(place(b"/usr/local/bin/shim (deleted)"), b"/usr/local/bin/shim");
        assert_eq!(place(b"/usr/local/bin/shim"), b"/usr/local/bin/shim");
    }

    #[test]
    fn a_bundle_of_any_state_is_read() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(read(bundle.path()), runc::Options::default());
        std::fs::write(bundle.path().join(OPTIONS), r#"{"future":{},"root":"/r"}"#).unwrap();
        assert_eq!(read(bundle.path()).root, "/r");
        std::fs::write(bundle.path().join(RUNTIME), "crun").unwrap();
        for options in ["{", r#"{"binary_name":"runc"}"#] {
            std::fs::write(bundle.path().join(OPTIONS), options).unwrap();
            assert_eq!(read(bundle.path()).binary_name, "crun");
        }
    }
}

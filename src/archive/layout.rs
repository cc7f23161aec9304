//! Names and metadata in checkpoint archives of Kubernetes and Podman.
//!
//! CRIU's files are below `checkpoint/`, everything else lies beside that folder. The names
//! are those of checkpointctl's library, which containerd, CRI-O and Podman share.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub(super) const IMAGE_FOLDER: &str = "checkpoint";
pub(super) const CONFIG_FILE: &str = "config.dump";
/// The container's `config.json`.
pub(super) const SPEC_FILE: &str = "spec.dump";
/// Changes of the root file system, a tar archive itself.
pub(super) use crate::rootfs::FILE as ROOTFS_FILE;

/// What is kept of an archive besides CRIU's files.
pub(super) const BESIDE: [&str; 9] = [
    CONFIG_FILE,
    SPEC_FILE,
    "status.dump",
    "network.status",
    "stats-dump",
    "dump.log",
    "deleted.files",
    "bind.mounts",
    ROOTFS_FILE,
];

/// Whether archives have a place for a file that isn't CRIU's.
pub fn is_beside(name: &str) -> bool {
    BESIDE.contains(&name)
}

/// What Go writes for a time that isn't known.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// The last millisecond that RFC 3339 can name.
const LAST: u64 = 253_402_300_799_999;

/// `config.dump`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerConfig {
    pub id: String,
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rootfs_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rootfs_image_ref: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rootfs_image_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    pub created_time: String,
    pub checkpointed_time: String,
    pub restored_time: String,
    pub restored: bool,
}

impl ContainerConfig {
    pub(super) fn new(id: &str, name: &str, runtime: &str, taken_at: u64) -> ContainerConfig {
        ContainerConfig {
            id: id.to_owned(),
            name: name.to_owned(),
            runtime: runtime.to_owned(),
            created_time: NEVER.to_owned(),
            checkpointed_time: time(taken_at).unwrap_or_else(|| NEVER.to_owned()),
            restored_time: NEVER.to_owned(),
            ..ContainerConfig::default()
        }
    }

    pub(super) fn of_image(mut self, image: &str) -> ContainerConfig {
        self.rootfs_image = image.to_owned();
        self.rootfs_image_name = image.to_owned();
        self
    }
}

/// Milliseconds since 1970, as RFC 3339 has them.
pub(super) fn time(milliseconds: u64) -> Option<String> {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))?;
    (milliseconds <= LAST).then(|| humantime::format_rfc3339_millis(time).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_nobody_can_write_is_none() {
        assert_eq!(time(1_700_000_000_123).as_deref(), Some("2023-11-14T22:13:20.123Z"));
        assert!(time(LAST).is_some());
        assert_eq!(time(LAST + 1), None);
        assert_eq!(time(u64::MAX), None);
    }

    #[test]
    fn metadata_has_the_keys_that_other_tools_read() {
        let config = ContainerConfig::new("id", "name", "runc", 0).of_image("image");
        let json = serde_json::to_value(config).unwrap();
        assert_eq!(json["checkpointedTime"], "1970-01-01T00:00:00.000Z");
        assert_eq!(json["createdTime"], NEVER);
        assert_eq!(json["rootfsImageName"], "image");
        assert_eq!(json.get("rootfsImageRef"), None);
    }
}

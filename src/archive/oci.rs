//! The JSON of an OCI image layout, as far as a checkpoint needs it.
//!
//! Five small structures: the `oci-spec` crate brings twenty others for them, and refuses
//! what it doesn't know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(super) const LAYOUT_FILE: &str = "oci-layout";
pub(super) const INDEX_FILE: &str = "index.json";
pub(super) const BLOBS: &str = "blobs/sha256/";
pub(super) const LAYOUT_VERSION: &str = "1.0.0";

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

pub(super) type Annotations = BTreeMap<String, String>;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Layout {
    pub(super) image_layout_version: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) manifests: Vec<Descriptor>,
    #[serde(default)]
    pub(super) annotations: Annotations,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Image {
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    #[serde(default)]
    pub(super) annotations: Annotations,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub(super) annotations: Annotations,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Platform {
    pub(super) architecture: String,
    pub(super) os: String,
}

/// Never run: it says what it was made on, and what its layers are once unpacked.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<String>,
    #[serde(flatten)]
    pub(super) platform: Platform,
    pub(super) config: BTreeMap<String, String>,
    pub(super) rootfs: Rootfs,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Rootfs {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) diff_ids: Vec<String>,
}

impl Platform {
    /// The kernel's name of an architecture, in Go's words.
    pub(super) fn of(machine: &str) -> Platform {
        let architecture = match machine {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "armv7l" => "arm",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform { architecture: architecture.to_owned(), os: "linux".to_owned() }
    }
}

//! The node file's `[metrics]`: where figures for Prometheus are written.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

/// Where they are if the node's owner doesn't say.
const PATH: &str = "/var/lib/cryo/metrics/cryo.prom";
/// node_exporter reads no others.
const ENDING: &str = "prom";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSection {
    /// None if nobody wants them.
    pub path: Option<PathBuf>,
}

impl Default for MetricsSection {
    fn default() -> MetricsSection {
        MetricsSection { path: Some(PATH.into()) }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Written {
    enabled: Option<bool>,
    path: Option<PathBuf>,
}

impl Written {
    pub(super) fn understood(self) -> Result<MetricsSection, String> {
        let path = self.path.unwrap_or_else(|| PATH.into());
        if !is_good(&path) {
            return Err("metrics.path: give an absolute path without '..' that ends with .prom".to_owned());
        }
        Ok(MetricsSection { path: self.enabled.unwrap_or(true).then_some(path) })
    }
}

fn is_good(path: &Path) -> bool {
    let is_plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    is_plain && path.extension().is_some_and(|ending| ending == ENDING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<MetricsSection, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        written.understood()
    }

    #[test]
    fn they_are_written_unless_the_owner_says_otherwise() {
        assert_eq!(section("").unwrap(), MetricsSection::default());
        assert_eq!(section("enabled = false").unwrap().path, None);
        let named = section("path = \"/srv/textfile/cryo.prom\"").unwrap();
        assert_eq!(named.path.as_deref(), Some(Path::new("/srv/textfile/cryo.prom")));
    }

    #[test]
    fn what_can_not_be_meant_is_named() {
        for (text, named) in [
            ("path = \"cryo.prom\"", "metrics.path"),
            ("path = \"/srv/cryo.txt\"", "metrics.path"),
            ("path = \"/srv/../cryo.prom\"", "metrics.path"),
            ("path = \"\"", "metrics.path"),
            ("enabled = \"yes\"", "yes"),
            ("pth = \"/cryo.prom\"", "pth"),
        ] {
            let error = section(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}

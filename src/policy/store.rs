//! The node file's `[store]`: where checkpoints are kept, and for how long.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::wishes::{bytes, duration};
use crate::store::{ROOT, retention::Limits};

/// By then it is a matter of keeping, not of going back a step.
const PACK_AFTER: Duration = Duration::from_secs(24 * 3600);
const NEVER: &str = "never";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSection {
    pub path: PathBuf,
    pub data: Data,
    pub compress: Compress,
    pub limits: Limits,
    /// Pages of older entries are packed after this time, if they are.
    pub pack_after: Option<Duration>,
}

impl Default for StoreSection {
    fn default() -> StoreSection {
        StoreSection {
            path: ROOT.into(),
            data: Data::default(),
            compress: Compress::default(),
            limits: Limits::default(),
            pack_after: Some(PACK_AFTER),
        }
    }
}

/// Where the data of a checkpoint goes that a client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    /// To the store where nothing can be lost by that, to the client elsewhere.
    #[default]
    Auto,
    Store,
    Client,
}

/// Whether memory that doesn't go to the store is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    /// Where it is carried by a client that hands it back.
    #[default]
    Auto,
    /// In folders that a client names, too, which only Cryo can restore then.
    Always,
    Never,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Written {
    path: Option<PathBuf>,
    data: Data,
    compress: Compress,
    max_bytes: Option<String>,
    max_count: Option<usize>,
    max_per_container: Option<usize>,
    max_age: Option<String>,
    expire_named: bool,
    pack_after: Option<String>,
}

impl Written {
    pub(super) fn understood(self) -> Result<StoreSection, String> {
        let path = self.path.unwrap_or_else(|| ROOT.into());
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return Err("store.path: give an absolute path without '..'".to_owned());
        }
        if path == Path::new("/") {
            return Err("store.path: give a folder of its own".to_owned());
        }
        let max_bytes =
            self.max_bytes.map(|text| bytes(&text).ok_or("store.max-bytes: give a size, like 500M or 20GiB"));
        let max_age =
            self.max_age.map(|text| age(&text).ok_or("store.max-age: give a time, like 12h or 30d"));
        let pack_after = match self.pack_after.as_deref() {
            None => Some(PACK_AFTER),
            Some(NEVER) => None,
            Some(text) => {
                Some(age(text).ok_or("store.pack-after: give a time, like 10m, 1h or 2d, or \"never\"")?)
            }
        };
        let limits = Limits {
            max_bytes: max_bytes.transpose()?,
            max_count: self.max_count,
            max_per_container: self.max_per_container,
            max_age: max_age.transpose()?,
            expire_named: self.expire_named,
        };
        let (data, compress) = (self.data, self.compress);
        Ok(StoreSection { path, data, compress, limits, pack_after })
    }
}

/// Checkpoints are kept for days.
fn age(text: &str) -> Option<Duration> {
    match text.strip_suffix('d') {
        Some(days) => days.parse::<u64>().ok()?.checked_mul(24 * 3600).map(Duration::from_secs),
        None => duration(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<StoreSection, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        written.understood()
    }

    #[test]
    fn without_a_word_nothing_is_limited() {
        let usual = section("").unwrap();
        assert_eq!((usual.path.as_path(), usual.data), (Path::new(ROOT), Data::Auto));
        assert_eq!((usual.limits, usual.pack_after), (Limits::default(), Some(PACK_AFTER)));
        assert_eq!(section("pack-after = \"never\"").unwrap().pack_after, None);
    }

    #[test]
    fn every_key_is_understood() {
        let text = "path = \"/srv/cryo\"\ndata = \"client\"\ncompress = \"never\"\nmax-bytes = \"20GiB\"\nmax-count = 9\nmax-per-container = 3\n\
                    max-age = \"30d\"\nexpire-named = true\npack-after = \"90m\"";
        let section = section(text).unwrap();
        assert_eq!((section.path.as_path(), section.data), (Path::new("/srv/cryo"), Data::Client));
        assert_eq!(section.compress, Compress::Never);
        let limits = Limits {
            max_bytes: Some(20 << 30),
            max_count: Some(9),
            max_per_container: Some(3),
            max_age: Some(Duration::from_secs(30 * 24 * 3600)),
            expire_named: true,
        };
        assert_eq!((section.limits, section.pack_after), (limits, Some(Duration::from_secs(5400))));
    }

    #[test]
    fn what_can_not_be_meant_is_named() {
        for (text, named) in [
            ("path = \"store\"", "store.path"),
            ("path = \"/srv/../x\"", "store.path"),
            ("path = \"/\"", "store.path"),
            ("data = \"both\"", "both"),
            ("compress = \"zstd\"", "zstd"),
            ("compress = true", "string"),
            ("max-bytes = \"much\"", "store.max-bytes"),
            ("max-age = \"99999999999999999999d\"", "store.max-age"),
            ("max-age = \"-1d\"", "store.max-age"),
            ("max-count = -1", "-1"),
            ("pack-after = \"soon\"", "store.pack-after"),
            ("max-size = \"1G\"", "max-size"),
        ] {
            let error = section(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}

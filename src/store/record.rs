//! `entry.json`: the store's own words about an entry, beside the files of its image.
//!
//! Keys that this version doesn't know are kept when it is written again; what can't be
//! understood without them raises the version, and is refused by it. It ends with a digest of
//! itself, since whether something may be removed depends on it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::claims::Claim;
use super::error::brief;
use super::{Id, disk};
use crate::criu::images;
use crate::pages::Expected;

pub(super) const FILE_NAME: &str = "entry.json";
const VERSION: u32 = 1;
const SEAL: &str = "seal";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    pub id: Id,
    /// Given by a user of `cryo`, who names it by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub container: String,
    pub namespace: String,
    /// Milliseconds since 1970.
    pub taken_at: u64,
    #[serde(default)]
    pub pinned: bool,
    /// Who else names it.
    #[serde(default)]
    pub claims: Vec<Claim>,
    /// Where it was fetched from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Every file of the image.
    pub files: BTreeMap<String, Content>,
    #[serde(flatten)]
    later: Map<String, Value>,
}

/// What a file holds, however it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub size: u64,
    /// `blake3:` or `sha256:` and hex digits.
    pub digest: String,
    #[serde(flatten)]
    later: Map<String, Value>,
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub reference: String,
    /// Of its manifest.
    pub digest: String,
}

/// What an entry is made with.
#[derive(Clone, Debug, Default)]
pub struct Description {
    pub container: String,
    pub namespace: String,
    /// Milliseconds since 1970.
    pub taken_at: u64,
    pub pinned: bool,
    pub claims: Vec<Claim>,
    pub origin: Option<Origin>,
    /// Of files, as far as they are known: all others are read for theirs.
    pub digests: BTreeMap<String, String>,
}

/// All that a reader of any version can rely on.
#[derive(Deserialize)]
struct Probe {
    version: u32,
}

impl Content {
    pub(super) fn new(size: u64, digest: String) -> Content {
        Content { size, digest, later: Map::new() }
    }

    pub fn expected(&self) -> Expected {
        Expected { size: self.size, digest: self.digest.clone() }
    }
}

impl Record {
    pub(super) fn new(
        id: Id,
        name: Option<String>,
        about: Description,
        files: BTreeMap<String, Content>,
    ) -> Record {
        let Description { container, namespace, taken_at, pinned, claims, origin, digests: _ } = about;
        let (version, later) = (VERSION, Map::new());
        Record { version, id, name, container, namespace, taken_at, pinned, claims, origin, files, later }
    }

    pub(super) fn read(folder: &Path, id: &Id) -> Result<Record, String> {
        let bytes = images::read_small(&folder.join(FILE_NAME)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "it is missing".to_owned(),
            _ => brief(&error),
        })?;
        let record = Record::parse(&bytes)?;
        if record.id == *id { Ok(record) } else { Err(format!("it is that of checkpoint {}", record.id)) }
    }

    fn parse(bytes: &[u8]) -> Result<Record, String> {
        let problem = |error: serde_json::Error| brief(&error);
        let probe: Probe = serde_json::from_slice(bytes).map_err(problem)?;
        if probe.version != VERSION {
            return Err(format!("it has version {}, this Cryo reads version {VERSION}", probe.version));
        }
        let mut members: Map<String, Value> = serde_json::from_slice(bytes).map_err(problem)?;
        let seal = members.remove(SEAL);
        if seal.as_ref().and_then(Value::as_str) != Some(&digest(&members).map_err(problem)?) {
            return Err("it isn't what was written".to_owned());
        }
        let record: Record = serde_json::from_value(Value::Object(members)).map_err(problem)?;
        match record.files.keys().find(|name| !is_plain(name)) {
            Some(name) => Err(format!("{:?} is no name of a file", brief(name))),
            None => Ok(record),
        }
    }

    /// On the disk when this returns, though its name may not be.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        disk::write(path, &self.text()?)
    }

    fn text(&self) -> serde_json::Result<Vec<u8>> {
        let Value::Object(mut members) = serde_json::to_value(self)? else { return Ok(Vec::new()) };
        let seal = digest(&members)?;
        members.insert(SEAL.to_owned(), seal.into());
        serde_json::to_vec_pretty(&members)
    }
}

/// Of what is said, in whatever form it is written.
fn digest(members: &Map<String, Value>) -> serde_json::Result<String> {
    let sorted: BTreeMap<&String, &Value> = members.iter().collect();
    Ok(format!("blake3:{}", blake3::hash(&serde_json::to_vec(&sorted)?)))
}

/// What leads nowhere else.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | ".." | FILE_NAME) && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn record() -> Record {
        let about = Description {
            container: "c".into(),
            namespace: "moby".into(),
            taken_at: 7,
            ..Default::default()
        };
        let files = [("pages-1.img".to_owned(), Content::new(3, "blake3:0".into()))].into();
        Record::new(Id::parse("0123456789abcdef").unwrap(), Some("one".into()), about, files)
    }

    /// Sealed as a version would that knows more.
    fn sealed(mut members: Value) -> Vec<u8> {
        let members = members.as_object_mut().unwrap();
        members.remove(SEAL);
        let seal = digest(members).unwrap();
        members.insert(SEAL.into(), seal.into());
        serde_json::to_vec(members).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Record::parse(&record().text().unwrap()).unwrap(), record());
    }

    #[test]
    fn keys_of_later_versions_are_kept() {
        let mut members = serde_json::to_value(record()).unwrap();
        members["mood"] = "cold".into();
        members["files"]["pages-1.img"]["layers"] = 3.into();
        members["claims"] = serde_json::json!([{"kind": "registry", "reference": "x"}]);
        let read = Record::parse(&sealed(members.clone())).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), members);
    }

    #[test]
    fn a_record_of_the_future_is_refused_by_its_version() {
        let error = Record::parse(br#"{"version":2,"id":7}"#).unwrap_err();
        assert!(error.contains("version 2"), "{error}");
    }

    #[test]
    fn a_broken_record_is_an_error_and_no_panic() {
        for text in ["", "{", "[]", r#"{"version":1}"#, "\0", r#"{"version":1,"seal":7}"#] {
            assert!(Record::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_a_broken_record_holds_does_not_fill_the_error() {
        let text = format!(r#"{{"version":"{}"}}"#, "\u{7}x".repeat(5000));
        let error = Record::parse(text.as_bytes()).unwrap_err();
        assert!(error.chars().count() <= 160 && !error.contains('\u{7}'), "{error}");
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let text = record().text().unwrap();
        for at in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            // Some white space is as good as other.
            assert!(Record::parse(&damaged).map_or(true, |read| read == record()), "bit {at}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["../x", "/etc/passwd", "..", "", "a/b", "entry.json"] {
            let mut hostile = record();
            hostile.files.insert(name.into(), Content::new(1, String::new()));
            assert!(Record::parse(&hostile.text().unwrap()).unwrap_err().contains("no name"), "{name}");
        }
    }

    #[test]
    fn a_record_of_another_entry_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let id = Id::parse("fedcba9876543210").unwrap();
        assert_eq!(Record::read(folder.path(), &id).unwrap_err(), "it is missing");
        fs::write(folder.path().join(FILE_NAME), record().text().unwrap()).unwrap();
        assert!(Record::read(folder.path(), &id).unwrap_err().contains("0123456789abcdef"));
    }
}

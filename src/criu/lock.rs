//! A lock of a network that isn't the container's alone: what it consists of, how it is
//! opened, and a note in the bundle for as long as it may be there. Whoever cleans up after
//! a dead shim finds that note; without, others would be shut off until somebody wonders.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::firewall::{Firewall, Rule};
use super::log;
use crate::bundle::write_atomically;
use crate::operation::aside;
use crate::reaper::Reaper;

/// Whoever cleans up has little time, and others may be changing rules.
const PATIENCE: Duration = Duration::from_millis(1500);
const NOTE: &str = "cryo-network-lock.json";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lock {
    /// A file of the network's namespace; none is the host's.
    pub namespace: Option<PathBuf>,
    /// Its device and number: by its path it may be another's one day.
    pub identity: Option<(u64, u64)>,
    /// Ours.
    pub rules: Vec<Rule>,
    /// Ours, of nftables.
    pub table: Option<String>,
    /// Of the dump that locks the host's network, one connection after the other.
    pub log: Option<PathBuf>,
}

/// There as long as it is held.
pub struct Note(PathBuf);

impl Lock {
    pub fn of(namespace: Option<PathBuf>) -> Lock {
        let identity = namespace.as_deref().and_then(identity);
        Lock { namespace, identity, ..Lock::default() }
    }

    /// Before it is closed.
    pub fn note(&self, bundle: &Path) -> Note {
        let path = bundle.join(NOTE);
        let text = serde_json::to_vec(self).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| write_atomically(&path, &text)) {
            tracing::warn!(%error, "a lock of the network will outlive this shim if it is killed now");
        }
        Note(path)
    }

    pub fn firewall(&self, reaper: Reaper) -> Firewall {
        Firewall { namespace: self.namespace.clone(), reaper }
    }

    /// Removes what is ours.
    pub async fn release(&self, reaper: Reaper) {
        let firewall = self.firewall(reaper);
        match &self.table {
            Some(table) => firewall.remove_table(table).await,
            None => firewall.remove(&self.rules).await,
        }
    }

    /// Removes what a CRIU that was killed has left, too.
    pub async fn open(&self, reaper: Reaper) {
        self.release(reaper).await;
        let firewall = self.firewall(reaper);
        if self.namespace.is_some() {
            return firewall.open_all().await;
        }
        let Some(log) = self.log.clone() else { return };
        let locks = aside(move || log::locks(&log)).await;
        firewall.remove(&locks.rules).await;
        if let Some(table) = locks.table {
            firewall.remove_table(&table).await;
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Opens what a dead shim has left closed, once its CRIU is dead, too.
pub async fn open_left(bundle: &Path, reaper: Reaper) {
    let noted = fs::read(bundle.join(NOTE)).ok();
    let lock = noted.and_then(|note| serde_json::from_slice::<Lock>(&note).ok());
    let Some(lock) = lock else { return };
    if lock.namespace.as_deref().and_then(identity) == lock.identity {
        let _ = timeout(PATIENCE, lock.open(reaper)).await;
    }
}

fn identity(namespace: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(namespace).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::firewall::Chain;

    #[test]
    fn a_note_says_all_and_goes_with_its_holder() {
        let bundle = tempfile::tempdir().unwrap();
        let end = |port| ("127.0.0.1".parse().unwrap(), port);
        let rule = Rule { chain: Chain::Input, source: end(1), destination: end(2) };
        let lock = Lock { rules: vec![rule.clone()], table: Some("t".into()), ..Lock::default() };
        let note = lock.note(bundle.path());
        let read: Lock = serde_json::from_slice(&fs::read(bundle.path().join(NOTE)).unwrap()).unwrap();
        assert_eq!((read.rules, read.table.as_deref()), (vec![rule], Some("t")));
        drop(note);
        assert_eq!(fs::read_dir(bundle.path()).unwrap().count(), 0);
    }
}

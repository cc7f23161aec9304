//! What has to be known of Docker's daemon.
//!
//! A container with a restart policy is started again whenever it ends without having
//! been told to by `docker stop`, whatever its exit status (on-failure minds that, but a
//! checkpointed container was killed, and says so). Docker has no way to hear that a
//! checkpoint ended it, so it would start afresh a tenth of a second later, and be found
//! running from its beginning by whoever wants to restore it. The only thing a shim can do
//! about it is to refuse that one start; Docker doesn't try again.
//!
//! A checkpoint travels through it twice, byte by byte and slowly. What it keeps may as well
//! name one in the node's store; the folder it keeps that in is the store's to look at, since
//! what is named there has to stay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;

use crate::bundle::{CONFIG, write_atomically};
use crate::policy::DOCKER;

/// Files of every container's that Docker binds into it from the folder it keeps for it.
const BOUND: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
const HOST_CONFIG: &str = "hostconfig.json";
const CONTAINER_CONFIG: &str = "config.v2.json";
const CHECKPOINTS: &str = "checkpoints";
/// From Docker's first step for a checkpoint to the shim.
const LONGEST_WAY: Duration = Duration::from_secs(30);
/// Docker waits longer each time a container that ended soon is started again, up to a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(75);

#[derive(Debug, thiserror::Error)]
#[error(
    "the container was stopped by a checkpoint: its restart policy doesn't start it afresh; go on with docker start --checkpoint or cryo restore, or ask once more with docker start"
)]
pub struct Restarted;

/// Notes, in a folder that lasts until the machine's end, which containers a checkpoint
/// has stopped that Docker will want to start again.
#[derive(Clone, Debug)]
pub struct Stops(pub PathBuf);

impl Stops {
    pub(crate) fn note(&self, namespace: &str, id: &str, bundle: &Path) {
        if namespace != DOCKER || !has_restart_policy(id, bundle) {
            return;
        }
        self.forget_old();
        let noted = fs::create_dir_all(&self.0).and_then(|()| write_atomically(&self.0.join(id), b""));
        if let Err(error) = noted {
            tracing::warn!(%error, "Docker's restart policy will start the container afresh");
        }
    }

    /// Refuses a start that nobody asked for, once.
    pub(crate) fn check(&self, namespace: &str, id: &str, from_checkpoint: bool) -> Result<(), Restarted> {
        let note = self.0.join(id);
        if namespace != DOCKER || !note.exists() {
            return Ok(());
        }
        let is_recent = is_recent(&note);
        // If it can't be removed the next start is refused, too, until it is old.
        let _ = fs::remove_file(&note);
        if is_recent && !from_checkpoint { Err(Restarted) } else { Ok(()) }
    }

    /// Containers that never came back.
    fn forget_old(&self) {
        let notes = fs::read_dir(&self.0).into_iter().flatten().flatten();
        for note in notes.map(|entry| entry.path()).filter(|note| !is_recent(note)) {
            let _ = fs::remove_file(note);
        }
    }
}

fn is_recent(note: &Path) -> bool {
    let written = fs::metadata(note).and_then(|metadata| metadata.modified());
    written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age < LONGEST_PAUSE))
}

fn has_restart_policy(id: &str, bundle: &Path) -> bool {
    let policy = restart_policy(id, bundle);
    policy.is_ok_and(|policy| !matches!(policy.as_str(), "" | "no"))
}

/// The folder that Docker has made for a checkpoint that it asked for then, and will unpack
/// into what it gets; none if it was told to keep it somewhere else, or if nobody can tell.
pub(crate) fn new_checkpoint(namespace: &str, id: &str, bundle: &Path, asked: SystemTime) -> Option<PathBuf> {
    if namespace != DOCKER {
        return None;
    }
    let all = fs::read_dir(folder(id, bundle).ok()?.join(CHECKPOINTS)).ok()?;
    let is_empty = |folder: &PathBuf| fs::read_dir(folder).is_ok_and(|mut names| names.next().is_none());
    let is_new = |folder: &PathBuf| {
        let made = fs::symlink_metadata(folder).and_then(|metadata| metadata.modified());
        made.is_ok_and(|made| asked.duration_since(made).unwrap_or_default() < LONGEST_WAY)
    };
    let mut found = all.flatten().map(|entry| entry.path()).filter(|path| is_empty(path) && is_new(path));
    found.next().filter(|_| found.next().is_none())
}

/// What it is called there.
pub(crate) fn name(id: &str, bundle: &Path) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        name: String,
    }
    let config = fs::read(folder(id, bundle).ok()?.join(CONTAINER_CONFIG)).ok()?;
    let config: Config = serde_json::from_slice(&config).ok()?;
    Some(config.name.trim_start_matches('/').to_owned()).filter(|name| !name.is_empty())
}

/// The digest of all layers of a container's image. Docker keeps it where containerd isn't
/// asked for them.
pub(crate) fn chain(id: &str, bundle: &Path) -> Option<String> {
    let images = folder(id, bundle).ok()?.ancestors().nth(2)?.join("image");
    let drivers = fs::read_dir(images).ok()?.flatten();
    let noted = |driver: fs::DirEntry| {
        fs::read_to_string(driver.path().join("layerdb/mounts").join(id).join("parent")).ok()
    };
    drivers.filter_map(noted).map(|chain| chain.trim().to_owned()).next()
}

fn restart_policy(id: &str, bundle: &Path) -> io::Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct HostConfig {
        restart_policy: Policy,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Policy {
        name: String,
    }
    let host: HostConfig = serde_json::from_slice(&fs::read(folder(id, bundle)?.join(HOST_CONFIG))?)?;
    Ok(host.restart_policy.name)
}

/// Docker keeps what it knows to itself, but the folder it keeps it in is known to the container.
fn folder(id: &str, bundle: &Path) -> io::Result<PathBuf> {
    let config: Value = serde_json::from_slice(&fs::read(bundle.join(CONFIG))?)?;
    let mounts = config["mounts"].as_array().into_iter().flatten();
    let bound = mounts.filter(|mount| BOUND.iter().any(|destination| mount["destination"] == *destination));
    // If the network is another container's, the files are, too; their folders are neighbours.
    let folder = bound
        .filter_map(|mount| Some(Path::new(mount["source"].as_str()?).parent()?.with_file_name(id)))
        .find(|folder| folder.join(HOST_CONFIG).is_file());
    folder.ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123abcd";

    /// Docker's folder, a bundle and a folder for notes.
    fn machine(policy: &str) -> (tempfile::TempDir, PathBuf, Stops) {
        let folder = tempfile::tempdir().unwrap();
        let (docker, bundle) = (folder.path().join(ID), folder.path().join("bundle"));
        fs::create_dir(&docker).unwrap();
        fs::create_dir(&bundle).unwrap();
        let host = serde_json::json!({ "RestartPolicy": { "Name": policy, "MaximumRetryCount": 0 } });
        fs::write(docker.join(HOST_CONFIG), host.to_string()).unwrap();
        let config = serde_json::json!({ "mounts": [
            { "destination": "/etc/hosts", "source": folder.path().join("another").join("hosts") },
        ]});
        fs::write(bundle.join(CONFIG), config.to_string()).unwrap();
        let stops = Stops(folder.path().join("stops"));
        (folder, bundle, stops)
    }

    #[test]
    fn a_container_has_the_name_that_docker_gave_it() {
        let (folder, bundle, _) = machine("no");
        assert_eq!(name(ID, &bundle), None);
        fs::write(folder.path().join(ID).join(CONTAINER_CONFIG), r#"{"Name":"/counter","ID":"x"}"#).unwrap();
        assert_eq!(name(ID, &bundle).as_deref(), Some("counter"));
    }

    #[test]
    fn the_start_that_a_restart_policy_asks_for_is_refused_once() {
        for policy in ["always", "unless-stopped", "on-failure"] {
            let (_folder, bundle, stops) = machine(policy);
            stops.note(DOCKER, ID, &bundle);
            assert!(stops.check(DOCKER, ID, false).is_err());
            assert!(stops.check(DOCKER, ID, false).is_ok());
        }
    }

    #[test]
    fn a_restore_is_never_refused() {
        let (_folder, bundle, stops) = machine("always");
        stops.note(DOCKER, ID, &bundle);
        assert!(stops.check(DOCKER, ID, true).is_ok());
        assert!(stops.check(DOCKER, ID, false).is_ok());
    }

    #[test]
    fn without_a_policy_a_start_is_somebodys_wish() {
        for (policy, namespace) in [("no", DOCKER), ("", DOCKER), ("always", "k8s.io")] {
            let (_folder, bundle, stops) = machine(policy);
            stops.note(namespace, ID, &bundle);
            assert!(stops.check(namespace, ID, false).is_ok(), "{policy} {namespace}");
        }
    }

    #[test]
    fn an_old_note_means_nothing_and_goes() {
        let (_folder, bundle, stops) = machine("always");
        stops.note(DOCKER, "other", &bundle);
        fs::create_dir_all(&stops.0).unwrap();
        let note = fs::File::create(stops.0.join(ID)).unwrap();
        note.set_modified(SystemTime::now() - LONGEST_PAUSE * 2).unwrap();
        assert!(stops.check(DOCKER, ID, false).is_ok());
        assert!(!stops.0.join(ID).exists());
    }

    #[test]
    fn a_new_checkpoint_is_the_one_with_nothing_in_it() {
        let (folder, bundle, _) = machine("no");
        let find = |namespace, id| new_checkpoint(namespace, id, &bundle, SystemTime::now());
        assert_eq!(find(DOCKER, ID), None);
        let all = folder.path().join(ID).join(CHECKPOINTS);
        fs::create_dir_all(all.join("old")).unwrap();
        fs::write(all.join("old/inventory.img"), "").unwrap();
        assert_eq!(find(DOCKER, ID), None);
        fs::create_dir(all.join("new")).unwrap();
        assert_eq!(find(DOCKER, ID), Some(all.join("new")));
        assert_eq!((find("k8s.io", ID), find(DOCKER, "other")), (None, None));
        let later = SystemTime::now() + LONGEST_WAY;
        assert_eq!(new_checkpoint(DOCKER, ID, &bundle, later), None, "left by a daemon that died");
        fs::create_dir(all.join("another")).unwrap();
        assert_eq!(find(DOCKER, ID), None, "nobody can tell which");
    }
}

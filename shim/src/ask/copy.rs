//! A second container like one that there is, with a root file system of its own.

use std::time::{Duration, SystemTime};

use prost::Message;
use serde_json::Value;

use super::refused;
use crate::error::Error;
use crate::grpc::{Client, Error as GrpcError};
use crate::messages::{
    ById, CREATE_CONTAINER, CREATE_LEASE, Container, DELETE_CONTAINER, DELETE_LEASE, Nothing, OfContainer,
    OfSnapshot, PREPARE_SNAPSHOT, Packed, REMOVE_SNAPSHOT, STAT_SNAPSHOT, StatAnswer,
};

/// If we are killed, containerd collects what we have made after this time.
const LONGEST: Duration = Duration::from_secs(3600);
const EXPIRES: &str = "containerd.io/gc.expire";
/// nerdctl keeps names, logs and networks by the id, in places of its own.
const NERDCTL: &str = "nerdctl/";

#[derive(Clone, PartialEq, Message)]
struct Lease {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(map = "string, string", tag = "3")]
    labels: std::collections::HashMap<String, String>,
}

pub(super) async fn make(containerd: &mut Client, original: Container, id: &str) -> Result<Container, Error> {
    if original.labels.keys().any(|label| label.starts_with(NERDCTL)) {
        return Err(Error::other(format!(
            "{} is a container of nerdctl's, which has to make others itself: nerdctl run --annotation cryo.restore-from=NAME",
            original.id
        )));
    }
    if original.snapshot_key.is_empty() {
        return Err(Error::other(format!(
            "the root file system of {} is a folder of this machine's, and no snapshot that another could have, too",
            original.id
        )));
    }
    let copied = Container {
        id: id.to_owned(),
        snapshot_key: id.to_owned(),
        spec: original.spec.clone().map(|spec| moved(spec, &original.id, id)).transpose()?,
        ..original.clone()
    };
    let now = SystemTime::now();
    let expires = humantime::format_rfc3339_seconds(now + LONGEST).to_string();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let lease = Lease {
        id: format!("cryo-{}-{}", std::process::id(), since.as_nanos()),
        labels: [(EXPIRES.to_owned(), expires)].into(),
    };
    containerd.call::<Nothing>(CREATE_LEASE, &lease).await.map_err(refused)?;
    containerd.hold(&lease.id);
    let made = make_leased(containerd, &original, &copied).await.map_err(|error| match error {
        GrpcError::AlreadyExists(_) => {
            Error::other(format!("there is a container or a snapshot {id} already: choose another --id"))
        }
        error => refused(error),
    });
    // Otherwise it expires.
    let _ = containerd.call::<Nothing>(DELETE_LEASE, &ById { id: lease.id }).await;
    made.map(|()| copied)
}

async fn make_leased(containerd: &Client, original: &Container, copied: &Container) -> Result<(), GrpcError> {
    let info = containerd.call::<StatAnswer>(STAT_SNAPSHOT, &snapshot(original)).await?.info;
    let parent = info.unwrap_or_default().parent;
    let wanted = OfSnapshot { parent, ..snapshot(copied) };
    containerd.call::<Nothing>(PREPARE_SNAPSHOT, &wanted).await?;
    let request = OfContainer { container: Some(copied.clone()) };
    let made = containerd.call::<Nothing>(CREATE_CONTAINER, &request).await;
    if made.is_err() {
        let _ = containerd.call::<Nothing>(REMOVE_SNAPSHOT, &snapshot(copied)).await;
    }
    made.map(drop)
}

/// One that never ran. Why that is so is what has to be told.
pub(super) async fn remove(containerd: &Client, copied: &Container) {
    let _ = containerd.call::<Nothing>(DELETE_CONTAINER, &ById { id: copied.id.clone() }).await;
    let _ = containerd.call::<Nothing>(REMOVE_SNAPSHOT, &snapshot(copied)).await;
}

fn snapshot(container: &Container) -> OfSnapshot {
    OfSnapshot {
        snapshotter: container.snapshotter.clone(),
        key: container.snapshot_key.clone(),
        parent: String::new(),
    }
}

/// Into a cgroup that is called after the new id if the old one's was.
fn moved(spec: Packed, from: &str, to: &str) -> Result<Packed, Error> {
    let mut config: Value = serde_json::from_slice(&spec.value).map_err(Error::other)?;
    let path = &mut config["linux"]["cgroupsPath"];
    if let Some(parent) = path.as_str().and_then(|path| path.strip_suffix(from)) {
        *path = format!("{parent}{to}").into();
    }
    Ok(Packed { value: serde_json::to_vec(&config).map_err(Error::other)?, ..spec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_a_cgroup_of_its_own() {
        for (path, expected) in
            [("/default/one", "/default/two"), ("a.slice:cri:one", "a.slice:cri:two"), ("/all", "/all")]
        {
            let spec = serde_json::json!({"linux": {"cgroupsPath": path}, "hostname": "one"});
            let spec = Packed { type_url: "t".into(), value: spec.to_string().into_bytes() };
            let moved: Value = serde_json::from_slice(&moved(spec, "one", "two").unwrap().value).unwrap();
            assert_eq!(
                (&moved["linux"]["cgroupsPath"], &moved["hostname"]),
                (&expected.into(), &"one".into())
            );
        }
    }
}

//! What containerd 1 has to be rid of before a checkpoint goes to its content store.
//!
//! Beside an image it stores the container's specification, and fails if that is there
//! already. It does so after the dump, when the container may be stopped, and throws the
//! image away. The specification of an earlier checkpoint stays for some moments after
//! that one was removed, until containerd collects its garbage. So we look before the
//! dump, and have it collect.

use std::time::{Duration, SystemTime};

use cryo::checkpoint::manifest::digest;
use prost::Message;
use tokio::time::timeout;

use crate::grpc::{Client, Error as GrpcError};
use crate::messages::{CREATE_LEASE, DELETE_LEASE, GET_CONTAINER, Nothing, OfContainer};

const VERSION: &str = "containerd.services.version.v1.Version/Version";
const CONTENT: &str = "containerd.services.content.v1.Content/Info";

/// containerd may have much to collect.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, Message)]
struct VersionAnswer {
    #[prost(string, tag = "1")]
    version: String,
}

/// A request that names one thing.
#[derive(Clone, PartialEq, Message)]
struct Name {
    #[prost(string, tag = "1")]
    name: String,
    /// For a lease that is deleted: come back when the garbage is collected.
    #[prost(bool, tag = "2")]
    sync: bool,
}

/// Another checkpoint holds what containerd would have to store for this one.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot checkpoint the container: containerd {version} can't store two checkpoints of the same specification, and still holds {digest} of an earlier one: try again in a moment, or, if that is kept as an image, remove it (ctr images rm) or checkpoint into a folder"
)]
pub(crate) struct Held {
    version: String,
    digest: String,
}

/// Sees to it that containerd can store a checkpoint of `container`. If it can't be asked
/// the checkpoint is tried as it is.
pub(crate) async fn make_room(address: &str, namespace: &str, container: &str) -> Result<(), Held> {
    let (containerd, held) = match timeout(PATIENCE, ask(address, namespace, container)).await {
        Ok(Ok(Some(found))) => found,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "containerd can't be asked for what it holds of earlier checkpoints");
            return Ok(());
        }
        Err(_) => {
            tracing::warn!("containerd doesn't say in time what it holds of earlier checkpoints");
            return Ok(());
        }
    };
    // From here on it is known that containerd would lose the checkpoint.
    let collected = async {
        collect_garbage(&containerd).await?;
        holds(&containerd, &held.digest).await
    };
    match timeout(PATIENCE, collected).await {
        Ok(Ok(false)) => Ok(()),
        _ => Err(held),
    }
}

/// What containerd holds that is in the way.
async fn ask(address: &str, namespace: &str, container: &str) -> Result<Option<(Client, Held)>, GrpcError> {
    let containerd = Client::connect(address, namespace).await?;
    let version = version(&containerd).await?;
    if !is_first(&version) {
        return Ok(None);
    }
    let answer: OfContainer = containerd.call(GET_CONTAINER, &name(container)).await?;
    let Some(spec) = answer.container.and_then(|container| container.spec) else { return Ok(None) };
    let digest = digest(&spec.encode_to_vec());
    let is_held = holds(&containerd, &digest).await?;
    Ok(is_held.then_some((containerd, Held { version, digest })))
}

pub(crate) async fn version(containerd: &Client) -> Result<String, GrpcError> {
    Ok(containerd.call::<VersionAnswer>(VERSION, &Nothing {}).await?.version)
}

pub(crate) fn is_first(version: &str) -> bool {
    version.trim_start_matches('v').starts_with("1.")
}

async fn holds(containerd: &Client, digest: &str) -> Result<bool, GrpcError> {
    match containerd.call::<Nothing>(CONTENT, &name(digest)).await {
        Ok(_) => Ok(true),
        Err(GrpcError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Garbage is collected whenever a client that gives back a lease asks for it.
async fn collect_garbage(containerd: &Client) -> Result<(), GrpcError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let lease = format!("cryo-{}-{}", std::process::id(), now.as_nanos());
    let _: Nothing = containerd.call(CREATE_LEASE, &name(&lease)).await?;
    let _: Nothing = containerd.call(DELETE_LEASE, &Name { name: lease, sync: true }).await?;
    Ok(())
}

fn name(name: &str) -> Name {
    Name { name: name.to_owned(), sync: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_containerd_minds() {
        assert!(is_first("1.7.24~ds1-6+deb13u1") && is_first("v1.6.20"));
        assert!(!is_first("2.1.9~ds1") && !is_first("v2.0.0") && !is_first(""));
    }

    #[test]
    fn a_digest_is_written_as_containerd_writes_it() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
    }
}

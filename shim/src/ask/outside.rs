//! What the core asks for. A connection to containerd takes more memory than the shim has
//! otherwise, so a process of its own does that.

use std::process::ExitCode;

use cryo::outside::{BASE, FETCH, Outside};
use cryo::rootfs::Base;

use super::{fetch, with_containerd};
use crate::error::Error;
use crate::grpc::{Client, Error as GrpcError};
use crate::messages::{ById, GET_CONTAINER, OfContainer, OfSnapshot, STAT_SNAPSHOT, StatAnswer};

/// As the first argument of our own binary; containerd's socket and the namespace follow.
pub(crate) const ARGUMENT: &str = "ask";

/// Docker puts one of its own below a container's.
const MOST_PARENTS: usize = 4;
/// Snapshots of image layers are called by the digest of all layers up to there.
const CHAIN: &str = "sha256:";

/// How the core calls us for a container of this namespace.
pub(crate) fn program(address: &str, namespace: &str) -> Outside {
    let arguments = [ARGUMENT, address, namespace].map(str::to_owned).to_vec();
    Outside { program: "/proc/self/exe".into(), arguments }
}

/// What the process does.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode, Error> {
    match arguments {
        [address, namespace, question, container] if question == BASE => {
            let base = with_containerd(address, namespace, async |containerd| {
                base(containerd, container).await.map_err(Error::other)
            })?;
            println!("{}", serde_json::to_string(&base).map_err(Error::other)?);
            Ok(ExitCode::SUCCESS)
        }
        [address, namespace, question, reference, node_file, bundle] if question == FETCH => {
            let fetched = fetch::run((address, namespace), reference, node_file.as_ref(), bundle.as_ref());
            Ok(fetched.map_or_else(
                |error| {
                    eprintln!("{error}");
                    error.status().into()
                },
                |()| ExitCode::SUCCESS,
            ))
        }
        _ => Err(Error::usage("the shim asks itself; there is nothing here for others")),
    }
}

/// What a container was made of. One without a snapshot has a root file system that containerd
/// knows nothing of.
async fn base(containerd: &Client, container: &str) -> Result<Base, GrpcError> {
    let id = ById { id: container.to_owned() };
    let answer = containerd.call::<OfContainer>(GET_CONTAINER, &id).await?;
    let container = answer.container.unwrap_or_default();
    let mut key = container.snapshot_key;
    for _ in 0..MOST_PARENTS {
        if key.is_empty() || key.starts_with(CHAIN) {
            break;
        }
        let snapshot =
            OfSnapshot { snapshotter: container.snapshotter.clone(), key, ..OfSnapshot::default() };
        let answer = containerd.call::<StatAnswer>(STAT_SNAPSHOT, &snapshot).await?;
        key = answer.info.unwrap_or_default().parent;
    }
    Ok(Base {
        image: Some(container.image).filter(|image| !image.is_empty()),
        chain: Some(key).filter(|key| key.starts_with(CHAIN)),
    })
}

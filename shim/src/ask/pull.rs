//! Having containerd pull an image. Its Transfer service does that, and takes from whoever asks
//! where it finds how to talk to registries; that of containerd 1 knows only public ones, so
//! there Kubernetes' own way is taken.

use std::path::Path;

use cryo::policy::NodeFile;
use prost::Message;

use super::fetch::Error;
use crate::content;
use crate::grpc::{Client, Error as GrpcError};
use crate::messages::{ById, Nothing, Packed};

const IMAGE: &str = "containerd.services.images.v1.Images/Get";
const LIST_IMAGES: &str = "containerd.services.images.v1.Images/List";
const DELETE_IMAGE: &str = "containerd.services.images.v1.Images/Delete";
const TRANSFER: &str = "containerd.services.transfer.v1.Transfer/Transfer";
const CRI_PULL: &str = "runtime.v1.ImageService/PullImage";
const REGISTRY: &str = "containerd.types.transfer.OCIRegistry";
const IMAGE_STORE: &str = "containerd.types.transfer.ImageStore";
/// The CRI's namespace.
const KUBERNETES: &str = "k8s.io";
const SHOWN: usize = 120;

#[derive(Clone, PartialEq, Message)]
struct ImageAnswer {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

#[derive(Clone, PartialEq, Message)]
struct ImagesAnswer {
    #[prost(message, repeated, tag = "1")]
    images: Vec<Image>,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "3")]
    target: Option<Target>,
}

/// What a name stands for.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Target {
    #[prost(string, tag = "1")]
    pub(crate) media_type: String,
    #[prost(string, tag = "2")]
    pub(crate) digest: String,
    #[prost(int64, tag = "3")]
    bytes: i64,
}

#[derive(Clone, PartialEq, Message)]
struct TransferQuestion {
    #[prost(message, optional, tag = "1")]
    source: Option<Packed>,
    #[prost(message, optional, tag = "2")]
    destination: Option<Packed>,
}

#[derive(Clone, PartialEq, Message)]
struct Registry {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(message, optional, tag = "2")]
    resolver: Option<Resolver>,
}

#[derive(Clone, PartialEq, Message)]
struct Resolver {
    #[prost(string, tag = "3")]
    host_dir: String,
}

#[derive(Clone, PartialEq, Message)]
struct CriQuestion {
    #[prost(message, optional, tag = "1")]
    image: Option<ById>,
}

impl Target {
    pub(crate) fn size(&self) -> u64 {
        self.bytes.unsigned_abs()
    }
}

/// What containerd has under a reference, and what it has been called since it was pulled for us.
pub(crate) async fn found(
    containerd: &Client,
    namespace: &str,
    reference: &str,
    node: &NodeFile,
) -> Result<(Target, Vec<String>), Error> {
    if let Some(target) = image(containerd, reference).await? {
        return Ok((target, Vec::new()));
    }
    let before = images(containerd).await?;
    let pulled = match is_by_cri(containerd, namespace).await? {
        true => containerd.call::<Nothing>(CRI_PULL, &question(reference)).await,
        false => containerd.call::<Nothing>(TRANSFER, &transfer(reference, node.registry_hosts())).await,
    };
    pulled.map_err(refused)?;
    let Some(target) = image(containerd, reference).await? else {
        return Err(Error::Pull("it isn't there afterwards".to_owned()));
    };
    let mut now = images(containerd).await?;
    now.retain(|image| {
        image.target.as_ref() == Some(&target) && before.iter().all(|known| known.name != image.name)
    });
    Ok((target, now.into_iter().map(|image| image.name).collect()))
}

/// So that containerd can throw its copy away. The CRI would take the image's other names from
/// whoever uses it by them.
pub(crate) async fn forget(containerd: &Client, names: &[String]) {
    for name in names {
        // What stays is one image too many, for the kubelet or a user to remove.
        let _ = containerd.call::<Nothing>(DELETE_IMAGE, &ById { id: name.clone() }).await;
    }
}

async fn images(containerd: &Client) -> Result<Vec<Image>, Error> {
    Ok(containerd.call::<ImagesAnswer>(LIST_IMAGES, &Nothing {}).await?.images)
}

async fn image(containerd: &Client, reference: &str) -> Result<Option<Target>, Error> {
    let question = ById { id: reference.to_owned() };
    match containerd.call::<ImageAnswer>(IMAGE, &question).await {
        Ok(answer) => Ok(answer.image.and_then(|image| image.target)),
        Err(GrpcError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn is_by_cri(containerd: &Client, namespace: &str) -> Result<bool, Error> {
    Ok(namespace == KUBERNETES && content::is_first(&content::version(containerd).await?))
}

fn question(reference: &str) -> CriQuestion {
    CriQuestion { image: Some(ById { id: reference.to_owned() }) }
}

fn transfer(reference: &str, hosts: &Path) -> TransferQuestion {
    let pack =
        |type_url: &str, message: Vec<u8>| Some(Packed { type_url: type_url.to_owned(), value: message });
    // It refuses a folder that isn't there.
    let host_dir = if hosts.is_dir() { hosts.display().to_string() } else { String::new() };
    let reference = reference.to_owned();
    let source = Registry { reference: reference.clone(), resolver: Some(Resolver { host_dir }) };
    let destination = ById { id: reference };
    TransferQuestion {
        source: pack(REGISTRY, source.encode_to_vec()),
        destination: pack(IMAGE_STORE, destination.encode_to_vec()),
    }
}

/// containerd's words say the reference over and over; what matters comes last.
fn refused(error: GrpcError) -> Error {
    let text = match error {
        GrpcError::NotFound(_) => return Error::Missing("no registry has it".to_owned()),
        GrpcError::Refused(text) => text,
        other => return Error::Containerd(other),
    };
    match text.contains("not found") {
        true => Error::Missing("no registry has it".to_owned()),
        false => Error::Pull(end_of(&text).to_owned()),
    }
}

/// As much as can be shown, from the beginning of a part of it.
fn end_of(text: &str) -> &str {
    let Some((from, _)) = text.char_indices().rev().nth(SHOWN - 1).filter(|(from, _)| *from > 0) else {
        return text;
    };
    let end = &text[from..];
    end.split_once(": ").filter(|(_, rest)| rest.len() >= SHOWN / 3).map_or(end, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_that_is_there_is_named() {
        let hosts = |folder: &Path| {
            let packed = transfer("r.io/a:1", folder).source.unwrap();
            assert_eq!(packed.type_url, REGISTRY);
            Registry::decode(&packed.value[..]).unwrap().resolver.unwrap().host_dir
        };
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(hosts(folder.path()), folder.path().to_str().unwrap());
        assert_eq!(hosts(Path::new("/no/such")), "");
    }

    #[test]
    fn what_a_registry_hasnt_is_told_from_what_it_refuses() {
        let refused = |text: &str| refused(GrpcError::Refused(text.to_owned()));
        assert!(matches!(refused("failed to resolve reference: r.io/a:1: not found"), Error::Missing(_)));
        let Error::Pull(words) = refused(&format!("{}: connection refused", "x".repeat(500))) else {
            panic!("it isn't missing")
        };
        assert!(words.ends_with("connection refused") && words.len() <= SHOWN, "{words}");
        let long = "https://r.io/v2/warm\": dial tcp: lookup r.io on 10.0.0.1:53: no such host";
        assert_eq!(end_of(&("x".repeat(100) + long)), "dial tcp: lookup r.io on 10.0.0.1:53: no such host");
        assert_eq!(end_of("short: one"), "short: one");
    }
}

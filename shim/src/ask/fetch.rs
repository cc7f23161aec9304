//! A checkpoint from a registry, into the node's store. containerd pulls it, as it pulls any
//! image: by its own configuration of registries, and with its own checks of digests. What the
//! store has already isn't asked for again.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use cryo::archive::{self, Limits};
use cryo::metrics;
use cryo::outside::{MISSING, UNTRUSTED};
use cryo::policy::NodeFile;
use cryo::store::claims::Claim;
use cryo::store::{Description, Durable, Origin, Store, Wish};
use prost::Message;
use serde::Deserialize;
use tokio::runtime::Runtime;

use super::pull::{self, Target};
use crate::grpc::{Answers, Client, Error as GrpcError};
use crate::messages::ById;

const READ: &str = "containerd.services.content.v1.Content/Read";
/// Of an index or a manifest.
const MOST_JSON: u64 = 4 << 20;
const INDEX_KINDS: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

#[derive(Clone, PartialEq, Message)]
struct ReadAnswer {
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

/// Several images, of which this machine needs one.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    size: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}: write it as containerd pulls it, and look for it there")]
    Missing(String),
    #[error("containerd can't pull it: {0}")]
    Pull(String),
    #[error("containerd can't be asked: {0}")]
    Containerd(#[from] GrpcError),
    #[error("{0}")]
    Store(#[from] cryo::store::Error),
    #[error("{0}")]
    NodeFile(#[from] cryo::policy::NotAllowed),
    #[error("{0}")]
    Archive(#[from] archive::import::Error),
    #[error("it is an index of {0} images, and no checkpoint: give the digest of one")]
    Index(usize),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Error {
    pub(crate) fn status(&self) -> u8 {
        use archive::import::Error as Archive;
        match self {
            Error::Missing(_) => MISSING,
            Error::Archive(
                Archive::Read(_) | Archive::Folder { .. } | Archive::Write { .. } | Archive::TooBig { .. },
            ) => 1,
            Error::Archive(_) | Error::Index(_) => UNTRUSTED,
            _ => 1,
        }
    }
}

/// Prints the folder in the store.
pub(crate) fn run(
    (address, namespace): (&str, &str),
    reference: &str,
    node_file: &Path,
    bundle: &Path,
) -> Result<(), Error> {
    let node = NodeFile::read(node_file)?;
    let store = Store::open(&node.store().path)?.with_copies_in(node.restore_folders());
    let claim = Claim::container(bundle)?;
    let _turn = store.turn(reference)?;
    if let Some(held) = store.fetched(|origin| origin.reference == reference, &claim)? {
        println!("{}", held.folder.display());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let containerd = runtime.block_on(Client::connect(address, namespace))?;
    let (image, names) = runtime.block_on(pull::found(&containerd, namespace, reference, &node))?;
    let fetching = Fetching { runtime, containerd, store, node, claim };
    let folder = fetching.import(reference, &image);
    // There is no need of a second copy.
    fetching.runtime.block_on(pull::forget(&fetching.containerd, &names));
    println!("{}", folder?.display());
    Ok(())
}

struct Fetching {
    runtime: Runtime,
    containerd: Client,
    store: Store,
    node: NodeFile,
    claim: Claim,
}

impl Fetching {
    fn import(&self, reference: &str, image: &Target) -> Result<PathBuf, Error> {
        let (digest, size) = self.manifest(image)?;
        if let Some(held) = self.store.fetched(|origin| origin.digest == digest, &self.claim)? {
            return Ok(held.folder.clone());
        }
        let limits = &self.node.store().limits;
        // What was fetched before, and nobody needs now.
        let _ = self.store.prune(limits, cryo::checkpoint::manifest::now());
        let draft = self.store.begin(&Wish::default(), limits)?;
        let room = Limits::of(draft.folder())?;
        let mut open = |digest: &str| -> io::Result<Box<dyn Read>> { Ok(Box::new(self.content(digest)?)) };
        let imported = archive::import_image((&digest, size), &mut open, draft.folder(), &room)?;
        let origin = Origin { reference: reference.to_owned(), digest };
        let about =
            Description { claims: vec![self.claim.clone()], origin: Some(origin), ..imported.described() };
        let held = draft.commit(about, Durable::Now)?;
        // That a figure is old is no reason to refuse.
        let _ = metrics::note_store(self.node.metrics(), self.store.root());
        Ok(held.folder.clone())
    }

    /// The one of an index that isn't one of many.
    fn manifest(&self, image: &Target) -> Result<(String, u64), Error> {
        if !INDEX_KINDS.contains(&&*image.media_type) {
            return Ok((image.digest.clone(), image.size()));
        }
        let mut json = Vec::new();
        self.content(&image.digest)?.take(MOST_JSON).read_to_end(&mut json)?;
        let index: Index = serde_json::from_slice(&json).map_err(io::Error::from)?;
        match &index.manifests[..] {
            [only] => Ok((only.digest.clone(), only.size)),
            several => Err(Error::Index(several.len())),
        }
    }

    fn content(&self, digest: &str) -> io::Result<Content<'_>> {
        let question = ById { id: digest.to_owned() };
        let answers = self.runtime.block_on(self.containerd.stream(READ, &question));
        Ok(Content {
            runtime: &self.runtime,
            answers: answers.map_err(io::Error::other)?,
            rest: Bytes::new(),
        })
    }
}

/// A blob of containerd's content store.
struct Content<'a> {
    runtime: &'a Runtime,
    answers: Answers,
    rest: Bytes,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.runtime.block_on(self.answers.next::<ReadAnswer>()).map_err(io::Error::other)? {
                Some(answer) => self.rest = answer.data,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

//! An OCI image layout, taken in as it comes. Many tools write the layers before the index
//! and the manifest that name them.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use serde::de::DeserializeOwned;

use super::import::Error;
use super::members::{Member, Members, Room};
use super::oci::{self, Annotations, Descriptor, Image, Index, Layout};
use super::summed::{Sum, Summed};
use super::unpack::{Unpacking, small};
use crate::compressed;

/// A manifest, a configuration, layers; and what others add to their images.
const MOST_BLOBS: usize = 64;
/// Written by Docker for older readers.
const OF_DOCKER: [&str; 2] = ["manifest.json", "repositories"];

pub(super) struct Blobs<'a> {
    room: &'a Room,
    has_layout: bool,
    index: Option<Index>,
    /// By their digests.
    blobs: BTreeMap<String, Blob>,
    image: Option<Image>,
}

struct Blob {
    size: u64,
    /// Nothing of a layer, which has been unpacked.
    json: Option<Vec<u8>>,
}

impl<'a> Blobs<'a> {
    pub(super) fn new(room: &'a Room) -> Blobs<'a> {
        Blobs { room, has_layout: false, index: None, blobs: BTreeMap::new(), image: None }
    }

    /// Whether a name belongs to an image layout.
    pub(super) fn claims(name: &str) -> bool {
        let top = name.split('/').next().unwrap_or(name);
        top == "blobs" || [oci::LAYOUT_FILE, oci::INDEX_FILE].contains(&name) || OF_DOCKER.contains(&name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_none() && self.blobs.is_empty() && !self.has_layout
    }

    /// Of all blobs, as soon as that is known.
    pub(super) fn total(&self) -> Option<u64> {
        let image = self.image.as_ref()?;
        Some(named(image).fold(0, |sum: u64, blob| sum.saturating_add(blob.size)))
    }

    /// Those of an image whose manifest is known by its digest and size, for its blobs to come.
    pub(super) fn of_image(room: &'a Room, digest: &str, size: u64) -> Blobs<'a> {
        let manifest = Descriptor {
            media_type: oci::IMAGE.to_owned(),
            digest: digest.to_owned(),
            size,
            platform: None,
            annotations: Annotations::new(),
        };
        let index = Index {
            schema_version: 2,
            media_type: oci::INDEX.to_owned(),
            manifests: vec![manifest],
            annotations: Annotations::new(),
        };
        Blobs { has_layout: true, index: Some(index), ..Blobs::new(room) }
    }

    /// By the annotation of any tool that makes some.
    pub(super) fn are_of_a_checkpoint(&self) -> bool {
        self.image.iter().flat_map(|image| image.annotations.keys()).any(|key| key.contains("checkpoint."))
    }

    /// What the manifest names, once it is there.
    pub(super) fn named(&self) -> Vec<(String, u64)> {
        let image = self.image.iter().flat_map(named);
        image.map(|blob| (blob.digest.clone(), blob.size)).collect()
    }

    pub(super) fn member<R: Read>(
        &mut self,
        member: &Member,
        content: &mut Members<'_, R>,
        unpacking: &mut Unpacking,
    ) -> Result<(), Error> {
        if member.is_folder || OF_DOCKER.contains(&&*member.name) {
            return Ok(());
        }
        match &*member.name {
            oci::LAYOUT_FILE => {
                let layout: Layout = parsed(&member.name, &text(member, content)?)?;
                self.has_layout = layout.image_layout_version == oci::LAYOUT_VERSION;
            }
            oci::INDEX_FILE if self.index.is_some() => return Err(twice(member)),
            oci::INDEX_FILE => self.index = Some(parsed(&member.name, &text(member, content)?)?),
            _ => return self.blob(member, content, unpacking),
        }
        self.find_image()
    }

    pub(super) fn blob(
        &mut self,
        member: &Member,
        content: &mut dyn Read,
        unpacking: &mut Unpacking,
    ) -> Result<(), Error> {
        let digest =
            digest(&member.name).ok_or_else(|| Error::hostile(&member.name, "is no SHA-256 blob"))?;
        if self.blobs.contains_key(&digest) {
            return Err(twice(member));
        }
        if self.blobs.len() == MOST_BLOBS {
            return Err(Error::TooMany);
        }
        if let Some(image) = &self.image {
            // Found out before it is unpacked.
            check_named(image, &digest, member.size)?;
        }
        let mut content = Summed::new(content);
        let json = take_in(member, &mut content, self.room, unpacking)?;
        let sum = content.finish().1;
        if sum != (Sum { digest: digest.clone(), size: member.size }) {
            return Err(Error::damaged(format!("{} isn't what its name says", short(&digest))));
        }
        self.blobs.insert(digest, Blob { size: member.size, json });
        self.find_image()
    }

    fn find_image(&mut self) -> Result<(), Error> {
        let (None, Some(index)) = (&self.image, &self.index) else { return Ok(()) };
        let [only] = &index.manifests[..] else {
            return Err(Error::Foreign(format!("it holds {} images, not one", index.manifests.len())));
        };
        let Some(json) = self.blobs.get(&only.digest).and_then(|blob| blob.json.as_deref()) else {
            return Ok(());
        };
        let image: Image = parsed("manifest", json)?;
        for (digest, blob) in self.blobs.iter().filter(|(digest, _)| **digest != only.digest) {
            check_named(&image, digest, blob.size)?;
        }
        self.image = Some(image);
        Ok(())
    }

    /// The manifest's digest and annotations, if the archive has all that it names.
    pub(super) fn finish(self) -> Result<(Option<String>, Annotations), Error> {
        if !self.has_layout && self.index.is_none() {
            return Err(Error::Foreign("it has neither CRIU's files nor an OCI image".to_owned()));
        }
        let only = self.index.and_then(|index| index.manifests.into_iter().next());
        let (Some(only), Some(image), true) = (only, self.image, self.has_layout) else {
            return Err(Error::damaged("its index, layout or manifest is missing".to_owned()));
        };
        if self.blobs.get(&only.digest).is_none_or(|blob| blob.size != only.size) {
            return Err(Error::damaged("its manifest isn't as big as its index says".to_owned()));
        }
        for blob in named(&image) {
            if !self.blobs.contains_key(&blob.digest) {
                return Err(Error::damaged(format!("{} is missing", short(&blob.digest))));
            }
        }
        let layers = image.layers.iter().filter_map(|layer| self.blobs.get(&layer.digest));
        if layers.clone().count() == 0 || layers.clone().any(|blob| blob.json.is_some()) {
            return Err(Error::Foreign("its image has no layers".to_owned()));
        }
        Ok((Some(only.digest), image.annotations))
    }
}

/// Keeps a blob that is JSON, and unpacks any other.
fn take_in<R: Read>(
    member: &Member,
    content: &mut Summed<R>,
    room: &Room,
    unpacking: &mut Unpacking,
) -> Result<Option<Vec<u8>>, Error> {
    let mut head = Vec::new();
    content.by_ref().take(1).read_to_end(&mut head).map_err(Error::reading)?;
    if head == b"{" {
        small(&member.name, member.size)?;
        content.read_to_end(&mut head).map_err(Error::reading)?;
        return Ok(Some(head));
    }
    let layer = compressed::opened(Cursor::new(head).chain(&mut *content)).map_err(Error::reading)?;
    unpacking.layer(&mut Members::new(layer, room))?;
    // Its digest is that of all its bytes.
    io::copy(content, &mut io::sink()).map_err(Error::reading)?;
    Ok(None)
}

fn named(image: &Image) -> impl Iterator<Item = &Descriptor> {
    std::iter::once(&image.config).chain(&image.layers)
}

fn check_named(image: &Image, digest: &str, size: u64) -> Result<(), Error> {
    match named(image).find(|blob| blob.digest == digest) {
        Some(blob) if blob.size == size => Ok(()),
        Some(_) => Err(Error::damaged(format!("{} isn't as big as its manifest says", short(digest)))),
        None => Err(Error::hostile(digest, "isn't named by its manifest")),
    }
}

/// The digest that a blob's name claims.
fn digest(name: &str) -> Option<String> {
    let digits = name.strip_prefix(oci::BLOBS)?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (digits.len() == 64 && digits.bytes().all(is_digit)).then(|| format!("sha256:{digits}"))
}

fn text(member: &Member, content: &mut dyn Read) -> Result<Vec<u8>, Error> {
    small(&member.name, member.size)?;
    let mut text = Vec::new();
    content.read_to_end(&mut text).map_err(Error::reading)?;
    Ok(text)
}

fn parsed<T: DeserializeOwned>(name: &str, json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| Error::json(name, &error))
}

fn twice(member: &Member) -> Error {
    Error::hostile(&member.name, "is there twice")
}

/// The beginning of a digest is enough for people.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or("a blob")
}

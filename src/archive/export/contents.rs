//! What goes into an archive: the members of its layers, and what is said about them.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use serde_json::Value;

use super::super::annotations;
use super::super::layer::{Content, Member};
use super::super::layout::{BESIDE, CONFIG_FILE, ContainerConfig, IMAGE_FOLDER, ROOTFS_FILE, SPEC_FILE};
use super::super::oci::Annotations;
use super::{Error, Source, json};
use crate::checkpoint::manifest;
use crate::criu::images::MOST_BYTES;

/// What is kept in memory.
pub(super) struct Small {
    pub(super) manifest: Vec<u8>,
    pub(super) config: Vec<u8>,
    pub(super) annotations: Annotations,
}

impl Small {
    pub(super) fn of(source: &Source<'_>) -> Result<Small, Error> {
        let Source { manifest, rootfs_image, .. } = *source;
        if !manifest.sealed {
            return Err(Error::Unsealed);
        }
        let text = read(manifest::FILE_NAME, (source.open)(manifest::FILE_NAME))?;
        let spec = match beside(source, SPEC_FILE) {
            Some(path) => serde_json::from_slice(&read(SPEC_FILE, open_file(path))?).unwrap_or_default(),
            None => Value::Null,
        };
        let name = source.container.or_else(|| annotations::container_name(&spec));
        let name = name.or(manifest.name.as_deref()).unwrap_or(&manifest.container);
        let annotations = annotations::of_checkpoint(manifest, name, rootfs_image, &spec);
        let config =
            ContainerConfig::new(&manifest.container, name, &manifest.runtime.name, manifest.taken_at);
        let config = match annotations.get(annotations::ROOTFS_IMAGE) {
            Some(image) => config.of_image(image),
            None => config,
        };
        Ok(Small { manifest: text, config: json(&config)?, annotations })
    }
}

/// The checkpoint, and in a layer of its own what changed in the container's file system.
pub(super) fn layers<'a>(source: &'a Source<'_>, small: &'a Small) -> Result<Vec<Vec<Member<'a>>>, Error> {
    let bytes = |name: String, bytes: &'a [u8]| Member { name, content: Content::Bytes(bytes) };
    let mut first = Vec::new();
    if beside(source, CONFIG_FILE).is_none() {
        first.push(bytes(CONFIG_FILE.to_owned(), &small.config));
    }
    let mut others: Vec<_> = source.beside.iter().collect();
    others.sort();
    for (name, path) in others.iter().filter(|(name, _)| *name != ROOTFS_FILE) {
        first.push(file_beside(name, path)?);
    }
    first.push(Member { name: format!("{IMAGE_FOLDER}/"), content: Content::Folder });
    first.push(bytes(format!("{IMAGE_FOLDER}/{}", manifest::FILE_NAME), &small.manifest));
    let mut changes = None;
    for (name, size) in &source.manifest.files {
        let open = Box::new(|| (source.open)(name));
        let content = Content::File { size: *size, open };
        match name == ROOTFS_FILE {
            true => changes = Some(Member { name: name.clone(), content }),
            false => first.push(Member { name: format!("{IMAGE_FOLDER}/{name}"), content }),
        }
    }
    if let Some(path) = beside(source, ROOTFS_FILE) {
        changes = Some(file_beside(ROOTFS_FILE, path)?);
    }
    Ok([first].into_iter().chain(changes.map(|changes| vec![changes])).collect())
}

fn file_beside<'a>(name: &str, path: &'a PathBuf) -> Result<Member<'a>, Error> {
    if !BESIDE.contains(&name) {
        return Err(Error::Misplaced(name.to_owned()));
    }
    let failed = |source| Error::Read { name: name.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    let open = Box::new(move || open_file(path));
    Ok(Member { name: name.to_owned(), content: Content::File { size, open } })
}

fn beside<'a>(source: &Source<'a>, name: &str) -> Option<&'a PathBuf> {
    source.beside.iter().find(|(other, _)| *other == name).map(|(_, path)| path)
}

fn open_file(path: &PathBuf) -> io::Result<Box<dyn Read>> {
    Ok(Box::new(File::open(path)?))
}

fn read(name: &str, file: io::Result<Box<dyn Read>>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = file.and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    let failed = |source| Error::Read { name: name.to_owned(), source };
    match read.map_err(failed)? {
        // A reader of the archive would refuse it.
        size if size as u64 > MOST_BYTES => Err(failed(io::ErrorKind::FileTooLarge.into())),
        _ => Ok(bytes),
    }
}

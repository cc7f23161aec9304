//! The folder of a checkpoint, seen from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::world::World;

const MANIFEST: &str = "cryo.json";

/// Nothing if there is none, or if it can't be read.
pub(crate) fn manifest(image: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(image.join(MANIFEST)).ok()?).ok()
}

pub(crate) fn is_sealed(image: &Path) -> bool {
    manifest(image).is_some_and(|manifest| manifest["sealed"] == true)
}

/// Sealed, and every file is there in full.
pub(crate) fn is_complete(image: &Path) -> bool {
    let Some(manifest) = manifest(image).filter(|manifest| manifest["sealed"] == true) else { return false };
    let files = manifest["files"].as_object().unwrap();
    !files.is_empty()
        && files.iter().all(|(name, size)| {
            fs::metadata(image.join(name)).is_ok_and(|metadata| Some(metadata.len()) == size.as_u64())
        })
}

/// All in a folder, with its bytes: for finding out that nothing has changed.
pub(crate) fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.insert(path.clone(), b"a folder".to_vec());
            found.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).unwrap_or_default();
            found.insert(path, bytes);
        }
    }
    found
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A good image at this place, of a container that is gone.
#[track_caller]
pub(crate) fn take(world: &World, name: &str, networked: bool) -> PathBuf {
    let image = world.path(name);
    let blueprint = world.container(&format!("origin-of-{name}"));
    let container = if networked { blueprint.networked() } else { blueprint }.started();
    container.checkpoint(&image, false).unwrap();
    container.clean_up();
    image
}

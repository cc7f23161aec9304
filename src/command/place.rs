//! Which checkpoint a user means: a folder, or one in the store.

use std::path::{Path, PathBuf};

use cryo::checkpoint::image::Image;
use cryo::checkpoint::manifest::Manifest;
use cryo::metrics;
use cryo::policy::NodeFile;
use cryo::store::{Held, Store};

use super::answer::{AS_ROOT, complain, is_root, node_file};

/// The folder of an image. What is in the store stays there as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) held: Option<Held>,
}

/// The store, and what the node's owner says about it.
pub(crate) struct Shelf {
    pub(crate) store: Store,
    pub(crate) node: NodeFile,
}

impl Shelf {
    pub(crate) fn open() -> Result<Shelf, String> {
        Shelf::of(node_file())
    }

    /// None if nobody has put anything there yet.
    pub(crate) fn if_there() -> Result<Option<Shelf>, String> {
        let node = node_file();
        if node.store().path.exists() { Shelf::of(node).map(Some) } else { Ok(None) }
    }

    /// For the node's metrics, when something has come or gone.
    pub(crate) fn note_size(&self) {
        if let Err(error) = metrics::note_store(self.node.metrics(), self.store.root()) {
            complain(&format!("the size of the store isn't in the metrics: {error}"));
        }
    }

    fn of(node: NodeFile) -> Result<Shelf, String> {
        let path = &node.store().path;
        let store = Store::open(path).map_err(|error| match is_root() {
            true => error.to_string(),
            false => format!("only root can look into the checkpoint store {}: {AS_ROOT}", path.display()),
        })?;
        Ok(Shelf { store: store.with_copies_in(node.restore_folders()), node })
    }
}

/// Turns what a user has typed into a place: a path if it looks like one or is one, otherwise
/// a name or an id in the store.
pub(crate) fn find(text: &Path) -> Result<Place, String> {
    match text.metadata() {
        Ok(metadata) if metadata.is_dir() => return in_folder(text),
        Ok(_) => return Err(format!("{} is no folder: give the folder of a checkpoint", text.display())),
        Err(error) if text.components().count() != 1 || text.is_absolute() => {
            let text = text.display();
            return Err(format!("can't look into {text}: {error}; cryo ls shows what the store has"));
        }
        Err(_) => {}
    }
    let name = text.to_string_lossy();
    let nowhere = || {
        format!(
            "there is no folder {name:?} here, and no checkpoint of that name in the store: cryo ls shows them"
        )
    };
    let shelf = Shelf::if_there()?.ok_or_else(nowhere)?;
    let entry = shelf.store.find(&name).map_err(|error| error.to_string())?;
    let held = entry.hold().map_err(|error| error.to_string())?;
    Ok(Place { folder: held.folder.clone(), held: Some(held) })
}

/// The folder may only say where in the store its image is.
fn in_folder(folder: &Path) -> Result<Place, String> {
    let reference = Manifest::read(folder).ok().and_then(|manifest| manifest.store);
    let Some(reference) = reference else { return Ok(Place { folder: folder.to_owned(), held: None }) };
    let held =
        Image::held(folder, reference, &node_file().store().path).map_err(|error| error.to_string())?;
    Ok(Place { folder: held.folder.clone(), held: Some(held) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_folders() {
        let parent = tempfile::tempdir().unwrap();
        assert_eq!(find(parent.path()).unwrap().folder, parent.path());
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(find(&file).unwrap_err().contains("is no folder"));
        assert!(find(&parent.path().join("none")).unwrap_err().contains("No such file"));
    }
}

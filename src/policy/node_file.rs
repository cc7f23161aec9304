//! The node's own configuration: what its owner lets annotations ask for.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::RESTORE_FROM;

/// Read anew for each operation that needs it. A word that isn't known is an error: it
/// may be a limit that was misspelt.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeFile {
    /// Folders that containers may be restored from by annotation, with all below.
    restore_from: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum NotAllowed {
    #[error("cannot read {}: {problem}", path.display())]
    Unreadable { path: PathBuf, problem: String },
    #[error("annotation {RESTORE_FROM}={}: no such folder: {problem}", path.display())]
    Missing { path: PathBuf, problem: io::Error },
    #[error("annotation {RESTORE_FROM}={}: others than its owner can look into it or change it: chmod 700 it", .0.display())]
    Open(PathBuf),
    #[error("annotation {RESTORE_FROM}={}: give an absolute path without '..'", .0.display())]
    Relative(PathBuf),
    #[error(
        "annotation {RESTORE_FROM}={}: this node doesn't allow restores from there: its owner does with restore_from = [\"FOLDER\"] in {}",
        path.display(), file.display()
    )]
    Elsewhere { path: PathBuf, file: PathBuf },
}

impl NodeFile {
    /// Without a file, nothing is allowed.
    fn read(path: &Path) -> Result<NodeFile, NotAllowed> {
        let problem = |problem: String| NotAllowed::Unreadable { path: path.to_owned(), problem };
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| problem(error.message().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(NodeFile::default()),
            Err(error) => Err(problem(error.to_string())),
        }
    }

    /// The folder that an annotation names, if the node file at `path` allows it: where it
    /// really is, whatever links lead there.
    pub fn restore_source(path: &Path, named: &Path) -> Result<PathBuf, NotAllowed> {
        if !named.is_absolute() || named.components().any(|part| part == Component::ParentDir) {
            return Err(NotAllowed::Relative(named.to_owned()));
        }
        let allowed = NodeFile::read(path)?.restore_from;
        let elsewhere = || NotAllowed::Elsewhere { path: named.to_owned(), file: path.to_owned() };
        // Who may not restore from there isn't told what is there.
        if !allowed.iter().any(|folder| named.starts_with(folder)) {
            return Err(elsewhere());
        }
        let missing = |problem| NotAllowed::Missing { path: named.to_owned(), problem };
        let real = fs::canonicalize(named).map_err(missing)?;
        let is_below =
            |folder: &PathBuf| fs::canonicalize(folder).is_ok_and(|folder| real.starts_with(folder));
        if !allowed.iter().any(is_below) {
            return Err(elsewhere());
        }
        // The memory of a container is in it.
        let mode = fs::metadata(&real).map_err(missing)?.mode();
        if mode & 0o077 == 0 { Ok(real) } else { Err(NotAllowed::Open(named.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn source(text: Option<&str>, named: &Path) -> Result<PathBuf, NotAllowed> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        NodeFile::restore_source(&file, named)
    }

    #[test]
    fn nothing_is_allowed_until_the_owner_says_so() {
        for text in [None, Some(""), Some("restore_from = [\"/srv\"]")] {
            let error = source(text, Path::new("/etc")).unwrap_err().to_string();
            assert!(error.contains("doesn't allow restores from there"), "{error}");
        }
    }

    #[test]
    fn what_lies_in_an_allowed_folder_is_allowed_and_nothing_a_link_leads_to() {
        let allowed = tempfile::tempdir().unwrap();
        let text = format!("restore_from = [{:?}]", allowed.path());
        let image = allowed.path().join("image");
        fs::create_dir(&image).unwrap();
        fs::set_permissions(&image, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(source(Some(&text), &image), Err(NotAllowed::Open(_))));
        fs::set_permissions(&image, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(source(Some(&text), &image).unwrap(), fs::canonicalize(&image).unwrap());
        let link = allowed.path().join("link");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        assert!(matches!(source(Some(&text), &link), Err(NotAllowed::Elsewhere { .. })));
        let above = allowed.path().join("../../etc");
        assert!(source(Some(&text), &above).is_err());
        assert!(matches!(source(Some(&text), &allowed.path().join("no")), Err(NotAllowed::Missing { .. })));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = source(Some("restore_form = []"), Path::new("/srv")).unwrap_err().to_string();
        assert!(error.contains("restore_form"), "{error}");
        assert!(matches!(source(None, Path::new("srv")), Err(NotAllowed::Relative(_))));
    }
}

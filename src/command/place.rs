//! Where the checkpoint is that a user names.

use std::path::{Path, PathBuf};

/// Turns what a user has typed into the folder of an image.
pub(crate) fn folder(text: &Path) -> Result<PathBuf, String> {
    match text.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(text.to_owned()),
        Ok(_) => Err(format!("{} is no folder: give the folder of a checkpoint", text.display())),
        Err(error) => Err(format!("can't look into {}: {error}", text.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_hold_checkpoints() {
        let parent = tempfile::tempdir().unwrap();
        assert_eq!(folder(parent.path()).unwrap(), parent.path());
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(folder(&file).unwrap_err().contains("is no folder"));
        assert!(folder(&parent.path().join("none")).unwrap_err().contains("No such file"));
    }
}

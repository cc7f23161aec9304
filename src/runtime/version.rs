//! What a runtime says of itself. It is asked once for each binary and noted for all shims of the
//! node: asking takes as long as making a container.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, Flavour, QUICK_DEADLINE, command};
use crate::bundle::write_atomically;
use crate::operation::program;
use crate::reaper::Reaper;

const NOTES: &str = "/run/cryo";

/// Which runtime it is. `text` is its own first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub flavour: Flavour,
    pub text: String,
}

impl Version {
    pub(super) fn parse(said: &str) -> Option<Version> {
        let text = first_line(said);
        let flavour = Flavour::named(text.split_whitespace().next()?)?;
        Some(Version { flavour, text: text.to_owned() })
    }

    /// crun tells CRIU to close connections or not to since it has a flag for it, 1.23;
    /// a configuration of ours says nothing then.
    pub(super) fn decides_on_tcp_close(&self) -> bool {
        self.flavour == Flavour::Crun && self.number().is_some_and(|number| number >= (1, 23))
    }

    /// runc tells CRIU what to do with connections that nobody has accepted, and with files
    /// that have lost a name, since it has flags for that, 1.3.
    pub(super) fn decides_on_leftovers(&self) -> bool {
        self.flavour == Flavour::Runc && self.number().is_some_and(|number| number >= (1, 3))
    }

    fn number(&self) -> Option<(u32, u32)> {
        let word =
            self.text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = word.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    }
}

pub(super) fn first_line(said: &str) -> &str {
    said.lines().next().unwrap_or_default().trim()
}

/// All that it prints when asked for its version.
pub(super) async fn said(reaper: Reaper, binary: &Path) -> Result<String, Error> {
    let note = Note::of(binary, Path::new(NOTES));
    if let Some(said) = note.as_ref().and_then(Note::read) {
        return Ok(said);
    }
    let said = command::ask(reaper, binary, "--version", QUICK_DEADLINE).await?.text;
    if let Some(note) = note {
        note.write(&said);
    }
    Ok(said)
}

struct Note {
    path: PathBuf,
    flavour: Flavour,
    /// Differs when another file has the binary's name.
    mark: String,
}

impl Note {
    /// None of what goes by another name: it may be a wrapper, which says what others say.
    fn of(binary: &Path, folder: &Path) -> Option<Note> {
        let name = binary.file_name()?.to_str()?;
        let flavour = Flavour::named(name)?;
        let file = if binary == Path::new(name) { program(name)? } else { binary.to_owned() };
        let found = fs::metadata(file).ok()?;
        let (size, time, nanos) = (found.size(), found.mtime(), found.mtime_nsec());
        let mark = format!("{} {} {size} {time} {nanos}\n", found.dev(), found.ino());
        Some(Note { path: folder.join(name), flavour, mark })
    }

    fn read(&self) -> Option<String> {
        let text = fs::read_to_string(&self.path).ok()?;
        text.strip_prefix(&self.mark).filter(|said| self.is_of_its(said)).map(str::to_owned)
    }

    /// Without it the next shim asks again.
    fn write(&self, said: &str) {
        let folder = self.path.parent().map_or(Ok(()), fs::create_dir_all);
        if self.is_of_its(said) && folder.is_ok() {
            let _ = write_atomically(&self.path, format!("{}{said}", self.mark).as_bytes());
        }
    }

    /// Not an error, or half of an answer.
    fn is_of_its(&self, said: &str) -> bool {
        said.ends_with('\n') && Version::parse(said).is_some_and(|version| version.flavour == self.flavour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_as_long_as_the_binary_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (binary, notes) = (folder.path().join("runc"), folder.path().join("notes"));
        fs::write(&binary, "one").unwrap();
        let note = Note::of(&binary, &notes).unwrap();
        assert_eq!(note.read(), None);
        note.write("runc version 1.3.6\nspec: 1.2.1\n");
        let again = Note::of(&binary, &notes).unwrap();
        assert_eq!(again.read().as_deref(), Some("runc version 1.3.6\nspec: 1.2.1\n"));
        fs::write(&binary, "other").unwrap();
        assert_eq!(Note::of(&binary, &notes).unwrap().read(), None);
    }

    #[test]
    fn errors_and_wrappers_arent_noted() {
        let folder = tempfile::tempdir().unwrap();
        let (binary, notes) = (folder.path().join("crun"), folder.path().join("notes"));
        fs::write(&binary, "").unwrap();
        let note = Note::of(&binary, &notes).unwrap();
        for said in ["", "crun version 1", "runc version 1.3\n", "crun: can't load a library\n"] {
            note.write(said);
            assert_eq!(note.read(), None, "{said}");
        }
        assert!(Note::of(&folder.path().join("my-crun"), &notes).is_none());
        assert!(Note::of(&folder.path().join("gone/crun"), &notes).is_none());
    }
}

//! Entries share what they have in common with the one before, where the file system can.

use std::io;

use super::{Error, Id, PATIENCE, Store, pack};
use crate::pages::memory::{Form, form};
use crate::pages::{is_pages, share};

impl Store {
    /// Whether nothing has to be packed to take room once.
    pub fn can_share(&self) -> bool {
        share::is_possible(&self.new_folder())
    }

    /// Has an entry share what its container's checkpoint before has. Tells how many bytes that
    /// are. It may be used meanwhile: it stays what it is.
    pub fn share(&self, id: &Id) -> Result<u64, Error> {
        let _alone = self.wait_to_pack(PATIENCE)?;
        let (entries, _) = self.entries()?;
        let Some(at) = entries.iter().position(|entry| entry.id() == id) else { return Ok(0) };
        let newer = &entries[at];
        let Some(older) = entries[..at].iter().rev().find(|other| pack::is_kin(newer, other)) else {
            return Ok(0);
        };
        let mut shared = 0;
        let is_plain = |name: &&String| {
            let is_plain = |folder| form(folder, name) == Some(Form::Plain);
            is_pages(name) && is_plain(&older.folder) && is_plain(&newer.folder)
        };
        for name in newer.record.files.keys().filter(is_plain) {
            let done = share::share(&older.folder.join(name), &newer.folder.join(name));
            let failed = Error::at(&newer.folder);
            shared += done.map_err(|error| failed(io::Error::other(error.in_image())))?;
        }
        Ok(shared)
    }
}

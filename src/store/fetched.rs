//! Checkpoints that were fetched from elsewhere for containers that start from them. There is
//! one entry of each, however many containers ask for it, and however often they try.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::claims::Claim;
use super::entry::Held;
use super::lock::Lock;
use super::{Error, LOCK_FILE, Origin, Store};

/// Others fetch other things meanwhile, and wait with the same one, as long as this lives.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is held")] File);

impl Store {
    /// Waits until nobody else fetches it. For a process that somebody else gives up on.
    pub fn turn(&self, reference: &str) -> Result<Turn, Error> {
        let path = self.root.join(LOCK_FILE);
        let file = Lock::file(&path).map_err(Error::at(&path))?;
        let mut hasher = DefaultHasher::new();
        reference.hash(&mut hasher);
        // A byte of a file that is empty: what is locked as a whole is something else.
        let at = i64::try_from(hasher.finish() >> 2).unwrap_or_default();
        let byte = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: at,
            l_len: 1,
            l_pid: 0,
        };
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&byte)) {
                Ok(_) => return Ok(Turn(file)),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(Error::at(&path)(error.into())),
            }
        }
    }

    /// One that is here already, from then on also for another container.
    pub fn fetched(&self, wanted: impl Fn(&Origin) -> bool, claim: &Claim) -> Result<Option<Held>, Error> {
        let (entries, _) = self.entries()?;
        let wanted = |entry: &super::Entry| entry.record.origin.as_ref().is_some_and(&wanted);
        let Some(entry) = entries.into_iter().find(|entry| wanted(entry)) else { return Ok(None) };
        let held = entry.hold()?;
        self.add_claim(held.id(), claim.clone())?;
        Ok(Some(held))
    }
}

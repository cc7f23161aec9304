//! Files in a state that a dump can lose: locked ones, and ones without a name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, fcntl_lock, flock};

use crate::signals::check_on_demand;

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Flock,
    Posix,
}

fn lock(file: &File, kind: Kind) -> rustix::io::Result<()> {
    match kind {
        Kind::Flock => flock(file, FlockOperation::NonBlockingLockExclusive),
        Kind::Posix => fcntl_lock(file, FlockOperation::NonBlockingLockExclusive),
    }
}

pub(crate) fn hold_lock(path: &str, kind: Kind) -> io::Result<u8> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    lock(&file, kind)?;
    let rival = match kind {
        Kind::Flock => "try-lock",
        Kind::Posix => "try-posix-lock",
    };
    let myself = std::env::current_exe()?;
    check_on_demand(|| {
        // Another process: one's own second try at a POSIX lock always succeeds.
        let tried = Command::new(&myself).args([rival, path]).stderr(Stdio::null()).status()?;
        Ok(if tried.success() { "lost".into() } else { "held".into() })
    })
}

pub(crate) fn try_lock(path: &str, kind: Kind) -> io::Result<u8> {
    let file = OpenOptions::new().write(true).open(path)?;
    lock(&file, kind)?;
    Ok(0)
}

pub(crate) fn ghost(path: &str, bytes: usize) -> io::Result<u8> {
    let content: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
    file.write_all(&content)?;
    fs::remove_file(path)?;
    check_on_demand(|| {
        let mut found = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut found)?;
        Ok(if found == content { "same".into() } else { "differs".into() })
    })
}

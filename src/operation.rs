//! What a checkpoint and a restore have in common.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::Error;
use crate::container::Subject;
use crate::criu::log::Failure;
use crate::journal::Folder;
use crate::runtime;

/// Runs work on files beside this thread: a disk that is slow, or a server that is gone,
/// must not keep others from an answer.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // It can't be cancelled, so it has panicked; so do we, and the driver sees to it.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A runtime's failure as CRIU's own, if its log says so.
pub(crate) async fn explain(error: runtime::Error, log: PathBuf) -> Result<Failure, runtime::Error> {
    aside(move || Failure::of(&error, &log).ok_or(error)).await
}

pub(crate) fn work_folder(subject: &Subject, operation: &str) -> Result<Folder, Error> {
    let Subject { journal, namespace, id, bundle, .. } = subject;
    journal
        .folder(namespace, id, operation, bundle)
        .map_err(|source| Error::Write { path: bundle.clone(), source })
}

/// Clients look for CRIU's logs and statistics where they asked for them.
pub(crate) fn hand_on(work: &Path, wanted: Option<&Path>, names: &[&str]) {
    let Some(wanted) = wanted else { return };
    for name in names {
        if let Err(error) = copy_into(&work.join(name), wanted)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, name, folder = %wanted.display(), "can't be copied for the client");
        }
    }
}

/// In place of whatever is there.
fn copy_into(file: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let copy = folder.join(file.file_name().unwrap_or_default());
    // Not through it: it may be a pipe, or a link to elsewhere.
    match fs::remove_file(&copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::copy(file, copy).map(drop)
}

pub(crate) fn find_criu() -> Result<(), Error> {
    program("criu").map(drop).ok_or(Error::NoCriu)
}

/// A program's file, where PATH has it.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

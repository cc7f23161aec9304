//! Why the store refuses something: each in one sentence that says what helps.

use std::io;
use std::path::{Path, PathBuf};

use super::Id;
use super::size::Size;
use crate::message;
use crate::policy::NODE_FILE;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("checkpoint store {}: give an absolute path without '..'", .0.display())]
    Path(PathBuf),
    #[error("checkpoint store {} can be changed by others: it has to be root's, and writable for nobody else", .0.display())]
    Open(PathBuf),
    #[error("{} holds other files and no checkpoint store: give an empty folder as path under [store] in {NODE_FILE}", .0.display())]
    Foreign(PathBuf),
    #[error("checkpoint store {} has version {version}, this Cryo reads version {known}: use the Cryo that made it", path.display(), known = super::VERSION)]
    Later { path: PathBuf, version: String },
    #[error("cannot write to {}: its disk is mounted read-only", .0.display())]
    ReadOnly(PathBuf),
    #[error("cannot write to {}: its disk is full: remove checkpoints with cryo rm, or anything else there", .0.display())]
    Full(PathBuf),
    #[error("cannot use {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("checkpoint store {} has been locked by {by} for {seconds} seconds: look what keeps that, and try again", path.display())]
    Busy { path: PathBuf, by: String, seconds: u64 },
    #[error("{by} is pruning the checkpoint store {} already: wait for that", path.display())]
    Pruning { path: PathBuf, by: String },
    #[error("{by} is packing the checkpoint store {} already: wait for that", path.display())]
    Packing { path: PathBuf, by: String },
    #[error("packs in {} can't be tidied up: {problem}: cryo store verify tells which checkpoint that is", path.display())]
    Packs { path: PathBuf, problem: String },
    #[error("there is no checkpoint {0:?} in the store: cryo ls shows them all")]
    Unknown(String),
    #[error("{text:?} is the beginning of several ids: {candidates}: give more of it")]
    Ambiguous { text: String, candidates: String },
    #[error("{0:?} is no name of a checkpoint, and too short for an id: give four digits at least")]
    Short(String),
    #[error("checkpoint {id} in the store is damaged: entry.json: {problem}: cryo rm --force removes it")]
    Damaged { id: Id, problem: String },
    #[error("checkpoint {id} is in use by {by}: wait for that")]
    InUse { id: Id, by: String },
    #[error("checkpoint {0} is pinned: unpin it first, or use --force")]
    Pinned(Id),
    #[error("checkpoint {id} is still needed: {why}: remove that first, or use --force")]
    Claimed { id: Id, why: String },
    #[error(
        "{0:?} is no name for a checkpoint: use up to 128 letters, digits, '_', '.' and '-', with a letter or digit first, and no id's 16 hex digits"
    )]
    Name(String),
    #[error("the name {name:?} is taken by checkpoint {by}: choose another, or remove that one")]
    NameTaken { name: String, by: Id },
    #[error("what was written into {} is no complete checkpoint: {problem}: take it again", folder.display())]
    Incomplete { folder: PathBuf, problem: String },
    #[error("'{name}' isn't allowed in a checkpoint: it is {what}, only plain files of root's are")]
    Hostile { name: String, what: &'static str },
    #[error(
        "checkpoint store {} may hold {most}: it holds {used}, {needed} more are needed, {biggest}: use cryo rm, or raise max-bytes in {NODE_FILE}",
        path.display()
    )]
    Quota { path: PathBuf, most: Size, used: Size, needed: Size, biggest: String },
}

impl Error {
    pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly(path.to_owned()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full(path.to_owned()),
            _ => Error::Io { path: path.to_owned(), source },
        }
    }
}

/// Words of others, which may quote what a damaged file holds, as a part of a sentence.
pub(super) fn brief(words: &impl ToString) -> String {
    const LONGEST: usize = 160;
    message::cut(&message::shown(&words.to_string()), LONGEST)
}

//! What a process of its own asks containerd for: the verbs `checkpoint` and `restore` for
//! `cryo`, as the command itself knows no containerd; and for the shim what is [`outside`] of it.
//!
//! The verbs go through containerd's own services, so that it and its clients see what happens.
//! No container is paused beforehand, as containerd's Go client does: the shim freezes it, for
//! as long as the dump takes.

mod copy;
mod fetch;
pub(crate) mod outside;
mod pull;
mod restore;

use cryo_protos::runc;

use crate::args::Args;
use crate::error::Error;
use crate::grpc::{Client, Error as GrpcError};
use crate::messages::{CHECKPOINT_TASK, CheckpointTask, Nothing, Packed};

const CLASSES: [&str; 6] = [
    "already exists",
    "failed precondition",
    "invalid argument",
    "not found",
    "permission denied",
    "unknown",
];

pub(crate) fn checkpoint(args: &Args) -> Result<(), Error> {
    let image = args.image.as_ref().ok_or_else(|| Error::usage("checkpoint needs -image"))?;
    let options = runc::CheckpointOptions {
        exit: args.exit,
        image_path: image.display().to_string(),
        ..runc::CheckpointOptions::default()
    };
    let options = Packed::of(&options).map_err(Error::other)?;
    let request = CheckpointTask { container_id: args.id.clone(), options: Some(options) };
    ask(args, async |containerd| {
        containerd.call::<Nothing>(CHECKPOINT_TASK, &request).await.map(drop).map_err(refused)
    })
}

/// Prints the pid of the container's first process.
pub(crate) fn restore(args: &Args) -> Result<(), Error> {
    let image = args.image.as_ref().ok_or_else(|| Error::usage("restore needs -image"))?;
    ask(args, async |containerd| restore::run(containerd, args, image).await.map(|pid| println!("{pid}")))
}

fn ask(args: &Args, asked: impl AsyncFnOnce(&mut Client) -> Result<(), Error>) -> Result<(), Error> {
    if args.namespace.is_empty() || args.id.is_empty() || args.address.is_empty() {
        return Err(Error::usage("needs -namespace, -id and -address"));
    }
    with_containerd(&args.address, &args.namespace, asked)
}

fn with_containerd<T>(
    address: &str,
    namespace: &str,
    asked: impl AsyncFnOnce(&mut Client) -> Result<T, Error>,
) -> Result<T, Error> {
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build();
    event_loop.map_err(Error::io("start the event loop"))?.block_on(async {
        let containerd = Client::connect(address, namespace).await;
        let mut containerd = containerd.map_err(|error| {
            Error::other(format!("containerd doesn't answer at {address}: {error}; is it running?"))
        })?;
        asked(&mut containerd).await
    })
}

/// In containerd's words, or in those of the shim that it hands on.
fn refused(error: GrpcError) -> Error {
    match error {
        GrpcError::Io(_) | GrpcError::Http(_) => Error::other(format!(
            "containerd has gone away: {error}; what was begun may still be finished, cryo ls shows it"
        )),
        error => Error::other(without_class(&error.to_string())),
    }
}

/// containerd repeats what kind of error it is, for programs.
fn without_class(text: &str) -> &str {
    CLASSES.iter().find_map(|class| text.strip_suffix(class)?.strip_suffix(": ")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_programs_is_not_shown_to_people() {
        assert_eq!(
            without_class("the name one is taken: choose another: already exists"),
            "the name one is taken: choose another"
        );
        for whole in ["already exists", "no checkpoint of that name: cryo ls shows them", ""] {
            assert_eq!(without_class(whole), whole);
        }
    }
}

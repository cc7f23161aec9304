//! A container goes on from a checkpoint: its task is made anew, from there.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use cryo_protos::runc;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{copy, refused};
use crate::args::Args;
use crate::convert;
use crate::error::Error;
use crate::grpc::{Client, Error as GrpcError};
use crate::messages::{
    ById, CREATE_TASK, Container, CreateTask, DELETE_TASK, GET_CONTAINER, GET_TASK, GetTaskAnswer, MOUNTS,
    Mount, Mounts, Nothing, OfContainer, OfSnapshot, Packed, Process, START_TASK, STOPPED,
};

/// The container itself, or a copy of it under another id.
pub(super) async fn run(containerd: &mut Client, args: &Args, image: &Path) -> Result<u32, Error> {
    let Args { id, new_id, log_uri, .. } = args;
    let answer = containerd.call::<OfContainer>(GET_CONTAINER, &ById { id: id.clone() }).await;
    let container = match answer {
        Ok(answer) => answer.container.unwrap_or_default(),
        Err(GrpcError::NotFound(_)) => return Err(Error::NoContainer),
        Err(error) => return Err(refused(error)),
    };
    let mut stdio = Process { terminal: args.terminal, ..Process::default() };
    if new_id.is_none() {
        stdio = Process { terminal: args.terminal, ..ended(containerd, id).await?.unwrap_or_default() };
    }
    if !log_uri.is_empty() {
        stdio.stdout.clone_from(log_uri);
        stdio.stderr = if stdio.terminal { String::new() } else { log_uri.clone() };
    }
    let Some(new_id) = new_id else { return start(containerd, &container, stdio, image).await };
    let copied = copy::make(containerd, container, new_id).await?;
    let started = start(containerd, &copied, stdio, image).await;
    if started.is_err() {
        copy::remove(containerd, &copied).await;
    }
    started
}

/// The streams of the task that has ended, if nobody has deleted it; now we do.
async fn ended(containerd: &Client, id: &str) -> Result<Option<Process>, Error> {
    let id = ById { id: id.to_owned() };
    let process = match containerd.call::<GetTaskAnswer>(GET_TASK, &id).await {
        Ok(answer) => answer.process.unwrap_or_default(),
        Err(GrpcError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    if process.status != STOPPED {
        return Err(Error::other(format!(
            "container {} hasn't ended, and can't go on from a checkpoint before: end it, or give --id for a second one",
            id.id
        )));
    }
    containerd.call::<Nothing>(DELETE_TASK, &id).await.map_err(refused)?;
    Ok(Some(process))
}

async fn start(
    containerd: &Client,
    container: &Container,
    stdio: Process,
    image: &Path,
) -> Result<u32, Error> {
    let id = ById { id: container.id.clone() };
    for path in [&stdio.stdin, &stdio.stdout, &stdio.stderr] {
        make_fifo(path).map_err(|error| Error::other(format!("cannot make {path}: {error}")))?;
    }
    let task = CreateTask {
        container_id: container.id.clone(),
        rootfs: rootfs(containerd, container).await.map_err(refused)?,
        stdin: stdio.stdin,
        stdout: stdio.stdout,
        stderr: stdio.stderr,
        terminal: stdio.terminal,
        options: Some(options(container, image)?),
    };
    containerd.call::<Nothing>(CREATE_TASK, &task).await.map_err(refused)?;
    match containerd.call::<Started>(START_TASK, &id).await {
        Ok(started) => Ok(started.pid),
        Err(error) => {
            // That it can't be started is what has to be told.
            let _ = containerd.call::<Nothing>(DELETE_TASK, &id).await;
            Err(refused(error))
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Started {
    #[prost(uint32, tag = "1")]
    pid: u32,
}

/// Nothing for a container whose root is a folder of the host's.
async fn rootfs(containerd: &Client, container: &Container) -> Result<Vec<Mount>, GrpcError> {
    if container.snapshot_key.is_empty() {
        return Ok(Vec::new());
    }
    let snapshot = OfSnapshot {
        snapshotter: container.snapshotter.clone(),
        key: container.snapshot_key.clone(),
        parent: String::new(),
    };
    Ok(containerd.call::<Mounts>(MOUNTS, &snapshot).await?.mounts)
}

/// Those it was made with, and where it comes back from: whatever its runtime is called, the
/// shim looks there.
fn options(container: &Container, image: &Path) -> Result<Packed, Error> {
    let made_with = container.runtime.as_ref().and_then(|runtime| runtime.options.as_ref());
    let made_with = made_with.map(Packed::unpacked).unwrap_or_default();
    let options = runc::Options {
        criu_image_path: image.display().to_string(),
        ..convert::create_options(&made_with).map_err(Error::other)?
    };
    Packed::of(&options).map_err(Error::other)
}

/// A client that has gone may have removed its ends; others can still attach to them.
fn make_fifo(path: &str) -> io::Result<()> {
    let path = Path::new(path);
    if !path.is_absolute() || path.exists() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o700), 0)?)
}

//! `delete`: removes what a dead shim left of a container, and tells how it ended.
//!
//! containerd gives it five seconds and takes anything on stdout for the answer.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryo::bundle::{self, ADDRESS, BOOTSTRAP};
use cryo::container::{Ended, clean_up};
use cryo::journal::Journal;
use cryo_protos::api::DeleteResponse;
use cryo_protos::protobuf::Message;

use crate::args::Args;
use crate::bundle_files;
use crate::convert;
use crate::error::Error;
use crate::publish::timestamp;
use crate::serve::JOURNAL;

/// A second less than containerd waits.
const PATIENCE: Duration = Duration::from_secs(4);
/// From the death of a shim to the end of its connections.
const DYING_PATIENCE: Duration = Duration::from_millis(300);

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    if args.namespace.is_empty() || args.id.is_empty() {
        return Err(Error::usage("delete needs -namespace and -id"));
    }
    let bundle = bundle_of(args)?;
    let options = convert::core_options(&bundle_files::read(&bundle), &args.namespace);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the event loop"))?;
    let journal = Journal::new(JOURNAL);
    let cleaning =
        async { tokio::time::timeout(PATIENCE, clean_up(&bundle, &args.id, &options, &journal)).await };
    match runtime.block_on(cleaning) {
        Ok(problems) => problems.iter().for_each(|problem| eprintln!("{problem}")),
        Err(_) => eprintln!("what is left of container {} takes too long to remove", args.id),
    }
    runtime.shutdown_background();
    remove_socket(&bundle);
    answer(&bundle).map_err(Error::io("answer containerd"))
}

/// The working directory is some container's bundle; ours lies beside it.
fn bundle_of(args: &Args) -> Result<PathBuf, Error> {
    if let Some(bundle) = &args.bundle {
        return Ok(bundle.clone());
    }
    let here = std::env::current_dir().map_err(Error::io("find the bundle"))?;
    Ok(here.parent().unwrap_or(Path::new("/")).join(&args.id))
}

/// A shim that was killed left its socket; one that serves other containers needs it.
fn remove_socket(bundle: &Path) {
    let address = address(bundle).unwrap_or_default();
    let Some(path) = address.strip_prefix("unix://") else { return };
    if !is_served(Path::new(path)) {
        let _ = std::fs::remove_file(path);
    }
}

/// A shim that is dying may still have its socket for a moment, but it answers nobody: the
/// connection breaks. One that lives says nothing either, and keeps it.
fn is_served(socket: &Path) -> bool {
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) else { return false };
    let _ = stream.set_read_timeout(Some(DYING_PATIENCE));
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The stock shim leaves it to containerd to note the address, since containerd 2.0.
fn address(bundle: &Path) -> Option<String> {
    if let Ok(address) = std::fs::read_to_string(bundle.join(ADDRESS)) {
        return Some(address.trim().to_owned());
    }
    let noted = std::fs::read(bundle.join(BOOTSTRAP)).ok()?;
    let noted: serde_json::Value = serde_json::from_slice(&noted).ok()?;
    noted["address"].as_str().map(str::to_owned)
}

fn answer(bundle: &Path) -> io::Result<()> {
    let Ended { pid, exit } = bundle::ended(bundle);
    let response =
        DeleteResponse { pid, exit_status: exit.status, exited_at: timestamp(exit.at), ..Default::default() };
    io::stdout().write_all(&response.write_to_bytes().map_err(io::Error::other)?)
}

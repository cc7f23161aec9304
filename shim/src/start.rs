//! `start`: makes the socket, starts the daemon behind it and says where it listens.
//!
//! The socket is listening before the daemon runs, so nobody has to wait for it. The
//! daemon keeps none of our descriptors but that one: containerd reads our stdout and
//! stderr until the last holder has closed them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use cryo::bundle::{self, Spec, write_atomically};
use cryo::cgroup::Cgroup;
use cryo::sys;
use sha2::{Digest, Sha256};

use crate::args::Args;
use crate::bootstrap::{Call, MAX_VERSION_VARIABLE};
use crate::convert;
use crate::error::Error;

/// The listening socket, for the daemon.
pub(crate) const SOCKET_DESCRIPTOR: i32 = 3;
const SOCKET_FOLDER: &str = "/run/containerd/s";
/// Far more than any options take.
const INPUT_BYTES: u64 = 10 << 20;
const HIGHEST_OOM_SCORE: i32 = 1000;
/// Containers that name the same group share a shim.
const GROUP_ANNOTATION: &str = "io.containerd.runc.v2.group";

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    if args.namespace.is_empty() || args.id.is_empty() {
        return Err(Error::usage("start needs -namespace and -id"));
    }
    let mut input = Vec::new();
    io::stdin().take(INPUT_BYTES).read_to_end(&mut input).map_err(Error::io("read the options"))?;
    let call = Call::understand(&input, args, std::env::var_os(MAX_VERSION_VARIABLE).is_some());
    let spec = Spec::read(Path::new(".")).map_err(Error::other)?;
    let group = spec.annotations.get(GROUP_ANNOTATION).unwrap_or(&args.id);
    let folder = call.socket_folder.as_deref().unwrap_or(SOCKET_FOLDER);
    let socket = socket_path(Path::new(folder), &args.address, &args.namespace, group);
    let address = format!("unix://{}", socket.display());
    if let Some(listener) = listen(&socket)? {
        let started = start_daemon(args, listener.into(), call.options.as_ref());
        if started.is_err() {
            let _ = fs::remove_file(&socket);
        }
        started?;
    }
    // containerd 1.6 and 1.7 look here after a restart.
    write_atomically(Path::new(bundle::ADDRESS), address.as_bytes())
        .map_err(Error::io("write the address file"))?;
    io::stdout().write_all(&call.answer(&address)).map_err(Error::io("answer containerd"))
}

/// The name the stock shim would give it, so that either finds the other's socket.
pub(crate) fn socket_path(folder: &Path, address: &str, namespace: &str, group: &str) -> PathBuf {
    let name = Sha256::digest(clean(&format!("{address}/{namespace}/{group}")));
    folder.join(name.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// As Go's `filepath.Join` leaves it.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if path.starts_with('/') { format!("/{joined}") } else { joined }
}

/// Nothing if a shim answers there already.
fn listen(socket: &Path) -> Result<Option<UnixListener>, Error> {
    if let Some(folder) = socket.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(Error::io("make the socket folder"))?;
    }
    let bind = || -> io::Result<UnixListener> {
        let listener = UnixListener::bind(socket)?;
        fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(socket).is_ok() {
                return Ok(None);
            }
            // Left by a shim that was killed.
            fs::remove_file(socket).and_then(|()| bind()).map(Some)
        }
        bound => bound.map(Some),
    }
    .map_err(Error::io("make the socket"))
}

fn start_daemon(
    args: &Args,
    listener: OwnedFd,
    options: Option<&cryo_protos::protobuf::well_known_types::any::Any>,
) -> Result<(), Error> {
    sys::keep_descriptors_to_ourselves();
    let mut command = Command::new("/proc/self/exe");
    // By the name it was called, so that process lists show which shim it is.
    command.arg0(std::env::args_os().next().unwrap_or_default());
    command.args(args.for_daemon());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0);
    command
        .fd_mappings(vec![FdMapping { parent_fd: listener, child_fd: SOCKET_DESCRIPTOR }])
        .map_err(|error| Error::other(format!("cannot hand over the socket: {error}")))?;
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        share_no_core()?;
    }
    let mut daemon = command.spawn().map_err(Error::io("start the daemon"))?;
    let settled = settle(daemon.id(), options);
    if settled.is_err() {
        let _ = daemon.kill();
    }
    settled
}

/// Processes of different containers never share a physical core.
fn share_no_core() -> Result<(), Error> {
    use rustix::thread::{CoreSchedulingScope, create_core_scheduling_cookie};
    let us = rustix::process::getpid();
    create_core_scheduling_cookie(us, CoreSchedulingScope::ProcessGroup)
        .map_err(|error| Error::io("enable core scheduling")(error.into()))
}

fn settle(
    daemon: u32,
    options: Option<&cryo_protos::protobuf::well_known_types::any::Any>,
) -> Result<(), Error> {
    let cgroup = options.and_then(|options| convert::create_options(options).ok()).map(|o| o.shim_cgroup);
    if let Some(path) = cgroup.filter(|path| !path.is_empty()) {
        Cgroup::at_path(&path)
            .and_then(|cgroup| cgroup.add_process(daemon))
            .map_err(|error| Error::other(format!("cannot move the shim into cgroup {path}: {error}")))?;
    }
    // A little less dear than containerd, much dearer than any container.
    let parent = rustix::process::getppid().map_or(0, |parent| parent.as_raw_pid());
    let score = oom_score(&format!("/proc/{parent}/oom_score_adj")).unwrap_or(0);
    let score = (score + 1).min(HIGHEST_OOM_SCORE);
    File::options()
        .write(true)
        .open(format!("/proc/{daemon}/oom_score_adj"))
        .and_then(|mut file| file.write_all(score.to_string().as_bytes()))
        .map_err(Error::io("set the shim's OOM score"))
}

fn oom_score(path: &str) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_one_the_stock_shim_would_use() {
        // sha256 of "/run/containerd/containerd.sock/default/c1"
        let path = socket_path(Path::new("/s"), "/run/containerd/containerd.sock", "default", "c1");
        let expected = Sha256::digest("/run/containerd/containerd.sock/default/c1");
        let expected: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(path, Path::new("/s").join(expected));
    }

    #[test]
    fn paths_are_cleaned_like_go_does() {
        assert_eq!(clean("/run//c.sock/./ns/id"), "/run/c.sock/ns/id");
        assert_eq!(clean("/a/../../b"), "/b");
        assert_eq!(clean("/ns/id"), "/ns/id");
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s/x");
        let first = listen(&socket).unwrap();
        assert!(first.is_some());
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.path().join("s")).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(listen(&socket).unwrap().is_none());
        drop(first);
        assert!(listen(&socket).unwrap().is_some());
    }
}

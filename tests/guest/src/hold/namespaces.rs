//! Worlds within the container's: namespaces and roots of a process's own.

use std::fs;
use std::io::{self, Read, Write};

use nix::libc;

use super::raw::{address, call, fork, pause};
use super::{Check, Kind};

pub(super) const KINDS: &[Kind] = &[
    ("users", |_| nested(libc::CLONE_NEWUSER, "user")),
    ("pids", |_| nested(libc::CLONE_NEWPID, "pid")),
    ("mounts", |_| nested(libc::CLONE_NEWNS, "mnt")),
    ("network", |_| nested(libc::CLONE_NEWNET, "net")),
    ("ipc", |_| nested(libc::CLONE_NEWIPC, "ipc")),
    ("hostname", |_| nested(libc::CLONE_NEWUTS, "uts")),
    ("hostname-left", |_| hostname_left()),
    ("cgroups", |_| nested(libc::CLONE_NEWCGROUP, "cgroup")),
    ("time", |_| time()),
    ("thread-hostname", |_| of_thread(libc::CLONE_NEWUTS, "uts")),
    ("thread-network", |_| of_thread(libc::CLONE_NEWNET, "net")),
    ("root", |_| root()),
];

fn own(process: &str, kind: &str) -> io::Result<std::path::PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/{kind}"))
}

/// A child that lives there, and has said so.
fn child(enter: impl FnOnce() -> io::Result<()>) -> io::Result<u32> {
    let (mut told, mut tell) = io::pipe()?;
    let child = fork(0, || {
        enter()?;
        tell.write_all(b"x")?;
        pause()
    })?;
    drop(tell);
    told.read_exact(&mut [0])?;
    Ok(child)
}

fn unshare(flags: i32) -> io::Result<()> {
    call(libc::SYS_unshare, &[flags as usize]).map(drop)
}

fn nested(flag: i32, kind: &'static str) -> io::Result<Check> {
    let child = if flag == libc::CLONE_NEWPID { fork(flag, pause)? } else { child(|| unshare(flag))? };
    Ok(Box::new(move || Ok(own(&child.to_string(), kind)? != own("self", kind)?)))
}

/// By the first process itself. Not told by the namespace's number: what it left had one that
/// the next namespace may get.
fn hostname_left() -> io::Result<Check> {
    unshare(libc::CLONE_NEWUTS)?;
    nix::unistd::sethostname("left")?;
    Ok(Box::new(|| Ok(nix::unistd::gethostname()? == "left")))
}

/// Only a process that is made afterwards lives in it.
fn time() -> io::Result<Check> {
    let child = child(|| {
        unshare(libc::CLONE_NEWTIME)?;
        fork(0, pause).map(drop)
    })?;
    Ok(Box::new(move || Ok(own(&child.to_string(), "time").is_ok())))
}

fn of_thread(flag: i32, kind: &'static str) -> io::Result<Check> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let entered = unshare(flag).and_then(|()| call(libc::SYS_gettid, &[]));
        // Whoever asked is there, or the test has failed.
        let _ = tell.send(entered);
        pause()
    });
    let thread = told.recv().map_err(io::Error::other)??;
    Ok(Box::new(move || Ok(own(&format!("self/task/{thread}"), kind)? != own("self", kind)?)))
}

fn root() -> io::Result<Check> {
    fs::create_dir("/tmp/root")?;
    fs::write("/tmp/root/here", "")?;
    let child = child(|| {
        call(libc::SYS_chroot, &[address(c"/tmp/root")])?;
        std::env::set_current_dir("/")
    })?;
    Ok(Box::new(move || fs::exists(format!("/proc/{child}/root/here"))))
}

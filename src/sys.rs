//! The system calls that no library wraps safely. The only file with `unsafe` in it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use nix::libc;
use rustix::ioctl::{Opcode, opcode};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::UnshareFlags;
use tokio::io::unix::AsyncFd;

/// The kernel kills the command when this process dies, so that nothing that
/// works on a container outlives the shim that asked for it.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let die = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: prctl is async-signal-safe and the closure touches no memory.
    unsafe { command.pre_exec(die) }
}

/// The command hears of what the host mounts, and the host of nothing that it mounts.
pub fn with_own_mounts(command: &mut Command) -> &mut Command {
    // SAFETY: both system calls are async-signal-safe and the closure allocates nothing.
    unsafe { command.pre_exec(leave_mounts) }
}

/// Leaves the mount namespace for a copy of it, which still hears of what the host mounts.
/// For a process with a single thread.
pub fn leave_mounts() -> io::Result<()> {
    // SAFETY: NEWNS touches no memory and no descriptor table.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

static LIMIT_WE_CAME_WITH: OnceLock<Rlimit> = OnceLock::new();

/// Allows this process as many descriptors as it may have; what it starts gets the limit
/// that this process came with (see [`with_old_limit`]).
pub fn raise_descriptor_limit() -> io::Result<()> {
    let old = *LIMIT_WE_CAME_WITH.get_or_init(|| getrlimit(Resource::Nofile));
    Ok(setrlimit(Resource::Nofile, Rlimit { current: old.maximum, ..old })?)
}

/// Containers inherit limits through their runtime, and shall see the usual ones.
pub fn with_old_limit(command: &mut Command) -> &mut Command {
    let Some(old) = LIMIT_WE_CAME_WITH.get().cloned() else { return command };
    let restore = move || Ok(setrlimit(Resource::Nofile, old)?);
    // SAFETY: setrlimit is async-signal-safe and the closure allocates nothing.
    unsafe { command.pre_exec(restore) }
}

/// From linux/close_range.h.
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

/// Whatever descriptors this process was started with, nothing it starts gets them.
pub fn keep_descriptors_to_ourselves() {
    // SAFETY: no descriptor is closed, only marked; the kernel takes any range.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    // A kernel older than 5.11 can't, and a parent that cares marks them itself.
    let _ = marked;
}

/// Takes over a descriptor that the parent process left open under a known number.
///
/// Fails when nothing is open there. Call it once per number, before anything else
/// could have opened a descriptor.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: only asked about, and the kernel tells if it isn't open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    // Nothing that this process starts shall have it.
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open, as just seen, and nobody else owns it: it came
    // from the parent and this process has opened nothing under that number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Any signal number the kernel may know, real-time ones included.
pub fn signal(number: i32) -> Option<Signal> {
    // SAFETY: the value only ever travels to the kernel, which checks it.
    (1..=64).contains(&number).then(|| unsafe { Signal::from_raw_unchecked(number) })
}

/// Whether two processes run in the same memory. A kernel that can't say says no.
pub fn share_memory(one: u32, other: u32) -> bool {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: the kernel compares two of its own objects, and touches no memory of ours.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0_usize, 0_usize) };
    order == 0
}

/// Lets tokio tell when a descriptor becomes ready. The watch owns it, so it stays open.
pub fn watch<T: AsFd + AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: types that implement AsFd keep their descriptor open as long as they
    // live, and the watch keeps `fd` until it has deregistered it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Leaves the network namespace for a new one. For a process with a single thread.
pub fn leave_network() -> io::Result<()> {
    // SAFETY: NEWNET touches no memory and no descriptor table; the only danger of
    // unshare is for CLONE_FILES and CLONE_VM.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?)
}

/// Leaves the user namespace for a new one. For a process with a single thread.
pub fn leave_users() -> io::Result<()> {
    // SAFETY: as above.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }?)
}

/// Unmaps the pages of this program's code. They stay in the page cache, and each comes back
/// when it is needed next.
pub fn let_go_of_code() -> io::Result<()> {
    let here = let_go_of_code as *const () as usize;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let code = maps.lines().filter_map(code_range).find(|range| range.contains(&here));
    let code = code.ok_or(io::ErrorKind::NotFound)?;
    // SAFETY: the mapping can't be written to, so that every page of it is the file's; after
    // the call the kernel maps it again, from there, when it is touched.
    let done = unsafe { libc::madvise(code.start as *mut _, code.len(), libc::MADV_DONTNEED) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where the code is that this line of a `maps` file tells of.
fn code_range(line: &str) -> Option<Range<usize>> {
    let mut words = line.split(' ');
    let (start, end) = words.next()?.split_once('-')?;
    let parse = |address| usize::from_str_radix(address, 16).ok();
    (words.next()? == "r-xp").then_some(parse(start)?..parse(end)?)
}

/// Has the kernel write what of a file isn't on the disk yet, and doesn't wait for it.
pub fn begin_writing_back(file: &File) -> io::Result<()> {
    // SAFETY: it touches no memory of this process, and the descriptor is open.
    let begun = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    if begun == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// From linux/fs.h. It counts 24 bytes, without the ranges in other files.
const FIDEDUPERANGE: Opcode = opcode::read_write::<[u64; 3]>(0x94, 54);

#[repr(C)]
struct SharedRange {
    from_offset: u64,
    length: u64,
    count: u16,
    reserved: [u16; 3],
    to: i64,
    to_offset: u64,
    shared: u64,
    status: i32,
    reserved_too: u32,
}

/// Has a file share what it has in common with another: the kernel looks whether it is the same.
/// Tells how many bytes they share then.
pub fn share_range(from: (&File, u64), to: (&File, u64), length: u64) -> io::Result<u64> {
    let mut range = SharedRange {
        from_offset: from.1,
        length,
        count: 1,
        reserved: [0; 3],
        to: to.0.as_raw_fd().into(),
        to_offset: to.1,
        shared: 0,
        status: 0,
        reserved_too: 0,
    };
    // SAFETY: both descriptors are open, and the kernel reads and writes no more than a range
    // with one other file, which is what it is shown.
    let done = unsafe { libc::ioctl(from.0.as_raw_fd(), FIDEDUPERANGE as _, &mut range) };
    match range.status {
        _ if done != 0 => Err(io::Error::last_os_error()),
        status if status < 0 => Err(io::Error::from_raw_os_error(-status)),
        // Zero, or a difference: then nothing is shared.
        _ => Ok(range.shared),
    }
}

/// Makes a mount that is attached nowhere show other owners: those of a user namespace.
pub fn map_owners(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd().cast_unsigned().into(),
    };
    // SAFETY: the path is an empty string, the structure outlives the call, and its
    // size is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

nix::ioctl_read_bad!(read_interface_flags, libc::SIOCGIFFLAGS, libc::ifreq);
nix::ioctl_write_ptr_bad!(write_interface_flags, libc::SIOCSIFFLAGS, libc::ifreq);

/// Brings the loopback interface of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: ifreq is plain old data; all zeroes is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as _;
    }
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the socket is open and the request outlives both calls; the kernel
    // fills in `ifru_flags`, the one union field these calls use.
    unsafe {
        read_interface_flags(fd, &mut request)?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as i16;
        write_interface_flags(fd, &request)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_time_signals_are_signals() {
        assert_eq!(signal(64).map(Signal::as_raw), Some(64));
        assert_eq!(signal(0), None);
        assert_eq!(signal(65), None);
    }

    #[test]
    fn code_that_was_let_go_still_runs() {
        let line = "7f1000-7f3000 r-xp 00012000 fe:00 42   /usr/bin/shim";
        assert_eq!(code_range(line), Some(0x7f_1000..0x7f_3000));
        assert_eq!(code_range(&line.replace("r-xp", "rw-p")), None);
        for _ in 0..3 {
            let_go_of_code().unwrap();
        }
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_not_inherited() {
        // No process may have so many; a lower one may be another test's.
        assert!(inherited(i32::MAX).is_err());
    }
}

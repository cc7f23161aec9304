//! Descriptors of the kernel's own making.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::libc;

use super::raw::{address, call, descriptor, fork, pause, room};
use super::{Check, Kind};

const LONG: i64 = 3600;

pub(super) const KINDS: &[Kind] = &[
    ("eventfd", |_| counter()),
    ("signalfd", |_| signals()),
    ("timerfd", |_| timer()),
    ("epoll", |_| epoll()),
    ("inotify", inotify),
    ("inotify-deleted", inotify_deleted),
    ("inotify-unread", inotify_unread),
    ("fanotify", fanotify),
    ("memfd", |_| memory(false)),
    ("memfd-sealed", |_| memory(true)),
    ("pidfd", |_| living()),
    ("pidfd-dead", |_| dead()),
    ("io-uring", |_| rings()),
    ("userfaultfd", |_| opaque(libc::SYS_userfaultfd, &[1])),
    ("perf-event", |_| performance()),
    ("landlock-ruleset", |_| landlock()),
    ("fscontext", |_| opaque(libc::SYS_fsopen, &[address(c"tmpfs"), 0])),
    ("namespace", |_| namespace()),
    ("dead-proc", |_| dead_proc()),
];

fn opaque(number: libc::c_long, arguments: &[usize]) -> io::Result<Check> {
    let held = descriptor(number, arguments)?;
    Ok(Box::new(move || Ok(held.as_raw_fd() > 2)))
}

fn event(value: usize) -> io::Result<File> {
    Ok(descriptor(libc::SYS_eventfd2, &[value, 0])?.into())
}

fn counter() -> io::Result<Check> {
    let mut held = event(7)?;
    Ok(Box::new(move || {
        let mut value = [0; 8];
        held.read_exact(&mut value)?;
        held.write_all(&value)?;
        Ok(u64::from_ne_bytes(value) == 7)
    }))
}

fn signal_file() -> io::Result<File> {
    let set: u64 = 1 << (libc::SIGUSR2 - 1);
    call(libc::SYS_rt_sigprocmask, &[libc::SIG_BLOCK as usize, address(&set), 0, 8])?;
    Ok(descriptor(libc::SYS_signalfd4, &[usize::MAX, address(&set), 8, 0])?.into())
}

fn signals() -> io::Result<Check> {
    let mut held = signal_file()?;
    Ok(Box::new(move || {
        call(libc::SYS_kill, &[std::process::id() as usize, libc::SIGUSR2 as usize])?;
        let mut told = [0; 128];
        held.read_exact(&mut told)?;
        Ok(told[..4] == libc::SIGUSR2.to_ne_bytes())
    }))
}

fn timer_file() -> io::Result<OwnedFd> {
    let timer = descriptor(libc::SYS_timerfd_create, &[libc::CLOCK_MONOTONIC as usize, 0])?;
    let times: [i64; 4] = [0, 0, LONG, 0];
    call(libc::SYS_timerfd_settime, &[timer.as_raw_fd() as usize, 0, address(&times), 0])?;
    Ok(timer)
}

fn timer() -> io::Result<Check> {
    let held = timer_file()?;
    Ok(Box::new(move || {
        let mut left = [0_i64; 4];
        call(libc::SYS_timerfd_gettime, &[held.as_raw_fd() as usize, room(&mut left)])?;
        Ok((LONG - 600..=LONG).contains(&left[2]))
    }))
}

/// Waits for four kinds at once, one of which has something to tell.
fn epoll() -> io::Result<Check> {
    let held = descriptor(libc::SYS_epoll_create1, &[0])?;
    let (read, write) = io::pipe()?;
    let (event, signals, timer) = (event(7)?, signal_file()?, timer_file()?);
    let watched = [event.as_raw_fd(), signals.as_raw_fd(), timer.as_raw_fd(), read.as_raw_fd()];
    for file in watched {
        let wanted = libc::epoll_event { events: libc::EPOLLIN as u32, u64: file as u64 };
        let arguments = [held.as_raw_fd(), libc::EPOLL_CTL_ADD, file].map(|number| number as usize);
        call(libc::SYS_epoll_ctl, &[&arguments[..], &[address(&wanted)]].concat())?;
    }
    Ok(Box::new(move || {
        let _kept = (&signals, &timer, &read, &write);
        let mut told = [libc::epoll_event { events: 0, u64: 0 }; 4];
        let count = call(libc::SYS_epoll_pwait, &[held.as_raw_fd() as usize, room(&mut told), 4, 0, 0, 8])?;
        Ok(count == 1 && { told[0].u64 } == event.as_raw_fd() as u64)
    }))
}

fn watching(path: &str) -> io::Result<File> {
    let held: File = descriptor(libc::SYS_inotify_init1, &[0])?.into();
    watch(&held, path)?;
    Ok(held)
}

fn watch(inotify: &File, path: &str) -> io::Result<usize> {
    let path = std::ffi::CString::new(path)?;
    let mask = libc::IN_CREATE as usize;
    call(libc::SYS_inotify_add_watch, &[inotify.as_raw_fd() as usize, address(path.as_c_str()), mask])
}

/// Whether it hears of a new file in the folder.
fn hears(inotify: &mut File, folder: &str) -> io::Result<bool> {
    fs::write(format!("{folder}/new"), "")?;
    fs::remove_file(format!("{folder}/new"))?;
    let mut told = [0; 256];
    let length = inotify.read(&mut told)?;
    Ok(told[..length].windows(4).any(|name| name == b"new\0"))
}

fn inotify(folder: &str) -> io::Result<Check> {
    fs::create_dir_all(folder)?;
    let (mut held, folder) = (watching(folder)?, folder.to_owned());
    Ok(Box::new(move || hears(&mut held, &folder)))
}

/// The folder is kept by a descriptor, so the watch stays with it.
fn inotify_deleted(folder: &str) -> io::Result<Check> {
    fs::create_dir_all(folder)?;
    let (held, kept) = (watching(folder)?, File::open(folder)?);
    fs::remove_dir(folder)?;
    Ok(Box::new(move || Ok(kept.metadata()?.is_dir() && held.as_raw_fd() > 2)))
}

/// It has been told of a file, and asks later.
fn inotify_unread(folder: &str) -> io::Result<Check> {
    fs::create_dir_all(folder)?;
    let mut held: File = descriptor(libc::SYS_inotify_init1, &[libc::IN_NONBLOCK as usize])?.into();
    watch(&held, folder)?;
    fs::write(format!("{folder}/new"), "")?;
    Ok(Box::new(move || Ok(held.read(&mut [0; 256])? > 0)))
}

fn fanotify(folder: &str) -> io::Result<Check> {
    fs::create_dir_all(folder)?;
    let held: File = descriptor(libc::SYS_fanotify_init, &[libc::FAN_CLASS_NOTIF as usize, 0])?.into();
    let path = std::ffi::CString::new(folder)?;
    let (file, mask) = (held.as_raw_fd() as usize, libc::FAN_OPEN | libc::FAN_EVENT_ON_CHILD);
    let here = libc::AT_FDCWD as isize as usize;
    let add = libc::FAN_MARK_ADD as usize;
    call(libc::SYS_fanotify_mark, &[file, add, mask as usize, here, address(path.as_c_str())])?;
    let (mut held, folder) = (held, folder.to_owned());
    Ok(Box::new(move || {
        fs::write(format!("{folder}/new"), "")?;
        let mut told = [0; 256];
        Ok(held.read(&mut told)? > 0)
    }))
}

fn memory(seals: bool) -> io::Result<Check> {
    let mut held: File =
        descriptor(libc::SYS_memfd_create, &[address(c"kept"), libc::MFD_ALLOW_SEALING as usize])?.into();
    held.write_all(b"kept")?;
    let file = held.as_raw_fd() as usize;
    let wanted = if seals { (libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK) as usize } else { 0 };
    call(libc::SYS_fcntl, &[file, libc::F_ADD_SEALS as usize, wanted])?;
    Ok(Box::new(move || {
        let seals = call(libc::SYS_fcntl, &[file, libc::F_GET_SEALS as usize])?;
        let content = fs::read(format!("/proc/self/fd/{}", held.as_raw_fd()))?;
        Ok(content == b"kept" && seals == wanted)
    }))
}

fn pidfd(pid: u32) -> io::Result<RawFd> {
    use std::os::fd::IntoRawFd;
    Ok(descriptor(libc::SYS_pidfd_open, &[pid as usize, 0])?.into_raw_fd())
}

fn living() -> io::Result<Check> {
    let held = pidfd(fork(0, pause)?)?;
    Ok(Box::new(move || Ok(call(libc::SYS_pidfd_send_signal, &[held as usize, 0, 0, 0]).is_ok())))
}

fn ended() -> io::Result<(u32, impl FnOnce() -> io::Result<usize>)> {
    let child = fork(0, pause)?;
    let end = move || {
        call(libc::SYS_kill, &[child as usize, libc::SIGKILL as usize])?;
        call(libc::SYS_wait4, &[child as usize, 0, 0, 0])
    };
    Ok((child, end))
}

fn dead() -> io::Result<Check> {
    let (child, end) = ended()?;
    let held = pidfd(child)?;
    end()?;
    Ok(Box::new(move || {
        let sent = call(libc::SYS_pidfd_send_signal, &[held as usize, 0, 0, 0]);
        Ok(sent.is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)))
    }))
}

fn dead_proc() -> io::Result<Check> {
    let (child, end) = ended()?;
    let mut held = File::open(format!("/proc/{child}/status"))?;
    end()?;
    Ok(Box::new(move || {
        let read = held.read(&mut [0; 16]);
        Ok(read.is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)))
    }))
}

fn rings() -> io::Result<Check> {
    let mut parameters = [0_u64; 15];
    opaque(libc::SYS_io_uring_setup, &[8, room(&mut parameters)])
}

fn performance() -> io::Result<Check> {
    // A software clock of this process, of the user's side alone.
    let mut attributes = [0_u64; 17];
    attributes[0] = 1 | (136 << 32);
    attributes[5] = 1 << 5;
    opaque(libc::SYS_perf_event_open, &[address(&attributes), 0, usize::MAX, usize::MAX, 0])
}

fn landlock() -> io::Result<Check> {
    let handled = [1_u64];
    opaque(libc::SYS_landlock_create_ruleset, &[address(&handled), 8, 0])
}

fn namespace() -> io::Result<Check> {
    let held = File::open("/proc/self/ns/uts")?;
    Ok(Box::new(move || {
        let now = fs::read_link("/proc/self/ns/uts")?;
        Ok(fs::read_link(format!("/proc/self/fd/{}", held.as_raw_fd()))? == now)
    }))
}

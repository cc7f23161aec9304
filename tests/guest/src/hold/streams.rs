//! Pipes, with what is in them, and queues of messages.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

use nix::libc;

use super::raw::{address, call, descriptor, room};
use super::{Check, Kind};

pub(super) const KINDS: &[Kind] = &[
    ("fifo", |_| fifo()),
    ("full-pipe", |_| full()),
    ("packet-pipe", |_| packets()),
    ("sysv-messages", |_| sysv_messages()),
    ("sysv-semaphore", |_| sysv_semaphore()),
    ("posix-queue", |_| posix_queue(false)),
    ("posix-queue-closed", |_| posix_queue(true)),
];

fn passes(from: &mut impl Write, to: &mut impl Read) -> io::Result<bool> {
    from.write_all(b"across")?;
    let mut heard = [0; 6];
    to.read_exact(&mut heard)?;
    Ok(&heard == b"across")
}

fn fifo() -> io::Result<Check> {
    let here = libc::AT_FDCWD as isize as usize;
    call(libc::SYS_mknodat, &[here, address(c"/tmp/fifo"), (libc::S_IFIFO | 0o600) as usize, 0])?;
    let mut held = OpenOptions::new().read(true).write(true).open("/tmp/fifo")?;
    held.write_all(b"before")?;
    Ok(Box::new(move || {
        let mut heard = [0; 6];
        held.read_exact(&mut heard)?;
        let mut other = held.try_clone()?;
        let passed = passes(&mut other, &mut held)?;
        held.write_all(b"before")?;
        Ok(passed && &heard == b"before")
    }))
}

fn full() -> io::Result<Check> {
    let (mut read, write) = io::pipe()?;
    rustix::io::ioctl_fionbio(&write, true)?;
    let mut written = 0;
    while let Ok(more) = rustix::io::write(&write, &[7; 1024]) {
        written += more;
    }
    Ok(Box::new(move || {
        let mut all = vec![0; written];
        read.read_exact(&mut all)?;
        rustix::io::write(&write, &all)?;
        Ok(all.iter().all(|byte| *byte == 7))
    }))
}

fn packets() -> io::Result<Check> {
    let mut ends = [0_i32; 2];
    call(libc::SYS_pipe2, &[room(&mut ends), libc::O_DIRECT as usize])?;
    let [read, write] = ends.map(|end| end as usize);
    for word in ["one", "three"] {
        call(libc::SYS_write, &[write, address(word), word.len()])?;
    }
    Ok(Box::new(move || {
        let mut heard = [0_u8; 64];
        Ok(call(libc::SYS_read, &[read, room(&mut heard), 64])? == 3)
    }))
}

fn sysv_messages() -> io::Result<Check> {
    let queue = call(libc::SYS_msgget, &[7, 0o1600])?;
    let message: [u64; 2] = [1, u64::from_ne_bytes(*b"keptkept")];
    call(libc::SYS_msgsnd, &[queue, address(&message), 8, 0])?;
    Ok(Box::new(move || {
        let mut found = [0_u64; 2];
        call(libc::SYS_msgrcv, &[queue, room(&mut found), 8, 0, libc::IPC_NOWAIT as usize])?;
        call(libc::SYS_msgsnd, &[queue, address(&found), 8, 0])?;
        Ok(found == message)
    }))
}

fn sysv_semaphore() -> io::Result<Check> {
    let set = call(libc::SYS_semget, &[7, 1, 0o1600])?;
    call(libc::SYS_semctl, &[set, 0, libc::SETVAL as usize, 7])?;
    Ok(Box::new(move || Ok(call(libc::SYS_semctl, &[set, 0, libc::GETVAL as usize, 0])? == 7)))
}

fn posix_queue(closes: bool) -> io::Result<Check> {
    let name = CString::new("kept")?;
    let flags = (libc::O_CREAT | libc::O_RDWR) as usize;
    let queue = descriptor(libc::SYS_mq_open, &[address(name.as_c_str()), flags, 0o600, 0])?;
    let file = queue.as_raw_fd() as usize;
    call(libc::SYS_mq_timedsend, &[file, address("kept"), 4, 0, 0])?;
    if closes {
        drop(queue);
        return Ok(Box::new(|| fs::exists("/dev/mqueue/kept")));
    }
    Ok(Box::new(move || {
        let _held = &queue;
        let mut found = [0_u8; 8192];
        let length = call(libc::SYS_mq_timedreceive, &[file, room(&mut found), 8192, 0, 0])?;
        call(libc::SYS_mq_timedsend, &[file, address("kept"), 4, 0, 0])?;
        Ok(&found[..length] == b"kept")
    }))
}

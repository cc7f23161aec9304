//! Memory of uncommon kinds, and what the kernel was told about it.

use std::io;
use std::time::Instant;

use nix::libc;

use super::raw::{call, fork, map, read, room, write};
use super::{Check, Kind};

const PAGE: usize = 4096;
const BOTH: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const SHARED: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;

pub(super) const KINDS: &[Kind] = &[
    ("shared-memory", |_| shared()),
    ("sysv-memory", |_| sysv()),
    ("aio", |_| aio()),
    ("secret-memory", |_| secret()),
    ("hugetlb", |_| written(PRIVATE | libc::MAP_HUGETLB, 0)),
    ("grows-down", |_| written(PRIVATE | libc::MAP_GROWSDOWN | libc::MAP_STACK, 0)),
    ("dont-fork", |_| written(PRIVATE, libc::MADV_DONTFORK)),
    ("wipe-on-fork", |_| written(PRIVATE, libc::MADV_WIPEONFORK)),
    ("huge-pages", |_| written(PRIVATE, libc::MADV_HUGEPAGE)),
    ("guard-pages", |_| guarded()),
    ("locked-memory", |_| locked()),
    ("sealed-memory", |_| sealed()),
    ("protected", |_| protected()),
    ("clock", |_| clock()),
    ("rseq", |_| rseq()),
    ("membarrier", |_| membarrier()),
];

/// Between a parent and its child, which repeats what it sees.
fn shared() -> io::Result<Check> {
    let at = map(PAGE, BOTH, SHARED, -1)?;
    fork(0, move || {
        loop {
            write(at + 8, read(at));
            call(libc::SYS_sched_yield, &[])?;
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    })?;
    Ok(Box::new(move || {
        let next = read(at) + 1;
        write(at, next);
        let begun = Instant::now();
        while read(at + 8) != next && begun.elapsed().as_secs() < 10 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(read(at + 8) == next)
    }))
}

fn sysv() -> io::Result<Check> {
    let segment = call(libc::SYS_shmget, &[7, PAGE, 0o1600])?;
    let at = call(libc::SYS_shmat, &[segment, 0, 0])?;
    write(at, 7);
    Ok(Box::new(move || Ok(read(at) == 7 && call(libc::SYS_shmget, &[7, PAGE, 0])? == segment)))
}

fn aio() -> io::Result<Check> {
    let mut context = 0_usize;
    call(libc::SYS_io_setup, &[8, room(&mut context)])?;
    Ok(Box::new(move || {
        let mut events = [0_u64; 4];
        Ok(call(libc::SYS_io_getevents, &[context, 0, 1, room(&mut events), 0])? == 0)
    }))
}

fn secret() -> io::Result<Check> {
    let file = call(libc::SYS_memfd_secret, &[0])?;
    call(libc::SYS_ftruncate, &[file, PAGE])?;
    let at = map(PAGE, BOTH, libc::MAP_SHARED, file as i32)?;
    call(libc::SYS_close, &[file])?;
    write(at, 7);
    Ok(Box::new(move || Ok(read(at) == 7)))
}

fn advise(at: usize, bytes: usize, advice: i32) -> io::Result<usize> {
    call(libc::SYS_madvise, &[at, bytes, advice as usize])
}

fn written(flags: i32, advice: i32) -> io::Result<Check> {
    const BYTES: usize = 2 << 20;
    let at = match map(BYTES, BOTH, flags, -1) {
        // Nobody has set huge pages aside.
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        mapped => mapped?,
    };
    if advice != 0 {
        advise(at, BYTES, advice)?;
    }
    write(at + BYTES - 8, 7);
    Ok(Box::new(move || Ok(read(at + BYTES - 8) == 7)))
}

/// A stack's end as C libraries have come to make it.
fn guarded() -> io::Result<Check> {
    const GUARD_INSTALL: i32 = 102;
    let at = map(4 * PAGE, BOTH, PRIVATE, -1)?;
    if advise(at, PAGE, GUARD_INSTALL).is_err() {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    write(at + PAGE, 7);
    Ok(Box::new(move || {
        // The kernel refuses to read for us what we must not touch.
        let (_read, file) = io::pipe()?;
        let file = std::os::fd::AsRawFd::as_raw_fd(&file) as usize;
        Ok(read(at + PAGE) == 7 && call(libc::SYS_write, &[file, at, 8]).is_err())
    }))
}

fn locked() -> io::Result<Check> {
    let at = map(PAGE, BOTH, PRIVATE, -1)?;
    call(libc::SYS_mlock, &[at, PAGE])?;
    write(at, 7);
    Ok(Box::new(move || {
        let status = std::fs::read_to_string("/proc/self/status")?;
        Ok(read(at) == 7 && status.lines().any(|line| line.starts_with("VmLck:") && line.contains(" 4 kB")))
    }))
}

fn sealed() -> io::Result<Check> {
    const MSEAL: libc::c_long = 462;
    let at = map(PAGE, BOTH, PRIVATE, -1)?;
    write(at, 7);
    call(MSEAL, &[at, PAGE, 0])?;
    Ok(Box::new(move || Ok(read(at) == 7)))
}

fn protected() -> io::Result<Check> {
    let at = map(PAGE, BOTH, PRIVATE, -1)?;
    write(at, 7);
    call(libc::SYS_mprotect, &[at, PAGE, 0])?;
    Ok(Box::new(move || {
        call(libc::SYS_mprotect, &[at, PAGE, libc::PROT_READ as usize])?;
        let kept = read(at) == 7;
        call(libc::SYS_mprotect, &[at, PAGE, 0])?;
        Ok(kept)
    }))
}

/// By the page that the kernel lends to every program.
fn clock() -> io::Result<Check> {
    let (begun, mut last) = (Instant::now(), Instant::now());
    Ok(Box::new(move || {
        let now = Instant::now();
        let goes_on = now >= last && begun.elapsed().as_secs() < 600;
        last = now;
        Ok(goes_on)
    }))
}

fn rseq() -> io::Result<Check> {
    const SIGNATURE: usize = 0x5305_3053;
    let at = map(PAGE, BOTH, PRIVATE, -1)?;
    // No processor yet.
    write(at, u64::from(u32::MAX) << 32);
    call(libc::SYS_rseq, &[at, 32, 0, SIGNATURE])?;
    Ok(Box::new(move || {
        write(at, u64::from(u32::MAX) << 32);
        std::thread::sleep(std::time::Duration::from_millis(1));
        Ok((read(at) >> 32) as u32 != u32::MAX)
    }))
}

fn membarrier() -> io::Result<Check> {
    const REGISTER_PRIVATE: usize = 1 << 4;
    const PRIVATE: usize = 1 << 3;
    call(libc::SYS_membarrier, &[REGISTER_PRIVATE, 0, 0])?;
    Ok(Box::new(|| Ok(call(libc::SYS_membarrier, &[PRIVATE, 0, 0]).is_ok())))
}

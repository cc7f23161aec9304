//! System calls that no library wraps, or wraps as unsafe. What is handed over by address
//! has to live as long as the kernel may look at it; what is mapped stays for good.
#![allow(unsafe_code, reason = "a test program, which does to itself what it likes")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc::{self, c_long};
use nix::unistd::Pid;

/// A call that the kernel, or this kernel's configuration, doesn't have.
pub(super) fn is_lack(error: &io::Error) -> bool {
    let lacking = [
        libc::ENOSYS,
        libc::EAFNOSUPPORT,
        libc::EPROTONOSUPPORT,
        libc::ESOCKTNOSUPPORT,
        libc::EOPNOTSUPP,
        libc::ENODEV,
    ];
    error.raw_os_error().is_some_and(|number| lacking.contains(&number))
}

pub(super) fn call(number: c_long, arguments: &[usize]) -> io::Result<usize> {
    let all: [usize; 6] = std::array::from_fn(|at| arguments.get(at).copied().unwrap_or_default());
    // SAFETY: addresses among them are of objects that outlive the call.
    let result = unsafe { libc::syscall(number, all[0], all[1], all[2], all[3], all[4], all[5]) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

pub(super) fn descriptor(number: c_long, arguments: &[usize]) -> io::Result<OwnedFd> {
    Ok(owned(call(number, arguments)? as i32))
}

/// A descriptor that the kernel has just made for us.
pub(super) fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: nobody else has it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

pub(super) fn address<T: ?Sized>(of: &T) -> usize {
    std::ptr::from_ref(of).cast::<u8>().expose_provenance()
}

/// Where the kernel shall write.
pub(super) fn room<T: ?Sized>(of: &mut T) -> usize {
    std::ptr::from_mut(of).cast::<u8>().expose_provenance()
}

/// Memory for good.
pub(super) fn map(bytes: usize, protection: i32, flags: i32, file: i32) -> io::Result<usize> {
    let file = file as isize as usize;
    call(libc::SYS_mmap, &[0, bytes, protection as usize, flags as usize, file, 0])
}

pub(super) fn read(at: usize) -> u64 {
    // SAFETY: at is in memory that was mapped for good and may be read.
    unsafe { std::ptr::with_exposed_provenance::<u64>(at).read_volatile() }
}

pub(super) fn write(at: usize, value: u64) {
    // SAFETY: at is in memory that was mapped for good and may be written.
    unsafe { std::ptr::with_exposed_provenance_mut::<u64>(at).write_volatile(value) }
}

/// A child without a program of its own. `flags` are clone's.
pub(super) fn fork(flags: i32, child: impl FnOnce() -> io::Result<()>) -> io::Result<u32> {
    let pid = call(libc::SYS_clone, &[(flags | libc::SIGCHLD) as usize])?;
    if pid == 0 {
        let status = i32::from(child().is_err());
        let _ = call(libc::SYS_exit_group, &[status as usize]);
    }
    Ok(pid as u32)
}

/// Starts a program that has to open a file first, on its parent's time and in its memory.
pub(super) fn spawn(program: &CStr, file: &CStr) -> io::Result<Pid> {
    let mut child = 0;
    let arguments = [c"guest", c"exit", c"0"].map(|argument| argument.as_ptr().cast_mut());
    let arguments = [&arguments[..], &[std::ptr::null_mut()]].concat();
    // SAFETY: all that is pointed at outlives the call, and the actions are initialized first.
    let error = unsafe {
        let mut actions = std::mem::zeroed();
        libc::posix_spawn_file_actions_init(&raw mut actions);
        libc::posix_spawn_file_actions_addopen(&raw mut actions, 3, file.as_ptr(), libc::O_RDONLY, 0);
        let environment = [std::ptr::null_mut()];
        libc::posix_spawn(
            &raw mut child,
            program.as_ptr(),
            &raw const actions,
            std::ptr::null(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    if error == 0 { Ok(Pid::from_raw(child)) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Waits for good; only a signal ends it.
pub(super) fn pause() -> io::Result<()> {
    loop {
        let _interrupted = call(libc::SYS_ppoll, &[]);
    }
}

pub(super) fn stack(alternate: Option<(usize, usize)>) -> io::Result<(usize, usize)> {
    let new = alternate.map(|(at, size)| libc::stack_t {
        ss_sp: std::ptr::with_exposed_provenance_mut(at),
        ss_flags: 0,
        ss_size: size,
    });
    let mut old = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    let new = new.as_ref().map_or(0, address);
    call(libc::SYS_sigaltstack, &[new, room(&mut old)])?;
    Ok((old.ss_sp as usize, old.ss_size))
}

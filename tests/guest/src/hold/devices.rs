//! Devices, and file systems that a program serves by itself.

use std::ffi::{CStr, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

use super::raw::{address, call, map, room};
use super::{Check, Kind};

const PAGE: usize = 4096;

pub(super) const KINDS: &[Kind] = &[
    ("device", |numbers| opened(numbers, libc::S_IFCHR)),
    ("disk", |numbers| opened(numbers, libc::S_IFBLK)),
    ("device-mapped", mapped),
    ("tun", |_| tun(true)),
    ("tun-unattached", |_| tun(false)),
    ("fuse", |_| fuse()),
    ("terminal", |_| terminal()),
    ("terminal-foreign", |_| foreign_terminal()),
];

/// A device by its numbers: MAJOR:MINOR.
fn device(numbers: &str, kind: u32) -> io::Result<File> {
    node(c"/dev/held", numbers, kind)
}

fn node(path: &CStr, numbers: &str, kind: u32) -> io::Result<File> {
    let bad = || io::Error::other("a device is MAJOR:MINOR");
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let (major, minor): (u32, u32) = (major.parse().map_err(|_| bad())?, minor.parse().map_err(|_| bad())?);
    let number = libc::makedev(major, minor) as usize;
    let here = libc::AT_FDCWD as isize as usize;
    let mode = (kind | 0o600) as usize;
    call(libc::SYS_mknodat, &[here, address(path), mode, number])?;
    OpenOptions::new().read(true).write(true).open(OsStr::from_bytes(path.to_bytes()))
}

fn opened(numbers: &str, kind: u32) -> io::Result<Check> {
    let held = match device(numbers, kind) {
        // There is no such thing here.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        opened => opened?,
    };
    Ok(Box::new(move || Ok(held.metadata().is_ok())))
}

fn mapped(numbers: &str) -> io::Result<Check> {
    let file = device(numbers, libc::S_IFCHR)?;
    let at = map(PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE, file.as_raw_fd())?;
    super::raw::write(at, 7);
    Ok(Box::new(move || Ok(super::raw::read(at) == 7)))
}

fn tun(attaches: bool) -> io::Result<Check> {
    fs::create_dir_all("/dev/net")?;
    let file = node(c"/dev/net/tun", "10:200", libc::S_IFCHR)?;
    if !attaches {
        return Ok(Box::new(move || Ok(file.metadata().is_ok())));
    }
    let mut request = [0_u8; 40];
    request[..4].copy_from_slice(b"tun7");
    // A tun without packet information.
    request[16..18].copy_from_slice(&0x1001_u16.to_ne_bytes());
    call(libc::SYS_ioctl, &[file.as_raw_fd() as usize, 0x4004_54ca, room(&mut request)])?;
    Ok(Box::new(move || {
        let _held = &file;
        Ok(fs::exists("/sys/class/net/tun7")? || fs::read_to_string("/proc/net/dev")?.contains("tun7"))
    }))
}

/// A mount that nobody answers for.
fn fuse() -> io::Result<Check> {
    let file = device("10:229", libc::S_IFCHR)?;
    fs::create_dir_all("/mnt")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", file.as_raw_fd());
    let options = std::ffi::CString::new(options)?;
    let names = [c"fuse", c"/mnt", c"fuse"].map(address);
    call(libc::SYS_mount, &[names[0], names[1], names[2], 0, address(options.as_c_str())])?;
    Ok(Box::new(move || Ok(file.as_raw_fd() > 2)))
}

/// Both ends of a pseudo terminal, with something typed.
fn terminal() -> io::Result<Check> {
    let (controller, user) = pair()?;
    Ok(Box::new(move || {
        rustix::io::write(&controller, b"typed\n")?;
        let mut heard = [0; 6];
        rustix::io::read(&user, &mut heard)?;
        Ok(&heard == b"typed\n")
    }))
}

fn pair() -> io::Result<(std::os::fd::OwnedFd, File)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let name = ptsname(&controller, Vec::new())?;
    let name = name.to_string_lossy().into_owned();
    Ok((controller, OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name)?))
}

/// A child in a session of its own, on a terminal that its parent serves.
fn foreign_terminal() -> io::Result<Check> {
    let (controller, user) = pair()?;
    let (mut told, mut tell) = io::pipe()?;
    let child = super::raw::fork(0, || {
        call(libc::SYS_setsid, &[])?;
        call(libc::SYS_ioctl, &[user.as_raw_fd() as usize, libc::TIOCSCTTY as usize, 0])?;
        tell.write_all(b"x")?;
        let mut line = [0; 64];
        loop {
            // A dump may interrupt it.
            let length = rustix::io::retry_on_intr(|| rustix::io::read(&user, &mut line))?;
            rustix::io::write(&user, &line[..length])?;
        }
    })?;
    drop(tell);
    told.read_exact(&mut [0])?;
    Ok(Box::new(move || {
        rustix::io::write(&controller, b"typed\n")?;
        let mut heard = [0; 64];
        let length = rustix::io::read(&controller, &mut heard)?;
        Ok(child > 0 && heard[..length].starts_with(b"typed"))
    }))
}

//! Files in odd states: without a name, moved, locked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

use super::raw::{address, call, descriptor, map, room};
use super::{Check, Kind};

const PAGE: usize = 4096;
const BIG: u64 = 1 << 30;

pub(super) const KINDS: &[Kind] = &[
    ("path-only", |_| path_only()),
    ("nameless", |_| nameless()),
    ("renamed", |_| renamed()),
    ("copied-up", |_| copied_up()),
    ("lost-name", |_| lost_name()),
    ("deleted-folder", |_| deleted_folder()),
    ("deleted-home", |_| deleted_home()),
    ("deleted-program", |_| deleted_program()),
    ("deleted-self", |_| deleted_self()),
    ("deleted-mapping", |_| deleted_mapping(libc::MAP_SHARED)),
    ("deleted-library", |_| deleted_mapping(libc::MAP_PRIVATE)),
    ("sparse", |_| sparse()),
    ("big-mapping", |_| big_mapping()),
    ("dev-shm", |_| dev_shm()),
    ("open-lock", |_| open_lock()),
    ("lease", |_| lease()),
];

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}

fn with_content(path: &str, content: &[u8]) -> io::Result<File> {
    let mut file = open(path)?;
    file.write_all(content)?;
    Ok(file)
}

fn content_is(file: &File, wanted: &[u8]) -> io::Result<bool> {
    let mut found = vec![0; wanted.len()];
    file.read_exact_at(&mut found, 0)?;
    Ok(found == wanted)
}

fn path_only() -> io::Result<Check> {
    // The C library's idea of a file's mode hides this flag from Rust's.
    let here = libc::AT_FDCWD as isize as usize;
    let held = descriptor(libc::SYS_openat, &[here, address(c"/etc/passwd"), libc::O_PATH as usize, 0])?;
    let held = File::from(held);
    Ok(Box::new(move || {
        Ok(held.metadata()?.ino() == fs::metadata("/etc/passwd")?.ino() && (&held).read(&mut [0; 8]).is_err())
    }))
}

fn nameless() -> io::Result<Check> {
    let held = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open("/tmp")?;
    held.write_all_at(b"kept", 0)?;
    Ok(Box::new(move || Ok(content_is(&held, b"kept")? && held.metadata()?.nlink() == 0)))
}

fn renamed() -> io::Result<Check> {
    let held = with_content("/tmp/before", b"kept")?;
    fs::rename("/tmp/before", "/tmp/after")?;
    Ok(Box::new(move || Ok(content_is(&held, b"kept")? && held.metadata()?.nlink() == 1)))
}

/// Opened in the lower layer, then written to, which moves it to the upper one.
fn copied_up() -> io::Result<Check> {
    let held = File::open("/etc/passwd")?;
    OpenOptions::new().append(true).open("/etc/passwd")?.write_all(b"more\n")?;
    Ok(Box::new(move || content_is(&held, b"root:")))
}

/// The one it was opened by, of two.
fn lost_name() -> io::Result<Check> {
    let held = with_content("/tmp/one", b"kept")?;
    fs::hard_link("/tmp/one", "/tmp/two")?;
    fs::remove_file("/tmp/one")?;
    Ok(Box::new(move || {
        Ok(content_is(&held, b"kept")? && held.metadata()?.ino() == fs::metadata("/tmp/two")?.ino())
    }))
}

fn deleted_folder() -> io::Result<Check> {
    fs::create_dir("/tmp/gone")?;
    let held = File::open("/tmp/gone")?;
    fs::remove_dir("/tmp/gone")?;
    Ok(Box::new(move || Ok(held.metadata()?.is_dir() && !fs::exists("/tmp/gone")?)))
}

fn deleted_home() -> io::Result<Check> {
    fs::create_dir("/tmp/gone")?;
    std::env::set_current_dir("/tmp/gone")?;
    fs::remove_dir("/tmp/gone")?;
    Ok(Box::new(|| Ok(fs::metadata(".")?.is_dir() && std::env::current_dir().is_err())))
}

fn deleted_program() -> io::Result<Check> {
    fs::copy(std::env::current_exe()?, "/tmp/program")?;
    Err(Command::new("/tmp/program").args(["hold", "deleted-self"]).exec())
}

fn deleted_self() -> io::Result<Check> {
    fs::remove_file("/tmp/program")?;
    Ok(Box::new(|| Ok(fs::read_link("/proc/self/exe")?.to_string_lossy().ends_with(" (deleted)"))))
}

fn deleted_mapping(flags: i32) -> io::Result<Check> {
    let file = with_content("/tmp/mapped", &[7; PAGE])?;
    let at = map(PAGE, libc::PROT_READ, flags, file.as_raw_fd())?;
    fs::remove_file("/tmp/mapped")?;
    Ok(Box::new(move || Ok(super::raw::read(at) == u64::from_ne_bytes([7; 8]))))
}

/// Large by its length, and small on the disk.
fn sparse() -> io::Result<Check> {
    let held = open("/tmp/sparse")?;
    held.write_all_at(b"kept", BIG)?;
    fs::remove_file("/tmp/sparse")?;
    Ok(Box::new(move || {
        let mut found = [0; 4];
        held.read_exact_at(&mut found, BIG)?;
        Ok(&found == b"kept" && held.metadata()?.blocks() < 1024)
    }))
}

fn big_mapping() -> io::Result<Check> {
    let file = open("/tmp/big")?;
    file.write_all_at(b"keptkept", 0)?;
    file.set_len(BIG)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let at = map(BIG as usize, protection, libc::MAP_SHARED, file.as_raw_fd())?;
    Ok(Box::new(move || Ok(super::raw::read(at) == u64::from_ne_bytes(*b"keptkept"))))
}

fn dev_shm() -> io::Result<Check> {
    let file = with_content("/dev/shm/kept", &[7; PAGE])?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let at = map(PAGE, protection, libc::MAP_SHARED, file.as_raw_fd())?;
    Ok(Box::new(move || {
        let next = super::raw::read(at) + 1;
        super::raw::write(at, next);
        // Whoever opens it sees the same memory.
        Ok(fs::read("/dev/shm/kept")?[..8] == next.to_ne_bytes())
    }))
}

/// l_type, l_whence, l_start, l_len and l_pid as the kernel lays them out.
fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

fn open_lock() -> io::Result<Check> {
    const SET: usize = 37;
    const GET: usize = 36;
    let held = open("/tmp/locked")?;
    let wanted = whole_file(libc::F_WRLCK);
    call(libc::SYS_fcntl, &[held.as_raw_fd() as usize, SET, address(&wanted)])?;
    Ok(Box::new(move || {
        let (_held, rival, mut asked) = (&held, open("/tmp/locked")?, whole_file(libc::F_WRLCK));
        call(libc::SYS_fcntl, &[rival.as_raw_fd() as usize, GET, room(&mut asked)])?;
        Ok(i32::from(asked.l_type) == libc::F_WRLCK)
    }))
}

fn lease() -> io::Result<Check> {
    drop(with_content("/tmp/leased", b"kept")?);
    let held = File::open("/tmp/leased")?;
    let file = held.as_raw_fd() as usize;
    call(libc::SYS_fcntl, &[file, libc::F_SETLEASE as usize, libc::F_RDLCK as usize])?;
    Ok(Box::new(move || {
        let _held = &held;
        Ok(call(libc::SYS_fcntl, &[file, libc::F_GETLEASE as usize])? == libc::F_RDLCK as usize)
    }))
}

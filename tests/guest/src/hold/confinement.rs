//! What a process may not do any more, and programs in the kernel.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

use super::raw::{address, call, descriptor, room};
use super::{Check, Kind};

pub(super) const KINDS: &[Kind] = &[
    ("no-new-privileges", |_| no_new_privileges()),
    ("capabilities", |_| capabilities()),
    ("user", |_| user()),
    ("seccomp", |_| seccomp()),
    ("seccomp-notify", |_| notify()),
    ("bpf-map", |_| map()),
    ("bpf-program", |_| program()),
    ("landlocked", |_| landlocked()),
];

/// A line of /proc/self/status.
fn status(key: &str) -> io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(key));
    Ok(line.unwrap_or_default().to_owned())
}

/// Stays as it is now.
fn stays(keys: &'static [&'static str]) -> io::Result<Check> {
    let all = || keys.iter().map(|key| status(key)).collect::<io::Result<Vec<String>>>();
    let before = all()?;
    Ok(Box::new(move || Ok(all()? == before)))
}

fn no_new_privileges() -> io::Result<Check> {
    call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as usize, 1])?;
    stays(&["NoNewPrivs"])
}

fn capabilities() -> io::Result<Check> {
    // Version 3, ourselves; then what is left: to bind low ports.
    let (header, left) = ([0x2008_0522_u32, 0], [1_u32 << 10, 1 << 10, 0, 0, 0, 0]);
    call(libc::SYS_capset, &[address(&header), address(&left)])?;
    stays(&["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
}

fn user() -> io::Result<Check> {
    let groups = [7_u32, 9];
    call(libc::SYS_setgroups, &[2, address(&groups)])?;
    call(libc::SYS_setresgid, &[77, 77, 77])?;
    call(libc::SYS_setresuid, &[77, 77, 77])?;
    stays(&["Uid", "Gid", "Groups", "CapEff", "CapBnd"])
}

/// One instruction of a filter: code, jumps, value.
fn instruction(code: u16, value: u32, over: u8) -> u64 {
    u64::from(code) | u64::from(over) << 16 | u64::from(value) << 32
}

/// Answers a call that nobody makes with an error of its own.
fn filter(flags: usize, last: u32) -> io::Result<usize> {
    call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as usize, 1])?;
    let program = [
        instruction(0x20, 0, 0),
        instruction(0x15, libc::SYS_acct as u32, 1),
        instruction(0x06, libc::SECCOMP_RET_ALLOW, 0),
        instruction(0x06, last, 0),
    ];
    let filter = [program.len() as u64, address(&program) as u64];
    call(libc::SYS_seccomp, &[libc::SECCOMP_SET_MODE_FILTER as usize, flags, address(&filter)])
}

fn seccomp() -> io::Result<Check> {
    filter(0, libc::SECCOMP_RET_ERRNO | 77)?;
    Ok(Box::new(|| {
        let refused = call(libc::SYS_acct, &[0]);
        Ok(refused.is_err_and(|error| error.raw_os_error() == Some(77)))
    }))
}

fn notify() -> io::Result<Check> {
    let held = filter(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as usize, libc::SECCOMP_RET_USER_NOTIF)?;
    Ok(Box::new(move || Ok(held > 2)))
}

const BPF_MAP_CREATE: usize = 0;
const BPF_MAP_LOOKUP: usize = 1;
const BPF_MAP_UPDATE: usize = 2;
const BPF_PROG_LOAD: usize = 5;

/// An array of one number.
fn map() -> io::Result<Check> {
    let attributes: [u32; 12] = [2, 4, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let held = descriptor(libc::SYS_bpf, &[BPF_MAP_CREATE, address(&attributes), 48])?;
    let (key, value) = (0_u32, 7_u64);
    let file = held.as_raw_fd() as u64;
    let entry = [file, address(&key) as u64, address(&value) as u64, 0];
    call(libc::SYS_bpf, &[BPF_MAP_UPDATE, address(&entry), 32])?;
    Ok(Box::new(move || {
        let (key, mut found) = (0_u32, 0_u64);
        let entry = [held.as_raw_fd() as u64, address(&key) as u64, room(&mut found) as u64, 0];
        call(libc::SYS_bpf, &[BPF_MAP_LOOKUP, address(&entry), 32])?;
        Ok(found == 7)
    }))
}

/// A socket filter that lets nothing pass.
fn program() -> io::Result<Check> {
    let program: [u64; 2] = [0xb7, 0x95];
    let attributes = [1 | 2 << 32, address(&program) as u64, address(c"GPL") as u64, 0, 0, 0];
    let held = descriptor(libc::SYS_bpf, &[BPF_PROG_LOAD, address(&attributes), 48])?;
    Ok(Box::new(move || Ok(held.as_raw_fd() > 2)))
}

/// Nobody may read /etc any more; only the process itself knows.
fn landlocked() -> io::Result<Check> {
    const READ_FILE: u64 = 1 << 2;
    call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as usize, 1])?;
    let rules = descriptor(libc::SYS_landlock_create_ruleset, &[address(&READ_FILE), 8, 0])?;
    call(libc::SYS_landlock_restrict_self, &[rules.as_raw_fd() as usize, 0])?;
    drop(rules);
    Ok(Box::new(|| Ok(fs::read("/etc/passwd").is_err())))
}

//! Processes in all sorts of states, and what the kernel keeps for each.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::mkfifo;

use super::raw::{address, call, fork, map, pause, room, spawn};
use super::{Check, Kind, nothing_to_ask};

pub(super) const KINDS: &[Kind] = &[
    ("zombie", |_| zombie()),
    ("sessions", |_| sessions()),
    ("orphan", |_| orphan()),
    ("subreaper", |_| subreaper()),
    ("traced", |_| traced()),
    ("stopped-child", |_| stopped_child()),
    ("lost-leader", |_| lost_leader()),
    ("vfork", |_| vfork()),
    ("spawning", |_| spawning()),
    ("interval-timer", |_| interval_timer()),
    ("posix-timer", |_| posix_timer()),
    ("signal-stack", |_| signal_stack()),
    ("pending-signal", |_| pending()),
    ("queued-signals", |_| queued()),
    ("limits", |_| limits()),
    ("priority", |_| priority()),
    ("threads", |_| threads()),
];

fn kill(pid: u32, signal: i32) -> io::Result<usize> {
    call(libc::SYS_kill, &[pid as usize, signal as usize])
}

/// The letter of /proc/PID/stat.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}

fn until(mut done: impl FnMut() -> bool) -> io::Result<()> {
    for _ in 0..10_000 {
        if done() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::other("it never came"))
}

/// Ends as soon as it has begun; nobody has asked for its status yet.
fn zombie() -> io::Result<Check> {
    let child = fork(0, || Err(io::Error::other("the status")))?;
    until(|| state(child) == Some('Z'))?;
    let mut status = None;
    Ok(Box::new(move || {
        if status.is_none() {
            let mut found = 0_i32;
            call(libc::SYS_wait4, &[child as usize, room(&mut found), libc::WNOHANG as usize, 0])?;
            status = Some(found);
        }
        Ok(status == Some(1 << 8))
    }))
}

fn sessions() -> io::Result<Check> {
    let leader = fork(0, || {
        call(libc::SYS_setsid, &[])?;
        let member = fork(0, pause)?;
        call(libc::SYS_setpgid, &[member as usize, member as usize])?;
        pause()
    })?;
    until(|| call(libc::SYS_getsid, &[leader as usize]).is_ok_and(|session| session == leader as usize))?;
    Ok(Box::new(move || Ok(call(libc::SYS_getsid, &[leader as usize])? == leader as usize)))
}

fn orphan() -> io::Result<Check> {
    let parent = fork(0, || {
        fork(0, || {
            call(libc::SYS_setsid, &[])?;
            pause()
        })?;
        Ok(())
    })?;
    call(libc::SYS_wait4, &[parent as usize, 0, 0, 0])?;
    Ok(Box::new(move || Ok(state(parent + 1).is_some_and(|state| state != 'Z'))))
}

fn subreaper() -> io::Result<Check> {
    call(libc::SYS_prctl, &[libc::PR_SET_CHILD_SUBREAPER as usize, 1])?;
    Ok(Box::new(|| {
        let mut is_one = 0_i32;
        call(libc::SYS_prctl, &[libc::PR_GET_CHILD_SUBREAPER as usize, room(&mut is_one)])?;
        Ok(is_one == 1)
    }))
}

fn traced() -> io::Result<Check> {
    let child = fork(0, pause)?;
    call(libc::SYS_ptrace, &[libc::PTRACE_SEIZE as usize, child as usize, 0, 0])?;
    Ok(nothing_to_ask())
}

fn stopped_child() -> io::Result<Check> {
    let child = fork(0, pause)?;
    kill(child, libc::SIGSTOP)?;
    until(|| state(child) == Some('T'))?;
    Ok(Box::new(move || Ok(state(child) == Some('T'))))
}

/// Its first thread ends, and another goes on.
fn lost_leader() -> io::Result<Check> {
    let child = fork(0, || {
        std::thread::spawn(pause);
        call(libc::SYS_exit, &[0])?;
        Ok(())
    })?;
    until(|| state(child) == Some('Z'))?;
    Ok(nothing_to_ask())
}

/// A fifo that is only opened together with somebody else.
const GATE: &CStr = c"/tmp/gate";

/// Starts a program that has to get through the gate first, and waits for its end.
fn spawn_through_gate() -> io::Result<()> {
    waitpid(spawn(c"/proc/self/exe", GATE)?, None)?;
    Ok(())
}

/// A child's child that runs on its parent's time.
fn vfork() -> io::Result<Check> {
    mkfifo(GATE, Mode::S_IRWXU)?;
    let child = fork(0, spawn_through_gate)?;
    until(|| state(child) == Some('D'))?;
    Ok(Box::new(move || Ok(state(child).is_some_and(|state| state != 'Z'))))
}

/// Most of the time a child's child runs on its parent's time, but for some hundredths of a
/// second only.
fn spawning() -> io::Result<Check> {
    mkfifo(GATE, Mode::S_IRWXU)?;
    let child = fork(0, || {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(30));
                let _opened = fs::OpenOptions::new().write(true).open(OsStr::from_bytes(GATE.to_bytes()));
            }
        });
        loop {
            spawn_through_gate()?;
            // Long enough to be seen at it on a machine that is busy.
            std::thread::sleep(Duration::from_millis(8));
        }
    })?;
    until(|| state(child) == Some('D'))?;
    Ok(Box::new(move || {
        until(|| state(child) == Some('D'))?;
        until(|| state(child) == Some('S'))?;
        Ok(true)
    }))
}

const HOUR: i64 = 3600;

fn interval_timer() -> io::Result<Check> {
    let times: [i64; 4] = [HOUR, 0, HOUR, 0];
    call(libc::SYS_setitimer, &[libc::ITIMER_REAL as usize, address(&times), 0])?;
    Ok(Box::new(|| {
        let mut left = [0_i64; 4];
        call(libc::SYS_getitimer, &[libc::ITIMER_REAL as usize, room(&mut left)])?;
        Ok(left[0] == HOUR && (HOUR - 600..=HOUR).contains(&left[2]))
    }))
}

fn posix_timer() -> io::Result<Check> {
    let mut timer = 0_i32;
    call(libc::SYS_timer_create, &[libc::CLOCK_MONOTONIC as usize, 0, room(&mut timer)])?;
    let times: [i64; 4] = [HOUR, 0, HOUR, 0];
    call(libc::SYS_timer_settime, &[timer as usize, 0, address(&times), 0])?;
    Ok(Box::new(move || {
        let mut left = [0_i64; 4];
        call(libc::SYS_timer_gettime, &[timer as usize, room(&mut left)])?;
        Ok(left[0] == HOUR && (HOUR - 600..=HOUR).contains(&left[2]))
    }))
}

fn signal_stack() -> io::Result<Check> {
    const BYTES: usize = 64 << 10;
    let at = map(BYTES, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    super::raw::stack(Some((at, BYTES)))?;
    Ok(Box::new(move || Ok(super::raw::stack(None)? == (at, BYTES))))
}

fn block(signal: i32) -> io::Result<u64> {
    let set: u64 = 1 << (signal - 1);
    call(libc::SYS_rt_sigprocmask, &[libc::SIG_BLOCK as usize, address(&set), 0, 8])?;
    Ok(set)
}

fn pending() -> io::Result<Check> {
    let set = block(libc::SIGUSR2)?;
    kill(std::process::id(), libc::SIGUSR2)?;
    Ok(Box::new(move || {
        let mut found = 0_u64;
        call(libc::SYS_rt_sigpending, &[room(&mut found), 8])?;
        Ok(found & set == set)
    }))
}

/// Three of the same, each with a value of its own.
fn queued() -> io::Result<Check> {
    const REALTIME: i32 = 40;
    let set = block(REALTIME)?;
    let (own, values) = (std::process::id() as usize, [7_u64, 8, 9]);
    let told = move |value: u64| {
        let mut told = [0_u64; 16];
        told[0] = REALTIME as u64;
        told[1] = u64::from(libc::SI_QUEUE.cast_unsigned());
        told[3] = value;
        call(libc::SYS_rt_sigqueueinfo, &[own, REALTIME as usize, address(&told)])
    };
    for value in values {
        told(value)?;
    }
    Ok(Box::new(move || {
        for value in values {
            let (mut found, at_once) = ([0_u64; 16], [0_u64; 2]);
            call(libc::SYS_rt_sigtimedwait, &[address(&set), room(&mut found), address(&at_once), 8])?;
            if found[3] != value {
                return Ok(false);
            }
            told(value)?;
        }
        Ok(true)
    }))
}

/// Others on this machine hand descriptors over meanwhile, which count for all of a user's
/// processes: too low a limit refuses CRIU its own.
fn limits() -> io::Result<Check> {
    let wanted = [777_u64, 999];
    let number = libc::RLIMIT_NOFILE as usize;
    call(libc::SYS_prlimit64, &[0, number, address(&wanted), 0])?;
    Ok(Box::new(move || {
        let mut found = [0_u64; 2];
        call(libc::SYS_prlimit64, &[0, number, 0, room(&mut found)])?;
        Ok(found == wanted)
    }))
}

fn priority() -> io::Result<Check> {
    const NICE: usize = 7;
    const BATCH: usize = 3;
    call(libc::SYS_sched_setscheduler, &[0, BATCH, address(&0_i32)])?;
    call(libc::SYS_setpriority, &[0, 0, NICE])?;
    Ok(Box::new(|| {
        // The kernel answers with twenty less it.
        let nice = call(libc::SYS_getpriority, &[0, 0])?;
        Ok(nice == 20 - NICE && call(libc::SYS_sched_getscheduler, &[0])? == BATCH)
    }))
}

/// With names of their own.
fn threads() -> io::Result<Check> {
    for number in 0..20 {
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(pause)?;
    }
    Ok(Box::new(|| {
        let mut names = 0;
        for task in fs::read_dir("/proc/self/task")?.flatten() {
            names += usize::from(fs::read_to_string(task.path().join("comm"))?.starts_with("worker-"));
        }
        Ok(names == 20)
    }))
}

//! Waiting for signals without handlers: they are blocked and taken one by one.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Signals to be waited for. Make it before the first thread, which inherits the mask.
pub(crate) struct Awaited(SigSet);

impl Awaited {
    pub(crate) fn new(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block()?;
        Ok(Awaited(set))
    }

    pub(crate) fn next(&self) -> io::Result<Signal> {
        loop {
            match self.0.wait() {
                // A dump or a freeze interrupts the call without a signal.
                Err(Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// Says "ready", then on each SIGUSR1 what `check` finds.
pub(crate) fn check_on_demand(mut check: impl FnMut() -> io::Result<String>) -> io::Result<u8> {
    let awaited = Awaited::new(&[Signal::SIGUSR1])?;
    println!("ready");
    loop {
        awaited.next()?;
        println!("{}", check()?);
    }
}

pub(crate) fn idle() -> io::Result<u8> {
    let awaited = Awaited::new(&[Signal::SIGUSR1])?;
    loop {
        awaited.next()?;
    }
}

/// Ends when it is asked to, and waits for whoever is orphaned until then.
pub(crate) fn pause() -> io::Result<u8> {
    let awaited = Awaited::new(&[Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM])?;
    while awaited.next()? == Signal::SIGCHLD {
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|found| found != WaitStatus::StillAlive) {}
    }
    Ok(0)
}

pub(crate) fn report() -> io::Result<u8> {
    use Signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    let awaited = Awaited::new(&[SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2])?;
    println!("ready");
    loop {
        let signal = awaited.next()?;
        println!("{signal}");
        if signal == SIGTERM {
            return Ok(42);
        }
    }
}

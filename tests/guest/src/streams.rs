//! What is written and read: counters, echoes and bursts.

use std::io::{self, BufRead, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::number;
use crate::signals::Awaited;

pub(crate) fn count(options: &[&str]) -> io::Result<u8> {
    let mut interval = Duration::from_millis(20);
    let mut on_stderr = false;
    let mut left = options.iter();
    while let Some(option) = left.next() {
        match *option {
            "--interval-ms" => {
                let value = left.next().ok_or_else(|| io::Error::other("--interval-ms needs a number"))?;
                interval = Duration::from_millis(number(value)? as u64);
            }
            "--stderr" => on_stderr = true,
            other => return Err(io::Error::other(format!("count has no option '{other}'"))),
        }
    }
    for n in 1_u64.. {
        // One write per line: a line is then in the pipe as a whole or not at all.
        io::stdout().write_all(format!("{n}\n").as_bytes())?;
        if on_stderr {
            io::stderr().write_all(format!("{n}\n").as_bytes())?;
        }
        thread::sleep(interval);
    }
    Ok(0)
}

pub(crate) fn echo() -> io::Result<u8> {
    println!("ready");
    for line in io::stdin().lock().lines() {
        println!("heard {}", line?);
    }
    println!("EOF");
    Ok(0)
}

/// Leaves unread what it is told until SIGUSR1.
pub(crate) fn deaf() -> io::Result<u8> {
    let awaited = Awaited::new(&[Signal::SIGUSR1])?;
    println!("deaf");
    awaited.next()?;
    echo()
}

pub(crate) fn copy() -> io::Result<u8> {
    io::copy(&mut io::stdin().lock(), &mut io::stdout().lock())?;
    Ok(0)
}

/// Printable and without line ends, so that a terminal passes it on unchanged.
/// Its length is a prime: a block that is lost or doubled shows.
pub(crate) fn burst(bytes: usize) -> io::Result<u8> {
    let pattern: Vec<u8> = (0..89_u8 * 2).map(|n| b'!' + n % 89).collect();
    let mut stdout = io::stdout().lock();
    let mut written = 0;
    while written < bytes {
        let start = written % 89;
        let take = (bytes - written).min(89);
        stdout.write_all(&pattern[start..start + take])?;
        written += take;
    }
    stdout.flush()?;
    Ok(0)
}

/// Dots, by big writes: as much as whatever reads them can take.
pub(crate) fn flood(bytes: usize) -> io::Result<u8> {
    let chunk = vec![b'.'; 1 << 20];
    let stdout = rustix::stdio::stdout();
    let mut left = bytes;
    while left > 0 {
        left -= rustix::io::write(stdout, &chunk[..left.min(chunk.len())])?;
    }
    Ok(0)
}

/// The pattern of a burst without end, so many MiB a second or more after a pause.
pub(crate) fn pour(mib: usize) -> io::Result<u8> {
    let block: Vec<u8> = (0..89).map(|n| b'!' + n).cycle().take(89 * 736).collect();
    let begun = Instant::now();
    for written in 0_u64.. {
        io::stdout().write_all(&block)?;
        let due = Duration::from_secs_f64((written * block.len() as u64) as f64 / (mib << 20) as f64);
        thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok(0)
}

pub(crate) fn bytes() -> io::Result<u8> {
    let all: Vec<u8> = (0..=255).collect();
    let mut stdout = io::stdout().lock();
    for _ in 0..1000 {
        stdout.write_all(&all)?;
    }
    stdout.flush()?;
    Ok(0)
}

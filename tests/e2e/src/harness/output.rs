//! The reading end of a pipe: collects what comes, tells when it ends, and can be
//! made to read nothing for a while.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use nix::libc::O_NONBLOCK;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::counted::counted;
use super::failure::{Failure, Outcome};
use super::wait::{PATIENCE, deadline};

/// How often a reader looks whether it is still wanted.
const LOOK_UP_MS: u16 = 50;

#[derive(Clone)]
pub(crate) struct Output(Arc<Shared>);

struct Shared {
    so_far: Mutex<SoFar>,
    changed: Condvar,
}

#[derive(Default)]
struct SoFar {
    bytes: Vec<u8>,
    ended: bool,
    stuck: bool,
    closed: bool,
}

impl Output {
    /// Starts to read a fifo, or stands before it without reading if `stuck`.
    pub(crate) fn read(fifo: &Path, stuck: bool) -> Outcome<Self> {
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(fifo)?;
        Ok(Output::collected(file, stuck))
    }

    /// Starts to read what a process of this machine writes.
    pub(crate) fn follow(file: File) -> Self {
        Output::collected(file, false)
    }

    /// One that somebody else reads.
    pub(super) fn fed() -> Self {
        Output::empty(false)
    }

    fn empty(stuck: bool) -> Self {
        let so_far = Mutex::new(SoFar { stuck, ..SoFar::default() });
        Output(Arc::new(Shared { so_far, changed: Condvar::new() }))
    }

    fn collected(file: File, stuck: bool) -> Self {
        let output = Output::empty(stuck);
        let reader = output.clone();
        thread::spawn(move || reader.collect(file));
        output
    }

    fn collect(&self, mut file: File) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let mut so_far = self.lock();
            while so_far.stuck && !so_far.closed {
                so_far = self.0.changed.wait(so_far).unwrap_or_else(PoisonError::into_inner);
            }
            if so_far.closed {
                return;
            }
            drop(so_far);
            // A read would end at once while no writer has come yet; a poll waits for one.
            let mut waited = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waited, PollTimeout::from(LOOK_UP_MS)) {
                Ok(0) | Err(_) => continue,
                Ok(_) => {}
            }
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.add(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        self.end();
    }

    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.0.changed.notify_all();
    }

    pub(super) fn add(&self, bytes: &[u8]) {
        self.lock().bytes.extend_from_slice(bytes);
        self.0.changed.notify_all();
    }

    pub(crate) fn go_on(&self) {
        self.lock().stuck = false;
        self.0.changed.notify_all();
    }

    /// Closes the reading end, as a client does that goes away.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Whole lines; what has no line end yet isn't one.
    pub(crate) fn lines(&self) -> Vec<String> {
        whole_lines(&self.text())
    }

    /// Waits for as long as there is hope, and shows what came instead.
    #[track_caller]
    fn wait(&self, what: &str, done: impl Fn(&SoFar) -> bool) -> Outcome {
        let deadline = deadline(PATIENCE);
        let mut so_far = self.lock();
        while !done(&so_far) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || so_far.ended {
                let text = String::from_utf8_lossy(&so_far.bytes);
                let tail: String = text.chars().skip(text.chars().count().saturating_sub(300)).collect();
                let why = if so_far.ended { "the output ended" } else { "nothing more came" };
                return Err(Failure::new(format!("{why} before {what}; it is …{tail:?}")));
            }
            so_far = self.0.changed.wait_timeout(so_far, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    #[track_caller]
    pub(crate) fn wait_for_end(&self) -> Outcome {
        self.wait("its end", |so_far| so_far.ended)
    }

    #[track_caller]
    pub(crate) fn wait_for_line(&self, line: &str) -> Outcome {
        self.wait_for_lines(1, line)
    }

    /// Waits until `line` has come `times` times.
    #[track_caller]
    pub(crate) fn wait_for_lines(&self, times: usize, line: &str) -> Outcome {
        self.wait(&format!("line {line:?} came {times} times"), |so_far| {
            let text = String::from_utf8_lossy(&so_far.bytes);
            text.split_inclusive('\n').filter(|found| found.trim_end_matches(['\r', '\n']) == line).count()
                >= times
        })
    }

    #[track_caller]
    pub(crate) fn wait_for_text(&self, part: &str) -> Outcome {
        self.wait(&format!("{part:?}"), |so_far| String::from_utf8_lossy(&so_far.bytes).contains(part))
    }

    #[track_caller]
    pub(crate) fn wait_for_bytes(&self, count: usize) -> Outcome {
        self.wait(&format!("{count} bytes"), |so_far| so_far.bytes.len() >= count)
    }

    /// Waits for `more` numbers beyond those that have come.
    #[track_caller]
    pub(crate) fn wait_for_counting(&self, more: usize) -> Outcome {
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let before = lines(&self.bytes());
        self.wait(&format!("{more} more numbers"), |so_far| lines(&so_far.bytes) >= before + more)
    }

    /// The numbers of a counting guest, which must have no gap and no repeat.
    #[track_caller]
    pub(crate) fn counted(&self) -> Outcome<RangeInclusive<u64>> {
        counted(&self.text())
    }

    fn lock(&self) -> MutexGuard<'_, SoFar> {
        self.0.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn whole_lines(text: &str) -> Vec<String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
}

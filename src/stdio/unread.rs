//! What a process has been sent and not read yet. CRIU leaves pipes that come from
//! outside to whoever gives them, with what is in them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::ioctl_fionread;
use rustix::pipe::{SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, tee};

/// Copies what waits in a process's stdin, if that is the pipe it was given (as the
/// runtime noted it: `pipe:[12]`). The process finds it unread as before.
pub fn unread_stdin(pid: u32, given: &str) -> io::Result<Vec<u8>> {
    let path = format!("/proc/{pid}/fd/0");
    let is_given = std::fs::read_link(&path).is_ok_and(|link| link == Path::new(given));
    if !is_given || !given.starts_with("pipe:") {
        return Ok(Vec::new());
    }
    // A pipe with nobody at its other end must not hold us up.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let stdin = File::options().read(true).custom_flags(flags).open(path)?;
    copy(&stdin)
}

fn copy(pipe: &File) -> io::Result<Vec<u8>> {
    let waiting = usize::try_from(ioctl_fionread(pipe)?).unwrap_or_default();
    if waiting == 0 || !pipe.metadata()?.file_type().is_fifo() {
        return Ok(Vec::new());
    }
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Messages are copied, each of which takes a place of its own, however short.
    grow(&write, fcntl_getpipe_size(pipe)?)?;
    let copied = tee(pipe, &write, waiting, SpliceFlags::NONBLOCK)?;
    if copied < waiting {
        return Err(io::Error::other(format!("only {copied} of {waiting} bytes could be copied")));
    }
    drop(write);
    let mut bytes = Vec::new();
    File::from(read).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn grow(pipe: &OwnedFd, size: usize) -> io::Result<()> {
    if fcntl_getpipe_size(pipe)? < size {
        fcntl_setpipe_size(pipe, size)?;
    }
    Ok(())
}

/// Puts bytes into a pipe that nobody reads yet.
pub(super) fn fill(pipe: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    grow(pipe, bytes.len())?;
    while !bytes.is_empty() {
        bytes = &bytes[rustix::io::write(pipe, bytes)?..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_copied_and_still_waits() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let text = vec![b'x'; 100_000];
        fill(&write, &text).unwrap();
        let mut pipe = File::from(read);
        assert_eq!(copy(&pipe).unwrap(), text);
        let mut again = vec![0; text.len()];
        pipe.read_exact(&mut again).unwrap();
        assert_eq!(again, text);
        assert!(copy(&pipe).unwrap().is_empty());
    }

    #[test]
    fn many_short_messages_are_copied_whole() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        for number in 0..10 {
            let (from, message) = rustix::pipe::pipe().unwrap();
            fill(&message, format!("hello {number}\n").as_bytes()).unwrap();
            rustix::pipe::splice(&from, None, &write, None, 100, SpliceFlags::MOVE).unwrap();
        }
        let copied = String::from_utf8(copy(&File::from(read)).unwrap()).unwrap();
        assert_eq!((copied.lines().count(), copied.lines().last()), (10, Some("hello 9")));
        assert!(fcntl_getpipe_size(&write).unwrap() >= 65536);
    }

    #[test]
    fn a_stdin_that_was_not_given_is_left_alone() {
        let us = std::process::id();
        assert!(unread_stdin(us, "pipe:[1]").unwrap().is_empty());
        assert!(unread_stdin(us, "/dev/null").unwrap().is_empty());
        assert!(unread_stdin(0, "pipe:[1]").unwrap().is_empty());
    }
}

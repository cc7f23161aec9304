//! Tells what the terminal is like, again whenever its size changes.

use std::io;

use nix::sys::signal::Signal;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{isatty, tcgetwinsize};

use crate::signals::Awaited;

pub(crate) fn describe() -> io::Result<u8> {
    let awaited = Awaited::new(&[Signal::SIGWINCH, Signal::SIGUSR1])?;
    loop {
        let size = match tcgetwinsize(stdout()) {
            Ok(size) => format!("{}x{}", size.ws_row, size.ws_col),
            Err(error) => error.to_string(),
        };
        println!("stdin {} stdout {} size {size}", isatty(stdin()), isatty(stdout()));
        awaited.next()?;
    }
}

//! How far something is, for whoever watches a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::table::size;

const PAUSE: Duration = Duration::from_millis(100);
const WIDTH: usize = 30;

pub(crate) struct Bar {
    is_watched: bool,
    done: u64,
    total: Option<u64>,
    drawn: Option<Instant>,
}

impl Bar {
    pub(crate) fn new(total: Option<u64>) -> Bar {
        Bar { is_watched: io::stderr().is_terminal(), done: 0, total, drawn: None }
    }

    pub(crate) fn advance(&mut self, by: u64) {
        self.show(self.done.saturating_add(by), self.total);
    }

    pub(crate) fn show(&mut self, done: u64, total: Option<u64>) {
        (self.done, self.total) = (done, total);
        if self.is_watched && self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE) {
            self.drawn = Some(Instant::now());
            let _ = write!(io::stderr(), "\r{}\x1b[K", line(done, total));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(done: u64, total: Option<u64>) -> String {
    let Some(total) = total.filter(|total| *total > 0) else { return size(done) };
    let part = |of: usize| {
        let share = u128::from(done.min(total)) * of as u128 / u128::from(total);
        usize::try_from(share).unwrap_or(of)
    };
    let full = part(WIDTH);
    format!("[{}{}] {:3} % of {}", "#".repeat(full), " ".repeat(WIDTH - full), part(100), size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_never_more_than_full() {
        assert_eq!(
            line(1 << 20, Some(4 << 20)),
            format!("[{}{}]  25 % of 4.0 MiB", "#".repeat(7), " ".repeat(23))
        );
        assert_eq!(line(9, Some(3)), format!("[{}] 100 % of 3 B", "#".repeat(30)));
        assert_eq!(line(2048, None), "2.0 KiB");
        assert_eq!(line(0, Some(0)), "0 B");
    }
}

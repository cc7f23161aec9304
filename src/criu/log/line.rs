//! The lines of CRIU's log that tell of errors.

use std::io::{self, BufRead, Read};

use crate::message::shown;

/// A log at the highest level has hundreds of megabytes; what decides is among the first
/// errors, and what is worth reading of a line is at its start.
const ERRORS: usize = 256;
const LINE_BYTES: u64 = 1 << 10;

/// An error as CRIU or one of the processes it restores has written it down.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The process that it befell; none if it is CRIU itself.
    pub(super) process: Option<u32>,
    pub(super) words: String,
}

/// The first errors of a log that are wanted. A log that breaks off is read as far as it goes.
pub(super) fn errors(mut log: impl BufRead, wanted: impl Fn(&Line) -> bool) -> Vec<Line> {
    let mut found = Vec::new();
    while found.len() < ERRORS {
        let Ok(Some(bytes)) = next(&mut log) else { break };
        found.extend(Line::parse(&String::from_utf8_lossy(&bytes)).filter(&wanted));
    }
    found
}

/// The next line, or the start of it if it is too long.
pub(super) fn next(log: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    log.take(LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        log.skip_until(b'\n')?;
    }
    Ok(Some(line))
}

impl Line {
    /// `(00.024844)      1: Error (criu/files.c:12): words`. Time and process may be missing;
    /// before the process there is `pie: ` if it restores itself.
    fn parse(line: &str) -> Option<Line> {
        let rest = without_time(line).trim_start();
        let rest = rest.strip_prefix("pie: ").unwrap_or(rest).trim_start();
        let (process, rest) = match rest.split_once(": ") {
            Some((pid, rest)) if pid.parse::<u32>().is_ok() => (pid.parse().ok(), rest.trim_start()),
            _ => (None, rest),
        };
        let (_, words) = rest.strip_prefix("Error (")?.split_once("): ")?;
        Some(Line { process, words: shown(words) })
    }
}

fn without_time(line: &str) -> &str {
    let is_time = |time: &str| time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match line.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((time, rest)) if is_time(time) => rest,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(process: impl Into<Option<u32>>, words: &str) -> Option<Line> {
        Some(Line { process: process.into(), words: words.to_owned() })
    }

    #[test]
    fn a_line_tells_who_met_the_error() {
        assert_eq!(Line::parse("(00.024844) Error (criu/files.c:12): a: b\n"), line(None, "a: b"));
        assert_eq!(Line::parse("(00.024844)      1: Error (criu/files.c:12): a"), line(1, "a"));
        assert_eq!(Line::parse("(00.024844) pie: 61: Error (criu/pie/restorer.c:12): a"), line(61, "a"));
        assert_eq!(Line::parse("Error (soccr/soccr.c:819): a"), line(None, "a"));
        assert_eq!(Line::parse("(123.02484)     12: Error (criu/x.c:1): \u{1b}[1ma\n"), line(12, "[1ma"));
    }

    #[test]
    fn what_only_looks_like_an_error_is_none() {
        for other in [
            "(00.024844) Warn  (criu/files.c:12): a",
            "(00.024844)      1: mnt: /Error (x): y",
            "(name) Error (criu/files.c:12): a",
            "Error (",
            "",
        ] {
            assert_eq!(Line::parse(other), None, "{other}");
        }
    }

    #[test]
    fn little_is_kept_of_a_huge_log() {
        let long = format!("(00.1) Error (criu/x.c:1): {}\n", "x".repeat(1 << 20));
        let log = long.repeat(ERRORS + 2);
        let found = errors(log.as_bytes(), |_| true);
        assert_eq!(found.len(), ERRORS);
        assert!(found.iter().all(|line| line.words.len() < 1 << 10));
    }
}

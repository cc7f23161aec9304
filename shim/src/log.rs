//! Log lines into containerd's fifo, in the form of its own lines, without ever waiting:
//! a containerd that doesn't read must not hold up a container. What finds no room is
//! counted and reported with the next line that does.

use std::fmt::{Debug, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

struct Fifo {
    file: File,
    level: Level,
    lost: AtomicU32,
}

/// Lets everything that is logged, and every panic, go to the fifo.
pub(crate) fn start(path: &Path, debug: bool) -> io::Result<()> {
    // Opened for reading too: it works while containerd is away, and nobody's going
    // away is a signal to us.
    let non_blocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).write(true).custom_flags(non_blocking).open(path)?;
    let level = if debug { Level::DEBUG } else { Level::INFO };
    let fifo = Fifo { file, level, lost: AtomicU32::new(0) };
    tracing::subscriber::set_global_default(fifo).map_err(io::Error::other)?;
    // What ttrpc has to say.
    log::set_logger(&Bridge).map_err(io::Error::other)?;
    log::set_max_level(log::LevelFilter::Warn);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let words = payload.downcast_ref::<&str>().copied().map(str::to_owned);
        let words = words.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(place, "panic: {words}; please report this as a bug of Cryo");
    }));
    Ok(())
}

impl Fifo {
    fn write(&self, line: &str) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let report = if lost > 0 { format!("{}\n", lost_line(lost)) } else { String::new() };
        // One write, so that lines of several shims don't mix.
        let text = format!("{report}{line}\n");
        if !matches!((&self.file).write(text.as_bytes()), Ok(count) if count == text.len()) {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }
}

fn lost_line(lost: u32) -> String {
    let mut line = head(&Level::WARN);
    let _ = write!(line, " msg=\"{lost} log lines found no room before this one\"");
    line
}

fn head(level: &Level) -> String {
    let name = match *level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    };
    let time = humantime::format_rfc3339_nanos(SystemTime::now());
    format!("time=\"{time}\" level={name}")
}

impl Subscriber for Fifo {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let mut line =
            Line { head: head(event.metadata().level()), message: String::new(), fields: String::new() };
        event.record(&mut line);
        self.write(&format!("{} msg={}{}", line.head, quoted(&line.message), line.fields));
    }

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line {
    head: String,
    message: String,
    fields: String,
}

impl Line {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            // Writing to a string can't fail.
            let _ = write!(self.fields, " {}={}", field.name(), quoted(value));
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, &value.to_string());
    }
}

fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+:".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for char in text.chars() {
        // Writing to a string can't fail.
        let _ = match char {
            '"' | '\\' => write!(quoted, "\\{char}"),
            '\n' => write!(quoted, "\\n"),
            '\r' => write!(quoted, "\\r"),
            '\t' => write!(quoted, "\\t"),
            char if char.is_ascii_control() => write!(quoted, "\\x{:02x}", u32::from(char)),
            char if char.is_control() => write!(quoted, "\\u{:04x}", u32::from(char)),
            char => write!(quoted, "{char}"),
        };
    }
    quoted + "\""
}

struct Bridge;

impl log::Log for Bridge {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        match record.level() {
            log::Level::Error => tracing::error!("{}", record.args()),
            log::Level::Warn => tracing::warn!("{}", record.args()),
            _ => tracing::debug!("{}", record.args()),
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Command;

    fn fifo() -> (tempfile::TempDir, Fifo, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let open = || {
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            File::options().read(true).write(true).custom_flags(flags).open(&path).unwrap()
        };
        let fifo = Fifo { file: open(), level: Level::INFO, lost: AtomicU32::new(0) };
        (folder, fifo, open())
    }

    #[test]
    fn lines_have_containerds_form() {
        let (_folder, fifo, mut reader) = fifo();
        tracing::subscriber::with_default(fifo, || {
            tracing::debug!("too small");
            let error = io::Error::other("no \"luck\"");
            tracing::warn!(%error, id = "c1", pid = 7, "it failed");
        });
        let mut text = vec![0; 4096];
        let count = reader.read(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text[..count]).into_owned();
        let (time, rest) = text.split_once(" level").unwrap();
        assert!(time.starts_with("time=\"2") && time.ends_with("Z\""), "{text}");
        assert_eq!(rest, "=warning msg=\"it failed\" error=\"no \\\"luck\\\"\" id=c1 pid=7\n");
    }

    #[test]
    fn a_full_fifo_holds_up_nobody_and_losses_are_told() {
        let (_folder, fifo, mut reader) = fifo();
        let line = "x".repeat(1000);
        for _ in 0..200 {
            fifo.write(&line);
        }
        let lost = fifo.lost.load(Ordering::Relaxed);
        assert!(lost > 0);
        let mut drain = vec![0; 1 << 20];
        while reader.read(&mut drain).is_ok_and(|count| count > 0) {}
        fifo.write("last");
        let count = reader.read(&mut drain).unwrap();
        let text = String::from_utf8_lossy(&drain[..count]).into_owned();
        assert!(text.contains(&format!("{lost} log lines")) && text.ends_with("last\n"), "{text}");
    }
}

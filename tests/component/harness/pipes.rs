//! Fifos, as clients of containerd make them, and what comes out of them.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::wait::until;

#[track_caller]
pub(crate) fn mkfifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

/// A fifo that somebody reads.
#[derive(Clone)]
pub(crate) struct Pipe {
    path: PathBuf,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

impl Pipe {
    /// Makes it and reads it from now on.
    pub(crate) fn read(path: PathBuf) -> Pipe {
        let pipe = Pipe::unread(path);
        pipe.start_reading();
        pipe
    }

    /// Makes it; nobody reads yet.
    pub(crate) fn unread(path: PathBuf) -> Pipe {
        mkfifo(&path);
        Pipe { path, heard: Arc::default() }
    }

    pub(crate) fn start_reading(&self) {
        let Pipe { path, heard } = self.clone();
        std::thread::spawn(move || {
            // Waits for a writer, as a client does.
            let mut fifo = File::open(path).unwrap();
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = fifo.read(&mut buffer) {
                heard.lock().unwrap().bytes.extend(&buffer[..count]);
            }
            heard.lock().unwrap().ended = true;
        });
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap().bytes).into_owned()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, words: &str) {
        until(&format!("{words:?} comes out of {}", self.path.display()), || self.text().contains(words));
    }

    /// Until every writer has closed it.
    #[track_caller]
    pub(crate) fn wait_for_end(&self) -> String {
        until(&format!("{} ends", self.path.display()), || self.heard.lock().unwrap().ended);
        self.text()
    }

    /// The same, once something has been done that makes them.
    #[track_caller]
    pub(crate) fn wait_for_end_after(&self, act: impl FnOnce()) -> String {
        act();
        self.wait_for_end()
    }

    /// Opens it to write; the shim has opened it to read by then.
    #[track_caller]
    pub(crate) fn write(&self, text: &str) {
        self.writer().write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    pub(crate) fn writer(&self) -> File {
        let non_blocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut open = File::options();
        std::os::unix::fs::OpenOptionsExt::custom_flags(open.write(true), non_blocking);
        open.open(&self.path).unwrap()
    }
}

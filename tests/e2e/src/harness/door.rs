//! A door between shims and containerd's ear for their events: a test can listen before
//! any shim is heard.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::bench::Bench;
use super::failure::Outcome;
use super::fakes;

const SOCKET: &str = "/run/containerd/door.sock";
const EAR: &str = "/run/containerd/containerd.sock.ttrpc";

pub(crate) struct Door {
    is_open: Arc<AtomicBool>,
    socket: PathBuf,
    wrapper: PathBuf,
}

impl Door {
    /// An open one, for shims that are started from now on.
    pub(crate) fn new(bench: &Bench) -> Outcome<Self> {
        let socket = bench.slot.outside(SOCKET);
        let listener = UnixListener::bind(&socket)?;
        let wrapper = fakes::wrap_shim(bench, &format!("export TTRPC_ADDRESS={SOCKET}"))?;
        let is_open = Arc::new(AtomicBool::new(true));
        let (open, ear) = (is_open.clone(), bench.slot.outside(EAR));
        thread::spawn(move || {
            // Ends when the socket is gone and the last caller has knocked.
            for caller in listener.incoming().flatten() {
                if open.load(Ordering::SeqCst) {
                    // A containerd that is away is as good as a closed door.
                    let _ = connect(caller, &ear);
                }
            }
        });
        Ok(Door { is_open, socket, wrapper })
    }

    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // The tidying removes what can't be removed here.
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(&self.wrapper);
    }
}

/// Carries bytes both ways until one side ends.
fn connect(caller: UnixStream, ear: &Path) -> io::Result<()> {
    let ear = UnixStream::connect(ear)?;
    for (mut from, mut to) in [(caller.try_clone()?, ear.try_clone()?), (ear, caller)] {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

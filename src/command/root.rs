//! Paths as the machine means them, below a root directory that is usually "/".

use std::io;
use std::path::{Path, PathBuf};

/// The folder that comes first in a daemon's PATH.
pub(crate) const BIN: &str = "/usr/local/lib/cryo/bin";
pub(crate) const SHIM: &str = "containerd-shim-cryo-v2";
/// What containerd looks for when a client asks for `io.containerd.runc.v2`.
pub(crate) const STOCK_SHIM: &str = "containerd-shim-runc-v2";
/// What a service gets that says nothing about its PATH, and what shells of root have.
pub(crate) const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

impl Root {
    pub(crate) fn new(folder: Option<&Path>) -> io::Result<Root> {
        folder.map_or_else(|| Ok(Root("/".into())), |folder| folder.canonicalize().map(Root))
    }

    pub(crate) fn is_the_machine(&self) -> bool {
        self.0 == Path::new("/")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// Where a path of the machine is found.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// In a root that is being put together nothing runs, but its units are there.
    pub(crate) fn has_systemd(&self) -> bool {
        let running = self.at("/run/systemd/system").is_dir();
        running || (!self.is_the_machine() && self.at("/usr/lib/systemd/system").is_dir())
    }
}

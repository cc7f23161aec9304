//! CRIU, the tool that does the hard part: what we ask of it, what it says, and the
//! little we need to know of its image files.

pub mod config;
pub mod connections;
pub mod devices;
mod fields;
pub mod filters;
pub mod firewall;
pub mod hierarchies;
pub mod images;
pub mod lock;
pub mod log;
pub mod messages;
pub mod mountpoints;
pub mod namespaces;
mod options;
pub mod processes;
pub mod stats;
pub mod timers;

use std::fs;
use std::io;
use std::path::PathBuf;

pub use options::Options;

/// Set by CRIU for the scripts it runs.
const PID_VARIABLE: &str = "CRTOOLS_INIT_PID";
const IMAGE_VARIABLE: &str = "CRTOOLS_IMAGE_DIR";

/// Our own binary, as a script for CRIU to run; found even if its file was replaced.
pub fn our_script() -> String {
    format!("/proc/{}/exe", std::process::id())
}

/// Of the container whose dump or restore CRIU has called our binary for.
pub fn first_process() -> io::Result<u32> {
    let pid = std::env::var(PID_VARIABLE).ok().and_then(|pid| pid.parse().ok());
    pid.ok_or_else(|| io::Error::other("CRIU names no process"))
}

/// The image that CRIU works with, as it names it to the scripts it runs.
pub fn image_folder() -> PathBuf {
    std::env::var_os(IMAGE_VARIABLE).unwrap_or_default().into()
}

/// The library, which crun loads when it needs it, from where the system's loader looks.
pub fn library() -> Option<PathBuf> {
    let mut folders = Vec::new();
    for folder in ["/usr/local/lib", "/usr/local/lib64", "/usr/lib64", "/lib64", "/usr/lib", "/lib"] {
        folders.push(PathBuf::from(folder));
        let inner = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        folders.extend(inner.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")));
    }
    folders.into_iter().map(|folder| folder.join("libcriu.so.2")).find(|library| library.exists())
}

/// The name under which runc and crun both hand a network namespace to CRIU.
pub const NETWORK_KEY: &str = "extRootNetNS";

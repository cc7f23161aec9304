//! What the runtime knows of a container: a folder below its root.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::call::{Call, Flavour};
use crate::failure::{Failure, Outcome};
use crate::process;

const FILE: &str = "state.json";
const PIDS: &str = "pids";
/// The container's first process waits for somebody to open it.
const START: &str = "start";
const CGROUPS: &str = "/sys/fs/cgroup";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    #[serde(skip)]
    pub(crate) folder: PathBuf,
    pub(crate) pid: u32,
    pub(crate) started: bool,
    pub(crate) paused: bool,
    /// Empty if none could be made.
    pub(crate) cgroup: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl State {
    /// Makes room for a new container and a cgroup for it, if this machine allows.
    pub(crate) fn create(call: &Call, cgroups_path: &str) -> Outcome<State> {
        let folder = call.root.join(call.id());
        if folder.exists() {
            return Err(Failure::new(match call.flavour {
                Flavour::Runc => "container with given ID already exists".to_owned(),
                Flavour::Crun => format!("container `{}` already exists", call.id()),
            }));
        }
        fs::create_dir_all(&folder)?;
        nix::unistd::mkfifo(&folder.join(START), nix::sys::stat::Mode::S_IRWXU)?;
        Ok(State { cgroup: make_cgroup(cgroups_path), folder, pid: 0, started: false, paused: false })
    }

    pub(crate) fn load(call: &Call) -> Outcome<State> {
        let folder = call.root.join(call.id());
        let unknown = || Failure::new(unknown(call, &folder));
        let bytes = fs::read(folder.join(FILE)).map_err(|_| unknown())?;
        Ok(State { folder, ..serde_json::from_slice(&bytes)? })
    }

    pub(crate) fn save(&self) -> Outcome {
        let new = self.folder.join("state.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, self.folder.join(FILE))?;
        Ok(())
    }

    pub(crate) fn status(&self) -> Status {
        match self {
            state if !process::is_alive(state.pid) => Status::Stopped,
            state if !state.started => Status::Created,
            state if state.paused => Status::Paused,
            _ => Status::Running,
        }
    }

    pub(crate) fn start_fifo(&self) -> PathBuf {
        self.folder.join(START)
    }

    /// Every process that ever was in the container.
    fn pids(&self) -> Vec<u32> {
        let noted = fs::read_to_string(self.folder.join(PIDS)).unwrap_or_default();
        let in_cgroup = fs::read_to_string(self.cgroup.join("cgroup.procs")).unwrap_or_default();
        noted.lines().chain(in_cgroup.lines()).filter_map(|pid| pid.parse().ok()).collect()
    }

    pub(crate) fn signal_all(&self, signal: i32) {
        for pid in self.pids().into_iter().filter(|pid| process::is_alive(*pid)) {
            // It may end by itself at this very moment.
            let _ = process::kill(pid, signal);
        }
    }

    /// Kills all of it and waits until all is dead.
    pub(crate) fn kill_all(&self) {
        if self.paused {
            // Nothing dies while it is stopped by SIGSTOP's likes; SIGKILL does it anyway.
            let _ = self.freeze(false);
        }
        process::until(|| {
            self.signal_all(9);
            !self.pids().into_iter().any(process::is_alive)
        });
    }

    pub(crate) fn freeze(&self, frozen: bool) -> Outcome {
        if self.cgroup.as_os_str().is_empty() {
            self.signal_all(if frozen { 19 } else { 18 });
            return Ok(());
        }
        fs::write(self.cgroup.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
        Ok(())
    }

    pub(crate) fn remove(&self) -> Outcome {
        if !self.cgroup.as_os_str().is_empty() {
            // A dead process leaves its cgroup a moment later.
            process::until(|| match fs::remove_dir(&self.cgroup) {
                Ok(()) => true,
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            });
        }
        fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}

fn unknown(call: &Call, folder: &Path) -> String {
    match (call.flavour, call.verb.as_str()) {
        (Flavour::Runc, "exec") => "exec failed: container does not exist".to_owned(),
        (Flavour::Runc, _) => "container does not exist".to_owned(),
        (Flavour::Crun, "delete") => {
            format!("cannot open directory `{}`: No such file or directory", folder.display())
        }
        (Flavour::Crun, _) => {
            format!("error opening file `{}/status`: No such file or directory", folder.display())
        }
    }
}

/// Without root, or without cgroups of version 2, containers go without one.
fn make_cgroup(path: &str) -> PathBuf {
    let path = path.trim_start_matches('/');
    let folder = Path::new(CGROUPS).join(path);
    if !path.is_empty() && fs::create_dir_all(&folder).is_ok() { folder } else { PathBuf::new() }
}

/// Called by the container's own processes: they are counted from here on.
pub(crate) fn enter(folder: &Path, cgroup: &Path) -> std::io::Result<()> {
    if !cgroup.as_os_str().is_empty() {
        fs::write(cgroup.join("cgroup.procs"), "0")?;
    }
    let mut pids = fs::OpenOptions::new().create(true).append(true).open(folder.join(PIDS))?;
    writeln!(pids, "{}", std::process::id())
}

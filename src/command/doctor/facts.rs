//! What there is on this machine, gathered and not yet judged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryo::criu;
use cryo::policy::{NODE_FILE, NodeFile};
use cryo::reaper::Reaper;

use super::daemons::{self, Starts};
use super::handlers::{self, Handlers};
use crate::command::answer::is_root;
use crate::command::run::{Said, run};
use crate::command::search;

/// All of them answer at once unless something is badly wrong.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) root: bool,
    pub(super) systemd: bool,
    pub(super) shim: Option<PathBuf>,
    pub(super) containerd: Said,
    pub(super) docker: Said,
    pub(super) docker_cgroups: Said,
    pub(super) runc: Said,
    pub(super) runc_features: Said,
    pub(super) crun: Said,
    pub(super) crun_features: Said,
    pub(super) libcriu: Option<PathBuf>,
    pub(super) criu: Said,
    pub(super) criu_check: Said,
    pub(super) soft_dirty: Said,
    pub(super) kernel: Kernel,
    pub(super) node_file: NodeFileState,
    pub(super) dockers_containerd: Option<String>,
    pub(super) starts: Vec<Starts>,
    pub(super) handlers: Vec<Handlers>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeFileState {
    NotThere,
    Good,
    /// Why it isn't read.
    Bad(String),
}

#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) release: String,
    /// Nothing if there is no telling.
    pub(super) checkpoint_restore: Option<bool>,
    pub(super) cgroup2: bool,
    pub(super) overlay: bool,
    pub(super) userfaultfd: bool,
}

pub(super) async fn gather(reaper: Reaper) -> Facts {
    let path = search::path();
    let ask = |program, arguments: &'static [&'static str]| run(reaper, program, arguments, &path, PATIENCE);
    // All at once: what hangs, hangs together.
    let (containerd, docker, docker_cgroups, runc, runc_features, crun, crun_features, criu, check, dirty) = tokio::join!(
        ask("containerd", &["--version"]),
        ask("docker", &["version", "--format", "{{json .}}"]),
        ask("docker", &["info", "--format", "{{.CgroupDriver}}"]),
        ask("runc", &["--version"]),
        ask("runc", &["features"]),
        ask("crun", &["--version"]),
        ask("crun", &["features"]),
        ask("criu", &["--version"]),
        ask("criu", &["check"]),
        ask("criu", &["check", "--feature", "mem_dirty_track"]),
    );
    let starts = daemons::starts(&path);
    Facts {
        root: is_root(),
        systemd: Path::new("/run/systemd/system").is_dir(),
        shim: search::shim(&path),
        containerd,
        docker,
        docker_cgroups,
        runc,
        runc_features,
        crun,
        crun_features,
        libcriu: criu::library(),
        criu,
        criu_check: check,
        soft_dirty: dirty,
        kernel: kernel(),
        node_file: node_file(),
        dockers_containerd: daemons::dockers_containerd(),
        handlers: handlers::gather(reaper, &starts, &path, PATIENCE).await,
        starts,
    }
}

fn node_file() -> NodeFileState {
    if !Path::new(NODE_FILE).exists() {
        return NodeFileState::NotThere;
    }
    match NodeFile::read(Path::new(NODE_FILE)) {
        Ok(_) => NodeFileState::Good,
        Err(error) => NodeFileState::Bad(error.to_string()),
    }
}

fn kernel() -> Kernel {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    Kernel {
        checkpoint_restore: checkpoint_restore(&release),
        release,
        cgroup2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        overlay: filesystems.lines().any(|line| line.ends_with("\toverlay")),
        userfaultfd: Path::new("/proc/sys/vm/unprivileged_userfaultfd").exists(),
    }
}

fn checkpoint_restore(release: &str) -> Option<bool> {
    // Only kernels with CONFIG_CHECKPOINT_RESTORE have this file.
    if Path::new("/proc/sys/kernel/ns_last_pid").exists() {
        return Some(true);
    }
    let configuration = fs::read_to_string(format!("/boot/config-{release}")).ok()?;
    Some(configuration.lines().any(|line| line == "CONFIG_CHECKPOINT_RESTORE=y"))
}

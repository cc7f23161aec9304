//! The daemons that run, or would, and the shims that they find.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::command::Daemon;
use crate::command::root::{Root, SHIM, STOCK_SHIM};
use crate::command::{search, unit};

/// Where a daemon's configuration is unless it is told another place.
const CONFIGURATION: &str = "/etc/containerd/config.toml";

/// A containerd that can be asked what it makes of its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configured {
    /// It runs, and has read another configuration than what is there now.
    pub(crate) outdated: bool,
    pub(crate) program: PathBuf,
    pub(crate) file: PathBuf,
}

/// In a second, as the kernel counts for programs.
const TICKS: f64 = 100.0;
/// For the rounding of times.
const SLACK: Duration = Duration::from_secs(1);

/// What a daemon would start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shim {
    Cryo(PathBuf),
    Other(PathBuf),
    None,
    /// The process doesn't show its environment to us.
    Hidden,
}

/// A containerd, and what it starts under the stock shim's name and under our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Starts {
    pub(super) who: String,
    pub(super) daemon: Daemon,
    pub(super) stock_name: Shim,
    pub(super) own_name: Shim,
    pub(super) runs: bool,
    /// Whether it has CRIU in its PATH, as the shim gets the same.
    pub(super) criu: bool,
    /// Nothing if it sees other files than we do.
    pub(super) config: Option<Configured>,
}

#[derive(Clone, Debug)]
struct Running {
    pid: u32,
    parent: u32,
}

/// Every containerd that runs; if none does, those that systemd or we would start.
pub(super) fn starts(path: &str) -> Vec<Starts> {
    let (dockers, containerds) = (running("dockerd"), running("containerd"));
    let own = containerds.iter().any(|process| is_child(process, &dockers));
    let mut found = Vec::new();
    for process in &containerds {
        let dockers = if own { is_child(process, &dockers) } else { !dockers.is_empty() };
        let daemon = if dockers { Daemon::Docker } else { Daemon::Containerd };
        found.push(of_process(process.pid, format!("containerd (pid {})", process.pid), daemon));
    }
    if found.is_empty() {
        let of_docker = |docker: &Running| {
            of_process(docker.pid, format!("dockerd (pid {})", docker.pid), Daemon::Docker)
        };
        found.extend(dockers.iter().map(of_docker));
    }
    if found.is_empty() {
        found.extend(of_units());
    }
    if found.is_empty() {
        found.push(of_path("containerd".into(), Daemon::Containerd, path, Path::new("/")));
    }
    found
}

/// Which containerd starts Docker's containers, if Docker runs.
pub(super) fn dockers_containerd() -> Option<String> {
    let (dockers, containerds) = (running("dockerd"), running("containerd"));
    let own = containerds.iter().find(|process| is_child(process, &dockers));
    match (own, containerds.first()) {
        _ if dockers.is_empty() => None,
        (Some(own), _) => Some(format!("its own (pid {})", own.pid)),
        (None, Some(other)) => Some(format!("the system's (pid {})", other.pid)),
        (None, None) => Some("none that runs".to_owned()),
    }
}

/// Every containerd that runs and may be the one of Kubernetes: not Docker's own.
pub(crate) fn for_pods() -> Vec<Configured> {
    let dockers = running("dockerd");
    let others = running("containerd").into_iter().filter(|process| !is_child(process, &dockers));
    others.filter_map(|process| of_process(process.pid, String::new(), Daemon::Containerd).config).collect()
}

fn is_child(process: &Running, parents: &[Running]) -> bool {
    parents.iter().any(|parent| parent.pid == process.parent)
}

/// Whether a Docker that runs now was given this flag.
pub(crate) fn docker_runs_with(flag: &str) -> bool {
    running("dockerd").iter().any(|docker| {
        let line = fs::read(format!("/proc/{}/cmdline", docker.pid)).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        words.any(|word| word.split('=').next() == Some(flag))
    })
}

fn of_units() -> Vec<Starts> {
    let Ok(root) = Root::new(None) else { return Vec::new() };
    let units = [Daemon::Containerd, Daemon::Docker].into_iter();
    // Docker starts a containerd only where there is no other.
    let first = units.filter(|daemon| unit::exists(&root, daemon.unit())).take(1);
    let starts = |daemon: Daemon| {
        let path = unit::path_in_force(&root, daemon.unit());
        of_path(daemon.unit().to_owned(), daemon, &path, root.folder())
    };
    first.map(starts).collect()
}

fn of_process(pid: u32, who: String, daemon: Daemon) -> Starts {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(environment) = fs::read(process.join("environ")) else {
        return Starts {
            who,
            daemon,
            stock_name: Shim::Hidden,
            own_name: Shim::Hidden,
            runs: true,
            criu: true,
            config: None,
        };
    };
    let mut words = environment.split(|byte| *byte == 0);
    let path = words.find_map(|word| word.strip_prefix(b"PATH=")).unwrap_or_default();
    let path = String::from_utf8_lossy(path).into_owned();
    // containerd looks in its working directory first, and beside itself last.
    let folder = |link: &str| fs::read_link(process.join(link)).unwrap_or_default();
    let (here, program) = (folder("cwd"), folder("exe"));
    let beside = program.parent().unwrap_or(Path::new("")).display().to_string();
    let path = format!("{}:{path}:{beside}", here.display());
    let root = process.join("root");
    let config = sees_what_we_see(&root).then(|| {
        let file = configuration(&process, &here);
        Configured { outdated: has_changed_since(&process, &file).unwrap_or(false), file, program }
    });
    Starts { runs: true, config, ..of_path(who, daemon, &path, &root) }
}

fn sees_what_we_see(root: &Path) -> bool {
    let same =
        |one: &fs::Metadata, other: &fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    fs::metadata(root).is_ok_and(|theirs| fs::metadata("/").is_ok_and(|ours| same(&theirs, &ours)))
}

/// The file that a containerd was started with.
fn configuration(process: &Path, here: &Path) -> PathBuf {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let named = words.iter().enumerate().find_map(|(at, word)| match word.split_once('=') {
        Some(("--config" | "-config" | "-c", file)) => Some(file),
        None if ["--config", "-config", "-c"].contains(&&**word) => words.get(at + 1).map(|file| &**file),
        _ => None,
    });
    here.join(named.unwrap_or(CONFIGURATION))
}

/// Whether a process is older than its configuration, or than what that usually imports.
fn has_changed_since(process: &Path, file: &Path) -> Option<bool> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // Its name may have blanks in it.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let age = Duration::try_from_secs_f64(uptime - ticks as f64 / TICKS).ok()?;
    let began = SystemTime::now().checked_sub(age)?;
    let imported = fs::read_dir(file.with_file_name("conf.d")).into_iter().flatten().flatten();
    let mut files = imported.map(|entry| entry.path()).chain([file.to_owned()]);
    let changed = |file: PathBuf| fs::metadata(file).and_then(|file| file.modified()).ok();
    Some(files.any(|file| changed(file).is_some_and(|changed| changed > began + SLACK)))
}

fn of_path(who: String, daemon: Daemon, path: &str, root: &Path) -> Starts {
    let shim = |name| {
        search::find(name, path, root).map_or(Shim::None, |found| {
            if search::is_cryo(&root.join(found.file.strip_prefix("/").unwrap_or(&found.file))) {
                Shim::Cryo(found.path)
            } else {
                Shim::Other(found.path)
            }
        })
    };
    let criu = search::find("criu", path, root).is_some();
    let program = search::find("containerd", path, root).filter(|_| root == Path::new("/"));
    let config =
        program.map(|found| Configured { program: found.path, file: CONFIGURATION.into(), outdated: false });
    Starts { who, daemon, stock_name: shim(STOCK_SHIM), own_name: shim(SHIM), runs: false, criu, config }
}

/// Processes of that name that aren't in a container: those have their own doctors.
fn running(name: &str) -> Vec<Running> {
    let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
    let ours = namespace(Path::new("/proc/self"));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.path();
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else { continue };
        let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
        // Without root another user's namespace isn't told: better one too many.
        if comm.trim_end() != name || namespace(&process).is_some_and(|theirs| Some(theirs) != ours) {
            continue;
        }
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("State:").is_some_and(|state| !state.starts_with('Z')) {
            let parent = field("PPid:").and_then(|parent| parent.parse().ok()).unwrap_or(0);
            found.push(Running { pid, parent });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_shim_is_known_by_its_name_or_by_what_it_says() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let program = |path: &str, content: &[u8]| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), content).unwrap();
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("usr/bin/containerd-shim-runc-v2", b"Go");
        program("usr/local/bin/containerd-shim-cryo-v2", b"");
        program("copy/containerd-shim-runc-v2", b"\x7fELF io.containerd.runc.cryo.v2 and so on");
        fs::create_dir_all(root.join("first")).unwrap();
        let link = root.join("first/containerd-shim-runc-v2");
        symlink("/usr/local/bin/containerd-shim-cryo-v2", link).unwrap();
        let stock_name = |path: &str| of_path(String::new(), Daemon::Containerd, path, &root).stock_name;
        assert_eq!(stock_name("/usr/bin:/first"), Shim::Other("/usr/bin/containerd-shim-runc-v2".into()));
        assert_eq!(stock_name("/first:/usr/bin"), Shim::Cryo("/first/containerd-shim-runc-v2".into()));
        assert_eq!(stock_name("/copy:/usr/bin"), Shim::Cryo("/copy/containerd-shim-runc-v2".into()));
        assert_eq!(stock_name("/nowhere"), Shim::None);
    }
}

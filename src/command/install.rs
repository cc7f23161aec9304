//! `cryo install`: has a daemon start Cryo in place of the stock shim, and undoes it.

mod config_toml;
mod daemon_json;
mod disk;
mod dump;
mod json;
mod kubernetes;
mod plan;
mod programs;
mod record;
#[cfg(test)]
mod tests;
mod told;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::doctor::{docker_runs_with, node_labels};
use super::root::{BIN, Root, SHIM, USUAL_PATH};
use super::run::{Said, run_now};
use super::unit::Unit;
use super::{Daemon, Install, search};
use kubernetes::Node;
use plan::{Does, Step};
use programs::Programs;
use record::Record;

/// systemd gives a daemon 90 seconds to stop before it kills it.
const RESTART_PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("this changes the system's configuration: run it as root")]
    NotRoot,
    #[error("another cryo install is running: wait for it and run this again")]
    Busy,
    #[error("the shim {SHIM} is neither beside this program nor in PATH: name it with --shim PATH")]
    NoShim,
    #[error("{0} isn't a program that can be run: name the shim's binary with --shim PATH")]
    NotAShim(PathBuf),
    #[error("{0} is there and isn't from this command: move it away and run this again")]
    Foreign(PathBuf),
    #[error("--{0} is for `cryo install kubernetes`")]
    OnlyKubernetes(&'static str),
    #[error("there is no {0} beside this program: --host is for an image with both of Cryo's programs in it")]
    NoProgram(String),
    #[error(
        "containerd reads {0}, not /etc/containerd/config.toml: if another program writes that, as k3s does, \
             add the handler to its template by hand (see deploy/containerd); else name it with --config"
    )]
    OtherConfiguration(PathBuf),
    #[error("{0} isn't called like a file of containerd's, which end in .toml: name another with --config")]
    NotToml(PathBuf),
    #[error("there is no containerd in {USUAL_PATH}, and none runs: install it first")]
    NoContainerd,
    #[error("there is no {0}: have containerd write one by `containerd config default` and run this again")]
    NoConfiguration(PathBuf),
    #[error(
        "containerd doesn't see the handler in {0}: what that imports says something else. Put it there by hand, see deploy/containerd"
    )]
    NotSeen(PathBuf),
    #[error(
        "with the handler in {0} containerd would lose other settings: add it by hand, see deploy/containerd"
    )]
    Loses(PathBuf),
    #[error(
        "{0} containers still run on Cryo and need it, pods' own ones among them: end the pods (`kubectl get pods -A` with \
             runtimeClassName cryo) and run this again"
    )]
    InUse(usize),
    #[error(
        "{0} doesn't show this process among the machine's: in a pod, set hostPID and mount the machine's / with all below it"
    )]
    NoProcesses(PathBuf),
    #[error(transparent)]
    DaemonJson(#[from] daemon_json::Error),
    #[error(transparent)]
    ConfigToml(#[from] config_toml::Error),
    #[error(transparent)]
    Dump(#[from] dump::Error),
    #[error("can't {what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("can't {what} {path}: its file system is read-only; make it writable and run this again")]
    ReadOnly { what: &'static str, path: PathBuf },
    #[error("everything is in place, but '{command}' failed ({why}): see journalctl -xe and run it again")]
    Restart { command: String, why: String },
    #[error(
        "everything is in place, but nothing was restarted, as there is no systemd here: do what is said above"
    )]
    NoSystemd,
}

impl Error {
    fn at(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::NotRoot,
            io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly { what, path },
            _ => Error::Io { what, path, source },
        }
    }
}

pub(crate) fn run(options: &Install, out: &mut dyn Write) -> Result<(), Error> {
    let own = &options.kubernetes;
    let only =
        [("config", own.config.is_some()), ("host", own.host.is_some()), ("labels", own.labels.is_some())];
    if let Some((option, _)) =
        only.into_iter().find(|(_, given)| *given && options.daemon != Daemon::Kubernetes)
    {
        return Err(Error::OnlyKubernetes(option));
    }
    // What lies in an image is out of sight afterwards.
    let labels = own.labels.as_ref().map(|path| File::create(path).map_err(Error::at("write", path)));
    let labels = labels.transpose()?;
    let programs = match &own.host {
        Some(host) => enter(host, options.uninstall)?,
        None => Programs::default(),
    };
    let folder = options.root.as_deref();
    let root = Root::new(folder).map_err(Error::at("use", folder.unwrap_or(Path::new("/"))))?;
    // Looking is free, and whoever puts a package together owns its root.
    if root.is_the_machine() && !options.dry_run && !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let _alone = lock(&root)?;
    let record = Record::read(&root).map_err(Error::at("read", record::PATH))?;
    let job = Job { root: &root, options, programs: &programs };
    if options.uninstall {
        job.uninstall(record, out)?
    } else {
        job.install(record, out)?
    }
    if let Some(mut file) = labels {
        let text = node_labels().map_err(Error::at("look at", "/"))?;
        file.write_all(text.as_bytes()).map_err(Error::at("write", "the labels"))?;
    }
    Ok(())
}

/// From here on the machine's root directory is ours, too.
fn enter(host: &Path, uninstall: bool) -> Result<Programs, Error> {
    let programs = if uninstall { Programs::default() } else { Programs::beside_this()? };
    let entered = rustix::process::chroot(host).and_then(|()| rustix::process::chdir("/"));
    entered.map_err(|error| Error::at("enter", host)(error.into()))?;
    // From another's process ids nobody knows which containerd is the machine's.
    let ids = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/pid")).ok();
    if ids("self").is_none_or(|own| Some(own) != ids("1")) {
        return Err(Error::NoProcesses(host.join("proc")));
    }
    Ok(programs)
}

struct Job<'a> {
    root: &'a Root,
    options: &'a Install,
    programs: &'a Programs,
}

impl Job<'_> {
    fn install(&self, before: Record, out: &mut dyn Write) -> Result<(), Error> {
        let Job { root, options, programs } = self;
        let mut record = before.clone();
        let shim = match programs.shim() {
            Some(shim) => shim,
            None => shim(root, options.shim.as_deref())?,
        };
        let node = match options.daemon {
            Daemon::Kubernetes => Some(Node::look(root, options.kubernetes.config.as_deref())?),
            Daemon::Docker | Daemon::Containerd => None,
        };
        let mut wanted: Vec<_> = programs.wanted().collect();
        wanted.extend(match &node {
            Some(node) => node.wanted(&record, &shim)?,
            None => plan::in_path(root, options.daemon, &shim, experimental_by_flag(root))?,
        });
        let steps = plan::install(root, &mut record, options.daemon, wanted)?;
        let changes = steps.iter().any(|step| step.changes() && !programs.have(&step.path));
        if node.is_some() {
            record.restart_due |= changes;
            record.handler = record.daemons().contains(&Daemon::Kubernetes).then(|| shim.clone());
        }
        let due = record.restart_due || changes;
        if !options.dry_run {
            if let Some(node) = node.filter(|_| changes) {
                node.try_out(&before, &shim)?;
            }
            self.carry_out(&steps, &before, &mut record)?;
        }
        say(out, &told::told(root, options, &steps, due));
        self.restart(&mut record, out)
    }

    fn uninstall(&self, before: Record, out: &mut dyn Write) -> Result<(), Error> {
        let Job { root, options, .. } = self;
        let mut record = before.clone();
        let steps = plan::uninstall(root, &mut record, options.daemon)?;
        let changes = steps.iter().any(Step::changes);
        let kubernetes = options.daemon == Daemon::Kubernetes;
        if kubernetes {
            // Who restarts it by hand doesn't tell us.
            record.restart_due = options.restart && (before.restart_due || changes);
            let left = record.daemons().contains(&Daemon::Kubernetes);
            record.handler.take_if(|_| !left);
        }
        if !options.dry_run {
            if kubernetes && changes {
                nobody_needs(root, &before, &steps)?;
            }
            self.carry_out(&steps, &before, &mut record)?;
        }
        say(out, &told::told(root, options, &steps, changes));
        self.restart(&mut record, out)
    }

    /// Notes first what will be changed, so that the same command can finish what was interrupted.
    fn carry_out(&self, steps: &[Step], before: &Record, record: &mut Record) -> Result<(), Error> {
        let mut ahead = if self.options.uninstall { before.clone() } else { record.with_all_of(before) };
        ahead.restart_due |= record.restart_due;
        if ahead != *before {
            ahead.write(self.root).map_err(Error::at("write", record::PATH))?;
        }
        for step in steps {
            step.carry_out(self.root, self.programs).map_err(Error::at("change", &step.path))?;
        }
        if *record != ahead { tidy(self.root, record) } else { Ok(()) }
    }

    /// Only what runs is restarted; what doesn't will notice when it starts.
    fn restart(&self, record: &mut Record, out: &mut dyn Write) -> Result<(), Error> {
        let Job { root, options, .. } = self;
        // Its pods would notice for nothing.
        if !options.restart || (options.daemon == Daemon::Kubernetes && !record.restart_due) {
            return Ok(());
        }
        for arguments in restarts(root, options.daemon) {
            systemctl(root, &arguments)?;
            say(out, &format!("ran systemctl {}\n", arguments.join(" ")));
        }
        if record.restart_due {
            record.restart_due = false;
            tidy(root, record)?;
        }
        Ok(())
    }
}

/// Without the handler containerd adds no process to a pod that was started by it, as probes do;
/// without its program a shim can't be cleaned up after.
fn nobody_needs(root: &Root, record: &Record, steps: &[Step]) -> Result<(), Error> {
    let Some(shim) = &record.handler else { return Ok(()) };
    let users = programs::users(root, shim)?;
    let goes = steps.iter().any(|step| step.path == *shim && step.does == Does::Remove);
    match if goes { users.all } else { users.of_pods } {
        0 => Ok(()),
        count => Err(Error::InUse(count)),
    }
}

/// Nobody may be reading any more; what was asked for is done all the same.
fn say(out: &mut dyn Write, text: &str) {
    let _ = out.write_all(text.as_bytes());
}

fn experimental_by_flag(root: &Root) -> bool {
    let flag = "--experimental";
    let runs_with = root.is_the_machine() && docker_runs_with(flag);
    runs_with || Unit::without_ours(root, Daemon::Docker.unit()).has_flag(flag)
}

/// One at a time. The root folder is always there, and nobody else locks it.
struct Alone(File);

fn lock(root: &Root) -> Result<Alone, Error> {
    let folder = File::open(root.folder()).map_err(Error::at("open", root.folder()))?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive).map_err(|_| Error::Busy)?;
    Ok(Alone(folder))
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Closing isn't enough: a fork elsewhere may have the descriptor until its exec.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Where the links lead: the path as this machine will see it.
fn shim(root: &Root, named: Option<&Path>) -> Result<PathBuf, Error> {
    let runs = |path: &Path| search::executable(path, root.folder());
    if let Some(path) = named {
        let path = std::path::absolute(path).map_err(Error::at("find", path))?;
        let file = runs(&path).ok_or_else(|| Error::NotAShim(path.clone()))?;
        // Our own link must not lead to itself.
        return Ok(if path.starts_with(BIN) { file } else { path });
    }
    let mut places = Vec::new();
    if root.is_the_machine() {
        let here = std::env::current_exe().ok();
        places.extend(here.and_then(|program| program.parent().map(Path::to_owned)));
        let path = std::env::var("PATH").unwrap_or_default();
        places.extend(path.split(':').filter(|folder| folder.starts_with('/')).map(PathBuf::from));
    }
    places.extend(USUAL_PATH.split(':').map(PathBuf::from));
    let candidates =
        places.into_iter().filter(|folder| folder != Path::new(BIN)).map(|folder| folder.join(SHIM));
    candidates.into_iter().find(|path| runs(path).is_some()).ok_or(Error::NoShim)
}

/// Removes folders of ours that are empty, and the record with the last daemon: after what it
/// knows, as it is all that the next attempt has.
fn tidy(root: &Root, record: &mut Record) -> Result<(), Error> {
    remove_folders(root, record);
    if record.daemons().is_empty() && !record.restart_due {
        disk::remove(root, record::PATH.as_ref()).map_err(Error::at("remove", record::PATH))?;
        remove_folders(root, record);
        return Ok(());
    }
    record.write(root).map_err(Error::at("write", record::PATH))
}

fn remove_folders(root: &Root, record: &mut Record) {
    let folders = std::mem::take(&mut record.folders);
    let left: Vec<_> = folders.into_iter().rev().filter(|folder| !disk::remove_empty(root, folder)).collect();
    record.folders = left.into_iter().rev().collect();
}

fn restarts(root: &Root, daemon: Daemon) -> Vec<Vec<&'static str>> {
    let units = plan::serving(root, daemon).into_iter().map(Daemon::unit);
    let restart = ["try-restart"].into_iter().chain(units).collect();
    match daemon {
        Daemon::Kubernetes => vec![restart],
        Daemon::Docker | Daemon::Containerd => vec![vec!["daemon-reload"], restart],
    }
}

fn systemctl(root: &Root, arguments: &[&str]) -> Result<(), Error> {
    let failed = |why: &str| Error::Restart {
        command: format!("systemctl {}", arguments.join(" ")),
        why: why.to_owned(),
    };
    if !root.has_systemd() {
        return Err(Error::NoSystemd);
    }
    let said = run_now("systemctl", arguments, USUAL_PATH, RESTART_PATIENCE);
    match said.map_err(|error| failed(&error.to_string()))? {
        Said::Done { status: 0, .. } => Ok(()),
        Said::Done { status, errors, .. } => {
            Err(failed(errors.lines().next().unwrap_or(&format!("exit status {status}"))))
        }
        Said::NotThere => Err(failed("there is no systemctl")),
        Said::Silent(patience) => Err(failed(&format!("no end after {} s", patience.as_secs()))),
    }
}

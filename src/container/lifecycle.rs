//! The steps that make, start and remove a container. None of them changes the container's
//! phase: that is the driver's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Create, Error, Node, Options, Subject, annotated};
use crate::bundle::{self, ROOTFS, Spec, write_atomically};
use crate::cgroup::Cgroup;
use crate::criu::lock;
use crate::journal::Journal;
use crate::mount::{Mount, detach_all, detach_below, mount_all, unmount_all};
use crate::operation::aside;
use crate::policy::{self, Annotations, NodeFile, Policy};
use crate::reaper::{Exit, Process, Reaper, parent};
use crate::restore;
use crate::runtime::{self, Ends, Flavour, Runtime, choice};
use crate::stdio::{self, ConsoleSocket, ForConsole, Identity, Plan, Streams};

/// How long a killed process may take to be gone.
const DEATH_PATIENCE: Duration = Duration::from_secs(10);
/// containerd waits for five seconds in all.
const CLEAN_UP_PATIENCE: Duration = Duration::from_secs(2);

/// A process that runs, and its streams.
pub struct Live {
    pub process: Process,
    pub streams: Streams,
}

/// A container just made.
pub(super) struct New {
    pub(super) subject: Arc<Subject>,
    pub(super) rootfs: Vec<Mount>,
    pub(super) checkpoint: Option<PathBuf>,
    pub(super) init: Init,
}

/// What stands behind the container's pid until it is started.
pub(super) enum Init {
    Made(Live),
    /// Nothing of the container yet, but its network namespace is there.
    Awaited(Box<restore::Prepared>),
}

impl Live {
    /// The process must not run on if nobody can have its terminal.
    pub async fn on_terminal(
        process: Process,
        client: ForConsole,
        socket: ConsoleSocket,
    ) -> Result<Live, stdio::Error> {
        match socket.receive().await {
            Ok(console) => Ok(Live { process, streams: client.connect(console) }),
            Err(error) => {
                let _ = process.signal(9);
                Err(error)
            }
        }
    }
}

/// Makes the container, or leaves nothing behind.
pub(super) async fn create(mut create: Create, node: &Node) -> Result<New, Error> {
    node.stops.check(&create.namespace, &create.id, create.checkpoint.is_some())?;
    if create.checkpoint.is_none() {
        create.checkpoint = annotated::checkpoint(&create, node).await?;
    }
    let root = create.bundle.join(ROOTFS);
    if let Some(image) = &create.checkpoint {
        restore::note_daemons_copy(image, &create.bundle);
    }
    let result = match mount_all(node.reaper, &create.rootfs, &root).await {
        Ok(()) => make(&create, node).await,
        Err(error) => Err(error.into()),
    };
    if result.is_err() {
        if let Some(image) = &create.checkpoint {
            restore::remove_daemons_copy(image);
        }
        if let Err(error) = unmount_all(&root).await {
            tracing::warn!(%error, "the root file system stays mounted");
        }
    }
    let (subject, init) = result?;
    Ok(New { subject, rootfs: create.rootfs, checkpoint: create.checkpoint, init })
}

/// What holds for the container at this moment: the node's owner may change it any time.
pub(super) async fn in_force(annotations: &Annotations, node_file: &Path) -> Result<Policy, policy::Error> {
    let (annotations, node_file) = (annotations.clone(), node_file.to_owned());
    aside(move || {
        let node = NodeFile::read_or_default(&node_file, |error| {
            tracing::warn!(%error, "the built-in defaults hold instead");
        });
        Policy::of(&annotations, &node, &node_file)
    })
    .await
}

async fn make(create: &Create, node: &Node) -> Result<(Arc<Subject>, Init), Error> {
    let spec = Spec::read(&create.bundle)?;
    let policy = in_force(&spec.annotations, &node.policy).await?;
    let (options, image) = (&create.options, create.checkpoint.as_deref());
    let runtime = Runtime {
        binary: match &options.runtime {
            Some(named) => named.clone(),
            None => choice::noted(&create.bundle, policy.runtime(), image, node.reaper).await?,
        },
        root: options.runtime_root.clone(),
        bundle: create.bundle.clone(),
        id: create.id.clone(),
        systemd_cgroup: options.systemd_cgroup || spec.has_systemd_cgroup(),
        reaper: node.reaper,
    };
    let mut subject = Subject {
        namespace: create.namespace.clone(),
        id: create.id.clone(),
        bundle: create.bundle.clone(),
        spec,
        runtime,
        paths: create.stdio.clone(),
        plan: Plan::new(&create.stdio)?,
        identity: Identity { namespace: create.namespace.clone(), id: create.id.clone() },
        io_owner: options.io_owner,
        no_pivot: options.no_pivot,
        restore_work: options.restore_work.clone(),
        journal: node.journal.clone(),
        outside: node.outside.clone(),
    };
    if create.checkpoint.is_some() {
        subject.spec.linux.cgroups_path = restore::take_own_cgroup(&subject)?;
    }
    let subject = Arc::new(subject);
    let init = match &create.checkpoint {
        Some(image) => Init::Awaited(Box::new(restore::prepare(subject.clone(), image, policy).await?)),
        None => Init::Made(start_anew(&subject, options.no_new_keyring).await?),
    };
    Ok((subject, init))
}

async fn start_anew(subject: &Subject, no_new_keyring: bool) -> Result<Live, Error> {
    claim_cgroup(subject);
    let made = run_create(subject, no_new_keyring).await;
    match &made {
        Err(Error::Runtime(error)) if error.is_taken() => {}
        Err(_) => remove_unfinished(subject).await,
        Ok(_) => {}
    }
    made
}

/// Notes that the container's cgroup is the container's alone, so that whoever cleans up
/// may end all that is in it.
pub(crate) fn claim_cgroup(subject: &Subject) {
    if subject.spec.cgroup_folder().is_none() || is_occupied(&subject.spec) {
        return;
    }
    // Whoever was put into one that a killed runtime left frozen would stand still there.
    if let Some(left) = spec_cgroup(&subject.spec) {
        left.release();
    }
    // Without the note, only what the runtime knows is ended.
    let _ = write_atomically(&subject.bundle.join(bundle::OWN_CGROUP), b"");
}

pub(crate) fn is_occupied(spec: &Spec) -> bool {
    let processes = spec_cgroup(spec).map(|cgroup| cgroup.processes());
    processes.is_some_and(|processes| processes.is_ok_and(|processes| !processes.is_empty()))
}

/// What a runtime has left that got half way. That it doesn't know the container is fine.
pub(crate) async fn remove_unfinished(subject: &Subject) {
    restore::detach_root(&subject.runtime);
    if let Err(error) = subject.runtime.delete().await {
        tracing::warn!(%error, "a container that couldn't be made can't be removed");
    }
    let Some(cgroup) = spec_cgroup(&subject.spec) else { return };
    // Processes that lost their parent with the runtime have become our children; others
    // that may be there belong to somebody else.
    let us = std::process::id();
    let orphaned = |pid| parent(pid) == Some(us);
    let others = |pid: &u32| !orphaned(*pid);
    if !cgroup.processes().unwrap_or_default().iter().any(others)
        && let Err(error) = cgroup.remove_without(orphaned).await
    {
        tracing::warn!(%error, "the cgroup of a container that couldn't be made stays behind");
    }
}

/// The cgroup that a specification names, if it is there.
fn spec_cgroup(spec: &Spec) -> Option<Cgroup> {
    let path = spec.cgroup_folder()?;
    Cgroup::at_path(&path).ok()
}

async fn run_create(subject: &Subject, no_new_keyring: bool) -> Result<Live, Error> {
    let Subject { runtime, plan, .. } = subject;
    let window = runtime.reaper.window();
    // The specification says whether there is a terminal; the client agrees, as it
    // wrote both.
    if plan.terminal {
        let client = plan.open_for_console(runtime.reaper, &subject.identity).await?;
        let socket = ConsoleSocket::listen(&subject.bundle)?;
        let ends = Ends::Terminal(socket.name());
        let process = runtime.create(&window, ends, subject.no_pivot, no_new_keyring).await?;
        return Ok(Live::on_terminal(process, client, socket).await?);
    }
    let (ends, prepared) = plan.open(runtime.reaper, &subject.identity, subject.io_owner).await?;
    let process = runtime.create(&window, Ends::Pipes(ends), subject.no_pivot, no_new_keyring).await?;
    Ok(Live { process, streams: prepared.connect()? })
}

/// What is left of a container once its first process has ended, or if it never began.
pub(super) struct Remains {
    /// A restore that was prepared and not begun.
    pub(super) awaited: Option<Box<restore::Prepared>>,
    /// Still alive if the container was made and not started.
    pub(super) process: Option<Process>,
    pub(super) streams: Option<Streams>,
    pub(super) cgroup: Option<Cgroup>,
}

/// Removes the container. Says how its first process ended if that was still to come.
pub(super) async fn delete(subject: &Subject, remains: Remains) -> Result<Option<Exit>, Error> {
    let Remains { awaited, process, streams, cgroup } = remains;
    if let Some(awaited) = awaited {
        awaited.abandon().await;
    }
    let mut exit = None;
    let is_dead = process.is_none();
    if let Some(process) = process {
        // Made and never started: the runtime's delete would do, a restore's anchor
        // is ours alone.
        let _ = process.signal(9);
        exit = tokio::time::timeout(DEATH_PATIENCE, process.exited()).await.ok();
    }
    if let Some(streams) = streams
        && !streams.drain(super::exec::DRAIN_PATIENCE).await
    {
        tracing::warn!("somebody still holds the container's output open; the rest of it is dropped");
    }
    let deleted = if is_dead { subject.runtime.delete_dead().await } else { subject.runtime.delete().await };
    // Whatever happened, nothing of it shall stay: not a frozen cgroup, not a mount.
    if let Some(cgroup) = cgroup
        && let Err(error) = cgroup.remove().await
    {
        tracing::warn!(%error, "the container's cgroup stays behind");
    }
    unmount_all(&subject.bundle.join(ROOTFS)).await?;
    deleted?;
    Ok(exit)
}

/// Written when the first process ends, for the shim's `delete` verb to find if this
/// process doesn't live to tell.
pub(super) fn record_exit(subject: &Subject, pid: u32, exit: Exit) {
    let path = subject.bundle.join(bundle::EXIT_STATUS);
    let record = bundle::ExitRecord::new(pid, exit);
    let written = serde_json::to_vec(&record)
        .map_err(std::io::Error::from)
        .and_then(|bytes| write_atomically(&path, &bytes));
    if let Err(source) = written {
        tracing::warn!(error = %Error::Write { path, source }, "the exit status is only known to this shim");
    }
}

/// Removes what is left of a container whose shim is dead, from its bundle alone. Says
/// what couldn't be done; that the container is long gone is no problem.
pub async fn clean_up(bundle: &Path, id: &str, options: &Options, journal: &Journal) -> Vec<String> {
    let mut problems = Vec::new();
    let spec = Spec::read(bundle).unwrap_or_default();
    runtime::end_orphan(bundle);
    let cgroup = left_cgroup(bundle, &spec);
    // First of all it ends, whatever the runtime does or doesn't.
    let mut is_over = false;
    if let Some(cgroup) = &cgroup {
        match cgroup.remove_without(|_| true).await {
            Ok(()) => is_over = true,
            Err(error) => problems.push(error.to_string()),
        }
    }
    let reaper = match Reaper::start() {
        Ok(reaper) => {
            let systemd_cgroup = options.systemd_cgroup || spec.has_systemd_cgroup();
            let runtime = Runtime {
                binary: options.runtime.clone().unwrap_or_else(|| Flavour::Runc.name().into()),
                root: options.runtime_root.clone(),
                bundle: bundle.to_owned(),
                id: id.to_owned(),
                systemd_cgroup,
                reaper,
            };
            restore::detach_root(&runtime);
            if let Err(error) = runtime.delete_within(CLEAN_UP_PATIENCE).await {
                let is_silent = matches!(error, runtime::Error::TimedOut { .. });
                problems.push(error.to_string());
                if is_over
                    && is_silent
                    && let Err(error) = runtime.forget()
                {
                    problems.push(format!("what it knows of {id} stays behind: {error}"));
                }
            }
            Some(reaper)
        }
        Err(error) => {
            problems.push(format!("cannot run the OCI runtime: {error}"));
            None
        }
    };
    if let Err(error) = detach_all(&bundle.join(ROOTFS)) {
        problems.push(error.to_string());
    }
    restore::remove_noted_copy(bundle);
    restore::remove_noted_scratch(bundle);
    // CRIU mounts cgroups beside its log and dies with its mounts in place.
    for folder in journal.folders_of(id) {
        detach_below(&folder);
        restore::remove_mount_yard(&folder);
    }
    // Last, because others may be changing the same rules.
    if let Some(reaper) = reaper {
        lock::open_left(bundle, reaper).await;
    }
    problems
}

/// The container's cgroup, if nobody else's processes can be in it: neither when it was
/// made, nor now by the configuration of another container.
fn left_cgroup(bundle: &Path, spec: &Spec) -> Option<Cgroup> {
    let is_own = bundle.join(bundle::OWN_CGROUP).exists() && !is_shared(bundle, spec);
    spec_cgroup(spec).filter(|_| is_own)
}

/// Whether another container's configuration names this one's cgroup, or one above or
/// below it.
pub(crate) fn is_shared(bundle: &Path, spec: &Spec) -> bool {
    let Some(ours) = spec.cgroup_folder().map(PathBuf::from) else { return false };
    let within = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    // Bundles lie in a folder for each namespace.
    let namespaces = bundle.parent().and_then(Path::parent).map(within).unwrap_or_default();
    let bundles = namespaces.iter().flat_map(|namespace| within(namespace));
    bundles
        .filter(|other| other != bundle)
        .filter_map(|other| Spec::read(&other).ok())
        .filter_map(|other| other.cgroup_folder())
        .any(|theirs| ours.starts_with(&theirs) || Path::new(&theirs).starts_with(&ours))
}

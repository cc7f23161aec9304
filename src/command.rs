//! What an administrator calls. Belongs to the binary: the shim links none of it.

mod answer;
mod ask;
mod check;
mod checkpoint;
mod diff;
mod doctor;
mod find;
mod generate;
mod inspect;
mod install;
mod place;
mod progress;
mod restore;
mod root;
mod run;
mod search;
mod shelf;
mod table;
mod transfer;
mod unit;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Checkpoint and restore of containers: sets Cryo up, and looks after checkpoints.
#[derive(Parser)]
#[command(name = "cryo", version, max_term_width = 100, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Tell whether a container can be checkpointed as it is now, and what is in the way.
    ///
    /// Looks at its processes, changes nothing and doesn't stop it. Works with containers of
    /// containerd, Docker, nerdctl and Kubernetes, whichever shim they have. The exit status is
    /// 0 if it can, 1 if not, and 2 if there is no such container.
    Check(check::Options),
    /// Take a checkpoint of a container, and keep it in the store under a name.
    ///
    /// Works with containers of ctr, nerdctl, Docker and Kubernetes, if their shim is Cryo. The
    /// container stands still no longer than CRIU needs; if anything fails it runs on. Prints the
    /// name, and on standard error how long it took. If this command is interrupted, the
    /// checkpoint goes on and appears in `cryo ls`. The exit status is 0, or 2 if there is no
    /// checkpoint.
    Checkpoint(checkpoint::Options),
    /// Have a container go on from a checkpoint in the store.
    ///
    /// The container that was checkpointed, which has to have ended, or with --id a second one.
    /// One of Docker's has Docker start it, by `docker start --checkpoint`. What other containers
    /// and pods start from is said by the annotation cryo.restore-from.
    Restore(restore::Options),
    /// Tell whether checkpoint and restore will work on this machine.
    ///
    /// Looks at containerd, Docker, runc, crun, CRIU and the kernel, and at which shim each
    /// daemon would start. Says what to do about everything that is missing. Changes nothing.
    /// The exit status is 0 if checkpoint and restore will work, and 1 if not.
    Doctor {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// Print what a node of Kubernetes can be told by labels, as a patch: `kubectl patch node
        /// NAME --patch "$(cryo doctor --node-labels)"`.
        #[arg(long, conflicts_with = "json")]
        node_labels: bool,
    },
    /// Show what a checkpoint holds: processes, open files, sockets, mounts, memory.
    ///
    /// Reads the image's files and changes nothing. Command lines and environments are those of
    /// the dumped memory; values of environment variables are shown only if asked for, because
    /// passwords are handed over like this. The exit status is 0, or 2 if it can't be read.
    ///
    /// JSON has the members `manifest` (cryo.json), `totals`, `processes` (each with `files` and
    /// `memory`), `mounts`, `namespaces` and `cgroups`. Members are added, but never renamed.
    Inspect {
        /// A checkpoint in the store, or the folder of one.
        checkpoint: PathBuf,
        #[command(flatten)]
        options: inspect::Options,
    },
    /// Show what changed between two checkpoints of a container.
    ///
    /// Compares how they were taken, processes, open files, sockets, mounts, limits, and the
    /// content of memory page by page. The exit status is 0 if both are the same, 1 if they
    /// differ, and 2 if one can't be read.
    Diff {
        /// The older checkpoint: one in the store, or a folder.
        before: PathBuf,
        /// The newer one.
        after: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the checkpoints in the store.
    Ls {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove checkpoints from the store.
    ///
    /// Those that are pinned, in use, or still named by a client stay, and the exit status is 1.
    Rm {
        /// Names, ids, or beginnings of ids.
        #[arg(required = true)]
        checkpoints: Vec<String>,
        /// Also what is pinned, what a client names, and what is damaged.
        #[arg(long)]
        force: bool,
    },
    /// Write a checkpoint into one file, for another machine.
    ///
    /// An OCI image layout with a digest for everything, that `ctr image import`, registries and
    /// Kubernetes take. It is made as it is written: the disk needs no room for a copy. What
    /// the container had changed in its root file system is in it if the checkpoint has that.
    Export(transfer::Export),
    /// Take a checkpoint from a file into the store.
    ///
    /// Everything is checked against its digests before it has a name.
    Import(transfer::Import),
    /// Look after the store: /var/lib/cryo/store, if the node file doesn't say otherwise.
    #[command(subcommand)]
    Store(shelf::StoreVerb),
    /// Let a daemon start Cryo, in place of the stock shim or for some pods, or undo that.
    ///
    /// For docker and containerd: makes /usr/local/lib/cryo/bin, where Cryo has the stock shim's
    /// name as well as its own, and puts it first in the daemon's PATH by a systemd drop-in. For
    /// docker it also adds the runtime "cryo" to /etc/docker/daemon.json and switches on the
    /// experimental features, one of which is `docker checkpoint`.
    ///
    /// For kubernetes: gives the node's containerd a handler "cryo", which pods choose by a
    /// RuntimeClass: in a file that config.toml imports, or in config.toml itself if that is of
    /// version 2. containerd is shown a copy of that first.
    ///
    /// What it changes is kept in /var/lib/cryo/install.json,
    /// so that --uninstall leaves everything as it was. Nothing is restarted without --restart.
    Install(Install),
    /// Print what lets a shell complete verbs and options.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages.
    #[command(hide = true)]
    Man {
        /// The folder that they go to.
        folder: PathBuf,
    },
}

#[derive(Args)]
struct Install {
    /// The daemon whose containers it is for.
    daemon: Daemon,
    /// Undo what an earlier install for this daemon did.
    #[arg(long, conflicts_with = "shim")]
    uninstall: bool,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Restart the daemons that run, so that they notice.
    #[arg(long, conflicts_with_all = ["dry_run", "root"])]
    restart: bool,
    /// The shim's binary, if it is neither beside this one nor in PATH.
    #[arg(long, value_name = "PATH")]
    shim: Option<PathBuf>,
    /// Take this folder for the root directory; for packagers and tests.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    kubernetes: ForKubernetes,
}

#[derive(Args, Default)]
struct ForKubernetes {
    /// For kubernetes: containerd's configuration, if it isn't /etc/containerd/config.toml.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["restart", "uninstall"])]
    config: Option<PathBuf>,
    /// For kubernetes, in a pod: where the machine's root directory is. Cryo's programs are
    /// copied from beside this one to its /usr/local/bin.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["root", "shim"])]
    host: Option<PathBuf>,
    /// For kubernetes: write what `cryo doctor --node-labels` says into this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run", "root", "uninstall"])]
    labels: Option<PathBuf>,
}

/// Who starts shims. Docker's containers are started by a containerd, its own or the system's.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
enum Daemon {
    Docker,
    Containerd,
    /// Pods of RuntimeClass "cryo", by the node's containerd.
    Kubernetes,
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Daemon::Docker => "docker",
            Daemon::Containerd => "containerd",
            Daemon::Kubernetes => "kubernetes",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Daemon::Docker => "docker.service",
            Daemon::Containerd | Daemon::Kubernetes => "containerd.service",
        }
    }
}

pub(crate) fn run() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Check(options) => check::run(&options),
        Verb::Checkpoint(options) => checkpoint::run(&options),
        Verb::Restore(options) => restore::run(&options),
        Verb::Doctor { json, node_labels } => doctor::run(json, node_labels),
        Verb::Inspect { checkpoint, options } => inspect::run(&checkpoint, &options),
        Verb::Diff { before, after, json } => diff::run(&before, &after, json),
        Verb::Ls { json } => shelf::ls(json),
        Verb::Rm { checkpoints, force } => shelf::rm(&checkpoints, force),
        Verb::Export(options) => transfer::export(&options),
        Verb::Import(options) => transfer::import(&options),
        Verb::Store(verb) => shelf::store(&verb),
        Verb::Completion { shell } => generate::completion(Arguments::command(), shell),
        Verb::Man { folder } => generate::man(Arguments::command(), &folder),
        Verb::Install(options) => match install::run(&options, &mut io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                answer::complain(&error.to_string());
                ExitCode::FAILURE
            }
        },
    }
}

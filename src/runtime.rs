//! The OCI runtime (runc, crun, or something that speaks like them), one method per
//! verb. It owns the container's state; we ask it by its command line.

pub mod choice;
mod command;
mod error;
pub mod hook;
mod orphan;
mod version;
mod widow;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use command::Call;
pub use command::{Abort, Answer, capture};
pub use error::{Cause, Error};
pub(crate) use orphan::end as end_orphan;
pub use version::Version;

use crate::bundle;
use crate::criu;
use crate::hooks;
use crate::reaper::{Process, Reaper, Window};
use crate::restore::{guard, held};
use crate::stdio::ChildEnds;

/// Hooks run inside create and delete, and may well set up a network.
const LIFECYCLE_DEADLINE: Duration = Duration::from_secs(300);
/// Nothing of the user's runs inside these.
const QUICK_DEADLINE: Duration = Duration::from_secs(60);
/// containerd asks before it makes a container, and can do without an answer.
const FEATURES_DEADLINE: Duration = Duration::from_secs(3);

/// The runtime, for one container.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub binary: PathBuf,
    /// Where it keeps its state.
    pub root: PathBuf,
    pub bundle: PathBuf,
    pub id: String,
    pub systemd_cgroup: bool,
    pub reaper: Reaper,
}

/// How a new process meets its streams: pipes, or a socket that takes its terminal.
#[derive(Debug)]
pub enum Ends<'a> {
    Pipes(ChildEnds),
    /// The socket's name, relative to the bundle.
    Terminal(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Runc,
    Crun,
}

/// A checkpoint or restore, in the runtime's terms.
#[derive(Debug)]
pub struct CriuCall<'a> {
    pub version: &'a Version,
    pub image: &'a Path,
    pub work: &'a Path,
    pub options: &'a criu::Options,
    /// Settings that have no flag.
    pub config: Option<&'a Path>,
    /// CRIU may give deleted files a name.
    pub link_remap: bool,
    /// CRIU leaves connections out that nobody has accepted yet.
    pub skip_in_flight: bool,
    /// Where our binary stops a restore until it is let go on.
    pub hold: Option<&'a Path>,
    /// Where our binary asks for the node's hooks.
    pub hooks: Option<&'a Path>,
    /// The name the container is to have instead of the one it had.
    pub hostname: Option<&'a str>,
    pub deadline: Duration,
    pub abort: &'a Abort,
}

impl Runtime {
    /// Makes the container. Its first process waits, stopped before the user's program;
    /// the window must have been opened before, so that its exit can't be missed.
    pub async fn create(
        &self,
        window: &Window,
        ends: Ends<'_>,
        no_pivot: bool,
        no_new_keyring: bool,
    ) -> Result<Process, Error> {
        let pid_file = self.bundle.join(bundle::INIT_PID);
        self.with_ends(Call::new(self, "create", LIFECYCLE_DEADLINE), ends)
            .option("--bundle", &self.bundle)
            .option("--pid-file", &pid_file)
            .flag("--no-pivot", no_pivot)
            .flag("--no-new-keyring", no_new_keyring)
            .arg(&self.id)
            .run()
            .await?;
        self.adopt(window, &pid_file)
    }

    pub async fn start(&self) -> Result<(), Error> {
        self.call("start", LIFECYCLE_DEADLINE).run().await
    }

    /// Starts another process in the container, described by a file in OCI form.
    pub async fn exec(
        &self,
        window: &Window,
        ends: Ends<'_>,
        process: &Path,
        pid_file: &Path,
    ) -> Result<Process, Error> {
        // runc is done before Go's garbage collection pays, and nothing of the user's
        // inherits this.
        self.with_ends(Call::new(self, "exec", QUICK_DEADLINE), ends)
            .env("GOGC", "off")
            .option("--process", process)
            .option("--pid-file", pid_file)
            .arg("--detach")
            .arg(&self.id)
            .run()
            .await?;
        self.adopt(window, pid_file)
    }

    pub async fn kill(&self, signal: u32, all: bool) -> Result<(), Error> {
        Call::new(self, "kill", QUICK_DEADLINE)
            .flag("--all", all)
            .arg(&self.id)
            .arg(signal.to_string())
            .run()
            .await
    }

    /// Removes what is left of the container. One the runtime doesn't know is removed.
    pub async fn delete(&self) -> Result<(), Error> {
        self.removed(self.call_delete(LIFECYCLE_DEADLINE)).await
    }

    /// The same for one whose process has ended: runc takes a tenth of a second more if it
    /// is told to kill.
    pub async fn delete_dead(&self) -> Result<(), Error> {
        let call = Call::new(self, "delete", LIFECYCLE_DEADLINE).arg(&self.id);
        match self.removed(call).await {
            // Something of it lives on, outside of its first process's pid namespace.
            Err(error) if error.cause() == Cause::NotStopped => self.delete().await,
            result => result,
        }
    }

    /// The same, for whoever has no time to wait for a runtime that hangs.
    pub async fn delete_within(&self, deadline: Duration) -> Result<(), Error> {
        self.removed(self.call_delete(deadline).without_grace()).await
    }

    /// Does without its word that a container is gone, which has neither processes nor a cgroup any
    /// more: containerd doesn't ask again, and the id would be taken for ever. What isn't a plain
    /// file in its folder stays, with the folder.
    pub fn forget(&self) -> io::Result<()> {
        let folder = self.root.join(&self.id);
        for entry in fs::read_dir(&folder)? {
            fs::remove_file(entry?.path())?;
        }
        fs::remove_dir(&folder)
    }

    fn call_delete(&self, deadline: Duration) -> Call<'_> {
        Call::new(self, "delete", deadline).arg("--force").arg(&self.id)
    }

    async fn removed(&self, delete: Call<'_>) -> Result<(), Error> {
        match delete.run().await {
            Err(error) if error.cause() == Cause::NoContainer => Ok(()),
            result => result,
        }
    }

    pub async fn pause(&self) -> Result<(), Error> {
        self.call("pause", QUICK_DEADLINE).run().await
    }

    pub async fn resume(&self) -> Result<(), Error> {
        self.call("resume", QUICK_DEADLINE).run().await
    }

    /// Changes limits; `resources` is JSON as in the OCI specification.
    pub async fn update(&self, resources: Vec<u8>) -> Result<(), Error> {
        let call = Call::new(self, "update", QUICK_DEADLINE).option("--resources", "-");
        call.arg(&self.id).input(resources).run().await
    }

    pub async fn checkpoint(&self, call: &CriuCall<'_>, leave_running: bool) -> Result<(), Error> {
        let decides = call.version.decides_on_leftovers();
        let mut command = self
            .with_criu("checkpoint", call)
            .flag("--leave-running", leave_running)
            .flag("--tcp-skip-in-flight", decides && call.skip_in_flight)
            .flag("--link-remap", decides && call.link_remap);
        if call.version.flavour == Flavour::Runc {
            for namespace in &call.options.empty_namespaces {
                command = command.arg("--empty-ns").arg(namespace);
            }
        }
        command.arg(&self.id).run().await
    }

    /// Brings a container back; its first process runs when this returns.
    pub async fn restore(
        &self,
        window: &Window,
        ends: Ends<'_>,
        call: &CriuCall<'_>,
        no_pivot: bool,
    ) -> Result<Process, Error> {
        let pid_file = self.bundle.join(bundle::INIT_PID);
        let runc = call.version.flavour == Flavour::Runc;
        self.with_ends(self.with_criu("restore", call), ends)
            // runc mounts volumes below the root to make mount points in them. Where they are
            // shared it would take away with them what the host has mounted below.
            .with_own_mounts()
            .env(guard::BUNDLE_VARIABLE, &self.bundle)
            .env(guard::SHIM_VARIABLE, std::process::id().to_string())
            .option("--bundle", &self.bundle)
            .option("--pid-file", &pid_file)
            .arg("--detach")
            // Otherwise runc would adopt the container and take it down with itself.
            .flag("--no-subreaper", runc)
            .flag("--no-pivot", runc && no_pivot)
            .flag("--tcp-close", call.options.tcp_close && call.version.decides_on_tcp_close())
            .arg(&self.id)
            .run()
            .await?;
        self.adopt(window, &pid_file)
    }

    /// Asks the binary which runtime it is.
    pub async fn version(&self) -> Result<Version, Error> {
        let said = version::said(self.reaper, &self.binary).await?;
        Version::parse(&said).ok_or_else(|| Error::Failed {
            verb: "checkpoint",
            cause: Cause::Other,
            message: format!(
                "{} says it is {:?}; checkpoints need runc or crun",
                self.binary.display(),
                version::first_line(&said)
            ),
        })
    }

    fn call(&self, verb: &'static str, deadline: Duration) -> Call<'_> {
        Call::new(self, verb, deadline).arg(&self.id)
    }

    fn with_ends<'a>(&self, call: Call<'a>, ends: Ends<'_>) -> Call<'a> {
        match ends {
            Ends::Pipes(ends) => call.stdio(Some(ends)),
            Ends::Terminal(socket) => call.option("--console-socket", socket),
        }
    }

    fn with_criu<'a>(&'a self, verb: &'static str, call: &CriuCall<'_>) -> Call<'a> {
        let options = call.options;
        let mut command = Call::new(self, verb, call.deadline)
            .option("--image-path", call.image)
            .option("--work-path", call.work)
            .flag("--tcp-established", options.tcp_established)
            .flag("--ext-unix-sk", options.external_unix_sockets)
            .flag("--shell-job", options.shell_job)
            .flag("--file-locks", options.file_locks)
            .with_criu(call.abort);
        if let Some(mode) = &options.cgroups_mode {
            command = command.arg("--manage-cgroups-mode").arg(mode);
        }
        if let Some(profile) = &options.lsm_profile {
            command = command.arg("--lsm-profile").arg(profile);
        }
        if let Some(name) = call.hostname {
            command = command.env(guard::NAME_VARIABLE, name);
        }
        if let Some(socket) = call.hold {
            command = command.env(held::SOCKET_VARIABLE, socket);
        }
        if let Some(socket) = call.hooks {
            command = command.env(hooks::SOCKET_VARIABLE, socket);
        }
        match call.config {
            // CRIU reads it before what the runtime tells it, and every version of
            // runc and crun hands the variable on.
            Some(config) => command.env("CRIU_CONFIG_FILE", config),
            None => command,
        }
    }

    fn adopt(&self, window: &Window, pid_file: &Path) -> Result<Process, Error> {
        let failed = |source| Error::PidFile { path: pid_file.to_owned(), source };
        let pid = bundle::read_pid(pid_file).map_err(failed)?;
        self.reaper.adopt(window, pid).map_err(failed)
    }
}

/// What the runtime says of its own abilities: JSON, as in the OCI specification.
pub async fn features(reaper: Reaper, binary: &Path) -> Result<String, Error> {
    let verb = "features";
    let failed = |message| Error::Failed { verb, cause: Cause::Other, message };
    let answer = command::ask(reaper, binary, verb, FEATURES_DEADLINE).await?;
    if answer.status != 0 {
        return Err(failed(format!("exit status {}: {}", answer.status, answer.errors.trim())));
    }
    // containerd takes it apart, so it has to be what it expects.
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&answer.text) {
        Ok(_) => Ok(answer.text),
        Err(error) => Err(failed(format!("no JSON object: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crun_has_to_be_told_about_tcp_close_since_it_has_a_flag_for_it() {
        let decides = |flavour, text: &str| Version { flavour, text: text.to_owned() }.decides_on_tcp_close();
        for text in ["crun version 1.23", "crun version 1.28-dirty", "crun version 1.23.0.0.0.5-abc"] {
            assert!(decides(Flavour::Crun, text), "{text}");
        }
        for text in ["crun version 1.21", "crun version UNKNOWN", "crun", ""] {
            assert!(!decides(Flavour::Crun, text), "{text}");
        }
        assert!(!decides(Flavour::Runc, "runc version 1.23.0"));
    }

    #[test]
    fn runc_decides_on_what_is_left_over_since_it_has_flags_for_it() {
        let decides = |flavour, text: &str| Version { flavour, text: text.to_owned() }.decides_on_leftovers();
        for text in ["runc version 1.3.0", "runc version 1.3.6+ds1", "runc version 1.4.0-rc.1"] {
            assert!(decides(Flavour::Runc, text), "{text}");
        }
        for text in ["runc version 1.1.15+ds1", "runc version 1.2.9", "runc"] {
            assert!(!decides(Flavour::Runc, text), "{text}");
        }
        assert!(!decides(Flavour::Crun, "crun version 1.28"));
    }
}

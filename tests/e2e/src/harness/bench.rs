//! What a scenario works at: a slot, lent for one trial, and means to fill it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, io};

use containerd_client::types::Mount;
use containerd_client::types::v1::Status;
use nix::sys::signal::Signal;

use super::api::Api;
use super::blueprint::Blueprint;
use super::cgroup;
use super::docker::Docker;
use super::failure::{During, Failure, Outcome};
use super::image;
use super::kube::Kubelet;
use super::leaks;
use super::matrix::{Combination, Runtime, Stream};
use super::pipes::Kind;
use super::settings::settings;
use super::slot::{self, BASE, Slot};
use super::task::{KILL, Task};
use super::wait::eventually;

pub(crate) struct Bench {
    pub(crate) slot: Slot,
    combination: Combination,
    trial: usize,
    folders: AtomicUsize,
    ids: AtomicUsize,
    execs: AtomicUsize,
    /// containerd namespaces in use besides the slot's own.
    others: Mutex<Vec<String>>,
}

impl Bench {
    pub(crate) fn new(slot: Slot, combination: Combination, trial: usize) -> Self {
        Bench {
            slot,
            combination,
            trial,
            folders: AtomicUsize::new(0),
            ids: AtomicUsize::new(0),
            execs: AtomicUsize::new(0),
            others: Mutex::new(Vec::new()),
        }
    }

    /// Acts on a second node, which knows nothing of the first and is left as it was.
    pub(crate) fn on_another_node(&self, act: impl FnOnce(&Bench) -> Outcome) -> Outcome {
        let slot = slot::borrow(self.slot.daemons())?;
        let other = Bench::new(slot, self.combination, self.trial);
        let left = act(&other).and_then(|()| other.tidy()).map(|()| leaks::left_in(&other.slot));
        match left {
            Ok(left) if left.is_empty() => {
                slot::give_back(other.slot);
                Ok(())
            }
            Ok(left) => {
                other.slot.destroy();
                Err(Failure::new(format!("left behind on the other node:\n  {}", left.join("\n  "))))
            }
            Err(failure) => {
                other.slot.destroy();
                Err(failure)
            }
        }
    }

    pub(crate) fn runtime(&self) -> Runtime {
        self.combination.runtime
    }

    pub(crate) fn has_terminal(&self) -> bool {
        self.combination.stream == Stream::Terminal
    }

    pub(crate) fn stdio(&self) -> Kind {
        if self.has_terminal() { Kind::Terminal } else { Kind::Fifo }
    }

    pub(crate) fn api(&self) -> Api {
        self.slot.daemon().api()
    }

    /// A container that runs the guest, with the stdio this trial is about.
    pub(crate) fn guest(&self, args: &[&str]) -> Blueprint<'_> {
        Blueprint::new(self, self.next_id(), args)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Outcome<Task<'_>> {
        self.guest(args).start()
    }

    pub(crate) fn next_id(&self) -> String {
        format!("t{}-{}", self.trial, self.ids.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_exec_id(&self) -> String {
        format!("exec-{}", self.execs.fetch_add(1, Ordering::Relaxed))
    }

    /// A new empty folder that is the same inside the slot and outside.
    pub(crate) fn fresh_folder(&self, name: &str) -> Outcome<PathBuf> {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let folder = self.slot.folder.join("work").join(format!("t{}-{name}-{number}", self.trial));
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// What the node's owner says, for the rest of this trial.
    pub(crate) fn set_node_file(&self, text: &str) -> Outcome {
        Ok(fs::write(self.slot.folder.join("etc/config.toml"), text)?)
    }

    /// The guest as a program of the host.
    pub(crate) fn guest_outside(&self) -> PathBuf {
        Path::new(BASE).join("bin/guest")
    }

    /// Runs a script inside the slot, as its administrator would.
    #[track_caller]
    pub(crate) fn shell(&self, script: &str, args: &[&Path]) -> Outcome<String> {
        let output = self.slot.command("sh").args(["-e", "-c", script, "sh"]).args(args).output()?;
        if !output.status.success() {
            return Err(Failure::new(format!(
                "{script}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A network namespace on a file, with its loopback device up.
    pub(crate) fn network_namespace(&self) -> Outcome<PathBuf> {
        let file = self.fresh_folder("netns")?.join("net");
        let script = "touch \"$1\"; unshare --net=\"$1\" true; nsenter --net=\"$1\" ip link set lo up";
        self.shell(script, &[&file])?;
        Ok(file)
    }

    pub(crate) fn remove_network_namespace(&self, file: &Path) -> Outcome {
        self.shell("umount \"$1\"", &[file])?;
        Ok(())
    }

    /// Ends containerd and starts it again; the shims go on meanwhile.
    #[track_caller]
    pub(crate) fn restart_containerd(&self, signal: Signal) -> Outcome {
        self.stop_containerd(signal)?;
        self.start_containerd()
    }

    pub(crate) fn stop_containerd(&self, signal: Signal) -> Outcome {
        self.slot.daemon().stop(signal)
    }

    pub(crate) fn start_containerd(&self) -> Outcome {
        self.slot.daemon().start_again(&self.slot)
    }

    /// Mounts for a container's root: its snapshot, made unless it exists.
    pub(crate) fn root_filesystem(&self, api: &Api, id: &str, owner: Option<u32>) -> Outcome<Vec<Mount>> {
        self.enter_namespace(&api.namespace)?;
        match api.prepare_snapshot(id, image::layer()) {
            Ok(mounts) => {
                if let Some(owner) = owner {
                    self.change_owner(&mounts, owner)?;
                }
                Ok(mounts)
            }
            Err(_) => api.snapshot_mounts(id).during(|| format!("the snapshot of {id}")),
        }
    }

    fn enter_namespace(&self, namespace: &str) -> Outcome {
        let mut others = self.others.lock().map_err(|_| Failure::new("a trial's thread panicked"))?;
        if namespace != self.slot.containerd_namespace() && !others.iter().any(|known| known == namespace) {
            image::import(&self.slot, namespace)?;
            others.push(namespace.to_owned());
        }
        Ok(())
    }

    /// Gives a root filesystem to the root of a user namespace.
    fn change_owner(&self, mounts: &[Mount], owner: u32) -> Outcome {
        let mount = mounts.first().ok_or_else(|| Failure::new("a snapshot without a mount"))?;
        let folder = self.fresh_folder("chown")?;
        let script = format!(
            "mount -t {} -o {} {} \"$1\"; chown -R {owner}:{owner} \"$1\"; umount \"$1\"",
            mount.r#type,
            mount.options.join(","),
            mount.source
        );
        self.shell(&script, &[&folder])?;
        Ok(())
    }

    /// Ends and removes whatever the scenario made, whether it passed or not.
    pub(crate) fn tidy(&self) -> Outcome {
        if self.slot.daemon().pid().is_none() {
            self.start_containerd()?;
        }
        if let Some(dockerd) = self.slot.dockerd() {
            dockerd.ensure_running(&self.slot)?;
            Docker::at(self).tidy()?;
        }
        if self.slot.is_for_pods() {
            Kubelet::at(self).tidy()?;
        }
        let mut namespaces =
            self.others.lock().map_err(|_| Failure::new("a trial's thread panicked"))?.clone();
        namespaces.push(self.slot.containerd_namespace());
        for namespace in &namespaces {
            self.tidy_namespace(&self.api().in_namespace(namespace))?;
        }
        // Links and fakes in the slot's own PATH, the images and pipes of this trial, its node file.
        for folder in ["bin", "work", "etc"] {
            for entry in fs::read_dir(self.slot.folder.join(folder))?.flatten() {
                let path = entry.path();
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        // What one trial keeps counts in no other. A shim that has just ended may have left a
        // process that still works there.
        let store = self.slot.folder.join("cryo/store");
        eventually("the store is removed", || match fs::remove_dir_all(&store) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => None,
            _ => Some(()),
        })
    }

    fn tidy_namespace(&self, api: &Api) -> Outcome {
        for container in api.list_containers()? {
            self.end_task(api, &container.id)?;
            api.delete_container(&container.id)?;
        }
        for name in api.list_snapshots()? {
            if name != image::layer() {
                match api.remove_snapshot(&name) {
                    // containerd collects what nobody holds any more, too.
                    Err(status) if is_gone(&status) => {}
                    removed => removed.during(|| format!("removing snapshot {name}"))?,
                }
            }
        }
        for found in api.list_images()? {
            if !self.slot.is_for_pods() && found.name != image::NAME {
                api.delete_image(&found.name)?;
            }
        }
        api.delete_leases()?;
        Ok(())
    }

    fn end_task(&self, api: &Api, id: &str) -> Outcome {
        let mut last = String::new();
        let deleted = eventually("deleted", || {
            let state = match api.state(id, "") {
                Err(status) if is_gone(&status) => return Some(()),
                state => state,
            };
            // None of these need succeed: the task may be paused, dying or dead.
            if state.is_ok_and(|state| state.status == Status::Paused as i32) {
                let _ = api.resume(id);
            }
            let _ = api.kill(id, "", KILL, true);
            let _ = api.kill(id, "", KILL, false);
            match api.delete(id) {
                Err(status) if !is_gone(&status) => {
                    last = status.message().to_owned();
                    self.forgive_stock(id, &last);
                    None
                }
                _ => Some(()),
            }
        });
        deleted.map_err(|_| Failure::new(format!("task {id} could not be deleted: {last}")))
    }

    /// The stock shim never gets rid of a task that crun ended by a checkpoint, because
    /// crun has removed its state; containerd does when the shim is dead.
    fn forgive_stock(&self, id: &str, refusal: &str) {
        if settings().shim.is_cryo() || !refusal.contains("cannot open directory") {
            return;
        }
        for pid in cgroup::processes(&self.slot.daemon_cgroup()) {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.contains(&format!("\0-id\0{id}\0")) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
        }
    }
}

fn is_gone(status: &containerd_client::tonic::Status) -> bool {
    status.code() == containerd_client::tonic::Code::NotFound
}

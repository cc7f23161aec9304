//! Where measurements are made: one containerd with both shims, alone or with a dockerd,
//! and their data on a disk, as it is on a real machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::*;

/// A test host has a real disk there.
const DISK: &str = "/var/lib/cryo/bench";
/// Of this process, and of the containers that it runs without containerd.
const CGROUP: &str = "/cryo-bench";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Stock,
    Ours,
}

impl Side {
    fn runtime_name(self) -> &'static str {
        match self {
            Side::Stock => "io.containerd.runc.v2",
            Side::Ours => settings().shim.runtime_name(),
        }
    }

    /// Who goes first changes, so that none gains by what the other leaves warm or busy.
    pub(super) fn both(round: usize) -> [Side; 2] {
        if round.is_multiple_of(2) { [Side::Stock, Side::Ours] } else { [Side::Ours, Side::Stock] }
    }
}

pub(super) struct Place {
    pub(super) bench: Bench,
}

impl Place {
    /// What all places share.
    pub(super) fn prepare() -> Outcome {
        slot::set_up().inspect_err(|_| slot::tear_down())
    }

    pub(super) fn clean_up() {
        slot::tear_down();
        // In a test host the cgroup goes with the host.
        let _ = cgroup::put(std::process::id(), "/");
        let _ = fs::remove_dir(cgroup::folder("pids", CGROUP));
    }

    /// Slots are numbered as they are made; this one finds its folders made.
    pub(super) fn set_up(daemons: slot::Daemons, number: usize) -> Outcome<Place> {
        // What an interrupted run left; there may be none.
        let _ = fs::remove_dir_all(DISK);
        for name in ["root", "work", "docker", "cryo"] {
            let (disk, seen) =
                (Path::new(DISK).join(name), Path::new(slot::BASE).join(number.to_string()).join(name));
            fs::create_dir_all(&disk)?;
            fs::create_dir_all(&seen)?;
            let mounted = Command::new("mount").arg("--bind").arg(&disk).arg(&seen).status()?;
            ensure!(mounted.success(), "{} can't be mounted at {}", disk.display(), seen.display());
        }
        let slot = slot::borrow(daemons)?;
        ensure_eq!(slot.number, number, "the slot's number");
        cgroup::put(std::process::id(), CGROUP)?;
        let bench = Bench::new(slot, Combination { runtime: Runtime::Runc, stream: Stream::Fifo }, 0);
        Ok(Place { bench })
    }

    pub(super) fn close(self) {
        let Bench { slot, .. } = self.bench;
        slot.destroy();
        // Emptied again before the next place is made, and in a test host gone with the host.
        let _ = fs::remove_dir_all(DISK);
    }

    /// Docker knows one name for both shims: what the link of this name leads to is
    /// exchanged. containerd remembers where it has found a name, so the link stays there.
    pub(super) fn put_in_place(&self, side: Side) -> Outcome<PathBuf> {
        let script = "PATH=${PATH#*/in-place:}; command -v containerd-shim-runc-v2";
        let shim = match side {
            Side::Stock => self.bench.shell(script, &[])?.trim().to_owned(),
            Side::Ours => format!("{}/bin/{}", slot::BASE, settings().shim.binary_name()),
        };
        let folder = Path::new(slot::BASE).join("in-place");
        symlink(&shim, folder.join("next"))?;
        fs::rename(folder.join("next"), folder.join("containerd-shim-runc-v2"))?;
        Ok(shim.into())
    }

    pub(super) fn guest(&self, side: Side, runtime: Runtime, args: &[&str]) -> Blueprint<'_> {
        let plan = self.bench.guest(args).runtime_name(side.runtime_name());
        plan.options(|options| options.binary_name = runtime.binary().into())
    }

    /// The shim that serves a task.
    pub(super) fn shim_of(&self, id: &str) -> Outcome<u32> {
        let is_shim = |pid: &u32| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.contains("containerd-shim-") && command.contains(&format!("\0-id\0{id}\0"))
        };
        let all = cgroup::processes(&self.bench.slot.daemon_cgroup());
        all.into_iter().find(is_shim).ok_or_else(|| Failure::new(format!("there is no shim of {id}")))
    }

    /// Removes all that was made, and waits until nothing of it can disturb what comes next.
    pub(super) fn clear(&self) -> Outcome {
        let api = self.bench.api();
        for container in api.list_containers()? {
            // The stock shim can't delete what crun has removed by itself; containerd can,
            // once that shim is dead.
            let refusal = api.delete(&container.id).err();
            if refusal.is_some_and(|status| status.message().contains("cannot open directory")) {
                kill(Pid::from_raw(self.shim_of(&container.id)? as i32), Signal::SIGKILL)?;
            }
        }
        self.bench.tidy()?;
        let slot = &self.bench.slot;
        let daemons = [slot.daemon().pid(), slot.dockerd().and_then(|dockerd| dockerd.pid())];
        eventually("all shims have gone", || {
            let left = cgroup::processes(&slot.daemon_cgroup());
            left.iter().all(|pid| daemons.contains(&Some(*pid))).then_some(())
        })?;
        // Else each restore would have twice as much to do as the one before.
        for below in [CGROUP, &slot.daemon_cgroup(), &slot.containers_cgroup()] {
            cgroup::clean_hidden_hierarchy(below);
        }
        Ok(())
    }

    /// containerd keeps what Docker's checkpoints left until something else makes it look:
    /// the disk is to be as free for the next one as it was for this.
    pub(super) fn collect_garbage(&self) -> Outcome {
        let api = self.bench.api();
        api.with_lease("garbage")?;
        Ok(api.delete_leases()?)
    }

    /// Gets what was written onto the disk, so that it isn't in the way of the next one.
    pub(super) fn settle_disk(&self) {
        nix::unistd::sync();
    }
}

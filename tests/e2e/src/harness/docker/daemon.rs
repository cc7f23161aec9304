//! A dockerd of a slot: started, ended, killed, started again.

use std::fs;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::super::failure::{During, Failure, Outcome};
use super::super::image;
use super::super::settings::settings;
use super::super::slot::{BASE, Slot};
use super::super::wait::eventually;
use super::IMAGE;
use super::api::Api;

pub(crate) struct Dockerd(Mutex<Option<Child>>);

impl Dockerd {
    pub(crate) fn start(slot: &Slot) -> Outcome<Self> {
        // Containers outlive the daemon, so that its end can be tried in any scenario.
        let (parent, driver) =
            (slot.containers_cgroup(), if settings().systemd { "systemd" } else { "cgroupfs" });
        let config = json!({
            "experimental": true,
            "exec-opts": [format!("native.cgroupdriver={driver}")],
            "live-restore": true,
            "containerd": "/run/containerd/containerd.sock",
            "data-root": slot.folder.join("docker"),
            "exec-root": "/run/docker",
            "pidfile": "/run/docker.pid",
            "hosts": ["unix:///run/docker.sock"],
            // systemd's are named, not found by a path.
            "cgroup-parent": if settings().systemd { parent.trim_start_matches('/') } else { &parent },
            "runtimes": {
                "crun": { "path": "/usr/bin/crun" },
                "cryo": { "runtimeType": "io.containerd.runc.cryo.v2" },
            },
        });
        fs::write(slot.folder.join("daemon.json"), config.to_string())?;
        let daemon = Dockerd(Mutex::new(None));
        daemon.start_again(slot)?;
        let root = format!("{BASE}/{}", image::ROOT);
        let args = ["import", "--change", "ENV PATH=/bin", &root, IMAGE];
        let output = slot.command("docker").args(args).output().during(|| "docker import".into())?;
        if !output.status.success() {
            return Err(Failure::new(format!("docker import: {}", String::from_utf8_lossy(&output.stderr))));
        }
        Ok(daemon)
    }

    /// Starts dockerd and waits until it answers.
    pub(crate) fn start_again(&self, slot: &Slot) -> Outcome {
        let config = slot.folder.join("daemon.json");
        let process = slot.start_daemon("dockerd", "--config-file", &config, slot.daemon().log()?)?;
        *self.running() = Some(process);
        eventually("dockerd answers", || Api(slot).answers().then_some(()))
    }

    pub(crate) fn ensure_running(&self, slot: &Slot) -> Outcome {
        if self.pid().is_none() { self.start_again(slot) } else { Ok(()) }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(Child::id)
    }

    pub(crate) fn stop(&self, signal: Signal) -> Outcome {
        if let Some(mut process) = self.running().take() {
            kill(Pid::from_raw(process.id() as i32), signal)?;
            process.wait()?;
        }
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // The slot's cgroup is emptied next, should this fail.
        let _ = self.stop(Signal::SIGKILL);
    }
}

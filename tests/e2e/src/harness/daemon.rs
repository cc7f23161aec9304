//! A containerd of a slot: started, killed, started again.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::api::{Api, Events};
use super::failure::Outcome;
use super::kube;
use super::slot::Slot;
use super::wait::{eventually, patient};

/// Without the CRI, which wants CNI; `kube` has a configuration with it.
const CONFIG: &str = r#"version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.internal.v1.tracing",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart"]
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "100ms"
"#;

/// After a shim has died.
const CLEANUP: Duration = Duration::from_secs(5);

pub(crate) struct Daemon {
    log: PathBuf,
    running: Mutex<Option<Running>>,
    /// All events since the slot was made, also across restarts.
    pub(crate) events: Arc<Events>,
}

struct Running {
    process: Child,
    api: Api,
}

impl Daemon {
    pub(crate) fn start(slot: &Slot) -> Outcome<Self> {
        let config = slot.folder.join("containerd.toml");
        let root = format!("root = \"{}/root\"\nstate = \"/run/containerd\"\n", slot.folder.display());
        // containerd's own is short enough to kill a clean-up on a slow machine.
        let cleanup = patient(CLEANUP).as_secs();
        let timeouts = format!("[timeouts]\n  \"io.containerd.timeout.shim.cleanup\" = \"{cleanup}s\"\n");
        let plugins = if slot.is_for_pods() { kube::configuration(slot) } else { CONFIG.into() };
        fs::write(config, format!("{root}{plugins}{timeouts}"))?;
        let daemon = Daemon {
            log: slot.folder.join("containerd.log"),
            running: Mutex::new(None),
            events: Arc::default(),
        };
        daemon.start_again(slot)?;
        Ok(daemon)
    }

    /// Starts containerd and waits until it answers and its events arrive here.
    pub(crate) fn start_again(&self, slot: &Slot) -> Outcome {
        let config = slot.folder.join("containerd.toml");
        let process = slot.start_daemon("containerd", "--config", &config, self.log()?)?;
        let socket = slot.folder.join("run/containerd/containerd.sock");
        let connect = || Api::connect(&socket, &slot.containerd_namespace()).ok();
        let api = eventually("containerd answers", connect)?;
        *self.running() = Some(Running { process, api: api.clone() });
        self.events.follow(&api)?;
        if slot.is_for_pods() { kube::wait_until_ready(&api) } else { Ok(()) }
    }

    pub(crate) fn api(&self) -> Api {
        self.running().as_ref().expect("the scenario starts containerd again before it calls it").api.clone()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|running| running.process.id())
    }

    /// Ends containerd alone: shims and containers go on.
    pub(crate) fn stop(&self, signal: Signal) -> Outcome {
        if let Some(mut running) = self.running().take() {
            kill(Pid::from_raw(running.process.id() as i32), signal)?;
            running.process.wait()?;
        }
        Ok(())
    }

    /// Where all daemons of the slot write what they log, so that it is in one order.
    pub(crate) fn log(&self) -> Outcome<File> {
        Ok(File::options().create(true).append(true).open(&self.log)?)
    }

    /// What containerd and the shims have logged since `offset`.
    pub(crate) fn log_since(&self, offset: u64) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(offset as usize..).unwrap_or_default()).into_owned()
    }

    pub(crate) fn log_size(&self) -> u64 {
        fs::metadata(&self.log).map(|found| found.len()).unwrap_or(0)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The slot's cgroup is emptied next, should this fail.
        let _ = self.stop(Signal::SIGKILL);
    }
}

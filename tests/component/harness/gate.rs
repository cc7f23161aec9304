//! A place where the runtime or a container waits until the test lets it go on.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::blueprint::{Blueprint, Script};
use super::container::Container;
use super::pipes::mkfifo;
use super::process;
use super::wait::{eventually, until};

pub(crate) struct Gate {
    fifo: PathBuf,
    reached: PathBuf,
}

impl Gate {
    /// By the name that a script or a program knows it by.
    pub(crate) fn new(bundle: &Path, name: &str) -> Gate {
        let fifo = bundle.join(format!("gate-{name}"));
        mkfifo(&fifo);
        Gate { reached: bundle.join(format!("gate-{name}.reached")), fifo }
    }

    /// Whoever stands there; for the runtime this is the call.
    #[track_caller]
    pub(crate) fn wait_until_reached(&self) -> u32 {
        let what = format!("somebody stands at {}", self.fifo.display());
        eventually(&what, || fs::read_to_string(&self.reached).ok()?.trim().parse().ok())
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.reached.exists()
    }

    /// Lets whoever stands there go on; it may have been killed meanwhile.
    #[track_caller]
    pub(crate) fn open(&self) {
        let pid = self.wait_until_reached();
        let non_blocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut open = fs::File::options();
        std::os::unix::fs::OpenOptionsExt::custom_flags(open.write(true), non_blocking);
        until("the gate is open", || open.open(&self.fifo).is_ok() || !process::is_alive(pid));
    }
}

/// A shim whose runtime will wait at a gate before it begins its first call of a verb.
pub(crate) fn at_gate(blueprint: Blueprint<'_>, verb: &'static str) -> (Container, Gate) {
    let container = blueprint.rule(Script::at(verb, "before").nth(1), json!({"wait": "gate"})).boot();
    let gate = Gate::new(&container.bundle.path, "gate");
    (container, gate)
}

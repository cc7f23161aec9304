//! What is seen and done around a container without asking its shim.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use tokio::runtime::Handle;

use super::Inner;
use crate::harness::blueprint::{Script, write_script};
use crate::harness::pipes::Pipe;
use crate::harness::process;
use crate::harness::shim::Said;
use crate::harness::wait::until;

impl Inner {
    pub(crate) fn id(&self) -> String {
        self.bundle.request.id.clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.bundle.path.join(name)
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Everything containerd was told of it, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        self.containerd.events(&self.id())
    }

    #[track_caller]
    pub(crate) fn wait_for_event(&self, what: &str) {
        self.containerd.wait_for_event(&self.id(), what);
    }

    /// Checks that exactly these were told, once the last of them has been.
    #[track_caller]
    pub(crate) fn expect_events<const N: usize>(&self, expected: [&str; N]) {
        until(&format!("{expected:?}, so far {:?}", self.events()), || {
            self.events().len() >= N || self.events().last().map(String::as_str) == expected.last().copied()
        });
        assert_eq!(self.events(), expected);
    }

    /// What the shim wrote into containerd's log.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&self.bundle.log.lock().unwrap()).into_owned()
    }

    /// Changes what the runtime does from its next call on.
    pub(crate) fn script(&self, change: impl FnOnce(&mut Script)) {
        let mut script = Script::default();
        change(&mut script);
        write_script(&self.bundle.path, &script);
    }

    /// The runtime's calls of one verb, with all arguments.
    pub(crate) fn calls(&self, verb: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let of_verb =
            calls.lines().filter_map(|line| line.split_once('\t')).filter(|(first, _)| *first == verb);
        of_verb.map(|(_, words)| words.to_owned()).collect()
    }

    pub(crate) fn stdout(&self) -> &Pipe {
        self.bundle.stdout.as_ref().expect("this container's stdout is a fifo")
    }

    pub(crate) fn stderr(&self) -> &Pipe {
        self.bundle.stderr.as_ref().expect("this container's stderr is a fifo")
    }

    pub(crate) fn stdin(&self) -> &Pipe {
        self.bundle.stdin.as_ref().expect("this container's stdin is a fifo")
    }

    /// The pid as the runtime left it.
    #[track_caller]
    pub(crate) fn init_pid(&self) -> u32 {
        fs::read_to_string(self.path("init.pid")).unwrap().trim().parse().unwrap()
    }

    pub(crate) fn shim_is_alive(&self) -> bool {
        process::is_alive(self.shim)
    }

    /// As an administrator or the OOM killer would.
    pub(crate) fn kill_shim(&self) {
        process::kill(self.shim, 9);
        process::wait_for_death(self.shim);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.address.strip_prefix("unix://").unwrap().into()
    }

    /// What containerd does when a shim has died: its `delete`, then the bundle.
    #[track_caller]
    pub(crate) fn delete_after_death(&self) -> Said {
        let said = self.bundle.call.delete();
        self.forget();
        said
    }

    #[track_caller]
    pub(crate) fn forget(&self) {
        if !self.forgotten.swap(true, Ordering::SeqCst) {
            fs::remove_dir_all(&self.bundle.path).unwrap();
        }
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::SeqCst)
    }
}

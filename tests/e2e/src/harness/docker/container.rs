//! A container of Docker, as `docker` on the command line shows it.

use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::super::cgroup;
use super::super::counted::Lost;
use super::super::failure::{Failure, Outcome, ensure_eq};
use super::super::wait::{eventually, eventually_within};
use super::{Attached, Docker};

/// dockerd hears of an exit, and that its client's pause is over, after the checkpoint is
/// answered: events have a queue of their own, and each is kept on the disk before the next.
const NEWS: Duration = Duration::from_secs(2);

pub(crate) struct Container<'d> {
    pub(crate) docker: &'d Docker<'d>,
    pub(crate) name: String,
    pub(crate) id: String,
    lost: Lost,
}

impl<'d> Container<'d> {
    pub(crate) fn new(docker: &'d Docker<'d>, name: String, id: String) -> Self {
        Container { docker, name, id, lost: Lost::default() }
    }

    /// `docker VERB OPTIONS NAME`.
    #[track_caller]
    pub(crate) fn call(&self, verb: &[&str]) -> Outcome<String> {
        self.docker.call(&[verb, &[&self.name]].concat())
    }

    /// Checkpoints and lets it go on.
    #[track_caller]
    pub(crate) fn copy(&self, checkpoint: &str) -> Outcome {
        self.ask_for_copy(checkpoint)?;
        self.wait_for_status("running")
    }

    /// Whether it really goes on depends on whether the shim hears of that wish.
    #[track_caller]
    pub(crate) fn ask_for_copy(&self, checkpoint: &str) -> Outcome {
        self.forget_hidden_cgroups();
        self.docker.call(&["checkpoint", "create", "--leave-running", &self.name, checkpoint])?;
        Ok(())
    }

    /// Checkpoints and ends it.
    #[track_caller]
    pub(crate) fn checkpoint(&self, checkpoint: &str) -> Outcome {
        self.forget_hidden_cgroups();
        self.docker.call(&["checkpoint", "create", &self.name, checkpoint])?;
        self.wait_for_status("exited")
    }

    /// Why it can't be checkpointed; it runs on.
    #[track_caller]
    pub(crate) fn checkpoint_refusal(&self, checkpoint: &str) -> Outcome<String> {
        let said = self.docker.refusal(&["checkpoint", "create", &self.name, checkpoint])?;
        self.wait_for_status("running")?;
        Ok(said)
    }

    /// Otherwise each generation's restore takes twice as long as the one before.
    fn forget_hidden_cgroups(&self) {
        cgroup::clean_hidden_hierarchy(&self.docker.bench.slot.daemon_cgroup());
    }

    #[track_caller]
    pub(crate) fn start(&self) -> Outcome {
        self.call(&["start"])?;
        Ok(())
    }

    #[track_caller]
    pub(crate) fn start_from(&self, checkpoint: &str) -> Outcome {
        self.call(&["start", "--checkpoint", checkpoint])?;
        Ok(())
    }

    /// Why it can't be started from a checkpoint.
    #[track_caller]
    pub(crate) fn start_refusal(&self, checkpoint: &str) -> Outcome<String> {
        self.docker.refusal(&["start", "--checkpoint", checkpoint, &self.name])
    }

    /// There and back.
    #[track_caller]
    pub(crate) fn come_back(&self, checkpoint: &str) -> Outcome {
        self.checkpoint(checkpoint)?;
        self.start_from(checkpoint)
    }

    #[track_caller]
    pub(crate) fn inspect(&self, field: &str) -> Outcome<String> {
        Ok(self.call(&["inspect", "--format", &format!("{{{{{field}}}}}")])?.trim().to_owned())
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Outcome<String> {
        Ok(self.state()?["Status"].as_str().unwrap_or_default().to_owned())
    }

    #[track_caller]
    fn state(&self) -> Outcome<Value> {
        let mut all = self.docker.api().get(&format!("/containers/{}/json", self.id))?;
        Ok(all["State"].take())
    }

    #[track_caller]
    pub(crate) fn wait_for_status(&self, wanted: &str) -> Outcome {
        let mut last = String::new();
        let seen = eventually_within(NEWS, "status", || {
            last = self.status().ok()?;
            (last == wanted).then_some(())
        });
        if seen.is_err() {
            return Err(Failure::new(format!("after {NEWS:?} its status is {last}, not {wanted}")));
        }
        Ok(())
    }

    #[track_caller]
    pub(crate) fn pid(&self) -> Outcome<u32> {
        let state = self.state()?;
        let pid = state["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.ok_or_else(|| Failure::new(format!("no pid in {state}")))
    }

    /// Waits for its end, and tells the exit status.
    #[track_caller]
    pub(crate) fn wait(&self) -> Outcome<i32> {
        Ok(self.call(&["wait"])?.trim().parse()?)
    }

    #[track_caller]
    pub(crate) fn rm(&self) -> Outcome {
        self.call(&["rm", "--force", "--volumes"])?;
        Ok(())
    }

    /// Stdout and stderr of all its lives.
    #[track_caller]
    pub(crate) fn logs(&self) -> Outcome<String> {
        self.docker.api().logs(&self.id)
    }

    /// The numbers of a counting guest over all its lives, without gap and repeat.
    #[track_caller]
    pub(crate) fn counted(&self) -> Outcome<RangeInclusive<u64>> {
        self.lost.counted(&self.call(&["logs"])?)
    }

    /// What dockerd, which has ended, took with it.
    #[track_caller]
    pub(super) fn note_what_is_lost(&self) -> Outcome {
        let log = fs::read_to_string(self.folder().join(format!("{}-json.log", self.id)))?;
        let entry: Value = serde_json::from_str(log.lines().last().unwrap_or_default())?;
        let bench = self.docker.bench;
        let fifo = bench.api().in_namespace("moby").state(&self.id, "")?.stdout;
        self.lost.note(entry["log"].as_str().unwrap_or_default().trim(), &bench.slot.outside(&fifo))
    }

    /// Waits for `more` lines beyond those that are in its log.
    #[track_caller]
    pub(crate) fn wait_for_counting(&self, more: usize) -> Outcome {
        let lines = || Some(self.logs().ok()?.lines().count());
        let before = lines().unwrap_or_default();
        self.waited(&format!("{more} more lines"), || (lines()? >= before + more).then_some(()))
    }

    /// Waits until its log has a line.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, line: &str) -> Outcome {
        self.wait_for_lines(1, line)
    }

    /// Waits until its log has a line `times` times.
    #[track_caller]
    pub(crate) fn wait_for_lines(&self, times: usize, line: &str) -> Outcome {
        self.waited(&format!("{line:?} {times} times"), || {
            let text = self.logs().ok()?;
            let found = text.lines().filter(|found| found.trim_end_matches('\r') == line).count();
            (found >= times).then_some(())
        })
    }

    /// Says what came instead.
    #[track_caller]
    fn waited(&self, what: &str, look: impl FnMut() -> Option<()>) -> Outcome {
        if eventually("in the log", look).is_ok() {
            return Ok(());
        }
        let status = self.status().unwrap_or_else(|failure| failure.text().to_owned());
        let text = self.logs()?;
        let tail: String = text.chars().skip(text.chars().count().saturating_sub(300)).collect();
        Err(Failure::new(format!("{what} never came; it is {status} and its log ends …{tail:?}")))
    }

    /// Asks a self-checking guest how it is, and waits for the answer it should give.
    #[track_caller]
    pub(crate) fn asks(&self, times: usize, answer: &str) -> Outcome {
        self.call(&["kill", "--signal", "USR1"])?;
        self.wait_for_lines(times, answer)
    }

    /// Runs a command in it and returns what that printed.
    #[track_caller]
    pub(crate) fn exec(&self, command: &[&str]) -> Outcome<String> {
        self.docker.call(&[&["exec", &self.name], command].concat())
    }

    /// The same with a script.
    #[track_caller]
    pub(crate) fn shell(&self, script: &str) -> Outcome<String> {
        self.exec(&["sh", "-ec", script])
    }

    /// It runs, processes can be added, and it goes on counting with nothing lost.
    #[track_caller]
    pub(crate) fn is_well(&self) -> Outcome {
        ensure_eq!(self.status()?, "running", "the status");
        ensure_eq!(self.exec(&["echo", "well"])?, "well\n", "what an exec prints");
        self.wait_for_counting(3)?;
        ensure_eq!(*self.counted()?.start(), 1, "the first number");
        Ok(())
    }

    #[track_caller]
    pub(crate) fn attach(&self) -> Outcome<Attached> {
        Attached::by_pipes(self.docker, &["attach", &self.name])
    }

    /// With a terminal of the given rows and columns.
    #[track_caller]
    pub(crate) fn attach_terminal(&self, rows: u16, columns: u16) -> Outcome<Attached> {
        Attached::by_terminal(self.docker, &["attach", &self.name], rows, columns)
    }

    pub(crate) fn cgroup(&self) -> String {
        self.docker.bench.slot.cgroup_by("docker", &self.id)
    }

    /// Where dockerd keeps what it knows about the container.
    pub(crate) fn folder(&self) -> PathBuf {
        self.docker.bench.slot.folder.join("docker/containers").join(&self.id)
    }

    pub(crate) fn checkpoint_folder(&self, checkpoint: &str) -> PathBuf {
        self.folder().join("checkpoints").join(checkpoint)
    }

    /// Gives another container a copy of a checkpoint.
    #[track_caller]
    pub(crate) fn hand_over(&self, checkpoint: &str, other: &Container<'_>) -> Outcome<PathBuf> {
        let (from, to) = (self.checkpoint_folder(checkpoint), other.checkpoint_folder(checkpoint));
        self.docker.bench.shell("mkdir -p \"${2%/*}\"; cp -a \"$1\" \"$2\"", &[&from, &to])?;
        Ok(to)
    }

    /// The process of its shim.
    #[track_caller]
    pub(crate) fn shim(&self) -> Outcome<u32> {
        let all = cgroup::processes(&self.docker.bench.slot.daemon_cgroup());
        let is_its = |pid: &u32| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.contains(&self.id) && command.contains("shim")
        };
        all.into_iter().find(is_its).ok_or_else(|| Failure::new("it has no shim"))
    }
}

//! A container of a pod.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::api::Answer;
use super::super::counted::Lost;
use super::super::failure::{Failure, Outcome};
use super::super::settings::settings;
use super::super::wait::eventually;
use super::cri::{ContainerState, ContainerStatus, Cri};
use super::log::{Entry, entries};
use super::pod::pid_in;
use super::{ContainerPlan, Pod, Streams};

pub(crate) struct PodContainer<'p, 'b> {
    pub(crate) plan: ContainerPlan<'p, 'b>,
    pub(crate) id: String,
    pub(super) lost: Lost,
}

impl<'p, 'b> PodContainer<'p, 'b> {
    pub(super) fn new(plan: ContainerPlan<'p, 'b>, id: String) -> Self {
        PodContainer { plan, id, lost: Lost::default() }
    }

    pub(crate) fn pod(&self) -> &'p Pod<'b> {
        self.plan.pod
    }

    pub(crate) fn cri(&self) -> Cri {
        self.pod().plan.kubelet.cri()
    }

    pub(crate) fn start(&self) -> Answer<()> {
        self.cri().start(&self.id)
    }

    /// With as many seconds as it has to end by itself.
    pub(crate) fn stop(&self, grace: i64) -> Answer<()> {
        self.cri().stop(&self.id, grace)
    }

    pub(crate) fn remove(&self) -> Answer<()> {
        self.cri().remove(&self.id)
    }

    pub(crate) fn status(&self) -> Answer<ContainerStatus> {
        Ok(self.cri().container_status(&self.id)?.status.unwrap_or_default())
    }

    pub(crate) fn state(&self) -> Answer<ContainerState> {
        Ok(self.status()?.state())
    }

    #[track_caller]
    pub(crate) fn pid(&self) -> Outcome<u32> {
        pid_in(self.cri().container_status(&self.id)?.info.get("info"))
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&self) -> Outcome<ContainerStatus> {
        eventually("the container ends", || {
            self.status().ok().filter(|status| status.state() == ContainerState::ContainerExited)
        })
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill(Pid::from_raw(self.pid()? as i32), signal)?)
    }

    /// What a command in it prints; it has to succeed.
    #[track_caller]
    pub(crate) fn output_of(&self, command: &[&str]) -> Outcome<String> {
        let answer = self.cri().exec_sync(&self.id, command, 0)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if answer.exit_code != 0 {
            let (status, errors) = (answer.exit_code, text(&answer.stderr));
            return Err(Failure::new(format!("{command:?} ended with {status}: {errors}")));
        }
        Ok(text(&answer.stdout))
    }

    #[track_caller]
    pub(crate) fn shell(&self, script: &str) -> Outcome<String> {
        self.output_of(&["/bin/sh", "-ec", script])
    }

    /// Adds a program whose streams stay open.
    #[track_caller]
    pub(crate) fn exec(&self, command: &[&str], terminal: bool) -> Outcome<Streams> {
        Streams::of_exec(self, command, terminal)
    }

    #[track_caller]
    pub(crate) fn attach(&self) -> Outcome<Streams> {
        Streams::attached(self)
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.pod().folder().join(&self.plan.config.log_path)
    }

    /// What it has logged so far.
    #[track_caller]
    pub(crate) fn log(&self) -> Outcome<Vec<Entry>> {
        entries(&fs::read_to_string(self.log_file())?)
    }

    /// Its lines, whichever stream they are from.
    #[track_caller]
    pub(crate) fn lines(&self) -> Outcome<Vec<String>> {
        Ok(self.log()?.into_iter().map(|entry| entry.text).collect())
    }

    #[track_caller]
    pub(crate) fn wait_for_line(&self, line: &str) -> Outcome {
        self.wait_for_lines(1, line)
    }

    #[track_caller]
    pub(crate) fn wait_for_lines(&self, times: usize, line: &str) -> Outcome {
        let count = || Some(self.lines().ok()?.iter().filter(|found| *found == line).count());
        let came = eventually("its log", || (count()? >= times).then_some(()));
        came.map_err(|_| {
            let lines = self.lines().unwrap_or_default();
            Failure::new(format!("{line:?} didn't come {times} times; the log is {lines:?}"))
        })
    }

    /// Waits for `more` lines than there are.
    #[track_caller]
    pub(crate) fn wait_for_counting(&self, more: usize) -> Outcome {
        let lines = || self.lines().map(|lines| lines.len()).unwrap_or_default();
        let before = lines();
        eventually("it counts on", || (lines() >= before + more).then_some(()))
    }

    /// The numbers of a counting guest, which must have no gap and no repeat.
    #[track_caller]
    pub(crate) fn counted(&self) -> Outcome<RangeInclusive<u64>> {
        self.lost.counted(&(self.lines()?.join("\n") + "\n"))
    }

    /// Asks a self-checking guest how it is, and waits for the answer it should give.
    #[track_caller]
    pub(crate) fn asks(&self, times: usize, answer: &str) -> Outcome {
        self.signal(Signal::SIGUSR1)?;
        self.wait_for_lines(times, answer)
    }

    /// By the CRI's own call, into a file.
    pub(crate) fn checkpoint(&self, file: &Path) -> Answer<()> {
        self.cri().checkpoint(&self.id, &file.display().to_string())
    }

    /// As the runtime knows it.
    pub(crate) fn cgroup(&self) -> String {
        let parent = self.pod().cgroup();
        if settings().systemd {
            format!("{parent}/cri-containerd-{}.scope", self.id)
        } else {
            format!("{parent}/{}", self.id)
        }
    }
}

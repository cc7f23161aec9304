//! Removing what is left of a cgroup after its processes are gone.

use std::{fs, path::Path, time::Duration};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::{
    Cgroup, Error,
    file::{self, Access},
};

/// A dead process leaves its cgroup some time after others can see its exit,
/// so a cgroup that is busy now may be empty in a moment. The pauses between
/// attempts double from one millisecond and add up to a second.
const ATTEMPTS: u32 = 11;

impl Cgroup {
    /// Removes its folders and all below, if no process is in them. That none
    /// are left is success, whoever removed them.
    pub async fn remove(&self) -> Result<(), Error> {
        self.remove_without(|_| false).await
    }

    /// Kills the processes in it that `doomed` says are to be killed, those that
    /// come in meanwhile too, and removes it.
    pub async fn remove_without(&self, doomed: impl Fn(u32) -> bool) -> Result<(), Error> {
        let mut pause = Duration::from_millis(1);
        for _ in 1..ATTEMPTS {
            self.kill(&doomed);
            if self.try_remove().is_ok() {
                return Ok(());
            }
            sleep(pause).await;
            pause *= 2;
        }
        self.kill(&doomed);
        self.try_remove()
    }

    /// Thaws it and all below, whoever froze them. For what is to be killed, or is empty.
    pub fn release(&self) {
        self.0.own_folders().flat_map(file::tree).for_each(|folder| thaw(&folder));
    }

    fn kill(&self, doomed: impl Fn(u32) -> bool) {
        let (doomed, others): (Vec<u32>, Vec<u32>) =
            self.processes().unwrap_or_default().into_iter().partition(|pid| doomed(*pid));
        for pid in doomed.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        // With version 1 even a killed process can't die while it is frozen. Others that
        // are paused here stay so.
        if others.is_empty() && !doomed.is_empty() {
            self.release();
        }
    }

    fn try_remove(&self) -> Result<(), Error> {
        let attempts = self.0.own_folders().map(remove_tree);
        // One hierarchy that resists is no reason to leave the others.
        attempts.fold(Ok(()), Result::and)
    }
}

fn remove_tree(top: &Path) -> Result<(), Error> {
    file::tree(top).iter().rev().try_for_each(|folder| remove_one(folder))
}

/// A cgroup that isn't frozen, or that has no freezer, needs no thawing; one
/// that can't be thawed shows that by staying busy.
fn thaw(folder: &Path) {
    let _ = file::write(&folder.join("freezer.state"), "THAWED");
    let _ = file::write(&folder.join("cgroup.freeze"), "0");
}

fn remove_one(folder: &Path) -> Result<(), Error> {
    let Err(source) = fs::remove_dir(folder) else { return Ok(()) };
    match Errno::from_io_error(&source) {
        Some(Errno::NOENT) => Ok(()),
        Some(Errno::BUSY) => {
            let listed = file::text(&folder.join("cgroup.procs"))?.unwrap_or_default();
            let processes = listed.lines().filter_map(|pid| pid.parse().ok()).collect();
            Err(Error::Busy { path: folder.to_owned(), processes })
        }
        _ => Err(Error::file(Access::Remove, folder, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nested_folders_go_deepest_first() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("c");
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::create_dir_all(folder.join("d")).unwrap();
        let cgroup = Cgroup::unified(&folder);
        cgroup.remove().await.unwrap();
        assert!(!folder.exists());
        cgroup.remove().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_folder_that_resists_does_not_keep_the_others() {
        let top = tempfile::tempdir().unwrap();
        let folders = ["cpu", "pids"].map(|name| (name, top.path().join(name)));
        for (_, folder) in &folders {
            fs::create_dir(folder).unwrap();
        }
        // A plain file in it makes rmdir fail.
        fs::write(top.path().join("cpu/stays"), "").unwrap();
        let error = Cgroup::legacy(folders).remove().await.unwrap_err();
        assert!(matches!(error, Error::File { access: Access::Remove, .. }), "{error}");
        assert!(!top.path().join("pids").exists());
    }
}

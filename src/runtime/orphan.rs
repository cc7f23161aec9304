//! A runtime that works with CRIU and loses its shim.
//!
//! It dies with the shim, but what it has started may not, or not at once: CRIU goes on
//! writing, and crun, seeing its helpers die, cleans up cgroups that it can't be sure of any
//! more. Whoever cleans up after the shim ends all of them first.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::bundle::write_atomically;
use crate::reaper::Process;

const NOTE: &str = "cryo-runtime-group";
/// From SIGKILL to the end of a process that may just be writing its memory to a disk.
const DEATH_PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// Says in the bundle, as long as it is held, which process group works on the container.
pub(super) struct Orphan(PathBuf);

impl Orphan {
    pub(super) fn note(bundle: &Path, process: &Process) -> Orphan {
        let path = bundle.join(NOTE);
        let group = process.pid();
        if let Some(born) = born(group) {
            // Without the note it ends when it is done.
            let _ = write_atomically(&path, format!("{group} {born}").as_bytes());
        }
        Orphan(path)
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Ends what a dead shim's runtime has left.
pub(crate) fn end(bundle: &Path) {
    let note = fs::read_to_string(bundle.join(NOTE)).unwrap_or_default();
    let Some((group, noted)) = note.split_once(' ') else { return };
    let Ok(number) = group.parse::<u32>() else { return };
    let Some(group) = Pid::from_raw(number.cast_signed()) else { return };
    // A group keeps its number as long as one of it lives; its leader may be gone.
    if born(number).is_some_and(|born| born != noted) {
        return;
    }
    let _ = kill_process_group(group, Signal::KILL);
    let end = Instant::now() + DEATH_PATIENCE;
    while test_kill_process_group(group).is_ok() && Instant::now() < end {
        std::thread::sleep(PAUSE);
    }
}

/// When a process began, as the kernel counts: tells it from a later one of the same number.
fn born(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reaper::Reaper;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[tokio::test]
    async fn a_group_that_was_noted_is_ended_and_no_other() {
        let bundle = tempfile::tempdir().unwrap();
        let reaper = Reaper::start().unwrap();
        let mut command = Command::new("sleep");
        let process = reaper.spawn(command.arg("1000").process_group(0)).unwrap();
        let note = Orphan::note(bundle.path(), &process);
        let text = fs::read_to_string(bundle.path().join(NOTE)).unwrap();
        fs::write(bundle.path().join(NOTE), format!("{} 1", process.pid())).unwrap();
        end(bundle.path());
        assert!(process.exit().is_none());
        fs::write(bundle.path().join(NOTE), text).unwrap();
        end(bundle.path());
        assert_eq!(process.exited().await.status, 137);
        drop(note);
        assert!(!bundle.path().join(NOTE).exists());
        end(bundle.path());
    }
}

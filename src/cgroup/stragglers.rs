//! Who keeps a cgroup from freezing.
//!
//! The kernel doesn't tell, and what it shows of a thread that froze looks like
//! an uninterruptible sleep. So the threads are looked at twice: before the
//! cgroup is thawed again and right after. One that ran at the first look, or
//! that sleeps in the same uninterruptible way at both, is what held it up.

use std::{fmt, fs, path::PathBuf};

/// A thread that won't freeze, and what it does instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Straggler {
    pub process: u32,
    pub thread: u32,
    pub name: String,
    /// `R`, `S` or `D`, as ps(1) shows it.
    pub state: char,
    /// Where in the kernel it sleeps, if that is known.
    pub sleeps_in: Option<String>,
}

impl fmt::Display for Straggler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ", self.process)?;
        if self.thread != self.process {
            write!(f, "thread {} ", self.thread)?;
        }
        write!(f, "({}) {}", self.name, doing(self.state))?;
        match &self.sleeps_in {
            Some(place) => write!(f, " in {place}"),
            None => Ok(()),
        }
    }
}

fn doing(state: char) -> &'static str {
    match state {
        'R' => "is running",
        'D' => "sleeps uninterruptibly",
        _ => "sleeps",
    }
}

/// Threads that didn't look frozen at the first look.
pub(super) struct Suspects(Vec<Straggler>);

impl Suspects {
    pub(super) fn of(processes: &[u32]) -> Self {
        let threads = processes.iter().flat_map(|process| threads(*process));
        Self(threads.filter(may_run).collect())
    }

    /// What remains of them at the second look, after thawing.
    pub(super) fn still_unmoved(self) -> Vec<Straggler> {
        let unmoved = |suspect: &Straggler| {
            suspect.state != 'D' || look(suspect.process, suspect.thread).as_ref() == Some(suspect)
        };
        self.0.into_iter().filter(unmoved).collect()
    }
}

/// Dead threads are past freezing, and stopped ones count as frozen. Of the
/// functions named, the first are where the freezers of both versions hold a
/// thread. In the others it waits for the child of a vfork, which counts, too.
fn may_run(thread: &Straggler) -> bool {
    const STILL: [&str; 5] =
        ["__refrigerator", "do_freezer_trap", "get_signal", "wait_for_vfork_done", "kernel_clone"];
    let is_still = thread.sleeps_in.as_deref().is_some_and(|place| STILL.contains(&place));
    !is_still && matches!(thread.state, 'R' | 'S' | 'D')
}

fn threads(process: u32) -> Vec<Straggler> {
    let listed = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let names = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.filter_map(|thread| look(process, thread)).collect()
}

fn look(process: u32, thread: u32) -> Option<Straggler> {
    let folder = PathBuf::from(format!("/proc/{process}/task/{thread}"));
    let stat = fs::read(folder.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // `12 (name) D …`, where the name may hold brackets of its own.
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let state = after.trim_start().chars().next()?;
    let place = fs::read_to_string(folder.join("wchan")).unwrap_or_default();
    let sleeps_in = Some(place).filter(|place| !place.is_empty() && place != "0");
    Some(Straggler { process, thread, name, state, sleeps_in })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(state: char, sleeps_in: Option<&str>) -> Straggler {
        let sleeps_in = sleeps_in.map(str::to_owned);
        Straggler { process: 12, thread: 12, name: "redis".to_owned(), state, sleeps_in }
    }

    #[test]
    fn what_the_freezer_holds_or_counts_as_frozen_is_no_suspect() {
        assert!(may_run(&thread('R', None)));
        assert!(may_run(&thread('D', Some("pipe_write"))));
        assert!(!may_run(&thread('D', Some("__refrigerator"))));
        assert!(!may_run(&thread('S', Some("do_freezer_trap"))));
        assert!(!may_run(&thread('D', Some("kernel_clone"))));
        assert!(!may_run(&thread('T', Some("do_signal_stop"))));
        assert!(!may_run(&thread('Z', None)));
    }

    #[test]
    fn only_what_sleeps_alike_at_both_looks_was_unmoved() {
        let mut moved = thread('D', Some("folio_wait_bit_common"));
        moved.process = std::process::id();
        moved.thread = moved.process;
        let running = thread('R', None);
        assert_eq!(Suspects(vec![moved, running.clone()]).still_unmoved(), [running]);
    }

    #[test]
    fn it_is_told_what_a_straggler_does() {
        let mut straggler = thread('D', Some("nfs_wait_bit_killable"));
        let text = "process 12 (redis) sleeps uninterruptibly in nfs_wait_bit_killable";
        assert_eq!(straggler.to_string(), text);
        straggler.thread = 14;
        straggler.state = 'R';
        straggler.sleeps_in = None;
        assert_eq!(straggler.to_string(), "process 12 thread 14 (redis) is running");
    }

    #[test]
    fn this_very_thread_is_seen_running() {
        let process = std::process::id();
        let running = threads(process).into_iter().filter(|thread| thread.state == 'R');
        assert!(running.count() >= 1);
    }
}

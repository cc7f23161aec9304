//! Noticing that the kernel killed a process because memory ran out.
//!
//! The kernel signals when a memory cgroup is in trouble, and counts its kills;
//! only the count tells that one happened. Signal and count don't come
//! together:
//!
//! - Version 1 signals an eventfd before it looks for a victim, and once more
//!   when the cgroup is removed. So after a signal the count is read several
//!   times.
//! - Version 2 signals each change of `memory.events`, the count included. It
//!   says nothing when the cgroup is removed, but its processes have all left
//!   before that, and this it signals in `cgroup.events`.
//!
//! A signal may also be late: an exit can be seen before it. Whoever tells of
//! exits therefore asks [`OomWatch::unreported`] first.

use std::{
    fs,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::inotify,
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};

use super::{Cgroup, Error, file, place::Place};
use crate::sys;

impl Cgroup {
    /// How many of its processes the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> Result<u64, Error> {
        let folder = self.0.own_folder("memory").ok_or_else(|| self.without("memory"))?;
        if let Place::V2(_) = *self.0 {
            return kills_in(&folder.join("memory.events"))?.ok_or_else(|| self.gone());
        }
        // Here a victim is counted only in the very cgroup it was in.
        let mut sum = None;
        for folder in file::tree(folder) {
            let kills = kills_in(&folder.join("memory.oom_control"))?;
            sum = kills.map(|kills| sum.unwrap_or(0) + kills).or(sum);
        }
        sum.ok_or_else(|| self.gone())
    }

    /// Watches for such kills from now on. Needs a tokio runtime with I/O and time.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        let folder = self.0.own_folder("memory").ok_or_else(|| self.without("memory"))?;
        // Registered before the count is read, so that nothing falls between.
        let signal = match *self.0 {
            Place::V1(_) => eventfd_on(folder),
            Place::V2(_) => inotify_on(folder),
        };
        let signal = signal.and_then(sys::watch);
        let signal = signal.map_err(|source| Error::Watch { cgroup: self.to_string(), source })?;
        let reported = self.oom_kills()?;
        let state = Attention::Asleep;
        Ok(OomWatch { cgroup: self.clone(), signal, reported, state, is_due: true })
    }
}

/// Yields the kills in one cgroup, each once.
#[derive(Debug)]
pub struct OomWatch {
    cgroup: Cgroup,
    signal: AsyncFd<OwnedFd>,
    reported: u64,
    state: Attention,
    /// The count is worth reading.
    is_due: bool,
}

#[derive(Clone, Copy, Debug)]
enum Attention {
    Asleep,
    /// A signal came; the count is due again after this pause, which ends then.
    Alert(Duration, Instant),
    /// The last process has left.
    Over,
}

impl Attention {
    fn alert(pause: Duration) -> Self {
        Self::Alert(pause, Instant::now() + pause)
    }
}

impl OomWatch {
    /// After a signal of version 1, the pauses between looks at the count
    /// double between these bounds, about a second in all. Choosing and killing
    /// a victim takes milliseconds.
    const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
    const LONGEST_PAUSE: Duration = Duration::from_millis(512);

    /// Waits for kills and says how many; nothing any more once the cgroup has
    /// gone. May be dropped and called again without losing any.
    pub async fn next(&mut self) -> Option<u64> {
        loop {
            if !self.is_due {
                self.wait().await?;
            }
            let kills = match self.cgroup.oom_kills() {
                Ok(kills) => kills,
                Err(Error::Gone { .. }) => return None,
                Err(error) => {
                    tracing::warn!("no longer watching for memory running out: {error}");
                    return None;
                }
            };
            self.is_due = false;
            match self.report(kills) {
                0 => {}
                new => return Some(new),
            }
        }
    }

    /// Kills that `next` has not yet reported, without waiting for a signal;
    /// they count as reported now. Zero if the cgroup has gone.
    pub fn unreported(&mut self) -> u64 {
        self.cgroup.oom_kills().map_or(0, |kills| self.report(kills))
    }

    fn report(&mut self, kills: u64) -> u64 {
        // The sum of version 1 shrinks when a cgroup below is removed.
        let new = kills.saturating_sub(self.reported);
        self.reported = kills;
        new
    }

    /// Waits until the count is worth reading again.
    async fn wait(&mut self) -> Option<()> {
        let pause = match self.state {
            Attention::Asleep => None,
            Attention::Alert(pause, until) => Some((pause, until)),
            Attention::Over => return None,
        };
        let until = pause.map_or_else(Instant::now, |(_, until)| until);
        tokio::select! {
            signalled = drain(&self.signal) => {
                signalled.ok()?;
                self.state = self.after_signal();
            }
            () = sleep_until(until), if pause.is_some() => {
                let longer = pause.map(|(pause, _)| pause * 2);
                let longer = longer.filter(|pause| *pause <= Self::LONGEST_PAUSE);
                self.state = longer.map_or(Attention::Asleep, Attention::alert);
            }
        }
        self.is_due = true;
        Some(())
    }

    fn after_signal(&self) -> Attention {
        let Place::V2(_) = *self.cgroup.0 else { return Attention::alert(Self::SHORTEST_PAUSE) };
        let events = self.cgroup.0.census().join("cgroup.events");
        match file::pairs(&events).ok().flatten().and_then(|events| events.find("populated")) {
            Some(0) | None => Attention::Over,
            Some(_) => Attention::Asleep,
        }
    }
}

fn kills_in(path: &Path) -> Result<Option<u64>, Error> {
    Ok(file::pairs(path)?.map(|counts| counts.count("oom_kill")))
}

/// Registers an eventfd by telling the kernel both numbers; it keeps what it
/// needs of the file.
fn eventfd_on(folder: &Path) -> io::Result<OwnedFd> {
    let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = fs::File::open(folder.join("memory.oom_control"))?;
    let order = format!("{} {}", eventfd.as_raw_fd(), control.as_raw_fd());
    fs::OpenOptions::new()
        .write(true)
        .open(folder.join("cgroup.event_control"))?
        .write_all(order.as_bytes())?;
    Ok(eventfd)
}

fn inotify_on(folder: &Path) -> io::Result<OwnedFd> {
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    for name in ["memory.events", "cgroup.events"] {
        inotify::add_watch(&inotify, folder.join(name), inotify::WatchFlags::MODIFY)?;
    }
    Ok(inotify)
}

/// Waits for a signal and takes all there are. What they say doesn't matter.
async fn drain(signal: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let mut ready = signal.readable().await?;
        let read = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut buffer)?));
        if let Ok(read) = read {
            return read.map(drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn v2() -> (tempfile::TempDir, Cgroup) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("memory.events"), "max 7\noom 0\noom_kill 0\n").unwrap();
        fs::write(folder.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let cgroup = Cgroup::unified(folder.path());
        (folder, cgroup)
    }

    /// Changes a file in one step, as the kernel does; the text keeps its length.
    fn change(folder: &tempfile::TempDir, name: &str, text: &str) {
        let file = fs::OpenOptions::new().write(true).open(folder.path().join(name)).unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
    }

    #[tokio::test]
    async fn only_kills_are_reported_and_each_once() {
        let (folder, cgroup) = v2();
        let mut watch = cgroup.watch_oom().unwrap();
        change(&folder, "memory.events", "max 9\noom 1\noom_kill 0\n");
        let nothing = tokio::time::timeout(Duration::from_millis(20), watch.next());
        assert!(nothing.await.is_err());
        change(&folder, "memory.events", "max 9\noom 1\noom_kill 2\n");
        assert_eq!(watch.next().await, Some(2));
        change(&folder, "memory.events", "max 9\noom 2\noom_kill 3\n");
        assert_eq!(watch.unreported(), 1);
        assert_eq!(watch.unreported(), 0);
    }

    #[tokio::test]
    async fn kills_before_the_watch_belong_to_somebody_else() {
        let (folder, cgroup) = v2();
        change(&folder, "memory.events", "max 7\noom 4\noom_kill 4\n");
        let mut watch = cgroup.watch_oom().unwrap();
        change(&folder, "memory.events", "max 7\noom 4\noom_kill 5\n");
        assert_eq!(watch.next().await, Some(1));
        assert_eq!(cgroup.oom_kills().unwrap(), 5);
    }

    #[tokio::test]
    async fn the_last_kill_is_reported_before_the_watch_ends() {
        let (folder, cgroup) = v2();
        let mut watch = cgroup.watch_oom().unwrap();
        change(&folder, "cgroup.events", "populated 0\nfrozen 0\n");
        change(&folder, "memory.events", "max 7\noom 1\noom_kill 1\n");
        assert_eq!(watch.next().await, Some(1));
        assert_eq!(watch.next().await, None);
    }

    #[tokio::test]
    async fn the_watch_ends_with_the_cgroup() {
        let (folder, cgroup) = v2();
        let mut watch = cgroup.watch_oom().unwrap();
        drop(folder);
        assert_eq!(watch.next().await, None);
        assert_eq!(watch.unreported(), 0);
    }

    #[tokio::test]
    async fn version_1_counts_victims_in_cgroups_below_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::write(folder.path().join("cgroup.event_control"), "").unwrap();
        let control = |kills| format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n");
        fs::write(folder.path().join("memory.oom_control"), control(1)).unwrap();
        fs::write(below.join("memory.oom_control"), control(2)).unwrap();
        let cgroup = Cgroup::legacy([("memory", folder.path())]);
        let mut watch = cgroup.watch_oom().unwrap();
        assert_eq!(cgroup.oom_kills().unwrap(), 3);
        fs::write(below.join("memory.oom_control"), control(5)).unwrap();
        assert_eq!(watch.next().await, Some(3));
        let order = fs::read_to_string(folder.path().join("cgroup.event_control")).unwrap();
        let numbers = order.split(' ').filter(|number| number.parse::<u32>().is_ok());
        assert_eq!(numbers.count(), 2, "{order:?}");
    }

    #[tokio::test]
    async fn without_a_memory_controller_there_is_nothing_to_watch() {
        let folder = tempfile::tempdir().unwrap();
        let error = Cgroup::legacy([("pids", folder.path())]).watch_oom().unwrap_err();
        assert!(matches!(error, Error::NoController { controller: "memory", .. }), "{error}");
        let error = Cgroup::unified(folder.path()).watch_oom().unwrap_err();
        assert!(matches!(error, Error::Watch { .. }), "{error}");
    }
}

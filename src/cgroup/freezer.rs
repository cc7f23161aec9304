//! Making all processes of a cgroup stand still, and letting them go on.
//!
//! The kernel is asked by writing a file and takes its time; another file says
//! when it is done. Both versions freeze what is below as well. What was frozen
//! below by itself stays so when this cgroup thaws: a container may hold paused
//! containers of its own.

use std::{
    mem,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{Cgroup, Error, file, place::Place, stragglers::Suspects};

/// Long enough for a thread to die.
const LET_GO: Duration = Duration::from_millis(2);

/// How still a cgroup stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freezer {
    Thawed,
    /// Asked to freeze, but something in it still runs.
    Freezing,
    Frozen,
}

impl Cgroup {
    /// Freezes it and waits until nothing in it runs any more. If `deadline`
    /// passes first, the error tells which processes went on. Unless it froze
    /// it is thawed again, also when the caller stops waiting. Freezing what is
    /// frozen changes nothing.
    pub async fn freeze(&self, deadline: Instant) -> Result<(), Error> {
        let switch = Switch::of(self)?;
        let mut pauses = Pauses::until(deadline);
        let undo = Undo(&switch);
        loop {
            // Version 1 can miss processes that come in meanwhile, by fork or
            // by exec into the container. Asking again reaches them.
            switch.set(true)?;
            if switch.state()? == Freezer::Frozen {
                mem::forget(undo);
                return Ok(());
            }
            if !pauses.pause().await {
                break;
            }
            if !switch.is_v2 && pauses.are_long() {
                // A thread that executes a program waits for its siblings to die, and with
                // version 1 they can't while they are frozen.
                switch.set(false)?;
                sleep(LET_GO).await;
            }
        }
        let suspects = Suspects::of(&self.processes()?);
        drop(undo);
        Err(Error::WontFreeze { stragglers: suspects.still_unmoved(), path: switch.folder })
    }

    /// Lets it go on, and waits until it does. Thawing what isn't frozen
    /// changes nothing.
    pub async fn thaw(&self, deadline: Instant) -> Result<(), Error> {
        let switch = Switch::of(self)?;
        switch.set(false)?;
        let mut pauses = Pauses::until(deadline);
        while switch.state()? != Freezer::Thawed {
            if switch.is_held_from_above()? {
                return Err(Error::FrozenAbove { path: switch.folder });
            }
            if !pauses.pause().await {
                return Err(Error::WontThaw { path: switch.folder });
            }
        }
        Ok(())
    }

    /// The cgroup, this or one above, that was frozen by itself and doesn't hold `other`.
    pub fn frozen_apart_from(&self, other: &Self) -> Option<&Path> {
        let (own, other) = (self.folder("freezer")?, other.folder("freezer")?);
        let mut apart = own.ancestors().take_while(|folder| !other.starts_with(folder));
        let is_on = |folder: &Path, name| matches!(file::number(&folder.join(name)), Ok(Some(1)));
        apart.find(|folder| is_on(folder, "freezer.self_freezing") || is_on(folder, "cgroup.freeze"))
    }

    /// Whether it stands still now, for whatever reason.
    pub fn frozen(&self) -> Result<Freezer, Error> {
        Switch::of(self)?.state()
    }
}

/// The files of one cgroup that freeze it and tell of it.
struct Switch {
    folder: PathBuf,
    is_v2: bool,
}

impl Switch {
    fn of(cgroup: &Cgroup) -> Result<Self, Error> {
        let switch = cgroup
            .folder("freezer")
            .map(|folder| Self { folder: folder.to_owned(), is_v2: matches!(*cgroup.0, Place::V2(_)) });
        let switch = switch.ok_or_else(|| cgroup.without("freezer"))?;
        match (switch.folder.is_dir(), switch.order().exists()) {
            (true, true) => Ok(switch),
            // The top of a hierarchy has none; version 2 only since Linux 5.2.
            (true, false) => Err(cgroup.without("freezer")),
            (false, _) => Err(Error::Gone { path: switch.folder }),
        }
    }

    fn order(&self) -> PathBuf {
        self.folder.join(if self.is_v2 { "cgroup.freeze" } else { "freezer.state" })
    }

    fn set(&self, frozen: bool) -> Result<(), Error> {
        let word = match (self.is_v2, frozen) {
            (true, true) => "1",
            (true, false) => "0",
            (false, true) => "FROZEN",
            (false, false) => "THAWED",
        };
        file::write(&self.order(), word)
    }

    fn state(&self) -> Result<Freezer, Error> {
        if self.is_v2 {
            let events = self.folder.join("cgroup.events");
            let events = file::pairs(&events)?.ok_or_else(|| self.gone())?;
            return Ok(match (events.count("frozen"), self.is_on("cgroup.freeze")?) {
                (0, false) => Freezer::Thawed,
                (0, true) => Freezer::Freezing,
                _ => Freezer::Frozen,
            });
        }
        let path = self.order();
        let text = file::text(&path)?.ok_or_else(|| self.gone())?;
        match text.trim() {
            "THAWED" => Ok(Freezer::Thawed),
            "FREEZING" => Ok(Freezer::Freezing),
            "FROZEN" => Ok(Freezer::Frozen),
            _ => Err(Error::malformed(&path, &text)),
        }
    }

    /// Whether nothing we write here can thaw it.
    fn is_held_from_above(&self) -> Result<bool, Error> {
        if !self.is_v2 {
            return self.is_on("freezer.parent_freezing");
        }
        let is_frozen = |folder: &Path| {
            let order = file::number(&folder.join("cgroup.freeze"));
            order.is_ok_and(|order| order == Some(1))
        };
        Ok(self.folder.ancestors().skip(1).any(is_frozen))
    }

    fn is_on(&self, name: &str) -> Result<bool, Error> {
        Ok(file::number(&self.folder.join(name))?.is_some_and(|flag| flag != 0))
    }

    fn gone(&self) -> Error {
        Error::Gone { path: self.folder.clone() }
    }
}

/// Thaws when it is dropped.
struct Undo<'a>(&'a Switch);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        match self.0.set(false) {
            Ok(()) | Err(Error::Gone { .. }) => {}
            Err(error) => tracing::error!("a container stays frozen: {error}"),
        }
    }
}

/// Freezing mostly takes less than a millisecond, and a caller waits for it. So
/// the first looks come quickly, and later ones at a rate that costs nothing.
struct Pauses {
    next: Duration,
    deadline: Instant,
}

impl Pauses {
    const LONGEST: Duration = Duration::from_millis(20);

    fn until(deadline: Instant) -> Self {
        Self { next: Duration::from_millis(1), deadline }
    }

    fn are_long(&self) -> bool {
        self.next == Self::LONGEST
    }

    /// Waits a while, or says that there is no time left.
    async fn pause(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.deadline {
            return false;
        }
        sleep_until(self.deadline.min(now + self.next)).await;
        self.next = Self::LONGEST.min(self.next * 2);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A cgroup of version 2 whose kernel never gets it frozen.
    fn unyielding(processes: &str) -> (tempfile::TempDir, Cgroup) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cgroup.freeze", "0"),
            ("cgroup.events", "populated 1\nfrozen 0\n"),
            ("cgroup.procs", processes),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let cgroup = Cgroup::unified(folder.path());
        (folder, cgroup)
    }

    /// A cgroup of version 1 whose kernel does at once what it is told.
    fn obedient() -> (tempfile::TempDir, Cgroup) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("freezer.state"), "THAWED\n").unwrap();
        let cgroup = Cgroup::legacy([("freezer", folder.path())]);
        (folder, cgroup)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn freezing_and_thawing_may_be_repeated() {
        let (_folder, cgroup) = obedient();
        for _ in 0..2 {
            cgroup.freeze(soon()).await.unwrap();
            assert_eq!(cgroup.frozen().unwrap(), Freezer::Frozen);
        }
        for _ in 0..2 {
            cgroup.thaw(soon()).await.unwrap();
            assert_eq!(cgroup.frozen().unwrap(), Freezer::Thawed);
        }
    }

    #[test]
    fn who_was_frozen_apart_is_found_from_below() {
        for order in ["freezer.self_freezing", "cgroup.freeze"] {
            let folder = tempfile::tempdir().unwrap();
            let [first, inner] = ["first", "inner"].map(|name| folder.path().join(name));
            fs::create_dir_all(&first).unwrap();
            fs::create_dir_all(inner.join("deep")).unwrap();
            let [top, first, deep] = [folder.path(), &first, &inner.join("deep")].map(Cgroup::unified);
            // What holds all of them is the container's own pause.
            fs::write(folder.path().join(order), "1\n").unwrap();
            assert_eq!(deep.frozen_apart_from(&first), None);
            fs::write(inner.join(order), "1\n").unwrap();
            assert_eq!(deep.frozen_apart_from(&first), Some(&*inner));
            assert_eq!(deep.frozen_apart_from(&top), Some(&*inner));
            assert_eq!(first.frozen_apart_from(&deep), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_freeze_is_thawed_and_named() {
        let (folder, cgroup) = unyielding(&std::process::id().to_string());
        let start = Instant::now();
        let error = cgroup.freeze(soon()).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(fs::read_to_string(folder.path().join("cgroup.freeze")).unwrap(), "0");
        let Error::WontFreeze { stragglers, .. } = &error else { panic!("{error}") };
        assert!(stragglers.iter().all(|straggler| straggler.process == std::process::id()));
        assert!(error.to_string().contains("did not freeze in time: process"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_for_it_to_freeze_leaves_it_thawed() {
        let (folder, cgroup) = unyielding("");
        let order = folder.path().join("cgroup.freeze");
        let impatient = tokio::time::timeout(Duration::from_millis(10), cgroup.freeze(soon()));
        assert!(impatient.await.is_err());
        assert_eq!(fs::read_to_string(order).unwrap(), "0");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cgroup_held_frozen_from_above_is_not_waited_for() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("cgroup.freeze"), "1\n").unwrap();
        let folder = top.path().join("c");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cgroup.freeze"), "0\n").unwrap();
        fs::write(folder.join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        let cgroup = Cgroup::unified(folder);
        assert_eq!(cgroup.frozen().unwrap(), Freezer::Frozen);
        assert!(matches!(cgroup.thaw(soon()).await, Err(Error::FrozenAbove { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn between_the_order_and_its_effect_it_is_freezing() {
        let (folder, cgroup) = unyielding("");
        fs::write(folder.path().join("cgroup.freeze"), "1\n").unwrap();
        assert_eq!(cgroup.frozen().unwrap(), Freezer::Freezing);
    }

    #[tokio::test(start_paused = true)]
    async fn no_freezer_and_no_cgroup_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        for without in [Cgroup::unified(folder.path()), Cgroup::legacy([("pids", folder.path())])] {
            let error = without.freeze(soon()).await.unwrap_err();
            assert!(matches!(error, Error::NoController { controller: "freezer", .. }), "{error}");
        }
        let gone = Cgroup::unified("/nowhere");
        assert!(matches!(gone.freeze(soon()).await, Err(Error::Gone { .. })));
        assert!(matches!(gone.frozen(), Err(Error::Gone { .. })));
    }
}

//! Cgroups that a container has made inside its own, and what they may use.
//!
//! CRIU makes them anew and puts the processes into them. Of version 2 it knows no limits and
//! can't switch controllers on where it stands itself; of version 1 it forgets the limits of
//! those above the first process. So they are noted at the dump and set at the restore.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::{self, Access};
use super::place::Place;
use super::{Cgroup, Error};
use crate::criu::images::{MOST_BYTES, read_small};
use crate::reaper::parent;

/// In an image: the cgroups inside the container's.
pub const FILE: &str = "cryo-cgroups";
const CONTROLLERS: &str = "cgroup.subtree_control";

/// In the order in which they are set.
const LIMITS: [(&str, &[&str]); 5] = [
    ("cpu", &["cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.shares", "cpu.max", "cpu.weight", "cpu.idle"]),
    ("cpuset", &["cpuset.cpus", "cpuset.mems"]),
    (
        "memory",
        &[
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.soft_limit_in_bytes",
            "memory.swappiness",
            "memory.max",
            "memory.high",
            "memory.low",
            "memory.min",
            "memory.swap.max",
            "memory.swap.high",
            "memory.zswap.max",
            "memory.oom.group",
        ],
    ),
    ("pids", &["pids.max"]),
    ("io", &["io.weight", "io.max"]),
];

#[derive(Debug, Deserialize, Serialize)]
struct Note {
    /// Where the first process is, seen from the container's own.
    first: PathBuf,
    inside: Vec<Nested>,
}

/// One of them, or the container's own, whose limits aren't its to decide.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Nested {
    /// By which its hierarchy is known.
    controller: String,
    path: PathBuf,
    owner: (u32, u32),
    /// Those that cgroups below have.
    controllers: String,
    limits: Vec<(String, String)>,
}

/// Who restores a container, and may be in the way.
pub enum Restorer<'a> {
    /// Is at it, in the container's own cgroup, and can go to this one.
    CanLeaveFor(&'a Cgroup),
    /// Is gone, and may have moved the first process.
    IsGone,
}

impl Cgroup {
    /// Notes what is inside it in an image. Nothing if there is nothing.
    pub fn note_nested(&self, first: u32, image: &Path) -> io::Result<()> {
        let inside = self.nested().map_err(io::Error::other)?;
        if inside.is_empty() {
            return Ok(());
        }
        let own = Cgroup::of_process(first).ok().and_then(|own| own.top_of(&self.top("memory")?));
        let note = serde_json::to_vec(&Note { first: own.unwrap_or_default(), inside })?;
        if note.len() as u64 > MOST_BYTES {
            return Err(io::Error::other("the container has too many cgroups to note them"));
        }
        fs::write(image.join(FILE), note)
    }

    /// Sets what has been noted in a folder, for a container whose first process is `first`.
    /// What can't be set here, such as limits of devices or processors that this machine
    /// lacks, is told and left out.
    pub fn restore_nested(
        &self,
        first: u32,
        folder: &Path,
        restorer: &Restorer<'_>,
    ) -> io::Result<Vec<Error>> {
        let bytes = match read_small(&folder.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read?,
        };
        let note: Note = serde_json::from_slice(&bytes)?;
        let paths = note.inside.iter().map(|one| &one.path).chain([&note.first]);
        if paths.flat_map(|path| path.components()).any(|part| !matches!(part, Component::Normal(_))) {
            return Err(io::Error::other(format!("{FILE} leads elsewhere")));
        }
        if matches!(restorer, Restorer::IsGone) {
            self.put_back(first, &note.first).map_err(io::Error::other)?;
        }
        let mut tops: BTreeMap<&str, Option<PathBuf>> = BTreeMap::new();
        let mut problems = Vec::new();
        for one in &note.inside {
            let top = tops.entry(&one.controller).or_insert_with(|| self.top(&one.controller));
            if let Some(top) = top {
                one.restore(top, first, restorer, &mut problems);
            }
        }
        Ok(problems)
    }

    /// Where crun has put the container, one level below the scope that systemd made.
    pub fn of_crun(&self) -> Cgroup {
        self.top("memory").filter(|_| self.is_unified()).map_or_else(|| self.clone(), Cgroup::unified)
    }

    pub fn is_unified(&self) -> bool {
        matches!(*self.0, Place::V2(_))
    }

    fn top_of(&self, top: &Path) -> Option<PathBuf> {
        self.folder("memory")?.strip_prefix(top).ok().map(Path::to_owned)
    }

    fn put_back(&self, first: u32, path: &Path) -> Result<(), Error> {
        let Some(top) = self.top("memory").filter(|_| path.as_os_str() != "") else { return Ok(()) };
        let folder = top.join(path);
        // CRIU may have been told to leave cgroups alone.
        if folder.is_dir() { file::write(&folder.join("cgroup.procs"), &first.to_string()) } else { Ok(()) }
    }

    fn nested(&self) -> Result<Vec<Nested>, Error> {
        let (mut nested, mut seen) = (Vec::new(), BTreeSet::new());
        for (controller, _) in LIMITS {
            let Some(top) = self.top(controller) else { continue };
            if !seen.insert(top.clone()) {
                continue;
            }
            for folder in file::tree(&top) {
                nested.push(Nested::read(controller, &top, &folder)?);
            }
        }
        nested.retain(|one| !one.says_nothing());
        // By itself each hierarchy's tree has parents before children.
        Ok(nested)
    }

    /// The container's own. crun puts a container one level below the scope that systemd makes.
    fn top(&self, controller: &str) -> Option<PathBuf> {
        let folder = self.0.own_folder(controller)?;
        let within = folder.join("container");
        let is_scope = folder.extension().is_some_and(|kind| kind == "scope");
        let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let below = || fs::read_dir(folder).into_iter().flatten().flatten().filter(is_folder).count();
        let is_below = is_scope && within.is_dir() && below() == 1;
        Some(if is_below { within } else { folder.to_owned() })
    }
}

impl Nested {
    fn read(controller: &str, top: &Path, folder: &Path) -> Result<Nested, Error> {
        let read =
            |name: &str| Ok::<_, Error>(file::text(&folder.join(name))?.map(|text| text.trim().to_owned()));
        let path = folder.strip_prefix(top).unwrap_or(Path::new("")).to_owned();
        let mut limits = Vec::new();
        if !path.as_os_str().is_empty() {
            for name in LIMITS.iter().flat_map(|(_, names)| names.iter()) {
                limits.extend(read(name)?.map(|value| ((*name).to_owned(), value)));
            }
            // An idle one has a weight that can't be set.
            if limits.iter().any(|(name, value)| name == "cpu.idle" && value == "1") {
                limits.retain(|(name, _)| name != "cpu.weight");
            }
        }
        let controllers = read(CONTROLLERS)?.unwrap_or_default();
        let owner = fs::metadata(folder).map_or((0, 0), |data| (data.uid(), data.gid()));
        Ok(Nested { controller: controller.to_owned(), path, owner, controllers, limits })
    }

    fn says_nothing(&self) -> bool {
        self.controllers.is_empty() && self.limits.is_empty()
    }

    fn restore(&self, top: &Path, first: u32, restorer: &Restorer<'_>, problems: &mut Vec<Error>) {
        let is_own = self.path.as_os_str().is_empty();
        let folder = if is_own { top.to_owned() } else { top.join(&self.path) };
        if let Err(source) = self.make(&folder) {
            problems.push(Error::file(Access::Write, &folder, source));
            return;
        }
        let known = |name: &str| LIMITS.iter().any(|(_, names)| names.contains(&name));
        let limits = self.limits.iter().filter(|(name, _)| !is_own && known(name));
        problems.extend(limits.filter_map(|(name, value)| set(&folder.join(name), value).err()));
        problems.extend(self.switch_on(&folder, first, restorer).err());
    }

    /// CRIU looks for empty ones only where the first process is.
    fn make(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        fs::create_dir(folder)?;
        let (user, group) = self.owner;
        let names = ["", "cgroup.procs", "cgroup.threads", CONTROLLERS].map(|name| folder.join(name));
        names.iter().filter(|path| path.exists()).try_for_each(|path| chown(path, Some(user), Some(group)))
    }

    fn switch_on(&self, folder: &Path, first: u32, restorer: &Restorer<'_>) -> Result<(), Error> {
        let path = folder.join(CONTROLLERS);
        let is = file::text(&path)?.unwrap_or_default();
        let lacks = |name: &&str| !is.split_whitespace().any(|on| on == *name);
        let order: Vec<String> =
            self.controllers.split_whitespace().filter(lacks).map(|name| format!("+{name}")).collect();
        if order.is_empty() {
            return Ok(());
        }
        let listed = file::text(&folder.join("cgroup.procs"))?.unwrap_or_default();
        let listed: Vec<u32> = listed.lines().filter_map(|pid| pid.parse().ok()).collect();
        if listed.iter().any(|pid| is_of(*pid, first)) {
            // CRIU was told to leave cgroups alone, and has put everybody here.
            return Ok(());
        }
        if let Restorer::CanLeaveFor(aside) = restorer {
            for pid in listed {
                match aside.add_process(pid) {
                    // It has ended meanwhile.
                    Err(Error::File { source, .. }) if file::is_absent(&source) => {}
                    moved => moved?,
                }
            }
        }
        file::write(&path, &order.join(" "))
    }
}

fn set(path: &Path, value: &str) -> Result<(), Error> {
    if file::text(path)?.is_none_or(|is| is.trim() == value) {
        return Ok(());
    }
    value.lines().try_for_each(|line| file::write(path, line))
}

/// Whether a process is the first one or comes from it.
fn is_of(pid: u32, first: u32) -> bool {
    std::iter::successors(Some(pid), |pid| parent(*pid).filter(|parent| *parent > 0))
        .take(1000)
        .any(|pid| pid == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn text(folder: &tempfile::TempDir, name: &str) -> String {
        fs::read_to_string(folder.path().join(name)).unwrap()
    }

    #[test]
    fn limits_inside_are_set_again_and_its_own_are_not() {
        let image = tempfile::tempdir().unwrap();
        let was = folder(&[("pids.max", "60\n"), ("a/pids.max", "9\n"), ("a/b/pids.max", "max\n")]);
        Cgroup::unified(was.path()).note_nested(1, image.path()).unwrap();
        let is = folder(&[("pids.max", "70\n"), ("a/pids.max", "max\n"), ("a/b/pids.max", "max\n")]);
        let (cgroup, aside) = (Cgroup::unified(is.path()), Cgroup::unified("/nowhere"));
        cgroup.restore_nested(u32::MAX, image.path(), &Restorer::CanLeaveFor(&aside)).unwrap();
        assert_eq!(
            ["pids.max", "a/pids.max", "a/b/pids.max"].map(|name| text(&is, name)),
            ["70\n", "9", "max\n"]
        );
    }

    #[test]
    fn controllers_are_switched_on_and_who_is_there_leaves() {
        let image = tempfile::tempdir().unwrap();
        let was = folder(&[(CONTROLLERS, "memory pids\n"), ("a/memory.max", "max\n")]);
        Cgroup::unified(was.path()).note_nested(1, image.path()).unwrap();
        let (is, other) =
            (folder(&[(CONTROLLERS, "pids\n"), ("cgroup.procs", "7\n")]), folder(&[("cgroup.procs", "")]));
        let aside = Cgroup::unified(other.path());
        Cgroup::unified(is.path())
            .restore_nested(u32::MAX, image.path(), &Restorer::CanLeaveFor(&aside))
            .unwrap();
        assert_eq!(
            (text(&is, CONTROLLERS), text(&other, "cgroup.procs")),
            ("+memory".to_owned(), "7".to_owned())
        );
    }

    #[test]
    fn a_limit_that_can_not_be_set_here_is_told_and_keeps_nobody() {
        let image = tempfile::tempdir().unwrap();
        let was = folder(&[("a/io.max", "8:0 rbps=1\n"), ("a/pids.max", "9\n")]);
        Cgroup::unified(was.path()).note_nested(1, image.path()).unwrap();
        let is = folder(&[("a/io.max/is", "a folder"), ("a/pids.max", "max\n")]);
        let (cgroup, aside) = (Cgroup::unified(is.path()), Cgroup::unified("/nowhere"));
        let problems = cgroup.restore_nested(u32::MAX, image.path(), &Restorer::CanLeaveFor(&aside)).unwrap();
        assert_eq!((problems.len(), text(&is, "a/pids.max").as_str()), (1, "9"));
    }

    #[test]
    fn a_container_without_any_has_no_note() {
        let image = tempfile::tempdir().unwrap();
        let was = folder(&[("pids.max", "60\n")]);
        Cgroup::unified(was.path()).note_nested(1, image.path()).unwrap();
        assert!(!image.path().join(FILE).exists());
        Cgroup::unified(was.path()).restore_nested(1, image.path(), &Restorer::IsGone).unwrap();
    }

    #[test]
    fn a_note_leads_nowhere_else() {
        let (image, is) = (tempfile::tempdir().unwrap(), folder(&[("pids.max", "60\n")]));
        let note = r#"{"first":"","inside":[{"controller":"pids","path":"../x","owner":[0,0],"controllers":"","limits":[]}]}"#;
        fs::write(image.path().join(FILE), note).unwrap();
        let cgroup = Cgroup::unified(is.path());
        assert!(cgroup.restore_nested(1, image.path(), &Restorer::IsGone).is_err());
    }
}

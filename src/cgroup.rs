//! Where the kernel accounts for a container's processes, and what can be
//! asked of it there: who they are, what they use, what they may use, to stand
//! still, and whether memory ran out.
//!
//! The runtime makes and fills cgroups; this room finds the one that it made
//! and works on that. Both versions of the kernel's interface are served. With
//! version 1 a container has a folder in each of several hierarchies, with
//! version 2 a single one.
//!
//! A cgroup that vanishes is no surprise here: it goes with its last process.
//! What is left to say about it is [`Error::Gone`] or nothing at all.

mod error;
mod file;
mod freezer;
mod limits;
pub mod nested;
mod oom;
mod place;
mod rdma;
mod removal;
mod stragglers;
pub mod v1;
pub mod v2;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::place::Place;
pub use self::{
    error::Error,
    freezer::Freezer,
    limits::{CpuQuota, CpuShare, Limit, Limits},
    oom::OomWatch,
    stragglers::Straggler,
};

/// The cgroup of one container. A clone costs nothing and names the same one.
///
/// It remembers paths, not processes, so it stays useful after the last
/// process died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup(Arc<Place>);

/// What a container uses, in the terms of the kernel's interface it runs under.
#[derive(Clone, Debug, PartialEq)]
pub enum Stats {
    V1(Box<v1::Metrics>),
    V2(Box<v2::Metrics>),
}

impl Cgroup {
    /// The cgroup in which process `pid` is now.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        let memberships = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let memberships = file::text(&memberships)?.ok_or(Error::NoProcess { pid })?;
        Self::found(Place::of(&memberships, &mounts()?, Path::new(STANDARD))).ok_or(Error::NotMounted)
    }

    /// The cgroup of the container in which process `pid` runs. The process may
    /// have gone into a cgroup of its own below the container's, as systemd and
    /// nested containers do; the `cgroupsPath` of the OCI configuration tells
    /// which one is the container's.
    pub fn of_container(pid: u32, cgroups_path: &str) -> Result<Self, Error> {
        let cgroup = Self::of_process(pid)?;
        Ok(Self(Arc::new(cgroup.0.lifted(&place::ending(cgroups_path)))))
    }

    /// The cgroup at `path` below the root of each hierarchy, as containerd
    /// reads its option `shim_cgroup`. At least one of its folders has to exist.
    pub fn at_path(path: &str) -> Result<Self, Error> {
        if Path::new(path).components().any(|part| part.as_os_str() == "..") {
            return Err(Error::Path { path: path.to_owned() });
        }
        // This process is a member of every hierarchy, so its list names them all.
        let hierarchies = file::text(Path::new("/proc/self/cgroup"))?.unwrap_or_default();
        let place = Place::at(path, &hierarchies, &mounts()?, Path::new(STANDARD));
        let cgroup = Self::found(place).ok_or(Error::NotMounted)?;
        if !cgroup.exists() {
            return Err(Error::Gone { path: path.into() });
        }
        Ok(cgroup)
    }

    /// A cgroup of version 2 whose folder is known.
    pub fn unified(folder: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Place::unified(folder.into())))
    }

    /// A cgroup of version 1 whose folder for each controller is known.
    pub fn legacy<P: Into<PathBuf>>(folders: impl IntoIterator<Item = (&'static str, P)>) -> Self {
        Self(Arc::new(Place::legacy(folders)))
    }

    /// The folder in which `controller` keeps its files; with version 2 it is
    /// the same for all.
    pub fn folder(&self, controller: &str) -> Option<&Path> {
        self.0.folder(controller)
    }

    /// Whether any of it is left.
    pub fn exists(&self) -> bool {
        // The top of a hierarchy says nothing: it outlives every container.
        let mut own = self.0.own_folders().peekable();
        own.peek().is_none() || own.any(Path::is_dir)
    }

    /// All processes in it and below, in ascending order. None if it is gone.
    pub fn processes(&self) -> Result<Vec<u32>, Error> {
        let mut found = BTreeSet::new();
        for folder in file::tree(self.0.census()) {
            // A threaded cgroup refuses to list processes; its parent lists them.
            let list = file::text(&folder.join("cgroup.procs"))?.unwrap_or_default();
            // 0 is a process that can't be named in our pid namespace.
            let listed = list.lines().filter_map(|pid| pid.parse::<u32>().ok());
            found.extend(listed.filter(|pid| *pid != 0));
        }
        Ok(found.into_iter().collect())
    }

    /// Moves process `pid` into it, in every hierarchy where it has a folder.
    pub fn add_process(&self, pid: u32) -> Result<(), Error> {
        for folder in self.0.folders().filter(|folder| folder.is_dir()) {
            file::write(&folder.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// What its processes use and have used.
    pub fn stats(&self) -> Result<Stats, Error> {
        if !self.exists() {
            return Err(self.gone());
        }
        Ok(match &*self.0 {
            Place::V1(_) => Stats::V1(Box::new(v1::Metrics::read(&self.0)?)),
            Place::V2(_) => Stats::V2(Box::new(v2::Metrics::read(self.0.census())?)),
        })
    }

    fn found(place: Option<Place>) -> Option<Self> {
        place.map(|place| Self(Arc::new(place)))
    }

    fn gone(&self) -> Error {
        Error::Gone { path: self.0.census().to_owned() }
    }

    fn without(&self, controller: &'static str) -> Error {
        Error::NoController { cgroup: self.to_string(), controller }
    }
}

/// Names one folder that stands for all.
impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.census().display().fmt(f)
    }
}

/// Runtimes and containerd look at what is mounted here to tell the versions apart.
const STANDARD: &str = "/sys/fs/cgroup";

fn mounts() -> Result<String, Error> {
    file::text(Path::new("/proc/self/mountinfo"))?.ok_or(Error::NotMounted)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder_with_processes(path: &Path, processes: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("cgroup.procs"), processes).unwrap();
    }

    #[test]
    fn processes_of_cgroups_below_are_counted_in() {
        let top = tempfile::tempdir().unwrap();
        folder_with_processes(top.path(), "30\n4\n");
        folder_with_processes(&top.path().join("init.scope"), "5\n0\n");
        folder_with_processes(&top.path().join("a/b"), "");
        assert_eq!(Cgroup::unified(top.path()).processes().unwrap(), vec![4, 5, 30]);
    }

    #[test]
    fn a_vanished_cgroup_has_no_processes_and_no_statistics() {
        let cgroup = Cgroup::legacy([("memory", "/nowhere/memory"), ("pids", "/nowhere/pids")]);
        assert!(!cgroup.exists());
        assert!(cgroup.processes().unwrap().is_empty());
        assert!(matches!(cgroup.stats(), Err(Error::Gone { .. })));
        assert!(matches!(cgroup.limits(), Err(Error::Gone { .. })));
    }

    #[test]
    fn a_process_joins_where_there_is_a_folder() {
        let top = tempfile::tempdir().unwrap();
        folder_with_processes(&top.path().join("memory"), "");
        let folders = ["memory", "pids"].map(|name| (name, top.path().join(name)));
        Cgroup::legacy(folders).add_process(17).unwrap();
        let joined = fs::read_to_string(top.path().join("memory/cgroup.procs")).unwrap();
        assert_eq!(joined, "17");
        assert!(!top.path().join("pids").exists());
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        // Above the largest number the kernel gives out.
        let error = Cgroup::of_process(5_000_000).unwrap_err();
        assert_eq!(error.to_string(), "process 5000000 is gone");
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        assert!(matches!(Cgroup::at_path("/a/../../etc"), Err(Error::Path { .. })));
    }
}

//! Reading back what a cgroup may use.
//!
//! After a restore this shows whether the new container's limits hold, whatever
//! the image had carried along. `None` means that the cgroup can't limit it.

use std::path::Path;

use super::{Cgroup, Error, file, place::Place};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes: Option<Limit>,
    pub pids: Option<Limit>,
    pub cpu_quota: Option<CpuQuota>,
    pub cpu_share: Option<CpuShare>,
    /// CPUs and memory nodes it is bound to, as lists like `0-3,7`. Empty with
    /// version 2 if it takes those of the cgroup above.
    pub cpus: Option<String>,
    pub mems: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    None,
    AtMost(u64),
}

/// CPU time per period, both in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    pub quota_usec: Limit,
    pub period_usec: u64,
}

/// Its part of CPU time when others want some too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuShare {
    /// Of version 1: 2 to 262144, usually 1024.
    Shares(u64),
    /// Of version 2: 1 to 10000, usually 100.
    Weight(u64),
}

impl Cgroup {
    /// The limits in force for it, those of the cgroups above left aside.
    pub fn limits(&self) -> Result<Limits, Error> {
        if !self.exists() {
            return Err(self.gone());
        }
        let (memory, quota, share) = match *self.0 {
            Place::V1(_) => ("memory.limit_in_bytes", v1_quota as ReadQuota, v1_share as ReadShare),
            Place::V2(_) => ("memory.max", v2_quota as ReadQuota, v2_share as ReadShare),
        };
        let number = |controller, name: &str| match self.folder(controller) {
            Some(folder) => file::number(&folder.join(name)),
            None => Ok(None),
        };
        let list = |name: &str| match self.folder("cpuset") {
            Some(folder) => Ok(file::text(&folder.join(name))?.map(|list| list.trim().to_owned())),
            None => Ok(None),
        };
        let cpu = self.folder("cpu");
        Ok(Limits {
            memory_bytes: number("memory", memory)?.map(Limit::of_bytes),
            pids: number("pids", "pids.max")?.map(Limit::of),
            cpu_quota: cpu.map(quota).transpose()?.flatten(),
            cpu_share: cpu.map(share).transpose()?.flatten(),
            cpus: list("cpuset.cpus")?,
            mems: list("cpuset.mems")?,
        })
    }
}

impl Limit {
    fn of(number: u64) -> Self {
        if number == u64::MAX { Self::None } else { Self::AtMost(number) }
    }

    /// Version 1 says "no limit" as the largest number of whole pages that fits
    /// a signed number of bytes, with pages up to 64 KiB.
    fn of_bytes(number: u64) -> Self {
        const LARGEST: u64 = i64::MAX as u64 - 0xffff;
        if number >= LARGEST { Self::None } else { Self::AtMost(number) }
    }
}

type ReadQuota = fn(&Path) -> Result<Option<CpuQuota>, Error>;
type ReadShare = fn(&Path) -> Result<Option<CpuShare>, Error>;

fn v1_quota(folder: &Path) -> Result<Option<CpuQuota>, Error> {
    let path = folder.join("cpu.cfs_quota_us");
    let Some(text) = file::text(&path)? else { return Ok(None) };
    let quota_usec = match text.trim() {
        "-1" => Limit::None,
        quota => quota.parse().map(Limit::AtMost).map_err(|_| Error::malformed(&path, &text))?,
    };
    let period = file::number(&folder.join("cpu.cfs_period_us"))?;
    Ok(period.map(|period_usec| CpuQuota { quota_usec, period_usec }))
}

/// `max 100000`
fn v2_quota(folder: &Path) -> Result<Option<CpuQuota>, Error> {
    let path = folder.join("cpu.max");
    let Some(text) = file::text(&path)? else { return Ok(None) };
    let parse = || {
        let (quota, period) = text.trim().split_once(' ')?;
        let quota = if quota == "max" { Limit::None } else { Limit::AtMost(quota.parse().ok()?) };
        Some(CpuQuota { quota_usec: quota, period_usec: period.parse().ok()? })
    };
    parse().map(Some).ok_or_else(|| Error::malformed(&path, &text))
}

fn v1_share(folder: &Path) -> Result<Option<CpuShare>, Error> {
    Ok(file::number(&folder.join("cpu.shares"))?.map(CpuShare::Shares))
}

fn v2_share(folder: &Path) -> Result<Option<CpuShare>, Error> {
    Ok(file::number(&folder.join("cpu.weight"))?.map(CpuShare::Weight))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn cgroup(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn v1(folder: &tempfile::TempDir) -> Cgroup {
        Cgroup::legacy(["memory", "pids", "cpu", "cpuset"].map(|name| (name, folder.path())))
    }

    #[test]
    fn limits_of_version_1_are_read_back() {
        let folder = cgroup(&[
            ("memory.limit_in_bytes", "67108864\n"),
            ("pids.max", "30\n"),
            ("cpu.cfs_quota_us", "50000\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("cpu.shares", "512\n"),
            ("cpuset.cpus", "0-1\n"),
            ("cpuset.mems", "0\n"),
        ]);
        let limits = Limits {
            memory_bytes: Some(Limit::AtMost(67_108_864)),
            pids: Some(Limit::AtMost(30)),
            cpu_quota: Some(CpuQuota { quota_usec: Limit::AtMost(50_000), period_usec: 100_000 }),
            cpu_share: Some(CpuShare::Shares(512)),
            cpus: Some("0-1".to_owned()),
            mems: Some("0".to_owned()),
        };
        assert_eq!(v1(&folder).limits().unwrap(), limits);
    }

    #[test]
    fn unlimited_is_told_from_absent() {
        let folder = cgroup(&[
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("pids.max", "max\n"),
            ("cpu.cfs_quota_us", "-1\n"),
            ("cpu.cfs_period_us", "100000\n"),
        ]);
        let limits = v1(&folder).limits().unwrap();
        assert_eq!(limits.memory_bytes, Some(Limit::None));
        assert_eq!(limits.pids, Some(Limit::None));
        assert_eq!(limits.cpu_quota.map(|quota| quota.quota_usec), Some(Limit::None));
        assert_eq!(limits.cpu_share, None);
        assert_eq!(limits.cpus, None);
    }

    #[test]
    fn limits_of_version_2_are_read_back() {
        let folder = cgroup(&[
            ("memory.max", "33554432\n"),
            ("pids.max", "max\n"),
            ("cpu.max", "max 100000\n"),
            ("cpu.weight", "20\n"),
            ("cpuset.cpus", "\n"),
        ]);
        let limits = Limits {
            memory_bytes: Some(Limit::AtMost(33_554_432)),
            pids: Some(Limit::None),
            cpu_quota: Some(CpuQuota { quota_usec: Limit::None, period_usec: 100_000 }),
            cpu_share: Some(CpuShare::Weight(20)),
            cpus: Some(String::new()),
            mems: None,
        };
        assert_eq!(Cgroup::unified(folder.path()).limits().unwrap(), limits);
    }

    #[test]
    fn a_quota_that_makes_no_sense_names_its_file() {
        let folder = cgroup(&[("cpu.max", "lots\n")]);
        let error = Cgroup::unified(folder.path()).limits().unwrap_err().to_string();
        assert!(error.contains("cpu.max holds \"lots"), "{error}");
    }
}

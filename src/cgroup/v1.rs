//! What a cgroup of version 1 counts, grouped and named as in containerd's
//! message `io.containerd.cgroups.v1.Metrics`.
//!
//! A part is absent when its controller is.

mod blkio;

use std::path::Path;

pub use self::blkio::{BlkIo, BlkIoEntry};
pub use super::rdma::{Rdma, RdmaEntry};
use super::{
    Error,
    file::{self, counters},
    place::Place,
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    pub hugetlb: Vec<Hugetlb>,
    pub pids: Option<Pids>,
    pub cpu_usage: Option<CpuUsage>,
    pub throttling: Option<Throttling>,
    pub memory: Option<Memory>,
    pub oom_control: Option<OomControl>,
    pub blkio: Option<BlkIo>,
    pub rdma: Option<Rdma>,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hugetlb {
    pub usage: u64,
    pub max: u64,
    pub failcnt: u64,
    /// As in the kernel's file names: `2MB`.
    pub pagesize: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    pub current: u64,
    /// Zero if there is none.
    pub limit: u64,
}

/// In nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    pub total: u64,
    pub kernel: u64,
    pub user: u64,
    pub per_cpu: Vec<u64>,
}

counters!(
    /// How often and how long (in nanoseconds) the CPU quota held it back.
    Throttling {
        periods = "nr_periods",
        throttled_periods = "nr_throttled",
        throttled_time,
    }
);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub stat: MemoryStat,
    pub usage: Option<MemoryEntry>,
    /// Memory and swap together.
    pub swap: Option<MemoryEntry>,
    pub kernel: Option<MemoryEntry>,
    pub kernel_tcp: Option<MemoryEntry>,
}

/// In bytes, but for `failcnt`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryEntry {
    pub limit: u64,
    pub usage: u64,
    pub max: u64,
    pub failcnt: u64,
}

counters!(
    /// The file `memory.stat`; `total_` counts the cgroups below as well.
    MemoryStat {
        cache,
        rss,
        rss_huge,
        mapped_file,
        dirty,
        writeback,
        pg_pg_in = "pgpgin",
        pg_pg_out = "pgpgout",
        pg_fault = "pgfault",
        pg_maj_fault = "pgmajfault",
        inactive_anon,
        active_anon,
        inactive_file,
        active_file,
        unevictable,
        hierarchical_memory_limit,
        hierarchical_swap_limit = "hierarchical_memsw_limit",
        total_cache,
        total_rss,
        total_rss_huge,
        total_mapped_file,
        total_dirty,
        total_writeback,
        total_pg_pg_in = "total_pgpgin",
        total_pg_pg_out = "total_pgpgout",
        total_pg_fault = "total_pgfault",
        total_pg_maj_fault = "total_pgmajfault",
        total_inactive_anon,
        total_active_anon,
        total_inactive_file,
        total_active_file,
        total_unevictable,
    }
);

counters!(OomControl { oom_kill_disable, under_oom, oom_kill });

impl Metrics {
    pub(super) fn read(place: &Place) -> Result<Self, Error> {
        let mut metrics = Self::default();
        if let Some(folder) = place.folder("hugetlb") {
            metrics.hugetlb = Hugetlb::read_all(folder)?;
        }
        if let Some(folder) = place.folder("pids") {
            metrics.pids = Pids::read(folder)?;
        }
        if let Some(folder) = place.folder("cpuacct") {
            metrics.cpu_usage = CpuUsage::read(folder)?;
        }
        if let Some(folder) = place.folder("cpu") {
            metrics.throttling = file::pairs(&folder.join("cpu.stat"))?.map(Throttling::from);
        }
        if let Some(folder) = place.folder("memory") {
            metrics.memory = Memory::read(folder)?;
            let control = file::pairs(&folder.join("memory.oom_control"))?;
            metrics.oom_control = control.map(OomControl::from);
        }
        if let Some(folder) = place.folder("blkio") {
            metrics.blkio = BlkIo::read(folder)?;
        }
        if let Some(folder) = place.folder("rdma") {
            metrics.rdma = Rdma::read(folder)?;
        }
        Ok(metrics)
    }
}

impl Hugetlb {
    fn read_all(folder: &Path) -> Result<Vec<Self>, Error> {
        let sizes = file::huge_page_sizes(folder, ".usage_in_bytes");
        sizes.into_iter().map(|size| Self::read(folder, size)).collect()
    }

    fn read(folder: &Path, pagesize: String) -> Result<Self, Error> {
        let number = |name| {
            let path = folder.join(format!("hugetlb.{pagesize}.{name}"));
            Ok::<_, Error>(file::number(&path)?.unwrap_or(0))
        };
        Ok(Self {
            usage: number("usage_in_bytes")?,
            max: number("max_usage_in_bytes")?,
            failcnt: number("failcnt")?,
            pagesize,
        })
    }
}

impl Pids {
    fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let Some(current) = file::number(&folder.join("pids.current"))? else { return Ok(None) };
        let limit = file::number(&folder.join("pids.max"))?;
        // Of this message's readers, those from before "max" know no limit as 0.
        let limit = limit.filter(|limit| *limit != u64::MAX).unwrap_or(0);
        Ok(Some(Self { current, limit }))
    }
}

impl CpuUsage {
    fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let Some(total) = file::number(&folder.join("cpuacct.usage"))? else { return Ok(None) };
        let Some(ticks) = file::pairs(&folder.join("cpuacct.stat"))? else { return Ok(None) };
        let per_cpu = folder.join("cpuacct.usage_percpu");
        let listed = file::text(&per_cpu)?.unwrap_or_default();
        let numbers = listed.split_ascii_whitespace().map(|number| number.parse().ok());
        let numbers: Option<_> = numbers.collect();
        Ok(Some(Self {
            total,
            kernel: nanoseconds(ticks.count("system")),
            user: nanoseconds(ticks.count("user")),
            per_cpu: numbers.ok_or_else(|| Error::malformed(&per_cpu, &listed))?,
        }))
    }
}

/// The kernel shows ticks to programs as hundredths of a second, whatever its
/// own are.
fn nanoseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000 / 100)
}

impl Memory {
    fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let Some(stat) = file::pairs(&folder.join("memory.stat"))? else { return Ok(None) };
        Ok(Some(Self {
            stat: stat.into(),
            usage: MemoryEntry::read(folder, "memory")?,
            swap: MemoryEntry::read(folder, "memory.memsw")?,
            kernel: MemoryEntry::read(folder, "memory.kmem")?,
            kernel_tcp: MemoryEntry::read(folder, "memory.kmem.tcp")?,
        }))
    }
}

impl MemoryEntry {
    fn read(folder: &Path, prefix: &str) -> Result<Option<Self>, Error> {
        let number = |name| file::number(&folder.join(format!("{prefix}.{name}")));
        let Some(usage) = number("usage_in_bytes")? else { return Ok(None) };
        Ok(Some(Self {
            limit: number("limit_in_bytes")?.unwrap_or(0),
            usage,
            max: number("max_usage_in_bytes")?.unwrap_or(0),
            failcnt: number("failcnt")?.unwrap_or(0),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Recorded on Linux 6.18, from a busy container with 64 MiB and half a CPU.
    const RECORDED: &[(&str, &str)] = &[
        ("pids.current", "4\n"),
        ("pids.max", "30\n"),
        ("cpuacct.usage", "1075221516\n"),
        ("cpuacct.stat", "user 104\nsystem 3\n"),
        ("cpuacct.usage_percpu", "24470483 1050751033 \n"),
        (
            "cpu.stat",
            "nr_periods 209\nnr_throttled 195\nthrottled_time 11653374024\nnr_bursts 0\nburst_time 0\n",
        ),
        (
            "memory.stat",
            "cache 20971520\nrss 61440\nshmem 0\nmapped_file 0\npgpgin 5788\npgpgout 653\n\
            pgmajfault 2\nhierarchical_memory_limit 67108864\nhierarchical_memsw_limit 9223372036854771712\n\
            total_rss 61441\ntotal_pgpgin 5789\n",
        ),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        ("memory.usage_in_bytes", "21430272\n"),
        ("memory.max_usage_in_bytes", "22577152\n"),
        ("memory.limit_in_bytes", "67108864\n"),
        ("memory.failcnt", "7\n"),
        ("memory.kmem.usage_in_bytes", "294912\n"),
        ("memory.kmem.max_usage_in_bytes", "614400\n"),
        ("memory.kmem.limit_in_bytes", "9223372036854771712\n"),
        ("memory.kmem.failcnt", "0\n"),
        ("hugetlb.2MB.usage_in_bytes", "4194304\n"),
        ("hugetlb.2MB.max_usage_in_bytes", "6291456\n"),
        ("hugetlb.2MB.failcnt", "1\n"),
        ("hugetlb.2MB.rsvd.usage_in_bytes", "0\n"),
        ("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\n"),
        ("rdma.max", "mlx4_0 hca_handle=3 hca_object=max\n"),
    ];

    const CONTROLLERS: [&str; 7] = ["pids", "cpu", "cpuacct", "memory", "hugetlb", "rdma", "blkio"];

    fn read(files: &[(&str, &str)]) -> Result<Metrics, Error> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Metrics::read(&Place::legacy(CONTROLLERS.map(|name| (name, folder.path()))))
    }

    #[test]
    fn recorded_files_yield_every_part() {
        let metrics = read(RECORDED).unwrap();
        assert_eq!(metrics.pids, Some(Pids { current: 4, limit: 30 }));
        let usage = metrics.cpu_usage.unwrap();
        assert_eq!((usage.total, usage.user, usage.kernel), (1_075_221_516, 1_040_000_000, 30_000_000));
        assert_eq!(usage.per_cpu, [24_470_483, 1_050_751_033]);
        let throttling = Throttling { periods: 209, throttled_periods: 195, throttled_time: 11_653_374_024 };
        assert_eq!(metrics.throttling, Some(throttling));
        assert_eq!(metrics.oom_control.map(|control| control.oom_kill), Some(3));
        let pages = Hugetlb { usage: 4_194_304, max: 6_291_456, failcnt: 1, pagesize: "2MB".into() };
        assert_eq!(metrics.hugetlb, [pages]);
        let entry =
            |hca_handles, hca_objects| RdmaEntry { device: "mlx4_0".into(), hca_handles, hca_objects };
        let rdma = Rdma { current: vec![entry(2, 2000)], limit: vec![entry(3, u32::MAX)] };
        assert_eq!(metrics.rdma, Some(rdma));
    }

    #[test]
    fn memory_is_read_with_what_of_it_the_kernel_counts() {
        let memory = read(RECORDED).unwrap().memory.unwrap();
        assert_eq!((memory.stat.cache, memory.stat.rss, memory.stat.total_rss), (20_971_520, 61_440, 61_441));
        assert_eq!((memory.stat.pg_pg_in, memory.stat.total_pg_pg_in), (5788, 5789));
        assert_eq!(memory.stat.pg_maj_fault, 2);
        assert_eq!(memory.stat.hierarchical_swap_limit, 9_223_372_036_854_771_712);
        let usage = MemoryEntry { limit: 67_108_864, usage: 21_430_272, max: 22_577_152, failcnt: 7 };
        assert_eq!(memory.usage, Some(usage));
        assert_eq!(memory.kernel.map(|kernel| kernel.usage), Some(294_912));
        assert_eq!(memory.swap, None, "swap isn't accounted for");
        assert_eq!(memory.kernel_tcp, None);
    }

    #[test]
    fn parts_are_absent_with_their_controllers() {
        let metrics = Metrics::read(&Place::legacy([("devices", "/nowhere")])).unwrap();
        assert_eq!(metrics, Metrics::default());
        let vanished = Place::legacy(CONTROLLERS.map(|name| (name, "/nowhere")));
        assert_eq!(Metrics::read(&vanished).unwrap(), Metrics::default());
    }

    #[test]
    fn no_limit_of_processes_is_zero() {
        let metrics = read(&[("pids.current", "1\n"), ("pids.max", "max\n")]).unwrap();
        assert_eq!(metrics.pids, Some(Pids { current: 1, limit: 0 }));
    }

    #[test]
    fn damaged_files_are_named() {
        for name in ["cpuacct.usage_percpu", "memory.stat", "pids.current"] {
            let mut files = RECORDED.to_vec();
            files.push((name, "1 two\n"));
            let error = read(&files).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}

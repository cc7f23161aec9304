//! What a cgroup of version 2 counts, grouped and named as in containerd's
//! message `io.containerd.cgroups.v2.Metrics`.
//!
//! A part is absent when its controller is off, or the kernel doesn't count it.

mod pressure;

use std::path::Path;

pub use self::pressure::{Psi, PsiData};
pub use super::rdma::{Rdma, RdmaEntry};
use super::{
    Error,
    file::{self, counters},
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    pub pids: Option<Pids>,
    pub cpu: Option<Cpu>,
    pub memory: Option<Memory>,
    pub memory_events: Option<MemoryEvents>,
    pub io: Option<Io>,
    pub rdma: Option<Rdma>,
    pub hugetlb: Vec<Hugetlb>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    pub current: u64,
    /// The largest number there is if there is none.
    pub limit: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    pub stat: CpuStat,
    pub psi: Option<Psi>,
}

counters!(
    /// The file `cpu.stat`.
    CpuStat {
        usage_usec,
        user_usec,
        system_usec,
        nr_periods,
        nr_throttled,
        throttled_usec,
        nr_bursts,
        burst_usec,
    }
);

/// Usages and limits are in bytes; no limit is the largest number there is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    pub stat: MemoryStat,
    pub usage: u64,
    pub usage_limit: u64,
    pub max_usage: u64,
    pub swap_usage: u64,
    pub swap_limit: u64,
    pub swap_max_usage: u64,
    pub psi: Option<Psi>,
}

counters!(
    /// The file `memory.stat`.
    MemoryStat {
        anon,
        file,
        kernel_stack,
        slab,
        sock,
        shmem,
        file_mapped,
        file_dirty,
        file_writeback,
        anon_thp,
        inactive_anon,
        active_anon,
        inactive_file,
        active_file,
        unevictable,
        slab_reclaimable,
        slab_unreclaimable,
        pgfault,
        pgmajfault,
        workingset_refault,
        workingset_activate,
        workingset_nodereclaim,
        pgrefill,
        pgscan,
        pgsteal,
        pgactivate,
        pgdeactivate,
        pglazyfree,
        pglazyfreed,
        thp_fault_alloc,
        thp_collapse_alloc,
    }
);

counters!(
    /// The file `memory.events`.
    MemoryEvents { low, high, max, oom, oom_kill, oom_group_kill }
);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Io {
    pub usage: Vec<IoEntry>,
    pub psi: Option<Psi>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoEntry {
    pub major: u64,
    pub minor: u64,
    pub rbytes: u64,
    pub wbytes: u64,
    pub rios: u64,
    pub wios: u64,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hugetlb {
    pub current: u64,
    pub max: u64,
    /// As in the kernel's file names: `2MB`.
    pub pagesize: String,
    pub failcnt: u64,
}

impl Metrics {
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let events = file::pairs(&folder.join("memory.events"))?;
        Ok(Self {
            pids: Pids::read(folder)?,
            cpu: Cpu::read(folder)?,
            memory: Memory::read(folder)?,
            memory_events: events.map(MemoryEvents::from),
            io: Io::read(folder)?,
            rdma: Rdma::read(folder)?,
            hugetlb: Hugetlb::read_all(folder)?,
        })
    }
}

impl Pids {
    fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let Some(current) = file::number(&folder.join("pids.current"))? else { return Ok(None) };
        let limit = file::number(&folder.join("pids.max"))?.unwrap_or(0);
        Ok(Some(Self { current, limit }))
    }
}

impl Cpu {
    fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let Some(stat) = file::pairs(&folder.join("cpu.stat"))? else { return Ok(None) };
        let psi = Psi::read(&folder.join("cpu.pressure"))?;
        Ok(Some(Self { stat: stat.into(), psi }))
    }
}

impl Memory {
    fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let Some(stat) = file::pairs(&folder.join("memory.stat"))? else { return Ok(None) };
        // The peaks came with Linux 5.19 and 6.5; swap may be switched off.
        let number = |name| Ok::<_, Error>(file::number(&folder.join(name))?.unwrap_or(0));
        Ok(Some(Self {
            stat: stat.into(),
            usage: number("memory.current")?,
            usage_limit: number("memory.max")?,
            max_usage: number("memory.peak")?,
            swap_usage: number("memory.swap.current")?,
            swap_limit: number("memory.swap.max")?,
            swap_max_usage: number("memory.swap.peak")?,
            psi: Psi::read(&folder.join("memory.pressure"))?,
        }))
    }
}

impl Io {
    fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let Some(text) = file::text(&folder.join("io.stat"))? else { return Ok(None) };
        Ok(Some(Self {
            usage: text.lines().filter_map(IoEntry::parse).collect(),
            psi: Psi::read(&folder.join("io.pressure"))?,
        }))
    }
}

impl IoEntry {
    /// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`. Devices that did
    /// nothing stand there without figures.
    fn parse(line: &str) -> Option<Self> {
        let (device, figures) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let mut entry = Self { major: major.parse().ok()?, minor: minor.parse().ok()?, ..Self::default() };
        for (key, value) in figures.split(' ').filter_map(|figure| figure.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        Some(entry)
    }
}

impl Hugetlb {
    fn read_all(folder: &Path) -> Result<Vec<Self>, Error> {
        let sizes = file::huge_page_sizes(folder, ".current");
        sizes.into_iter().map(|size| Self::read(folder, size)).collect()
    }

    fn read(folder: &Path, pagesize: String) -> Result<Self, Error> {
        let path = |name| folder.join(format!("hugetlb.{pagesize}.{name}"));
        let events = file::pairs(&path("events"))?;
        Ok(Self {
            current: file::number(&path("current"))?.unwrap_or(0),
            max: file::number(&path("max"))?.unwrap_or(0),
            failcnt: events.map_or(0, |events| events.count("max")),
            pagesize,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Recorded on Linux 6.12, from a busy container with 64 MiB and half a CPU.
    const RECORDED: &[(&str, &str)] = &[
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        (
            "cpu.stat",
            "usage_usec 10201111\nuser_usec 4151686\nsystem_usec 6049425\nnice_usec 0\n\
            nr_periods 183\nnr_throttled 171\nthrottled_usec 10531839\nnr_bursts 4\nburst_usec 5\n",
        ),
        (
            "cpu.pressure",
            "some avg10=13.21 avg60=9.27 avg300=2.43 total=7700407\n\
            full avg10=12.44 avg60=8.80 avg300=2.31 total=7318721\n",
        ),
        (
            "memory.stat",
            "anon 167936\nfile 21356544\nkernel 1040384\nkernel_stack 49152\npagetables 122880\n\
            slab 835424\nworkingset_refault_anon 1\npgfault 1753\nthp_fault_alloc 1\n",
        ),
        ("memory.current", "22564864\n"),
        ("memory.max", "67108864\n"),
        ("memory.peak", "23035904\n"),
        ("memory.swap.current", "4096\n"),
        ("memory.swap.max", "max\n"),
        ("memory.swap.peak", "8192\n"),
        ("memory.events", "low 0\nhigh 0\nmax 123\noom 4\noom_kill 3\noom_group_kill 0\n"),
        ("io.stat", "254:0 rbytes=372736 wbytes=31457280 rios=10 wios=46 dbytes=0 dios=0\n7:1 \n254:16\n"),
        ("io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=3343\n"),
        ("rdma.current", ""),
        ("rdma.max", ""),
        ("hugetlb.2MB.current", "2097152\n"),
        ("hugetlb.2MB.max", "max\n"),
        ("hugetlb.2MB.events", "max 6\n"),
        ("hugetlb.2MB.rsvd.current", "0\n"),
    ];

    fn read(files: &[(&str, &str)]) -> Result<Metrics, Error> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Metrics::read(folder.path())
    }

    #[test]
    fn recorded_files_yield_every_part() {
        let metrics = read(RECORDED).unwrap();
        assert_eq!(metrics.pids, Some(Pids { current: 3, limit: u64::MAX }));
        let cpu = metrics.cpu.unwrap();
        assert_eq!((cpu.stat.usage_usec, cpu.stat.throttled_usec), (10_201_111, 10_531_839));
        assert_eq!((cpu.stat.nr_bursts, cpu.stat.burst_usec), (4, 5));
        let full = PsiData { avg10: 12.44, avg60: 8.8, avg300: 2.31, total: 7_318_721 };
        assert_eq!(cpu.psi.and_then(|psi| psi.full), Some(full));
        let events = MemoryEvents { max: 123, oom: 4, oom_kill: 3, ..MemoryEvents::default() };
        assert_eq!(metrics.memory_events, Some(events));
        assert_eq!(metrics.rdma, Some(Rdma::default()));
        let pages = Hugetlb { current: 2_097_152, max: u64::MAX, pagesize: "2MB".into(), failcnt: 6 };
        assert_eq!(metrics.hugetlb, [pages]);
    }

    #[test]
    fn memory_is_read_from_all_its_files() {
        let memory = read(RECORDED).unwrap().memory.unwrap();
        assert_eq!((memory.stat.anon, memory.stat.thp_fault_alloc), (167_936, 1));
        assert_eq!((memory.usage, memory.usage_limit), (22_564_864, 67_108_864));
        assert_eq!((memory.swap_usage, memory.swap_limit), (4096, u64::MAX));
        assert_eq!((memory.max_usage, memory.swap_max_usage), (23_035_904, 8192));
        assert_eq!(memory.psi, None, "the kernel doesn't measure pressure");
    }

    #[test]
    fn devices_without_figures_are_left_out() {
        let io = read(RECORDED).unwrap().io.unwrap();
        let vda = IoEntry { major: 254, minor: 0, rbytes: 372_736, wbytes: 31_457_280, rios: 10, wios: 46 };
        assert_eq!(io.usage[0], vda);
        let others = io.usage.iter().filter(|entry| entry.major != 254);
        assert!(
            others.into_iter().all(|entry| *entry == IoEntry { major: 7, minor: 1, ..IoEntry::default() })
        );
        assert_eq!(io.psi.and_then(|psi| psi.some).map(|some| some.total), Some(3343));
    }

    #[test]
    fn parts_are_absent_with_their_controllers() {
        assert_eq!(read(&[]).unwrap(), Metrics::default());
        assert_eq!(Metrics::read(Path::new("/nowhere")).unwrap(), Metrics::default());
    }

    #[test]
    fn damaged_files_are_named() {
        for name in ["cpu.pressure", "memory.stat", "memory.events", "memory.swap.max"] {
            let mut files = RECORDED.to_vec();
            files.push((name, "some avg10\n"));
            let error = read(&files).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}

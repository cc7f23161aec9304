//! What a container uses, as containerd's messages.
//!
//! Readers of these messages are used to what the stock shim sends. It sends
//! some parts whether or not the kernel has figures for them, and there are
//! clients that look into those without asking. So they are always sent.

use cryo::cgroup::{Stats, v1, v2};
use cryo_protos::{
    cgroups::metrics as wire1,
    cgroups_v2::metrics as wire2,
    pack,
    protobuf::{self, MessageField, well_known_types::any::Any},
};

/// The statistics as the answer to `Stats` carries them.
pub(crate) fn pack_stats(stats: Stats) -> protobuf::Result<Any> {
    match stats {
        Stats::V1(metrics) => pack(&metrics_v1(*metrics)),
        Stats::V2(metrics) => pack(&metrics_v2(*metrics)),
    }
}

/// Makes a message of fields that have the same names in both worlds.
macro_rules! carry {
    ($from:ident => $wire:ident::$message:ident { $($field:ident),* $(,)? }) => {
        $wire::$message { $($field: $from.$field,)* ..Default::default() }
    };
}

fn metrics_v1(metrics: v1::Metrics) -> wire1::Metrics {
    let pids = |pids: v1::Pids| carry!(pids => wire1::PidsStat { current, limit });
    let oom = |oom: v1::OomControl| carry!(oom => wire1::MemoryOomControl { oom_kill_disable, under_oom, oom_kill });
    wire1::Metrics {
        hugetlb: convert(metrics.hugetlb, hugetlb_v1),
        pids: metrics.pids.map(pids).into(),
        cpu: present(wire1::CPUStat {
            usage: present(cpu_usage(metrics.cpu_usage.unwrap_or_default())),
            throttling: present(throttling(metrics.throttling.unwrap_or_default())),
            ..Default::default()
        }),
        memory: metrics.memory.map(memory_v1).into(),
        blkio: metrics.blkio.map(blkio).into(),
        rdma: metrics.rdma.map(rdma_v1).into(),
        memory_oom_control: metrics.oom_control.map(oom).into(),
        ..Default::default()
    }
}

fn hugetlb_v1(pages: v1::Hugetlb) -> wire1::HugetlbStat {
    carry!(pages => wire1::HugetlbStat { usage, max, failcnt, pagesize })
}

fn cpu_usage(usage: v1::CpuUsage) -> wire1::CPUUsage {
    carry!(usage => wire1::CPUUsage { total, kernel, user, per_cpu })
}

fn throttling(times: v1::Throttling) -> wire1::Throttle {
    carry!(times => wire1::Throttle { periods, throttled_periods, throttled_time })
}

fn memory_v1(memory: v1::Memory) -> wire1::MemoryStat {
    let stat = memory.stat;
    wire1::MemoryStat {
        usage: memory_entry(memory.usage),
        swap: memory_entry(memory.swap),
        kernel: memory_entry(memory.kernel),
        kernel_tcp: memory_entry(memory.kernel_tcp),
        ..carry!(stat => wire1::MemoryStat {
            cache, rss, rss_huge, mapped_file, dirty, writeback,
            pg_pg_in, pg_pg_out, pg_fault, pg_maj_fault,
            inactive_anon, active_anon, inactive_file, active_file, unevictable,
            hierarchical_memory_limit, hierarchical_swap_limit,
            total_cache, total_rss, total_rss_huge, total_mapped_file, total_dirty, total_writeback,
            total_pg_pg_in, total_pg_pg_out, total_pg_fault, total_pg_maj_fault,
            total_inactive_anon, total_active_anon, total_inactive_file, total_active_file,
            total_unevictable,
        })
    }
}

fn memory_entry(entry: Option<v1::MemoryEntry>) -> MessageField<wire1::MemoryEntry> {
    let entry = entry.unwrap_or_default();
    present(carry!(entry => wire1::MemoryEntry { limit, usage, max, failcnt }))
}

fn blkio(blkio: v1::BlkIo) -> wire1::BlkIOStat {
    let entries = |entries| convert(entries, blkio_entry);
    wire1::BlkIOStat {
        io_service_bytes_recursive: entries(blkio.io_service_bytes_recursive),
        io_serviced_recursive: entries(blkio.io_serviced_recursive),
        io_queued_recursive: entries(blkio.io_queued_recursive),
        io_service_time_recursive: entries(blkio.io_service_time_recursive),
        io_wait_time_recursive: entries(blkio.io_wait_time_recursive),
        io_merged_recursive: entries(blkio.io_merged_recursive),
        io_time_recursive: entries(blkio.io_time_recursive),
        sectors_recursive: entries(blkio.sectors_recursive),
        ..Default::default()
    }
}

fn blkio_entry(entry: v1::BlkIoEntry) -> wire1::BlkIOEntry {
    carry!(entry => wire1::BlkIOEntry { op, device, major, minor, value })
}

fn rdma_v1(rdma: v1::Rdma) -> wire1::RdmaStat {
    let entry = |entry: v1::RdmaEntry| carry!(entry => wire1::RdmaEntry { device, hca_handles, hca_objects });
    wire1::RdmaStat {
        current: convert(rdma.current, entry),
        limit: convert(rdma.limit, entry),
        ..Default::default()
    }
}

fn metrics_v2(metrics: v2::Metrics) -> wire2::Metrics {
    let pids = metrics.pids.unwrap_or_default();
    let events = |events: v2::MemoryEvents| carry!(events => wire2::MemoryEvents { low, high, max, oom, oom_kill, oom_group_kill });
    wire2::Metrics {
        pids: present(carry!(pids => wire2::PidsStat { current, limit })),
        cpu: present(cpu_v2(metrics.cpu.unwrap_or_default())),
        memory: present(memory_v2(metrics.memory.unwrap_or_default())),
        rdma: present(rdma_v2(metrics.rdma.unwrap_or_default())),
        io: present(io(metrics.io.unwrap_or_default())),
        hugetlb: convert(metrics.hugetlb, hugetlb_v2),
        memory_events: metrics.memory_events.map(events).into(),
        ..Default::default()
    }
}

fn cpu_v2(cpu: v2::Cpu) -> wire2::CPUStat {
    let stat = cpu.stat;
    wire2::CPUStat {
        psi: psi(cpu.psi),
        ..carry!(stat => wire2::CPUStat {
            usage_usec, user_usec, system_usec,
            nr_periods, nr_throttled, throttled_usec, nr_bursts, burst_usec,
        })
    }
}

fn memory_v2(memory: v2::Memory) -> wire2::MemoryStat {
    let stat = memory.stat;
    let message = carry!(stat => wire2::MemoryStat {
        anon, file, kernel_stack, slab, sock, shmem, file_mapped, file_dirty, file_writeback,
        anon_thp, inactive_anon, active_anon, inactive_file, active_file, unevictable,
        slab_reclaimable, slab_unreclaimable, pgfault, pgmajfault,
        workingset_refault, workingset_activate, workingset_nodereclaim,
        pgrefill, pgscan, pgsteal, pgactivate, pgdeactivate, pglazyfree, pglazyfreed,
        thp_fault_alloc, thp_collapse_alloc,
    });
    wire2::MemoryStat {
        usage: memory.usage,
        usage_limit: memory.usage_limit,
        max_usage: memory.max_usage,
        swap_usage: memory.swap_usage,
        swap_limit: memory.swap_limit,
        swap_max_usage: memory.swap_max_usage,
        psi: psi(memory.psi),
        ..message
    }
}

fn io(io: v2::Io) -> wire2::IOStat {
    let entry =
        |entry: v2::IoEntry| carry!(entry => wire2::IOEntry { major, minor, rbytes, wbytes, rios, wios });
    wire2::IOStat { usage: convert(io.usage, entry), psi: psi(io.psi), ..Default::default() }
}

fn rdma_v2(rdma: v2::Rdma) -> wire2::RdmaStat {
    let entry = |entry: v2::RdmaEntry| carry!(entry => wire2::RdmaEntry { device, hca_handles, hca_objects });
    wire2::RdmaStat {
        current: convert(rdma.current, entry),
        limit: convert(rdma.limit, entry),
        ..Default::default()
    }
}

fn hugetlb_v2(pages: v2::Hugetlb) -> wire2::HugeTlbStat {
    carry!(pages => wire2::HugeTlbStat { current, max, pagesize, failcnt })
}

fn psi(psi: Option<v2::Psi>) -> MessageField<wire2::PSIStats> {
    let data = |data: v2::PsiData| carry!(data => wire2::PSIData { avg10, avg60, avg300, total });
    let stats = |psi: v2::Psi| wire2::PSIStats {
        some: psi.some.map(data).into(),
        full: psi.full.map(data).into(),
        ..Default::default()
    };
    psi.map(stats).into()
}

fn convert<T, M>(list: Vec<T>, message: impl FnMut(T) -> M) -> Vec<M> {
    list.into_iter().map(message).collect()
}

fn present<M>(message: M) -> MessageField<M> {
    MessageField::some(message)
}

#[cfg(test)]
mod tests {
    use cryo_protos::protobuf::Message;

    use super::*;

    fn sent_v1(metrics: v1::Metrics) -> wire1::Metrics {
        let any = pack_stats(Stats::V1(Box::new(metrics))).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        wire1::Metrics::parse_from_bytes(&any.value).unwrap()
    }

    fn sent_v2(metrics: v2::Metrics) -> wire2::Metrics {
        let any = pack_stats(Stats::V2(Box::new(metrics))).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        wire2::Metrics::parse_from_bytes(&any.value).unwrap()
    }

    #[test]
    fn version_1_always_sends_cpu_and_all_kinds_of_memory() {
        let sent = sent_v1(v1::Metrics { memory: Some(v1::Memory::default()), ..Default::default() });
        assert!(sent.cpu.usage.is_some() && sent.cpu.throttling.is_some());
        assert!(sent.memory.swap.is_some() && sent.memory.kernel_tcp.is_some());
        assert!(sent.pids.is_none() && sent.blkio.is_none() && sent.rdma.is_none());
        assert!(sent_v1(v1::Metrics::default()).memory.is_none());
    }

    #[test]
    fn version_2_always_sends_all_but_the_events_of_memory() {
        let sent = sent_v2(v2::Metrics::default());
        assert!(sent.pids.is_some() && sent.cpu.is_some() && sent.memory.is_some());
        assert!(sent.io.is_some() && sent.rdma.is_some());
        assert!(sent.memory_events.is_none() && sent.cpu.psi.is_none());
    }

    #[test]
    fn figures_of_version_1_arrive() {
        let entry =
            v1::BlkIoEntry { op: "Read".into(), device: "/dev/vda".into(), major: 254, minor: 1, value: 9 };
        let usage = v1::CpuUsage { total: 5, kernel: 2, user: 3, per_cpu: vec![1, 4] };
        let stat = v1::MemoryStat { rss: 6, total_unevictable: 7, ..Default::default() };
        let usage_entry = v1::MemoryEntry { limit: 1, usage: 2, max: 3, failcnt: 4 };
        let sent = sent_v1(v1::Metrics {
            cpu_usage: Some(usage),
            memory: Some(v1::Memory { stat, usage: Some(usage_entry), ..Default::default() }),
            blkio: Some(v1::BlkIo { io_serviced_recursive: vec![entry], ..Default::default() }),
            ..Default::default()
        });
        assert_eq!((sent.cpu.usage.total, &*sent.cpu.usage.per_cpu), (5, &[1, 4][..]));
        assert_eq!((sent.memory.rss, sent.memory.total_unevictable), (6, 7));
        assert_eq!((sent.memory.usage.limit, sent.memory.usage.failcnt), (1, 4));
        let serviced = &sent.blkio.io_serviced_recursive[0];
        assert_eq!((&*serviced.op, &*serviced.device, serviced.value), ("Read", "/dev/vda", 9));
    }

    #[test]
    fn figures_of_version_2_arrive() {
        let some = v2::PsiData { avg10: 1.5, avg60: 2.5, avg300: 3.5, total: 4 };
        let psi = Some(v2::Psi { some: Some(some), full: None });
        let stat = v2::MemoryStat { anon: 6, thp_collapse_alloc: 7, ..Default::default() };
        let usage = vec![v2::IoEntry { major: 8, minor: 1, rbytes: 2, wbytes: 3, rios: 4, wios: 5 }];
        let sent = sent_v2(v2::Metrics {
            memory: Some(v2::Memory { stat, usage_limit: u64::MAX, psi, ..Default::default() }),
            memory_events: Some(v2::MemoryEvents { oom_kill: 3, ..Default::default() }),
            io: Some(v2::Io { usage, psi: None }),
            ..Default::default()
        });
        assert_eq!((sent.memory.anon, sent.memory.thp_collapse_alloc), (6, 7));
        assert_eq!((sent.memory.usage_limit, sent.memory_events.oom_kill), (u64::MAX, 3));
        assert_eq!((sent.memory.psi.some.avg300, sent.memory.psi.full.is_some()), (3.5, false));
        assert_eq!((sent.io.usage[0].wios, sent.io.psi.is_some()), (5, false));
    }
}

//! The zoo: who is in it, what they are given, and what is said of them.

use std::fmt;

use serde_json::{Value, json};

use Predicted::{Blocks, Hangs, OneNetwork, Ready, Unforeseen};

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) guest: &'static [&'static str],
    pub(super) given: &'static [Given],
    pub(super) predicted: Predicted,
}

pub(super) enum Predicted {
    /// It comes back and answers this.
    Ready(&'static str),
    /// By this kind of finding; CRIU refuses too.
    Blocks(&'static str),
    /// A second network namespace: runc can't, crun can.
    OneNetwork,
    /// It is said to be ready, and CRIU refuses; for a reason.
    Unforeseen(&'static str),
    /// By this kind of finding; CRIU would wait for it until it is killed.
    Hangs(&'static str),
}

#[derive(PartialEq, Eq)]
pub(super) enum Given {
    Annotation(&'static str, &'static str),
    Privileges,
    Pings,
    /// The host's name.
    HostsName,
    /// Sockets of the host's, to connect to.
    Outside,
    /// Of whoever runs the test: CRIU asks after the limits of other users' processes.
    RightOverLimits,
}

impl fmt::Display for Predicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ready(_) => f.write_str("ready"),
            OneNetwork => f.write_str("nested-namespace with runc"),
            Unforeseen(why) => write!(f, "nothing: {why}"),
            Blocks(what) | Hangs(what) => f.write_str(what),
        }
    }
}

const MORE_CAPABILITIES: [&str; 10] = [
    "CAP_BPF",
    "CAP_IPC_LOCK",
    "CAP_LEASE",
    "CAP_NET_ADMIN",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_TIME",
];

/// May do nearly everything, with every device.
pub(super) fn privileged(spec: &mut Value) {
    spec["process"]["noNewPrivileges"] = json!(false);
    spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    for set in ["bounding", "effective", "permitted"] {
        if let Some(set) = spec["process"]["capabilities"][set].as_array_mut() {
            set.extend(MORE_CAPABILITIES.map(Value::from));
        }
    }
}

/// At least nineteen of twenty predictions are right.
const _: () = {
    let groups = [DESCRIPTORS, FILES, MEMORY, SOCKETS, CONNECTIONS, PROCESSES, WORLDS];
    let (mut all, mut unforeseen, mut group) = (0, 0, 0);
    while group < groups.len() {
        let mut at = 0;
        while at < groups[group].len() {
            if matches!(groups[group][at].predicted, Unforeseen(_)) {
                unforeseen += 1;
            }
            at += 1;
        }
        all += at;
        group += 1;
    }
    assert!(all >= 60 && unforeseen * 20 <= all);
};

const UNLOCKED: &[Given] = &[Given::Annotation("cryo.file-locks", "false")];
const OUTSIDE_KEPT: &[Given] = &[Given::Outside, Given::Annotation("cryo.external-unix-sockets", "true")];
const KEPT_ACCEPTED: &[Given] =
    &[Given::Annotation("cryo.tcp", "established"), Given::Annotation("cryo.in-flight", "refuse")];
const KEPT: &[Given] = &[Given::Annotation("cryo.tcp", "established")];

const fn case(
    name: &'static str,
    guest: &'static [&'static str],
    given: &'static [Given],
    predicted: Predicted,
) -> Case {
    Case { name, guest, given, predicted }
}

pub(super) const DESCRIPTORS: &[Case] = &[
    case("eventfd", &["hold", "eventfd"], &[], Ready("same")),
    case("signalfd", &["hold", "signalfd"], &[], Ready("same")),
    case("timerfd", &["hold", "timerfd"], &[], Ready("same")),
    case("epoll", &["hold", "epoll"], &[], Ready("same")),
    case("inotify on tmpfs", &["hold", "inotify", "/run/watched"], &[], Ready("same")),
    case("inotify on the root", &["hold", "inotify", "/tmp/watched"], &[], Blocks("watch")),
    case("inotify where CRIU looks", &["hold", "inotify", "/etc/watched"], &[], Ready("same")),
    case("inotify on a deleted folder", &["hold", "inotify-deleted", "/tmp/watched"], &[], Blocks("watch")),
    case(
        "inotify on a deleted folder of tmpfs",
        &["hold", "inotify-deleted", "/run/watched"],
        &[],
        Unforeseen("a folder without a name would have to be looked for everywhere"),
    ),
    case(
        "inotify-unread",
        &["hold", "inotify-unread", "/run/watched"],
        &[],
        Unforeseen("it is over once the program reads, which most do at once"),
    ),
    case("fanotify", &["hold", "fanotify", "/run/watched"], &[Given::Privileges], Ready("same")),
    case("memfd", &["hold", "memfd"], &[], Ready("same")),
    case("memfd-sealed", &["hold", "memfd-sealed"], &[], Ready("same")),
    case("pidfd", &["hold", "pidfd"], &[], Ready("same")),
    case("pidfd-dead", &["hold", "pidfd-dead"], &[], Ready("same")),
    case("io-uring", &["hold", "io-uring"], &[], Blocks("io-uring")),
    case("userfaultfd", &["hold", "userfaultfd"], &[], Blocks("unsupported-file")),
    case("perf-event", &["hold", "perf-event"], &[Given::Privileges], Blocks("unsupported-file")),
    case("landlock-ruleset", &["hold", "landlock-ruleset"], &[], Blocks("unsupported-file")),
    case("fscontext", &["hold", "fscontext"], &[Given::Privileges], Blocks("unsupported-file")),
    case("namespace", &["hold", "namespace"], &[], Ready("same")),
    case("dead-proc", &["hold", "dead-proc"], &[], Ready("same")),
    case("seccomp-notify", &["hold", "seccomp-notify"], &[Given::Privileges], Blocks("seccomp-notify")),
    case(
        "bpf-map",
        &["hold", "bpf-map"],
        &[Given::Privileges],
        Unforeseen("it depends on how CRIU was built"),
    ),
    case("bpf-program", &["hold", "bpf-program"], &[Given::Privileges], Blocks("unsupported-file")),
    case("/dev/kmsg", &["hold", "device", "1:11"], &[Given::Privileges], Ready("same")),
    case("/dev/loop-control", &["hold", "device", "10:237"], &[Given::Privileges], Blocks("device")),
    case("/dev/fuse", &["hold", "device", "10:229"], &[Given::Privileges], Blocks("device")),
    case("a loop device", &["hold", "disk", "7:0"], &[Given::Privileges], Blocks("device")),
    case("/dev/zero mapped", &["hold", "device-mapped", "1:5"], &[Given::Privileges], Ready("same")),
    case("tun", &["hold", "tun"], &[Given::Privileges], Blocks("device")),
    case("tun-unattached", &["hold", "tun-unattached"], &[Given::Privileges], Ready("same")),
    case("fuse", &["hold", "fuse"], &[Given::Privileges], Blocks("unsupported-mount")),
    case("terminal", &["hold", "terminal"], &[], Ready("same")),
    case("controlling terminal", &["hold", "terminal-foreign"], &[], Ready("same")),
];

pub(super) const FILES: &[Case] = &[
    case("path-only", &["hold", "path-only"], &[], Ready("same")),
    case("nameless", &["hold", "nameless"], &[], Ready("same")),
    case("renamed", &["hold", "renamed"], &[], Ready("same")),
    case("copied-up", &["hold", "copied-up"], &[], Ready("same")),
    case("deleted-folder", &["hold", "deleted-folder"], &[], Ready("same")),
    case("deleted-home", &["hold", "deleted-home"], &[], Ready("same")),
    case("deleted-program", &["hold", "deleted-program"], &[], Ready("same")),
    case("deleted-mapping", &["hold", "deleted-mapping"], &[], Ready("same")),
    case("deleted-library", &["hold", "deleted-library"], &[], Ready("same")),
    case("sparse", &["hold", "sparse"], &[], Ready("same")),
    case("big-mapping", &["hold", "big-mapping"], &[], Ready("same")),
    case("dev-shm", &["hold", "dev-shm"], &[], Ready("same")),
    case("open-lock", &["hold", "open-lock"], &[], Ready("same")),
    case("lease", &["hold", "lease"], &[], Ready("same")),
    case("open-lock, not allowed", &["hold", "open-lock"], UNLOCKED, Blocks("file-lock")),
    case("lease, not allowed", &["hold", "lease"], UNLOCKED, Blocks("file-lock")),
    case("fifo", &["hold", "fifo"], &[], Ready("same")),
    case("full-pipe", &["hold", "full-pipe"], &[], Ready("same")),
    case("packet-pipe", &["hold", "packet-pipe"], &[], Blocks("unsupported-file")),
    case("lost-name", &["hold", "lost-name"], &[], Ready("same")),
];

pub(super) const MEMORY: &[Case] = &[
    case("shared-memory", &["hold", "shared-memory"], &[], Ready("same")),
    case("sysv-memory", &["hold", "sysv-memory"], &[], Ready("same")),
    case("sysv-messages", &["hold", "sysv-messages"], &[], Ready("same")),
    case("sysv-semaphore", &["hold", "sysv-semaphore"], &[], Ready("same")),
    case("posix-queue", &["hold", "posix-queue"], &[], Blocks("message-queue")),
    case("posix-queue-closed", &["hold", "posix-queue-closed"], &[], Blocks("message-queue")),
    case("aio", &["hold", "aio"], &[], Ready("same")),
    case("secret-memory", &["hold", "secret-memory"], &[], Blocks("secret-memory")),
    case("hugetlb", &["hold", "hugetlb"], &[], Ready("same")),
    case("grows-down", &["hold", "grows-down"], &[], Ready("same")),
    case("dont-fork", &["hold", "dont-fork"], &[], Ready("same")),
    case("wipe-on-fork", &["hold", "wipe-on-fork"], &[], Ready("same")),
    case("huge-pages", &["hold", "huge-pages"], &[], Ready("same")),
    case("guard-pages", &["hold", "guard-pages"], &[], Ready("same")),
    case("locked-memory", &["hold", "locked-memory"], &[], Ready("same")),
    case("sealed-memory", &["hold", "sealed-memory"], &[], Ready("same")),
    case("protected", &["hold", "protected"], &[], Ready("same")),
    case("clock", &["hold", "clock"], &[], Ready("same")),
    case("rseq", &["hold", "rseq"], &[], Ready("same")),
    case("membarrier", &["hold", "membarrier"], &[], Ready("same")),
];

pub(super) const SOCKETS: &[Case] = &[
    case("unix-stream", &["hold", "unix-stream"], &[], Ready("same")),
    case("unix-datagram", &["hold", "unix-datagram"], &[], Ready("same")),
    case("unix-packets", &["hold", "unix-packets"], &[], Ready("same")),
    case("unix-listener", &["hold", "unix-listener"], &[], Ready("same")),
    case("unix-abstract", &["hold", "unix-abstract"], &[], Ready("same")),
    case(
        "unix stream to outside",
        &["hold", "unix-outside", "/host/stream"],
        &[Given::Outside],
        Blocks("external-unix-socket"),
    ),
    case(
        "unix stream to outside, kept",
        &["hold", "unix-outside", "/host/stream"],
        OUTSIDE_KEPT,
        Blocks("external-unix-socket"),
    ),
    case(
        "unix datagrams to outside",
        &["hold", "unix-outside-log", "/host/datagram"],
        &[Given::Outside],
        Blocks("external-unix-socket"),
    ),
    case(
        "unix datagrams to another network, kept",
        &["hold", "unix-outside-log", "/host/datagram"],
        OUTSIDE_KEPT,
        Blocks("external-unix-socket"),
    ),
    case(
        "unix-unaccepted",
        &["hold", "unix-unaccepted"],
        &[],
        Unforeseen("it is over once somebody accepts"),
    ),
    case("unix-deleted", &["hold", "unix-deleted"], &[], Ready("same")),
    case("unix-rights", &["hold", "unix-rights"], &[], Ready("same")),
    case("udp", &["hold", "udp"], &[], Ready("same")),
    case("udp-connected", &["hold", "udp-connected"], &[], Ready("same")),
    case("udp6", &["hold", "udp6"], &[], Ready("same")),
    case("ping", &["hold", "ping"], &[Given::Pings], Ready("same")),
    case("raw", &["hold", "raw"], &[], Ready("same")),
    case("raw6", &["hold", "raw6"], &[], Ready("same")),
    case("packet", &["hold", "packet"], &[], Ready("same")),
    case("netlink-route", &["hold", "netlink-route"], &[], Ready("same")),
    case("netlink-generic", &["hold", "netlink-generic"], &[], Ready("same")),
    case("netlink-devices", &["hold", "netlink-devices"], &[], Ready("same")),
    case("netlink-unread", &["hold", "netlink-unread"], &[], Blocks("unread-messages")),
];

pub(super) const CONNECTIONS: &[Case] = &[
    case("tcp6-listener", &["hold", "tcp6-listener"], &[], Ready("same")),
    case("tcp-bound", &["hold", "tcp-bound"], &[], Ready("same")),
    case("tcp-half-closed", &["hold", "tcp-half-closed"], &[], Blocks("tcp-connection")),
    case("tcp-half-closed, kept", &["hold", "tcp-half-closed"], KEPT, Ready("same")),
    case("tcp-connecting", &["hold", "tcp-connecting"], &[], Blocks("tcp-connection")),
    case("tcp-connecting, kept", &["hold", "tcp-connecting"], KEPT, Ready("same")),
    case("tcp-unaccepted", &["hold", "tcp-unaccepted"], &[], Blocks("tcp-connection")),
    case("tcp-unaccepted, kept", &["hold", "tcp-unaccepted"], KEPT, Ready("same")),
    case("tcp-unaccepted, refused", &["hold", "tcp-unaccepted"], KEPT_ACCEPTED, Blocks("tcp-connection")),
    case("tcp-time-wait", &["hold", "tcp-time-wait"], &[], Ready("same")),
    case("tcp-refused", &["hold", "tcp-refused"], &[], Ready("same")),
    case("mptcp", &["hold", "mptcp"], &[], Blocks("unsupported-socket")),
    case("sctp", &["hold", "sctp"], &[], Blocks("unsupported-socket")),
    case("vsock", &["hold", "vsock"], &[], Blocks("unsupported-socket")),
    case("crypto", &["hold", "crypto"], &[], Blocks("unsupported-socket")),
    case("can", &["hold", "can"], &[], Blocks("unsupported-socket")),
    case("bluetooth", &["hold", "bluetooth"], &[], Blocks("unsupported-socket")),
    case("key", &["hold", "key"], &[Given::Privileges], Blocks("unsupported-socket")),
    case("xdp", &["hold", "xdp"], &[Given::Privileges], Blocks("unsupported-socket")),
];

pub(super) const PROCESSES: &[Case] = &[
    case("zombie", &["hold", "zombie"], &[], Ready("same")),
    case("sessions", &["hold", "sessions"], &[], Ready("same")),
    case("orphan", &["hold", "orphan"], &[], Ready("same")),
    case("subreaper", &["hold", "subreaper"], &[], Ready("same")),
    case("traced", &["hold", "traced"], &[], Hangs("traced")),
    case("stopped-child", &["hold", "stopped-child"], &[], Hangs("stopped")),
    case("lost-leader", &["hold", "lost-leader"], &[], Blocks("lost-leader")),
    case("vfork", &["hold", "vfork"], &[], Unforeseen("it is over once the child runs its program")),
    case("spawning", &["hold", "spawning"], &[], Ready("same")),
    case("interval-timer", &["hold", "interval-timer"], &[], Ready("same")),
    case("posix-timer", &["hold", "posix-timer"], &[], Ready("same")),
    case("signal-stack", &["hold", "signal-stack"], &[], Ready("same")),
    case("pending-signal", &["hold", "pending-signal"], &[], Ready("same")),
    case("queued-signals", &["hold", "queued-signals"], &[], Ready("same")),
    case("limits", &["hold", "limits"], &[], Ready("same")),
    case("priority", &["hold", "priority"], &[Given::Privileges], Ready("same")),
    case("threads", &["hold", "threads"], &[], Ready("same")),
];

pub(super) const WORLDS: &[Case] = &[
    case("users", &["hold", "users"], &[Given::Privileges], Blocks("nested-namespace")),
    case("pids", &["hold", "pids"], &[Given::Privileges], Blocks("nested-namespace")),
    case("mounts", &["hold", "mounts"], &[Given::Privileges], Ready("same")),
    case("network", &["hold", "network"], &[Given::Privileges], OneNetwork),
    case("ipc", &["hold", "ipc"], &[Given::Privileges], Blocks("nested-namespace")),
    case("hostname", &["hold", "hostname"], &[Given::Privileges], Blocks("nested-namespace")),
    case("hostname-left, own", &["hold", "hostname-left"], &[Given::Privileges], Ready("same")),
    case(
        "hostname-left, the host's",
        &["hold", "hostname-left"],
        &[Given::Privileges, Given::HostsName],
        Blocks("other-namespace"),
    ),
    case("cgroups", &["hold", "cgroups"], &[Given::Privileges], Blocks("nested-namespace")),
    case("time", &["hold", "time"], &[Given::Privileges], Blocks("nested-namespace")),
    case("thread-hostname", &["hold", "thread-hostname"], &[Given::Privileges], Blocks("nested-namespace")),
    case("thread-network", &["hold", "thread-network"], &[Given::Privileges], Blocks("nested-namespace")),
    case("root", &["hold", "root"], &[], Ready("same")),
    case("no-new-privileges", &["hold", "no-new-privileges"], &[], Ready("same")),
    case("capabilities", &["hold", "capabilities"], &[], Ready("same")),
    case("user", &["hold", "user"], &[Given::RightOverLimits], Ready("same")),
    case("seccomp", &["hold", "seccomp"], &[], Ready("same")),
    case("landlocked", &["hold", "landlocked"], &[], Unforeseen("the kernel tells nobody")),
];

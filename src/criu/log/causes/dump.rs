//! Why a container can't be checkpointed.

use super::{Cause, cause};

pub(super) const CAUSES: &[Cause] = &[
    // Our own part of it.
    cause(
        &["what changed in the root file system can't be copied: *"],
        "what changed in its root file system can't be copied: {}",
        "set the annotation cryo.rootfs=leave, and carry its files along by other means",
    ),
    // Connections and sockets.
    cause(
        &["Connected TCP socket, consider"],
        "a TCP connection is open",
        "close it, or set the annotation cryo.tcp=established or cryo.tcp=close",
    ),
    cause(
        &["In-flight connection (l) for", "In-flight connection on non-listening"],
        "a connection is being set up",
        "try again when it is accepted",
    ),
    cause(
        &["Found a closed in-flight socket", "Non-empty write queue on an in-flight socket"],
        "a unix connection that nobody has accepted yet has data in it",
        "try again when it is accepted",
    ),
    cause(
        &["Can't turn TCP repair mode ON", "Failed to lock TCP connection"],
        "CRIU can't take hold of a TCP connection",
        "try again, or let the program close it first",
    ),
    cause(
        &["Unsupported proto 262 for socket", "GODEBUG=multipathtcp=0"],
        "a socket speaks multipath TCP, which CRIU can't checkpoint",
        "turn it off in the program (Go: GODEBUG=multipathtcp=0)",
    ),
    cause(
        &["Unsupported proto 132 for socket", "Can't dump 132 inet socket"],
        "an SCTP socket is open, which CRIU can't checkpoint",
        "close it before the checkpoint",
    ),
    cause(
        &["Unsupported proto * for socket"],
        "a socket of IP protocol {} is open, which CRIU can't checkpoint",
        "close it before the checkpoint",
    ),
    cause(
        &["Only stream, dgram and raw are supported", "Only stream/dgram/seqpacket are supported"],
        "a socket of an unusual type is open, which CRIU can't checkpoint",
        "close it before the checkpoint",
    ),
    cause(
        &["Can't dump corked dgram socket"],
        "a UDP socket holds data back (UDP_CORK)",
        "try again when the program has sent it",
    ),
    cause(
        &["Unknown socket collected (family 40)"],
        "a vsock socket is open, which CRIU can't checkpoint",
        "close the connection to the virtual machine's host",
    ),
    cause(
        &["Unknown socket collected (family 38)"],
        "the kernel's cryptography is in use by a socket (AF_ALG), which CRIU can't checkpoint",
        "let the program do its own cryptography",
    ),
    cause(
        &["Unknown socket collected (family *)"],
        "a socket of family {} is open, which CRIU can't checkpoint (21 RDS, 29 CAN, 30 TIPC, 44 XDP)",
        "close it before the checkpoint",
    ),
    cause(
        &["netlink: The socket has data to read"],
        "a netlink socket has messages that nobody has read",
        "try again when the program has read them",
    ),
    cause(
        &[
            "Groups above 32 are not supported",
            "has more than 32 groups",
            "is bound to groups but not to portid",
        ],
        "a netlink socket listens to groups that CRIU can't checkpoint",
        "close it before the checkpoint",
    ),
    cause(
        &["Multiple MC membership not supported", "Unknown mc membership type", "No packet socket"],
        "a packet socket is set up in a way that CRIU can't checkpoint",
        "end the packet capture or DHCP client before the checkpoint",
    ),
    cause(
        &["half of stream unix connection*peer name: *"],
        "a unix socket is connected to one outside the container: {}",
        "close that connection before the checkpoint",
    ),
    cause(
        &["Can't dump name-less external socket", "unix: Dangling connection"],
        "a unix socket is connected to one outside the container",
        "close that connection before the checkpoint",
    ),
    cause(
        &["External socket is used"],
        "a datagram unix socket has its peer outside the container",
        "close it, or set the annotation cryo.external-unix-sockets=true",
    ),
    cause(
        &["with unreachable peer"],
        "a unix socket is connected to one that nobody in the container has open",
        "close it before the checkpoint",
    ),
    cause(
        &[
            "Unsupported link * (type * kind *)",
            "tun: Can't dump * with filter",
            "tun: No info about * filter",
        ],
        "a network device is of a kind that CRIU can't checkpoint: {}",
        "remove it, or let the runtime make the network",
    ),
    cause(
        &["Net namespace is required to dump tun link", "No net_ns for tun device"],
        "a tun device is open in a network that isn't the container's own",
        "end the VPN or tunnel before the checkpoint",
    ),
    // Open files.
    cause(
        &["Some file locks are hold by dumping tasks"],
        "a process holds file locks, and they weren't asked for",
        "release the file locks, or leave out the annotation cryo.file-locks=false",
    ),
    cause(
        &["Unresolved lock found pid", "Invalid file lease type", "Incorrect lease type"],
        "a file lock or lease is held by nobody that CRIU can find",
        "release it before the checkpoint",
    ),
    cause(
        &["Can't create link remap for *. Use"],
        "{} was deleted under one of its names and is still open",
        "set the annotation cryo.checkpoint.exit=true, or close the file",
    ),
    cause(
        &["Can't link remap to *", "Can't create even fake link*"],
        "a deleted file that is still open can't be given a name again: {}",
        "close it, or keep it on a file system that can be written to",
    ),
    cause(
        &["Can't dump ghost file * of"],
        "the deleted file {} is still open and too big for a ghost file",
        "make the deleted file smaller or close it, or set the annotation cryo.ghost-limit higher",
    ),
    cause(
        &["anon_inode:[io_uring]"],
        "a program uses io_uring, which CRIU can't checkpoint",
        "make it use epoll (Node.js: UV_USE_IO_URING=0)",
    ),
    cause(
        &["anon_inode:bpf", "support dumping BPF map type", "Can't freeze bpfmap"],
        "a BPF program or map is open that CRIU can't checkpoint",
        "end the program that loads BPF, or run it outside the container",
    ),
    cause(
        &["anon_inode:[perf_event]"],
        "performance counters are open (perf_event), which CRIU can't checkpoint",
        "end the profiler before the checkpoint",
    ),
    cause(
        &["anon_inode:[userfaultfd]"],
        "a program uses userfaultfd, which CRIU can't checkpoint",
        "turn that off in the program, or end it",
    ),
    cause(
        &["anon_inode:seccomp notify"],
        "a program watches system calls of another (seccomp notify), which CRIU can't checkpoint",
        "end that sandbox before the checkpoint",
    ),
    cause(
        &["anon_inode:[pidfd]", "PIDFD_THREAD flag", "is not a part of process tree"],
        "a pidfd is open that CRIU can't checkpoint",
        "close it; CRIU 4.1 and newer know those of the container's own processes",
    ),
    cause(
        &["secretmem"],
        "a program has secret memory (memfd_secret), which CRIU can't checkpoint",
        "turn that off in the program",
    ),
    cause(
        &["(chr 195:", "(chr 226:"],
        "a GPU is in use",
        "install CRIU's plugin for it (NVIDIA's needs cuda-checkpoint, too), or close the device",
    ),
    cause(
        &["(chr 10:229 "],
        "/dev/fuse is open: a FUSE file system is served inside the container",
        "serve it outside, and pass it in as a volume",
    ),
    cause(
        &["(chr *)", "(blk *)"],
        "a device is open that CRIU can't checkpoint: {}",
        "close it before the checkpoint, or install the CRIU plugin for it",
    ),
    cause(
        &["of that type [*] (*)", "Unknown shit * (*)"],
        "an open file is of a kind that CRIU can't checkpoint: {}",
        "close it before the checkpoint",
    ),
    cause(
        &["non-regular mapping", "handle_device_vma plugin failed", "Unsupported mapping found"],
        "memory of a device is mapped, which CRIU can't checkpoint",
        "close the device, or install the CRIU plugin for it",
    ),
    cause(
        &["has uprobes vma"],
        "a tracer has put probes into the container's programs",
        "detach it (bpftrace, perf, a profiler), then try again",
    ),
    cause(
        &[
            "irmap: Failed to resolve",
            "Can't find suitable path for handle",
            "Can't dump that handle",
            "Unable to lookup a mount by dev",
        ],
        "inotify or fanotify watches a file that CRIU can't find",
        "end the watch (tail -f has one), or watch a folder on a volume",
    ),
    cause(
        &["packetized mode for pipes is not supported"],
        "a pipe is in packet mode (O_DIRECT), which CRIU can't checkpoint",
        "close it before the checkpoint",
    ),
    cause(
        &["Can't lookup mount=*path=*"],
        "{} is open on a mount that the container doesn't have",
        "close it, or pass its folder in as a volume",
    ),
    cause(
        &["Open files on overmounted mounts", "is overmounted so paths are invisible"],
        "a file is open below another mount that covers it",
        "close it, or unmount what covers it",
    ),
    cause(
        &["Unaccessible path opened"],
        "a file is open whose path shows another file now",
        "close it, or undo the mount or move that hides it",
    ),
    // Terminals.
    cause(
        &["Unable to find a master for *"],
        "a process has the terminal {}, whose other end is outside the container",
        "run it on the container's own terminal",
    ),
    cause(
        &["Unable to find a tty driver", "Unexpected TTY type"],
        "a terminal is open of a kind that CRIU doesn't know",
        "close it: pseudoterminals and consoles can be checkpointed",
    ),
    cause(
        &["Found slave peer index", "Found dangling tty with sid"],
        "a terminal is open whose owner isn't in the container",
        "run the program on the container's own terminal, or with setsid",
    ),
    // Processes.
    cause(
        &["A session leader of zombie process *(", "A session leader of *("],
        "the leader of process {}'s session is outside the container",
        "end the process (it came by exec or nsenter), or start it with setsid",
    ),
    cause(
        &["is not a session leader. Consider"],
        "the container's first process belongs to a session outside",
        "give the container a terminal of its own, or start its program with setsid",
    ),
    cause(
        &["Unseizable non-zombie * found", "Unable to interrupt task: * ("],
        "process {} can't be stopped: something else traces it",
        "detach debuggers and tracers (gdb, strace) from it",
    ),
    cause(
        &["Unable to freeze cgroup", "Timeout reached. Try to interrupt", "Unknown freezer state"],
        "the container's processes didn't stop in time",
        "try again; a process that waits for a disk or network file system (state D) prevents it",
    ),
    cause(
        &["Zombie thread", "Zombies with threads", "Zombie with children", "found while seizing"],
        "a dead process or thread is left that nobody has waited for",
        "try again; if that doesn't help, run an init (docker run --init)",
    ),
    cause(
        &["Individually stopped threads"],
        "a single thread of a process is stopped",
        "let it run on: send SIGCONT to the process",
    ),
    cause(
        &["A root task is dead"],
        "the container's first process ended meanwhile",
        "start the container again",
    ),
    cause(
        &["running in 32-bit mode", "with LDT descriptors"],
        "a 32-bit program runs that this CRIU can't checkpoint",
        "run the program's 64-bit build",
    ),
    cause(
        &["Can't dump nested * namespace for"],
        "a process has a {} namespace of its own inside the container",
        "end sandboxes and containers inside (browsers: --no-sandbox)",
    ),
    cause(
        &["belong to the target user namespace"],
        "the container shares a namespace with another user namespace",
        "give it namespaces of its own, or no user namespace",
    ),
    cause(
        &["dump a pid namespace without the process init"],
        "the first process of the container's pid namespace is elsewhere",
        "give the container a pid namespace of its own",
    ),
    cause(
        &["Can't fetch filter on tid_real", "Can't fetch seccomp metadata"],
        "a seccomp filter can't be read",
        "run containerd with CAP_SYS_ADMIN, without seccomp, on a kernel with CONFIG_CHECKPOINT_RESTORE",
    ),
    cause(
        &["Can't get rlimit *: Operation not permitted"],
        "a process belongs to users that CRIU has no rights over",
        "run containerd as root of the first user namespace, with CAP_SYS_RESOURCE",
    ),
    cause(
        &["with SysVIPC shmem map"],
        "a process uses System V shared memory of the host",
        "give the container an IPC namespace of its own",
    ),
    cause(
        &["Sysv shmem * with"],
        "a process has only parts of a System V shared memory segment mapped",
        "map all of it in the program, or use POSIX shared memory",
    ),
    cause(
        &["Ring size is not aligned"],
        "a program uses asynchronous I/O (AIO) in a way that CRIU can't checkpoint",
        "turn AIO off in the program",
    ),
    // Mounts.
    cause(
        &["mnt: Mount *:* is autodetected external mount"],
        "the mount {} came from outside after the container was made",
        "unmount it, or make it one of the container's volumes",
    ),
    cause(
        &["mnt: *:* doesn't have a proper root mount"],
        "the mount {} shows part of a file system that the container doesn't have",
        "unmount it, or make it one of the container's volumes",
    ),
    cause(
        &["has unreachable sharing"],
        "a mount shares its submounts with one outside the container",
        "mount volumes with private propagation (rprivate)",
    ),
    cause(
        &["* is a fuse mount but not external"],
        "the FUSE file system {} is mounted inside the container",
        "mount it outside, and pass it in as a volume",
    ),
    cause(
        &["failed to dump fs *: always fail", "FS mnt *unsupported id", "Unable to dump a file system for *"],
        "a file system is mounted that CRIU can't checkpoint: {}",
        "unmount it, or mount it outside and pass it in as a volume",
    ),
    cause(
        &["has two children with same mountpoint"],
        "two mounts of the container are on the same place",
        "unmount one of them",
    ),
    cause(
        &["Autofs * is alive, but unreachable", "Non-catatonic mount without master"],
        "an automounter's mount is in the container, its daemon isn't",
        "mount volumes from outside of autofs folders, with private propagation",
    ),
    cause(
        &["Can't retrieve FD"],
        "more descriptors are being handed over on this machine than a process's limit of open files allows",
        "try again, or raise its limit (ulimit nofile)",
    ),
];

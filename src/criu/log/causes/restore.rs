//! Why a container doesn't come back.

use super::{Cause, cause};

pub(super) const CAUSES: &[Cause] = &[
    // Files.
    cause(
        &["Can't open file * on restore: No such file", "Can't open file *: No such file"],
        "{} is missing",
        "give the container the image and the volumes that the checkpoint was taken with",
    ),
    cause(
        &["Can't open file * on restore: Permission denied", "Can't open file *: Permission denied"],
        "{} may not be opened any more",
        "give it back its owner and its permissions",
    ),
    cause(
        &["File * has bad size", "File * has bad build-ID", "not be obtained for file * because"],
        "{} isn't the file that it was at the checkpoint",
        "give the container the same image and volumes, unchanged, or take the checkpoint again",
    ),
    cause(
        &["File * has bad mode"],
        "{} has other permissions than at the checkpoint",
        "give it back its permissions",
    ),
    cause(
        &["Can not set flock", "Can not set posix lock", "Can not set ofd lock"],
        "a file lock of the container is held by somebody else now",
        "end the other program that uses the same volume",
    ),
    cause(
        &["Can't add watch for", "Can't create inotify for", "Can't init fanotify mark"],
        "a file can't be watched again",
        "raise fs.inotify.max_user_instances and max_user_watches, and bring the watched file back",
    ),
    cause(
        &["Failed to find a device with minor number", "GPU topology"],
        "the GPU of the checkpoint isn't here",
        "restore on a machine with the same GPUs and the CRIU plugin for them",
    ),
    // Connections and sockets.
    cause(
        &[
            "Can't bind inet socket*: Cannot assign requested address",
            "Can't bind inet socket*: Address not available",
        ],
        "an address that a program listens on isn't there",
        "give the container its old IP address, or let the program listen on 0.0.0.0",
    ),
    cause(
        &["Can't bind inet socket*: Address already in use", "Can't bind inet socket*: Address in use"],
        "a port that a program listens on is taken",
        "end who has the port, or give the container its own network",
    ),
    cause(
        &["couldn't find ifindex for *"],
        "the network device {} isn't there, and a socket is bound to it",
        "give the container a network with devices of the same names",
    ),
    cause(
        &["Connected TCP socket in image", "set the --tcp-close options"],
        "the checkpoint has open TCP connections",
        "set the annotation cryo.tcp=close",
    ),
    cause(
        &["Dumped with --*. Need to set it"],
        "the checkpoint was taken with CRIU's option --{}, which isn't set now",
        "set it in the file that the annotation org.criu.config names, or take the checkpoint with Cryo",
    ),
    cause(
        &["Can't connect inet socket back", "queue data (", "Can't set queue seq", "Can't repair options"],
        "an open TCP connection can't be brought back",
        "set the annotation cryo.tcp=close, so that programs connect again",
    ),
    cause(
        &["External socket found in image"],
        "a datagram unix socket had its peer outside the container",
        "let the client ask for external unix sockets",
    ),
    cause(
        &["unix: Can't bind id *addr *"],
        "a unix socket can't be made again: {}",
        "remove what is in its place, and let its folder be writable",
    ),
    cause(
        &["Unknown peer net namespace", "Unable to find an external netns"],
        "the checkpoint was taken with another kind of network",
        "give the container the network that it had: its own, a pod's or the host's",
    ),
    cause(
        &["Don't have tty to inherit session from", "ctty inheritance detected"],
        "the checkpoint's terminal isn't there",
        "restore with a terminal if the container was made with one",
    ),
    // Processes.
    cause(
        &[
            "do not match expected",
            "Can't fork for *: File exists",
            "Thread pid mismatch",
            "intersects with p",
            "intersects with sid",
        ],
        "process ids of the checkpoint are taken",
        "give the container a pid namespace of its own",
    ),
    cause(
        &["First PID in a PID namespace needs", "restore pid namespace without the process init"],
        "the container had a pid namespace that wasn't its own",
        "restore it into the pod or namespace that it was in",
    ),
    cause(
        &["Unable to create a new time namespace", "clock offset", "time_for_children"],
        "the clocks of the checkpoint can't be set here",
        "use a kernel with time namespaces (5.6 or newer, CONFIG_TIME_NS)",
    ),
    cause(
        &[
            "write lsm profile",
            "LSM specified but",
            "mismatched lsm types",
            "can't render profile",
            "selinux context",
        ],
        "the AppArmor or SELinux profile of the checkpoint isn't here",
        "load the profile, or take the checkpoint of a container without one",
    ),
    cause(
        &["PR_SET_SECCOMP returned", "SECCOMP_SET_MODE_FILTER returned", "SECCOMP_MODE_STRICT returned"],
        "the kernel doesn't take the container's seccomp filter",
        "restore on a kernel like the one that the checkpoint was taken on",
    ),
    cause(
        &[
            "Unable to restore capabilities",
            "ambient capability",
            "Unable to drop capability",
            "Unable to set real, effective",
            "Can't setgroups(",
            "Unable to set PR_SET_SECUREBITS",
        ],
        "users or capabilities of a process can't be set as they were",
        "give the container the user namespace and capabilities that it had",
    ),
    cause(
        &["Failed to set desired IPC", "Failed to restore * id (", "Failed to create shm set"],
        "System V shared memory, semaphores or queues can't be made again",
        "give the container an IPC namespace of its own",
    ),
    cause(
        &["Can't submit aio iocbs", "Ring setup failed", "Ring remap failed"],
        "asynchronous I/O (AIO) can't be set up again",
        "raise fs.aio-max-nr",
    ),
    cause(
        &["rseq: can't restore as kernel", "Can't restore membarrier", "Cannot restore THP_DISABLE"],
        "this kernel lacks something that the checkpoint needs",
        "restore on a kernel as new as the one that it was taken on",
    ),
    // The machine.
    cause(
        &[
            "capabilities do not match run time",
            "FPU feature required by image",
            "xsave size mismatch",
            "xsave max size mismatch",
            "xsave area present, but host",
        ],
        "this machine's CPU can't do what the checkpoint's could",
        "restore on a CPU of the same kind or newer",
    ),
    cause(
        &["shadow stack on non-CET machine", "Shadow stack address mismatch"],
        "the checkpoint has shadow stacks, which this CPU or kernel lacks",
        "restore on a machine with CET, or run the program without it",
    ),
    cause(
        &[
            "Core march mismatch",
            "Task had vdso",
            "Failed to map vdso",
            "Can't find rt vDSO",
            "two nonconsecutive vvar",
        ],
        "this kernel's own code for programs (vDSO) differs too much",
        "restore on a kernel like the one that it was taken on, or use a newer CRIU",
    ),
    // Cgroups and mounts.
    cause(
        &[
            "Cgroup dir * doesn't exist",
            "Can't make cgroup dir *",
            "Failed accessing cgroup dir *",
            "cg: Can't move into *",
            "cg: Can't move * into *",
            "Can't move thread * into *",
        ],
        "a cgroup isn't there or can't be entered: {}",
        "see that its parent exists and lets processes in",
    ),
    cause(
        &["cg: Failed writing *", "special cpuset props failed*"],
        "a limit of the checkpoint can't be set here: {}",
        "give the container limits that this machine can keep",
    ),
    cause(
        &["No mapping for *:* mountpoint"],
        "the container had a mount at {}, and has none now",
        "mount something at the same place",
    ),
    cause(
        &["Unable to bind-mount *", "Can't bind-mount *", "Can't restore ext mount*"],
        "a volume can't be mounted again: {}",
        "see that its source is there, and of the same kind (file or folder)",
    ),
    cause(
        &["Failed to copy sharing from -1:* to"],
        "{} isn't on a shared mount, which the container's propagation needs",
        "make it shared on the host, or use rprivate before the checkpoint",
    ),
    cause(
        &["Unable to create mountpoint *", "Unable to mkdir mountpoint *"],
        "a mount point can't be made: {}",
        "make it in the container's image or volume",
    ),
    cause(
        &[
            "mnt: Unable to mount *",
            "mnt: Can't mount at *",
            "mnt-v2: Unable to mount *",
            "mnt-v2: Can't mount at *",
        ],
        "a file system can't be mounted again: {}",
        "see that the kernel knows it and that its source is there",
    ),
];

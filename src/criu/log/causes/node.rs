//! What can go wrong at a checkpoint and at a restore alike.

use super::{Cause, cause};

/// In the system's words, which stand at the end of lines of all kinds.
pub(super) const SHORTAGES: &[Cause] = &[
    cause(
        &["No space left on device", "Disk quota exceeded"],
        "no space left on a file system",
        "make room where the checkpoint, /var/lib/containerd and /tmp are",
    ),
    cause(
        &["Cannot allocate memory", "Out of memory"],
        "there isn't enough memory",
        "free memory on the node, or raise the container's memory limit",
    ),
    cause(
        &["Too many open files", "No file descriptors available"],
        "too many files are open",
        "raise LimitNOFILE of containerd, or fs.file-max",
    ),
    cause(
        &["Input/output error", "I/O error"],
        "a disk failed to read or write",
        "look into the kernel's log, and use another disk",
    ),
    cause(
        &["Read-only file system"],
        "a file system that has to be written to is read-only",
        "mount it writable, or put the checkpoint elsewhere",
    ),
];

pub(super) const CAUSES: &[Cause] = &[
    cause(
        &["Locking network failed", "Locking connection failed", "Iptables configuration failed"],
        "CRIU can't lock the network",
        "install iptables and the kernel module xt_mark, or a CRIU built with nftables",
    ),
    cause(
        &["Missing required plugin: *", "Can't load plugin *", "Corrupted plugin *", "Unable to load *: "],
        "the CRIU plugin {} can't be used",
        "install the plugin that belongs to this version of CRIU",
    ),
    cause(
        &["Head magic doesn't match for *", "Magic doesn't match for *", "magic doesn't match for *"],
        "the checkpoint's file {} isn't one of CRIU's",
        "take the checkpoint again, or copy it again as a whole",
    ),
    cause(
        &["Not supported images version", "Too old image", "Image from old CRIU", "too old criu was used"],
        "another version of CRIU wrote the checkpoint, in a form this one can't read",
        "restore with the version of CRIU that wrote it",
    ),
    cause(
        &["No parent for snapshot pagemap", "in parent pagemap", "Can't open parent path"],
        "the checkpoint before, which this one builds on, is missing",
        "keep it in the folder that the link parent names",
    ),
    cause(
        &[
            "Unexpected EOF",
            "Img trimmed",
            "Reached EOF unexpectedly",
            "image file was truncated",
            "Failed unpacking object",
            "bytes while * expected from",
            "Can't read img file",
            "Corrupted ghost image",
            "mage corruption",
            "corrupted image?",
            "Image corrupted",
            "Remap for non existing file",
        ],
        "the checkpoint is incomplete or damaged",
        "take it again, or copy it again as a whole",
    ),
    cause(
        &["Couldn't open image dir *", "Can't open images directory*"],
        "the checkpoint's folder can't be opened: {}",
        "make the folder and those above it readable for root",
    ),
    cause(
        &["Can't open dir *: Permission denied"],
        "root itself may not open the folder {}",
        "look for AppArmor, SELinux or a network file system that forbids it",
    ),
    cause(
        &["need to be root", "needs to have the CAP_SYS_ADMIN"],
        "CRIU runs without the rights it needs",
        "run containerd as root, with CAP_SYS_ADMIN and CAP_CHECKPOINT_RESTORE",
    ),
    cause(
        &["invalid argument for *", "Unsupported configuration file format*", "Deprecated functionality (*)"],
        "CRIU doesn't accept a setting: {}",
        "look through the files in /etc/criu and the annotation org.criu.config",
    ),
    cause(
        &["Unexpected result when get hugetlb dev", "memfd_create(\"\", MFD_HUGETLB)"],
        "the kernel gives CRIU no huge pages to look at",
        "reserve some: vm.nr_hugepages",
    ),
    cause(
        &["killed by signal 9"],
        "one of its processes was killed meanwhile",
        "look for the OOM killer in the kernel's log, and raise the memory limit",
    ),
    cause(
        &["killed by signal 11"],
        "one of its processes crashed meanwhile",
        "use a newer CRIU: this one may not know this kernel",
    ),
];

//! The little that a checkpoint and a restore read and write of CRIU's image files.

use std::io::{self, Read};
use std::path::Path;

use prost::Message;

use super::NETWORK_KEY;
use super::messages::{COMMON, Messages, bad, open_plain};

const INVENTORY: u32 = 0x5831_3116;
pub(super) const PSTREE: u32 = 0x5027_3030;
const IDS: u32 = 0x5443_2030;
const NETNS: u32 = 0x5593_3752;

/// What we read of an image is small, whatever somebody else has put there.
pub const MOST_BYTES: u64 = 4 << 20;

/// What CRIU's files are called, before a number and `.img`.
const KINDS: &str = "apparmor autofs binfmt-misc bpfmap-data bpfmap-file cgroup core cpuinfo creds eventfd \
    eventpoll eventpoll-tfd ext-files fanotify fanotify-mark fdinfo fifo fifo-data filelocks file-locks files fs \
    ghost-file ids ifaddr inetsk inotify inotify-wd inventory ip6tables ipcns-msg ipcns-sem ipcns-shm ipcns-var \
    iptables itimers memfd-file memfd-inode mm mountpoints netdev netlinksk netns netns-ct netns-exp nftables \
    ns-files packetsk pagemap pagemap-shmem pages pidns pipes pipes-data posix-timers pstree reg-files remap-fpath \
    rlimit route route6 rule seccomp shmem sigacts siginfo signal-p signal-s signalfd sk-queues tcp-stream timens \
    timerfd tmpfs tmpfs-dev tty tty-data tty-info tun-file unixsk userns utsns vma";

pub const INVENTORY_FILE: &str = "inventory.img";
pub const CGROUP_FILE: &str = "cgroup.img";
/// A cgroup's property and its value, each with a tag and a length.
const FROZEN: &[u8] = b"\x0a\x0dfreezer.state\x12\x06FROZEN";
const THAWED: &[u8] = b"\x0a\x0dfreezer.state\x12\x06THAWED";
/// The name of a property, and one of the same length that CRIU, whose names end at the first
/// zero, reads as that of a property which it never sets.
const CONTROLLERS: &[u8] = b"\x0a\x16cgroup.subtree_control\x12";
const NEVER_SET: &[u8] = b"\x0a\x16cgroup.procs\0\0\0\0\0\0\0\0\0\0\x12";

/// A process; the first one is the container's.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Pstree {
    #[prost(uint32, tag = "1")]
    pub(super) pid: u32,
    /// Itself among them.
    #[prost(uint32, repeated, packed = "false", tag = "5")]
    pub(super) threads: Vec<u32>,
}

/// Namespaces, as numbers of CRIU's own.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ids {
    #[prost(uint32, optional, tag = "5")]
    pub(super) pid_ns_id: Option<u32>,
    #[prost(uint32, optional, tag = "6")]
    pub(super) net_ns_id: Option<u32>,
    #[prost(uint32, optional, tag = "7")]
    pub(super) ipc_ns_id: Option<u32>,
    #[prost(uint32, optional, tag = "8")]
    pub(super) uts_ns_id: Option<u32>,
    #[prost(uint32, optional, tag = "9")]
    pub(super) mnt_ns_id: Option<u32>,
    #[prost(uint32, optional, tag = "10")]
    pub(super) user_ns_id: Option<u32>,
    #[prost(uint32, optional, tag = "11")]
    pub(super) cgroup_ns_id: Option<u32>,
    #[prost(uint32, optional, tag = "12")]
    pub(super) time_ns_id: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Inventory {
    #[prost(message, optional, tag = "3")]
    pub(super) hosts: Option<Ids>,
}

#[derive(Clone, PartialEq, Message)]
struct NetNs {
    #[prost(string, optional, tag = "8")]
    ext_key: Option<String>,
}

impl Ids {
    pub(super) fn of(&self, kind: &str) -> Option<u32> {
        match kind {
            "pid" => self.pid_ns_id,
            "network" => self.net_ns_id,
            "ipc" => self.ipc_ns_id,
            "uts" => self.uts_ns_id,
            "mount" => self.mnt_ns_id,
            "user" => self.user_ns_id,
            "cgroup" => self.cgroup_ns_id,
            "time" => self.time_ns_id,
            _ => None,
        }
    }
}

/// The file that describes the network namespace of the container's first process.
#[derive(Debug, PartialEq, Eq)]
pub struct NetworkImage {
    pub file_name: String,
    /// Its namespace is to be given from outside at the restore.
    pub external: bool,
}

/// Whether the folder holds what CRIU calls an image; says what is wrong if not.
pub fn check_inventory(folder: &Path) -> io::Result<()> {
    inventory_messages(folder).map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => bad("it has no inventory.img"),
        _ => error,
    })
}

pub fn network_image(folder: &Path) -> io::Result<NetworkImage> {
    let id = first_ids(folder)?.net_ns_id.ok_or_else(|| bad("it names no network namespace"))?;
    let file_name = format!("netns-{id}.img");
    let external = match first::<NetNs>(&folder.join(&file_name), NETNS) {
        Ok(namespace) => namespace.ext_key.is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    Ok(NetworkImage { file_name, external })
}

/// The number that the first process has inside the container.
fn first_process(folder: &Path) -> io::Result<u32> {
    Ok(first::<Pstree>(&folder.join("pstree.img"), PSTREE)?.pid)
}

pub(super) fn tree(folder: &Path) -> io::Result<Vec<Pstree>> {
    all(&folder.join("pstree.img"), PSTREE)
}

pub(super) fn first_ids(folder: &Path) -> io::Result<Ids> {
    first(&folder.join(format!("ids-{}.img", first_process(folder)?)), IDS)
}

pub(super) fn inventory(folder: &Path) -> io::Result<Inventory> {
    inventory_messages(folder)?.first()
}

fn inventory_messages(folder: &Path) -> io::Result<Messages<Inventory>> {
    // The one file without the common number before its own.
    Messages::after(&folder.join(INVENTORY_FILE), &INVENTORY.to_le_bytes(), MOST_BYTES)
}

/// Whether a file is one of CRIU's, by its name: `pages-12.img`, `files.img`.
pub fn is_image_file(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".img") else { return false };
    let numbered = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let kinds = stem.match_indices('-').filter(|(at, _)| stem[at + 1..].split('-').all(numbered));
    let kind = kinds.map(|(at, _)| &stem[..at]).next().unwrap_or(stem);
    KINDS.split_whitespace().any(|known| known == kind)
}

/// Whether a file belongs to the description of a network namespace's content.
pub fn describes_network(name: &str) -> bool {
    const KINDS: [&str; 9] =
        ["netns", "netdev", "ifaddr", "route", "route6", "rule", "iptables", "ip6tables", "nftables"];
    name.ends_with(".img") && name.split_once('-').is_some_and(|(kind, _)| KINDS.contains(&kind))
}

/// The file that describes cgroups, without any that is frozen, and without controllers that
/// are switched on: CRIU tries that below cgroups that lack them. Nothing if there are none.
pub fn thawed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut thawed = bytes.to_vec();
    let frozen = replace(&mut thawed, FROZEN, THAWED);
    let switched = replace(&mut thawed, CONTROLLERS, NEVER_SET);
    (frozen || switched).then_some(thawed)
}

/// Whether there was something to replace by something of the same length.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(old.len()).position(|window| window == old) {
        from += at + old.len();
        bytes[from - new.len()..from].copy_from_slice(new);
    }
    from > 0
}

/// An image file that says: this network namespace comes from outside.
pub fn external_network() -> Vec<u8> {
    let message = NetNs { ext_key: Some(NETWORK_KEY.to_owned()) }.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap_or_default();
    [&COMMON.to_le_bytes()[..], &NETNS.to_le_bytes(), &length.to_le_bytes(), &message].concat()
}

/// A file that is never large; one that is isn't what it claims to be.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let (file, _) = open_plain(path)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES { Err(bad("it is far too large")) } else { Ok(bytes) }
}

pub(super) fn first<M: Message + Default>(path: &Path, magic: u32) -> io::Result<M> {
    first_within(path, magic, MOST_BYTES)
}

pub(super) fn first_within<M: Message + Default>(path: &Path, magic: u32, most: u64) -> io::Result<M> {
    Messages::open(path, magic, most)?.first()
}

/// All messages of a file, of one kind each.
pub(super) fn all<M: Message + Default>(path: &Path, magic: u32) -> io::Result<Vec<M>> {
    Messages::open(path, magic, MOST_BYTES)?.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, magic: u32, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap();
        let bytes =
            [&COMMON.to_le_bytes()[..], &magic.to_le_bytes(), &length.to_le_bytes(), message].concat();
        std::fs::write(folder.join(name), bytes).unwrap();
    }

    pub(crate) fn write_all(path: &Path, magic: u32, messages: &[impl Message]) {
        let mut bytes = [COMMON.to_le_bytes(), magic.to_le_bytes()].concat();
        for message in messages.iter().map(Message::encode_to_vec) {
            bytes.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
            bytes.extend(message);
        }
        std::fs::write(path, bytes).unwrap();
    }

    /// What tells about the first process and its namespaces.
    pub(crate) fn write_first(folder: &Path, number: u32, its: Ids, hosts: Ids) {
        write(folder, "pstree.img", PSTREE, &Pstree { pid: number, ..Pstree::default() }.encode_to_vec());
        write(folder, &format!("ids-{number}.img"), IDS, &its.encode_to_vec());
        let inventory = Inventory { hosts: Some(hosts) }.encode_to_vec();
        let length = u32::try_from(inventory.len()).unwrap().to_le_bytes();
        let bytes = [&INVENTORY.to_le_bytes()[..], &length, &inventory].concat();
        std::fs::write(folder.join(INVENTORY_FILE), bytes).unwrap();
    }

    #[test]
    fn the_network_of_the_first_process_is_found() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "pstree.img", PSTREE, &Pstree { pid: 1, ..Pstree::default() }.encode_to_vec());
        write(
            folder.path(),
            "ids-1.img",
            IDS,
            &Ids { net_ns_id: Some(10), ..Ids::default() }.encode_to_vec(),
        );
        let plain = network_image(folder.path()).unwrap();
        assert_eq!(plain, NetworkImage { file_name: "netns-10.img".into(), external: false });
        std::fs::write(folder.path().join("netns-10.img"), external_network()).unwrap();
        assert!(network_image(folder.path()).unwrap().external);
    }

    #[test]
    fn files_of_criu_are_known_by_their_names() {
        for name in
            ["inventory.img", "pages-1.img", "pagemap-shmem-12.img", "tmpfs-dev-5f.img", "netns-ct-9.img"]
        {
            assert!(is_image_file(name), "{name}");
        }
        for name in
            ["debian12.img", "disk-1.img", "pages-1.img.bak", ".img", "core-x.img", "boot.img", "files"]
        {
            assert!(!is_image_file(name), "{name}");
        }
    }

    #[test]
    fn what_we_write_is_what_criu_writes() {
        let recorded = b"\x19CVTR7\x93U\x0e\x00\x00\x00B\x0cextRootNetNS";
        assert_eq!(external_network(), recorded);
    }

    #[test]
    fn a_damaged_file_is_named_with_its_problem() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "pstree.img", PSTREE, &[0xff; 3]);
        let error = network_image(folder.path()).unwrap_err();
        assert!(error.to_string().contains("pstree.img"), "{error}");
        std::fs::write(folder.path().join(INVENTORY_FILE), b"\x19CVT").unwrap();
        assert!(check_inventory(folder.path()).is_err());
    }

    #[test]
    fn a_cgroup_that_was_frozen_for_the_dump_is_thawed() {
        let file = [b"\x01\x02", FROZEN, b"between", FROZEN, b"\x03"].concat();
        assert_eq!(thawed(&file).unwrap(), [b"\x01\x02", THAWED, b"between", THAWED, b"\x03"].concat());
        assert_eq!(thawed(b"a path named FROZEN"), None);
    }

    #[test]
    fn controllers_are_left_to_us() {
        let is = b"\x1a\x20\x0a\x16cgroup.subtree_control\x12\x04pids\x1a";
        let changed = thawed(is).unwrap();
        assert_eq!(changed.len(), is.len());
        assert!(changed.starts_with(b"\x1a\x20\x0a\x16cgroup.procs\0"), "{changed:?}");
        assert_eq!(&changed[26..], b"\x12\x04pids\x1a");
        assert_eq!(thawed(b"\x0a\x0ccgroup.procs\x12\0"), None);
    }
}

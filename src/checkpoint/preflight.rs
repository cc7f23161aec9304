//! What is found before anything is frozen: reasons why a dump would fail, in words that
//! name who is in the way.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::cgroup::Cgroup;
use crate::reaper::parent;

/// As /proc/net/tcp numbers them; CRIU needs to be asked for all others.
const LISTEN: &str = "0A";
const CLOSE: &str = "07";

/// Open TCP connections, which nobody said what to do with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    first: String,
    more: usize,
}

/// A process that can't be in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    pid: u32,
    program: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    inode: u64,
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Connections { first, more } = self;
        f.write_str(first)?;
        if *more > 0 { write!(f, " and {more} more") } else { Ok(()) }
    }
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

/// Connections of the container's processes, if there are any. What can't be read is
/// left for CRIU to find.
pub(super) fn connections(init: u32, cgroup: &Cgroup) -> Option<Connections> {
    let read = |name| fs::read_to_string(format!("/proc/{init}/net/{name}")).unwrap_or_default();
    let open: BTreeMap<u64, Connection> = [read("tcp"), read("tcp6")]
        .iter()
        .flat_map(|table| table.lines().filter_map(Connection::parse))
        .map(|connection| (connection.inode, connection))
        .collect();
    if open.is_empty() {
        return None;
    }
    // The namespace may be the host's, or a pod's: only what is held in here counts.
    let held: HashMap<u64, u32> = cgroup
        .processes()
        .ok()?
        .into_iter()
        .flat_map(|pid| sockets(pid).map(move |inode| (inode, pid)))
        .collect();
    let mut ours = open.values().filter(|connection| held.contains_key(&connection.inode));
    let Connection { local, remote, inode, .. } = ours.next()?;
    let pid = held[inode];
    Some(Connections {
        first: format!("{local} to {remote} of {} (pid {pid})", program(pid)),
        more: ours.count(),
    })
}

/// A process of the container that CRIU could dump and never restore, if there is one: it
/// lives in another time than the first process. A restored container has a time namespace
/// of its own; runc before 1.2.7 doesn't put processes into it that are added by exec, and
/// one of them may have left a child behind.
pub(super) fn out_of_time(init: u32, cgroup: &Cgroup) -> Option<Stray> {
    let time = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/time")).ok();
    let own = time(init)?;
    if own == fs::read_link("/proc/self/ns/time").ok()? {
        return None;
    }
    let pid = cgroup
        .processes()
        .ok()?
        .into_iter()
        .find(|pid| time(*pid).is_some_and(|time| time != own) && is_descendant(*pid, init))?;
    Some(Stray { pid, program: program(pid) })
}

/// What was added by exec isn't dumped, only what lost its parent to the first process.
fn is_descendant(mut pid: u32, init: u32) -> bool {
    while pid > 1 {
        pid = parent(pid).unwrap_or_default();
        if pid == init {
            return true;
        }
    }
    false
}

fn program(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn sockets(pid: u32) -> impl Iterator<Item = u64> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    folder.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

impl Connection {
    /// A line of /proc/net/tcp that CRIU would stumble over.
    fn parse(line: &str) -> Option<Connection> {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let inode = fields.nth(5)?.parse().ok()?;
        // One that has no socket any more only waits for its time to be over.
        if matches!(state, LISTEN | CLOSE) || inode == 0 {
            return None;
        }
        Some(Connection { local: address(local)?, remote: address(remote)?, inode })
    }
}

/// Words of an address in the machine's byte order, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => Ipv4Addr::from(bytes).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_connection_is_read_as_people_write_it() {
        let line = "   1: 020011AC:1F90 010011AC:C350 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        let connection = Connection::parse(line).unwrap();
        assert_eq!((connection.local.to_string(), connection.inode), ("172.17.0.2:8080".to_owned(), 4711));
        assert_eq!(connection.remote.to_string(), "172.17.0.1:50000");
        let mapped = address("0000000000000000FFFF00000100007F:0016").unwrap();
        assert_eq!(mapped.to_string(), "127.0.0.1:22");
    }

    #[test]
    fn who_listens_or_is_over_is_in_nobodys_way() {
        for state in [
            "0A 00000000:00000000 00:00000000 00000000 0 0 4711",
            "06 00000000:00000000 00:00000000 00000000 0 0 0",
        ] {
            assert_eq!(Connection::parse(&format!("1: 00000000:0050 00000000:0000 {state}")), None);
        }
        for garbled in ["", "sl local_address rem_address st", "0: zz:1 zz:2 01 a b c d e 7"] {
            assert_eq!(Connection::parse(garbled), None);
        }
    }
}

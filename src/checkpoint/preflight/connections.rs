//! Open TCP connections, as the tables of a network namespace list them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::sockets::{Held, Holder};

/// As /proc/net/tcp numbers them; CRIU needs to be asked for all others.
const LISTEN: &str = "0A";
const CLOSE: &str = "07";

/// Open TCP connections, which nobody said what to do with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    first: String,
    more: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Connection {
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

impl Connections {
    /// Those of the container's processes, if there are any. The namespace may be the host's,
    /// or a pod's: only what is held in here counts.
    pub(super) fn of(open: &BTreeMap<u64, Connection>, held: &Held) -> Option<Connections> {
        let mut ours = open
            .iter()
            .filter_map(|(inode, connection)| Some((connection, held.of(*inode)?)))
            .filter(|(_, holder)| holder.process.inside);
        let (connection, Holder { process, .. }) = ours.next()?;
        let first = format!("{connection} of {} (pid {})", process.program, process.pid);
        Some(Connections { first, more: ours.count() })
    }
}

/// What CRIU needs to be asked for in the network namespace of a process, by inode.
pub(super) fn open(init: u32) -> BTreeMap<u64, Connection> {
    let read = |name| fs::read_to_string(format!("/proc/{init}/net/{name}")).unwrap_or_default();
    [read("tcp"), read("tcp6")]
        .iter()
        .flat_map(|table| table.lines().filter_map(Connection::parse))
        .map(|connection| (connection.inode, connection))
        .collect()
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.local, self.remote)
    }
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

//! Sockets: of the network, of the machine, and of the kernel.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use prost::Message;
use serde::Serialize;

const INET: u32 = 2;
const INET6: u32 = 10;
const LISTENS: u32 = 10;
const ESTABLISHED: u32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Inet {
    #[prost(uint32, tag = "3")]
    pub(super) family: u32,
    #[prost(uint32, tag = "4")]
    pub(super) kind: u32,
    #[prost(uint32, tag = "5")]
    pub(super) protocol: u32,
    #[prost(uint32, tag = "6")]
    pub(super) state: u32,
    #[prost(uint32, tag = "7")]
    pub(super) source_port: u32,
    #[prost(uint32, tag = "8")]
    pub(super) destination_port: u32,
    #[prost(uint32, repeated, packed = "false", tag = "11")]
    pub(super) source: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "12")]
    pub(super) destination: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Unix {
    #[prost(uint32, tag = "2")]
    pub(super) inode: u32,
    #[prost(uint32, tag = "3")]
    pub(super) kind: u32,
    #[prost(uint32, tag = "4")]
    pub(super) state: u32,
    #[prost(uint32, tag = "8")]
    pub(super) peer: u32,
    #[prost(bytes = "vec", tag = "11")]
    pub(super) name: Vec<u8>,
    #[prost(string, optional, tag = "14")]
    pub(super) folder: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Netlink {
    #[prost(uint32, tag = "3")]
    pub(super) protocol: u32,
    #[prost(uint32, tag = "7")]
    pub(super) port: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Packet {
    #[prost(uint32, tag = "2")]
    pub(super) kind: u32,
    #[prost(uint32, tag = "3")]
    pub(super) protocol: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Socket {
    /// `tcp`, `udp`, `unix`, `netlink`, `packet`, or the number of a protocol.
    pub(crate) protocol: String,
    /// `stream`, `datagram`, `raw` or `sequenced`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// As `ss` calls it, in lower case.
    pub(crate) state: &'static str,
    /// An address with a port, a path, or a name after an @.
    pub(crate) local: Option<String>,
    pub(crate) remote: Option<String>,
    /// By which CRIU finds its peer: the kernel's numbers at the dump.
    #[serde(skip)]
    pub(crate) inode: u32,
    #[serde(skip)]
    pub(crate) peer: u32,
}

/// Names of Unix sockets, by their numbers.
#[derive(Default)]
pub(super) struct Peers(HashMap<u32, String>);

impl Peers {
    pub(super) fn add(&mut self, socket: &Unix) {
        let name = socket_name(socket).unwrap_or_else(|| "unnamed".to_owned());
        self.0.insert(socket.inode, name);
    }

    pub(super) fn name<'a>(&self, sockets: impl Iterator<Item = &'a mut Socket>) {
        for socket in sockets.filter(|socket| socket.peer != 0) {
            socket.remote = Some(self.0.get(&socket.peer).cloned().unwrap_or_else(|| "outside".to_owned()));
        }
    }
}

impl Socket {
    pub(crate) fn what(&self) -> String {
        let local = self.local.as_deref().unwrap_or("unnamed");
        match &self.remote {
            Some(remote) => format!("[{} {local} to {remote}]", self.protocol),
            None => format!("[{} {local}]", self.protocol),
        }
    }
}

impl From<Inet> for Socket {
    fn from(entry: Inet) -> Socket {
        let is_tcp = entry.protocol == 6;
        let end = |words: &[u32], port: u32| {
            let address = address(entry.family, words)?;
            let port = u16::try_from(port).ok()?;
            Some(SocketAddr::new(address, port)).filter(|end| !end.ip().is_unspecified() || port != 0)
        };
        Socket {
            protocol: match entry.protocol {
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                1 | 58 => "icmp".to_owned(),
                136 => "udplite".to_owned(),
                number => number.to_string(),
            },
            kind: kind(entry.kind),
            state: if is_tcp { tcp_state(entry.state) } else { connected(entry.state) },
            local: end(&entry.source, entry.source_port).map(|end| end.to_string()),
            remote: end(&entry.destination, entry.destination_port).map(|end| end.to_string()),
            ..Socket::default()
        }
    }
}

impl From<Unix> for Socket {
    fn from(entry: Unix) -> Socket {
        Socket {
            protocol: "unix".to_owned(),
            kind: kind(entry.kind),
            state: if entry.state == LISTENS { "listen" } else { connected(entry.state) },
            local: socket_name(&entry),
            remote: None,
            inode: entry.inode,
            peer: entry.peer,
        }
    }
}

impl From<Netlink> for Socket {
    fn from(entry: Netlink) -> Socket {
        let families =
            ["route", "", "usersock", "", "sock_diag", "", "xfrm", "", "", "audit", "", "", "netfilter"];
        let further = [(15, "kobject_uevent"), (16, "generic")];
        let number = usize::try_from(entry.protocol).unwrap_or(usize::MAX);
        let known = families.get(number).copied().filter(|name| !name.is_empty());
        let known = known.or_else(|| Some(further.iter().find(|(number, _)| *number == entry.protocol)?.1));
        let family = known.map_or_else(|| entry.protocol.to_string(), str::to_owned);
        let local = format!("{family}:{}", entry.port);
        Socket {
            protocol: "netlink".to_owned(),
            kind: "raw",
            state: "unconnected",
            local: Some(local),
            ..Socket::default()
        }
    }
}

impl From<Packet> for Socket {
    fn from(entry: Packet) -> Socket {
        Socket {
            protocol: "packet".to_owned(),
            kind: kind(entry.kind),
            state: "unconnected",
            local: Some(format!("ethertype {:#06x}", entry.protocol)),
            ..Socket::default()
        }
    }
}

fn kind(number: u32) -> &'static str {
    match number {
        1 => "stream",
        2 => "datagram",
        3 => "raw",
        5 => "sequenced",
        _ => "unknown",
    }
}

fn connected(state: u32) -> &'static str {
    if state == ESTABLISHED { "established" } else { "unconnected" }
}

/// The kernel's numbers.
fn tcp_state(number: u32) -> &'static str {
    const STATES: [&str; 12] = [
        "unknown",
        "established",
        "syn_sent",
        "syn_recv",
        "fin_wait_1",
        "fin_wait_2",
        "time_wait",
        "closed",
        "close_wait",
        "last_ack",
        "listen",
        "closing",
    ];
    usize::try_from(number).ok().and_then(|number| STATES.get(number)).copied().unwrap_or("unknown")
}

/// A path, or a name that begins with a zero and is no path.
fn socket_name(socket: &Unix) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "@");
    match socket.name.as_slice() {
        [] => None,
        [0, name @ ..] => Some(format!("@{}", text(name))),
        path => {
            let path = String::from_utf8_lossy(path.strip_suffix(&[0]).unwrap_or(path)).into_owned();
            Some(match &socket.folder {
                Some(folder) if !path.starts_with('/') => format!("{}/{path}", folder.trim_end_matches('/')),
                _ => path,
            })
        }
    }
}

fn address(family: u32, words: &[u32]) -> Option<IpAddr> {
    // As they lie in memory.
    let bytes: Vec<u8> = words.iter().take(4).flat_map(|word| word.to_ne_bytes()).collect();
    match family {
        INET => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?))),
        INET6 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical()),
        _ => None,
    }
}

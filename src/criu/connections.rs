//! Connections in an image, and rules of a firewall that keep their other ends quiet.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use prost::Message;

use super::images;

const FILES: u32 = 0x5630_3138;
const INET: u32 = 2;
const INET6: u32 = 10;
const TCP: u32 = 6;
/// States of a socket that has no other end: closed, listening.
const ALONE: [u32; 2] = [7, 10];
/// On packets of CRIU's own, from its include/soccr.h.
pub const MARK: &str = "0xC114";

/// What CRIU locks a whole namespace with.
const OPEN_ALL: &str = "for tables in iptables ip6tables; do
    command -v $tables >/dev/null || continue
    for chain in INPUT OUTPUT; do while $tables -w -D $chain -j CRIU; do :; done; done
    if $tables -w -F CRIU; then $tables -w -X CRIU; fi
done 2>/dev/null
! command -v nft >/dev/null || nft list tables | while read -r word family name; do
    case $name in CRIU-*) nft delete table $family $name;; esac
done";

#[derive(Clone, PartialEq, Message)]
struct OpenFile {
    #[prost(message, optional, tag = "4")]
    socket: Option<Socket>,
}

#[derive(Clone, PartialEq, Message)]
struct Socket {
    #[prost(uint32, tag = "3")]
    family: u32,
    #[prost(uint32, tag = "5")]
    protocol: u32,
    #[prost(uint32, tag = "6")]
    state: u32,
    #[prost(uint32, tag = "7")]
    source_port: u32,
    #[prost(uint32, tag = "8")]
    destination_port: u32,
    #[prost(uint32, repeated, packed = "false", tag = "11")]
    source: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "12")]
    destination: Vec<u32>,
}

pub type End = (IpAddr, u16);

/// One of iptables: it drops what isn't CRIU's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub chain: &'static str,
    pub source: End,
    pub destination: End,
}

/// Those that an image's sockets need while they are restored.
pub fn rules(folder: &Path) -> io::Result<Vec<Rule>> {
    let path = folder.join("files.img");
    let files: Vec<OpenFile> = match images::all(&path, FILES) {
        // Of an older CRIU, with another file for each kind.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let connections = files.into_iter().filter_map(|file| file.socket?.connection());
    let both = |(here, there): (End, End)| {
        [
            Rule { chain: "INPUT", source: there, destination: here },
            Rule { chain: "OUTPUT", source: here, destination: there },
        ]
    };
    Ok(connections.flat_map(both).collect())
}

/// Removes CRIU's lock from a namespace in which nobody else uses CRIU at this moment.
pub fn opening(namespace: &str) -> Command {
    let mut enter = Command::new("nsenter");
    enter.arg(format!("--net={namespace}")).args(["sh", "-c", OPEN_ALL]);
    enter
}

impl Socket {
    fn connection(&self) -> Option<(End, End)> {
        if self.protocol != TCP || ALONE.contains(&self.state) {
            return None;
        }
        let end = |words: &[u32], port: u32| Some((address(self.family, words)?, u16::try_from(port).ok()?));
        Some((end(&self.source, self.source_port)?, end(&self.destination, self.destination_port)?))
    }
}

fn address(family: u32, words: &[u32]) -> Option<IpAddr> {
    // As they lie in memory.
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    match family {
        INET => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?))),
        INET6 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical()),
        _ => None,
    }
}

impl Rule {
    pub fn is_v4(&self) -> bool {
        self.source.0.is_ipv4()
    }

    /// As iptables wants it, without what is to be done with it.
    pub fn words(&self) -> String {
        let Rule { chain, source, destination } = self;
        format!(
            "{chain} --protocol tcp -m mark ! --mark {MARK} --source {} --sport {} --destination {} --dport {} -j DROP",
            source.0, source.1, destination.0, destination.1
        )
    }

    /// The same for a chain of nftables that is called like that of iptables.
    pub fn nft(&self) -> String {
        let Rule { source, destination, .. } = self;
        let ip = if self.is_v4() { "ip" } else { "ip6" };
        format!(
            "{ip} saddr {} tcp sport {} {ip} daddr {} tcp dport {} drop",
            source.0, source.1, destination.0, destination.1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(state: u32, family: u32, source: &[u8], destination: &[u8]) -> OpenFile {
        let words =
            |bytes: &[u8]| bytes.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
        let (source, destination) = (words(source), words(destination));
        let ports = (80, 40000);
        OpenFile {
            socket: Some(Socket {
                family,
                protocol: TCP,
                state,
                source_port: ports.0,
                destination_port: ports.1,
                source,
                destination,
            }),
        }
    }

    #[test]
    fn connections_are_found_in_an_image() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(rules(folder.path()).unwrap(), []);
        let mapped = [&[0; 10][..], &[0xff, 0xff, 10, 0, 0, 1]].concat();
        let files = [
            OpenFile { socket: None },
            socket(1, INET, &[127, 0, 0, 1], &[10, 0, 0, 2]),
            socket(10, INET, &[0; 4], &[0; 4]),
            socket(8, INET6, &mapped, &mapped),
            socket(1, INET6, &[1; 16], &[2; 16]),
            socket(1, 99, &[1; 16], &[2; 16]),
        ];
        images::tests::write_all(&folder.path().join("files.img"), FILES, &files);
        let found: Vec<String> = rules(folder.path()).unwrap().iter().map(Rule::nft).collect();
        assert_eq!(found.len(), 6);
        assert_eq!(found[0], "ip saddr 10.0.0.2 tcp sport 40000 ip daddr 127.0.0.1 tcp dport 80 drop");
        assert_eq!(found[1], "ip saddr 127.0.0.1 tcp sport 80 ip daddr 10.0.0.2 tcp dport 40000 drop");
        assert!(
            found[2].starts_with("ip saddr 10.0.0.1 ") && found[4].starts_with("ip6 saddr 202:"),
            "{found:?}"
        );
        std::fs::write(folder.path().join("files.img"), b"garbage").unwrap();
        assert!(rules(folder.path()).is_err());
    }
}

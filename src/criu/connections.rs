//! Connections in an image.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use prost::Message;

use super::firewall::{Chain, End, Rule};
use super::images;

const FILES: u32 = 0x5630_3138;
const INET: u32 = 2;
const INET6: u32 = 10;
const TCP: u32 = 6;
/// States of a socket that has no other end: closed, listening.
const ALONE: [u32; 2] = [7, 10];

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

/// What keeps their other ends quiet while they are restored.
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
            Rule { chain: Chain::Input, source: there, destination: here },
            Rule { chain: Chain::Output, source: here, destination: there },
        ]
    };
    Ok(connections.flat_map(both).collect())
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

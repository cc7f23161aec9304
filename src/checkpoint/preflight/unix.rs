//! Unix sockets whose other end isn't in the container. Only the kernel's socket
//! diagnosis tells who is connected to whom.

use std::collections::HashMap;
use std::fs;
use std::io;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::sockets::Held;
use super::{Finding, Look, What};

/// As <linux/sock_diag.h> and <linux/unix_diag.h> number them.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SHOW_NAME_AND_PEER: u32 = 1 | 4;
const NAME: u16 = 0;
const PEER: u16 = 2;
/// As <linux/netlink.h> does: a request for the whole table, and the end of the answer.
const REQUEST_ALL: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
const MESSAGE_BYTES: usize = 16;
const DATAGRAM: u8 = 2;
/// The kernel answers at once. This only bounds the wait for one that doesn't.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(100);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Socket {
    is_datagram: bool,
    has_name: bool,
    peer: u64,
}

/// By inode.
pub(super) type Table = HashMap<u64, Socket>;

/// Sockets of the container that are connected to its outside.
pub(super) fn peers(container: &Look, held: &Held, table: &Table) -> Vec<Finding> {
    let mut found = Vec::new();
    for (inode, holder) in held.inside() {
        let Some(own) = table.get(&inode).filter(|own| own.peer != 0) else { continue };
        let other = held.of(own.peer);
        if other.is_some_and(|other| other.process.inside) {
            continue;
        }
        let has_name = table.get(&own.peer).is_some_and(|peer| peer.has_name);
        let is_kept = container.options.external_unix_sockets && own.is_datagram && has_name;
        // A process that was added may end before the dump.
        let blocks = !is_kept && other.is_none();
        found.push(holder.finding(What::ExternalUnixSocket, &format!("unix socket {inode}"), blocks));
    }
    found.sort_by_key(|finding| finding.pid);
    found
}

/// All unix sockets of the network namespace of a process; none if the kernel doesn't tell.
pub(super) fn table(pid: u32) -> Table {
    in_namespace_of(pid).unwrap_or_default()
}

fn in_namespace_of(pid: u32) -> io::Result<Table> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?;
    let is_ours = fs::read_link(format!("/proc/{pid}/ns/net"))? == fs::read_link("/proc/self/ns/net")?;
    // A thread of its own, which ends with the question: only it goes over there.
    let ask = std::thread::Builder::new().spawn(move || {
        if !is_ours {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)?;
        }
        all()
    })?;
    ask.join().map_err(|_| io::Error::other("the question has panicked"))?
}

fn all() -> io::Result<Table> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    send(&socket, &question(), SendFlags::empty())?;
    let (mut table, mut buffer) = (Table::new(), vec![0; 64 << 10]);
    loop {
        let (read, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if read == 0 || !take_in(&buffer[..read], &mut table)? {
            return Ok(table);
        }
    }
}

fn question() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(40_u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_ALL.to_ne_bytes());
    // Neither a number nor a sender; then family and protocol.
    bytes.extend([0; 8]);
    bytes.extend([1, 0, 0, 0]);
    // Sockets in all states, and no single one.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(SHOW_NAME_AND_PEER.to_ne_bytes());
    bytes.extend([0xff; 8]);
    bytes
}

/// One datagram of the answer; whether more will come.
fn take_in(mut datagram: &[u8], table: &mut Table) -> io::Result<bool> {
    while let Some((length, kind)) = word(datagram, 0).zip(half(datagram, 4)) {
        let length = length as usize;
        if kind == ERROR || length < HEADER_BYTES {
            return Err(io::Error::other("the kernel doesn't tell of unix sockets"));
        }
        if kind == DONE {
            return Ok(false);
        }
        if let Some((inode, socket)) = datagram.get(HEADER_BYTES..length).and_then(Socket::parse) {
            table.insert(inode.into(), socket);
        }
        datagram = datagram.get(aligned(length)..).unwrap_or_default();
    }
    Ok(true)
}

impl Socket {
    /// One message: type and inode, then attributes.
    fn parse(message: &[u8]) -> Option<(u32, Socket)> {
        let mut socket = Socket { is_datagram: *message.get(1)? == DATAGRAM, ..Socket::default() };
        let inode = word(message, 4)?;
        let mut attributes = message.get(MESSAGE_BYTES..)?;
        while let Some((length, kind)) = half(attributes, 0).zip(half(attributes, 2)) {
            match kind {
                NAME => socket.has_name = true,
                PEER => socket.peer = word(attributes, 4)?.into(),
                _ => {}
            }
            attributes = attributes.get(aligned(length.max(4).into())..).unwrap_or_default();
        }
        Some((inode, socket))
    }
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::super::process::Process;
    use super::*;
    use crate::criu::Options;

    fn inode(socket: &impl AsRawFd) -> u64 {
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let link = link.to_str().unwrap();
        link.strip_prefix("socket:[").unwrap().strip_suffix(']').unwrap().parse().unwrap()
    }

    fn note(held: &mut Held, socket: &impl AsRawFd, inside: bool) {
        let process = Process { pid: std::process::id(), inside, ..Process::default() };
        held.note(&process, socket.as_raw_fd(), inode(socket));
    }

    fn blocks(held: &Held, options: Options) -> Vec<bool> {
        let look = Look::new(std::process::id(), vec![], options);
        peers(&look, held, &table(look.init)).iter().map(|finding| finding.blocks).collect()
    }

    #[test]
    fn a_pair_within_the_container_is_no_finding() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut held = Held::default();
        note(&mut held, &one, true);
        assert_eq!(blocks(&held, Options::default()), [true]);
        note(&mut held, &other, false);
        assert_eq!(blocks(&held, Options::default()), [false]);
        note(&mut held, &other, true);
        assert!(blocks(&held, Options::default()).is_empty());
    }

    #[test]
    fn a_datagram_socket_may_stay_connected_to_a_name_outside() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let _outside = UnixDatagram::bind(&log).unwrap();
        let own = UnixDatagram::unbound().unwrap();
        own.connect(&log).unwrap();
        let mut held = Held::default();
        note(&mut held, &own, true);
        assert_eq!(blocks(&held, Options::default()), [true]);
        assert_eq!(blocks(&held, Options { external_unix_sockets: true, ..Options::default() }), [false]);
    }

    #[test]
    fn a_garbled_answer_is_no_reason_to_panic() {
        let mut table = Table::new();
        assert!(take_in(&[], &mut table).unwrap());
        assert!(take_in(&[1, 0, 0, 0, 20, 0, 0, 0], &mut table).is_err());
        let short = [99, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2];
        assert!(take_in(&short, &mut table).unwrap());
        assert_eq!(Socket::parse(&[1, 2, 3]), None);
    }
}

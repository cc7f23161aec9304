//! Sockets that aren't plain TCP.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use nix::libc;

use super::raw::{address, call, descriptor, room};
use super::{Check, Kind, nothing_to_ask};

pub(super) const KINDS: &[Kind] = &[
    ("unix-stream", |_| unix_pair(libc::SOCK_STREAM)),
    ("unix-datagram", |_| unix_pair(libc::SOCK_DGRAM)),
    ("unix-packets", |_| unix_pair(libc::SOCK_SEQPACKET)),
    ("unix-listener", |_| unix_listener(SocketAddr::from_pathname("/tmp/socket")?)),
    ("unix-abstract", |_| unix_listener(SocketAddr::from_abstract_name("kept")?)),
    ("unix-unaccepted", |_| unix_unaccepted()),
    ("unix-deleted", |_| unix_deleted()),
    ("unix-rights", |_| unix_rights()),
    ("unix-outside", unix_outside),
    ("unix-outside-log", unix_outside_log),
    ("udp", |_| udp(false)),
    ("udp-connected", |_| udp(true)),
    ("udp6", |_| udp6()),
    ("ping", |_| socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)),
    ("raw", |_| socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    ("raw6", |_| socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)),
    ("packet", |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0x0300)),
    ("netlink-route", |_| netlink(libc::NETLINK_ROUTE, 1, false)),
    ("netlink-generic", |_| netlink(libc::NETLINK_GENERIC, 0, false)),
    // udev's group: the kernel's own is told of devices of the whole machine.
    ("netlink-devices", |_| netlink(libc::NETLINK_KOBJECT_UEVENT, 2, false)),
    ("netlink-unread", |_| netlink(libc::NETLINK_ROUTE, 1, true)),
    ("tcp6-listener", |_| tcp6_listener()),
    ("tcp-bound", |_| tcp_bound()),
    ("tcp-half-closed", |_| tcp_half_closed()),
    ("tcp-connecting", |_| tcp_connecting()),
    ("tcp-unaccepted", |_| tcp_unaccepted()),
    ("tcp-time-wait", |_| tcp_time_wait()),
    ("tcp-refused", |_| tcp_refused()),
    ("mptcp", |_| socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)),
    ("sctp", |_| socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP)),
    ("vsock", |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ("crypto", |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("can", |_| socket(libc::AF_CAN, libc::SOCK_RAW, 1)),
    ("bluetooth", |_| socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)),
    ("key", |_| socket(libc::AF_KEY, libc::SOCK_RAW, 2)),
    ("xdp", |_| socket(libc::AF_XDP, libc::SOCK_RAW, 0)),
];

fn make(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    descriptor(libc::SYS_socket, &[family as usize, kind as usize, protocol as usize])
}

/// A type of socket that nothing needs to be done with.
fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<Check> {
    let held = make(family, kind, protocol)?;
    Ok(Box::new(move || {
        let mut found = [0_i32, 4];
        let [value, length] = &mut found;
        let (file, value) = (held.as_raw_fd() as usize, room(value));
        let protocol_of = libc::SO_PROTOCOL as usize;
        call(libc::SYS_getsockopt, &[file, libc::SOL_SOCKET as usize, protocol_of, value, room(length)])?;
        Ok(family == libc::AF_PACKET || found[0] == protocol)
    }))
}

fn passes(from: &OwnedFd, to: &OwnedFd, word: &[u8]) -> io::Result<bool> {
    rustix::io::write(from, word)?;
    hears(to, word)
}

fn hears(from: &OwnedFd, word: &[u8]) -> io::Result<bool> {
    let mut heard = [0; 64];
    let length = rustix::io::read(from, &mut heard)?;
    Ok(&heard[..length] == word)
}

/// With something on its way.
fn unix_pair(kind: i32) -> io::Result<Check> {
    let mut ends = [0_i32; 2];
    call(libc::SYS_socketpair, &[libc::AF_UNIX as usize, kind as usize, 0, room(&mut ends)])?;
    let [one, other] = ends.map(super::raw::owned);
    rustix::io::write(&one, b"before")?;
    Ok(Box::new(move || {
        let passed = hears(&other, b"before")? && passes(&other, &one, b"across")?;
        rustix::io::write(&one, b"before")?;
        Ok(passed)
    }))
}

fn unix_listener(name: SocketAddr) -> io::Result<Check> {
    let listener = UnixListener::bind_addr(&name)?;
    Ok(Box::new(move || {
        let here = UnixStream::connect_addr(&name)?;
        let (there, _) = listener.accept()?;
        passes(&here.into(), &there.into(), b"across")
    }))
}

fn unix_unaccepted() -> io::Result<Check> {
    let listener = UnixListener::bind("/tmp/socket")?;
    let mut here = UnixStream::connect("/tmp/socket")?;
    here.write_all(b"before")?;
    let mut accepted = None;
    Ok(Box::new(move || {
        if accepted.is_none() {
            let there: OwnedFd = listener.accept()?.0.into();
            if !hears(&there, b"before")? {
                return Ok(false);
            }
            accepted = Some(there);
        }
        here.write_all(b"across")?;
        accepted.as_ref().map_or(Ok(false), |there| hears(there, b"across"))
    }))
}

fn unix_deleted() -> io::Result<Check> {
    let listener = UnixListener::bind("/tmp/socket")?;
    fs::remove_file("/tmp/socket")?;
    Ok(Box::new(move || {
        listener.set_nonblocking(true)?;
        Ok(listener.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
    }))
}

/// A descriptor on its way to whoever reads next.
fn unix_rights() -> io::Result<Check> {
    let (one, other) = UnixStream::pair()?;
    let (mut read, write) = io::pipe()?;
    send_with(&one, &write)?;
    drop(write);
    let mut received: Option<fs::File> = None;
    Ok(Box::new(move || {
        let _held = &one;
        if received.is_none() {
            received = Some(receive_with(&other)?);
        }
        let Some(write) = received.as_mut() else { return Ok(false) };
        write.write_all(b"across")?;
        let mut heard = [0; 6];
        read.read_exact(&mut heard)?;
        Ok(&heard == b"across")
    }))
}

fn send_with(socket: &UnixStream, file: &impl std::os::fd::AsFd) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(socket, &[io::IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive_with(socket: &UnixStream) -> io::Result<fs::File> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    received.map(fs::File::from).ok_or_else(|| io::Error::other("no descriptor came"))
}

fn unix_outside(path: &str) -> io::Result<Check> {
    let held = UnixStream::connect(path)?;
    Ok(Box::new(move || Ok(held.peer_addr().is_ok())))
}

fn unix_outside_log(path: &str) -> io::Result<Check> {
    let held = UnixDatagram::unbound()?;
    held.connect(path)?;
    Ok(Box::new(move || Ok(held.send(b"line")? == 4)))
}

fn udp(connected: bool) -> io::Result<Check> {
    let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let there = other.local_addr()?;
    if connected {
        one.connect(there)?;
    }
    Ok(Box::new(move || {
        if connected {
            one.send(b"across")?
        } else {
            one.send_to(b"across", there)?
        };
        let mut heard = [0; 64];
        let (length, _) = other.recv_from(&mut heard)?;
        Ok(&heard[..length] == b"across")
    }))
}

fn udp6() -> io::Result<Check> {
    let held = UdpSocket::bind((Ipv6Addr::LOCALHOST, 7777))?;
    Ok(Box::new(move || {
        Ok(held.send_to(b"across", (Ipv6Addr::LOCALHOST, 7777))? == 6 && held.recv(&mut [0; 8])? == 6)
    }))
}

fn netlink(protocol: i32, groups: u32, asks: bool) -> io::Result<Check> {
    let held = make(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
    let name: [u32; 3] = [libc::AF_NETLINK as u32, 0, groups];
    let file = held.as_raw_fd() as usize;
    call(libc::SYS_bind, &[file, address(&name), 12])?;
    if asks {
        // For all devices; nobody reads the answer.
        let question: [u32; 8] = [32, 18 | 0x301 << 16, 1, 0, 0, 0, 0, 0];
        call(libc::SYS_sendto, &[file, address(&question), 32, 0, 0, 0])?;
    }
    Ok(Box::new(move || {
        let _held = &held;
        let (mut name, mut length) = ([0_u32; 3], 12_u32);
        call(libc::SYS_getsockname, &[file, room(&mut name), room(&mut length)])?;
        Ok(name[2] == groups)
    }))
}

fn tcp6_listener() -> io::Result<Check> {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 8080))?;
    Ok(Box::new(move || {
        let here = TcpStream::connect((Ipv6Addr::LOCALHOST, 8080))?;
        let (there, _) = listener.accept()?;
        passes(&here.into(), &there.into(), b"across")
    }))
}

/// A port of 127.0.0.1 as the kernel wants it.
fn local(port: u16) -> [u8; 16] {
    let mut name = [0; 16];
    name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    name[2..4].copy_from_slice(&port.to_be_bytes());
    name[4..8].copy_from_slice(&[127, 0, 0, 1]);
    name
}

fn tcp(port: u16) -> io::Result<OwnedFd> {
    let held = make(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let name = local(port);
    call(libc::SYS_bind, &[held.as_raw_fd() as usize, address(&name), 16])?;
    Ok(held)
}

/// Neither listening nor connected.
fn tcp_bound() -> io::Result<Check> {
    let held = tcp(8080)?;
    Ok(Box::new(move || {
        let _held = &held;
        Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 8080)).is_err())
    }))
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    Ok((here, listener.accept()?.0))
}

fn tcp_half_closed() -> io::Result<Check> {
    let (mut here, mut there) = pair()?;
    here.shutdown(Shutdown::Write)?;
    Ok(Box::new(move || {
        there.write_all(b"across")?;
        let mut heard = [0; 6];
        here.read_exact(&mut heard)?;
        Ok(&heard == b"across")
    }))
}

/// To where nobody answers: a backlog of one that is full.
fn tcp_connecting() -> io::Result<Check> {
    let listener = tcp(8080)?;
    call(libc::SYS_listen, &[listener.as_raw_fd() as usize, 0])?;
    let first = TcpStream::connect((Ipv4Addr::LOCALHOST, 8080))?;
    let connecting = make(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
    let name = local(8080);
    let begun = call(libc::SYS_connect, &[connecting.as_raw_fd() as usize, address(&name), 16]);
    let _kept = (listener.into_raw_fd(), first.into_raw_fd(), connecting.into_raw_fd(), begun.is_err());
    Ok(nothing_to_ask())
}

/// Established for the client, and not yet accepted.
fn tcp_unaccepted() -> io::Result<Check> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 8080))?;
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, 8080))?;
    Ok(Box::new(move || {
        // The first is forgotten, or it comes first.
        let _held = (&client, TcpStream::connect((Ipv4Addr::LOCALHOST, 8080))?);
        Ok(listener.accept()?.1.ip().is_loopback())
    }))
}

/// The socket is gone, and the kernel remembers the connection for a minute.
fn tcp_time_wait() -> io::Result<Check> {
    let (here, there) = pair()?;
    drop(here);
    drop(there);
    Ok(nothing_to_ask())
}

/// A socket that has tried to connect and failed.
fn tcp_refused() -> io::Result<Check> {
    let held = make(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let name = local(9);
    let refused = call(libc::SYS_connect, &[held.as_raw_fd() as usize, address(&name), 16]).is_err();
    Ok(Box::new(move || Ok(refused && held.as_raw_fd() > 2)))
}

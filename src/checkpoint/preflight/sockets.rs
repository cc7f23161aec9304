//! Open sockets: families and protocols that CRIU doesn't know, and TCP connections.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::connections::Connection;
use super::process::Process;
use super::{Finding, Look, What, unix};

const MPTCP: &str = "MPTCP";
const MPTCP_REMEDY: &str = "switch MPTCP off; programs in Go do so with GODEBUG=multipathtcp=0";
const ALLOWED_REMEDY: &str = "it is kept at a restore, or closed with cryo.tcp=close";
const IN_FLIGHT_REMEDY: &str = "try again when it is accepted, or leave out the annotation cryo.in-flight=refuse: the other end tries again";

/// The sockets of the container, by inode, with the first who holds each.
#[derive(Default)]
pub(super) struct Held(HashMap<u64, Holder>);

#[derive(Clone)]
pub(super) struct Holder {
    pub(super) process: Process,
    pub(super) number: i32,
}

impl Held {
    pub(super) fn note(&mut self, process: &Process, number: i32, inode: u64) {
        let holder = || Holder { process: process.clone(), number };
        let known = self.0.entry(inode).or_insert_with(holder);
        // One that is in the image is more telling than one who was added.
        if process.inside && !known.process.inside {
            *known = holder();
        }
    }

    pub(super) fn of(&self, inode: u64) -> Option<&Holder> {
        self.0.get(&inode)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there are sockets of other kinds.
    pub(super) fn has_others(&self, unix: &unix::Table) -> bool {
        self.0.keys().any(|inode| !unix.contains_key(inode))
    }

    /// Those that would be in an image.
    pub(super) fn inside(&self) -> impl Iterator<Item = (u64, &Holder)> {
        self.0.iter().filter(|(_, holder)| holder.process.inside).map(|(inode, holder)| (*inode, holder))
    }
}

impl Holder {
    pub(super) fn finding(&self, what: What, detail: &str, blocks: bool) -> Finding {
        Finding::new(what, &self.process, format!("fd {}, {detail}", self.number), blocks)
    }
}

/// Judges all that would be in an image. Most sockets are unix sockets, which need no
/// closer look.
pub(super) fn judge(
    held: &Held,
    container: &Look,
    unix: &unix::Table,
    open: &BTreeMap<u64, Connection>,
) -> Vec<Finding> {
    let allows_tcp = container.options.tcp_established;
    let mut found = Vec::new();
    for (inode, holder) in held.inside() {
        if unix.contains_key(&inode) {
            continue;
        }
        if let Some(connection) = open.get(&inode) {
            let finding = holder.finding(What::TcpConnection, &connection.to_string(), !allows_tcp);
            let remedy = if allows_tcp { ALLOWED_REMEDY } else { finding.remedy };
            found.push(Finding { remedy, ..finding });
            continue;
        }
        let Some(socket) = borrow(holder.process.pid, holder.number) else { continue };
        if !container.skips_in_flight && is_knocked_at(&socket) {
            let finding = holder.finding(What::TcpConnection, "that isn't accepted yet", true);
            found.push(Finding { remedy: IN_FLIGHT_REMEDY, ..finding });
        } else if has_unread_messages(&socket) {
            found.push(holder.finding(What::UnreadMessages, "netlink", true));
        } else if let Some(kind) = kind(&socket).and_then(unsupported) {
            let finding = holder.finding(What::UnsupportedSocket, &kind, true);
            let remedy = if kind == MPTCP { MPTCP_REMEDY } else { finding.remedy };
            found.push(Finding { remedy, ..finding });
        }
    }
    found.sort_by_key(|finding| finding.pid);
    found
}

/// Whether somebody waits there to be accepted.
fn is_knocked_at(socket: &OwnedFd) -> bool {
    sockopt::socket_acceptconn(socket) == Ok(true) && is_readable(socket)
}

type Kind = (AddressFamily, SocketType, Option<rustix::net::Protocol>);

/// The kernel's tables list only sockets that are bound or connected, so the socket itself
/// is asked.
fn kind(socket: &OwnedFd) -> Option<Kind> {
    Some((
        sockopt::socket_domain(socket).ok()?,
        sockopt::socket_type(socket).ok()?,
        sockopt::socket_protocol(socket).ok()?,
    ))
}

/// CRIU takes none along that are on their way from the kernel to a program.
fn has_unread_messages(socket: &OwnedFd) -> bool {
    sockopt::socket_domain(socket) == Ok(AddressFamily::NETLINK) && is_readable(socket)
}

fn is_readable(socket: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&Timespec::default())) == Ok(1)
}

fn borrow(pid: u32, number: i32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()
}

/// What it is, if CRIU doesn't know it.
fn unsupported((family, of_type, protocol): Kind) -> Option<String> {
    match family {
        AddressFamily::UNIX | AddressFamily::NETLINK | AddressFamily::PACKET => None,
        AddressFamily::INET | AddressFamily::INET6 if of_type == SocketType::RAW => None,
        AddressFamily::INET | AddressFamily::INET6 => match protocol {
            None | Some(ipproto::TCP | ipproto::UDP | ipproto::UDPLITE) => None,
            // Pings; CRIU knows them since version 4.2.
            Some(ipproto::ICMP | ipproto::ICMPV6) => None,
            Some(ipproto::SCTP) => Some("SCTP".to_owned()),
            Some(ipproto::MPTCP) => Some(MPTCP.to_owned()),
            Some(other) => Some(format!("protocol {}", other.as_raw())),
        },
        AddressFamily::VSOCK => Some("vsock".to_owned()),
        AddressFamily::XDP => Some("XDP".to_owned()),
        AddressFamily::CAN => Some("CAN".to_owned()),
        other => Some(format!("family {}", other.as_raw())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::super::{Finding, process::family};
    use super::*;
    use crate::criu::Options;
    use rustix::net::SocketFlags;

    fn found(options: Options) -> Vec<Finding> {
        let own = std::process::id();
        found_by(Look::new(own, vec![own], options))
    }

    fn found_by(look: Look) -> Vec<Finding> {
        let own = std::process::id();
        let mut held = Held::default();
        super::super::files::of(&family(own, &[own])[0], &look, &mut held);
        judge(&held, &look, &unix::Table::new(), &super::super::connections::open(own))
    }

    fn about(found: &[Finding], socket: &impl AsRawFd) -> Vec<(What, bool)> {
        let place = format!("fd {},", socket.as_raw_fd());
        found.iter().filter(|f| f.place.starts_with(&place)).map(|f| (f.what, f.blocks)).collect()
    }

    #[test]
    fn a_connection_blocks_unless_it_is_said_what_to_do_with_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(about(&found(Options::default()), &listener), []);
        assert_eq!(about(&found(Options::default()), &client), [(What::TcpConnection, true)]);
        let keeping = Options { tcp_established: true, ..Options::default() };
        assert_eq!(about(&found(keeping), &client), [(What::TcpConnection, false)]);
    }

    #[test]
    fn who_is_not_accepted_yet_blocks_only_if_that_is_asked_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = std::process::id();
        let refusing = || Look { skips_in_flight: false, ..Look::new(own, vec![own], Options::default()) };
        assert_eq!(about(&found_by(refusing()), &listener), []);
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(about(&found_by(refusing()), &listener), [(What::TcpConnection, true)]);
        assert_eq!(about(&found(Options::default()), &listener), []);
    }

    #[test]
    fn a_socket_that_is_in_no_table_is_known_by_its_family() {
        // Not for the children of other tests.
        let socket = |family, protocol| {
            rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, protocol)
        };
        let plain = socket(AddressFamily::INET, None).unwrap();
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let found = |socket: &OwnedFd| about(&found(Options::default()), socket);
        assert_eq!((found(&plain), found(&unix.into())), (vec![], vec![]));
        // Not every kernel has them.
        for strange in [socket(AddressFamily::INET, Some(ipproto::MPTCP)), socket(AddressFamily::VSOCK, None)]
            .into_iter()
            .flatten()
        {
            assert_eq!(found(&strange), [(What::UnsupportedSocket, true)]);
        }
    }

    #[test]
    fn a_message_of_the_kernel_blocks_until_it_is_read() {
        // Without a protocol it is about routes.
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).unwrap();
        assert_eq!(about(&found(Options::default()), &socket), []);
        // For all interfaces.
        let question: Vec<u8> =
            [32_u32, 18 | 0x301 << 16, 1, 0, 0, 0, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        rustix::net::send(&socket, &question, rustix::net::SendFlags::empty()).unwrap();
        assert_eq!(about(&found(Options::default()), &socket), [(What::UnreadMessages, true)]);
    }

    #[test]
    fn kinds_that_criu_does_not_know_have_names() {
        let name = |family, protocol| unsupported((family, SocketType::STREAM, protocol));
        assert_eq!(name(AddressFamily::INET6, Some(ipproto::MPTCP)).as_deref(), Some("MPTCP"));
        assert_eq!(name(AddressFamily::VSOCK, None).as_deref(), Some("vsock"));
        assert_eq!(name(AddressFamily::INET, Some(ipproto::TCP)), None);
        assert_eq!(unsupported((AddressFamily::INET, SocketType::RAW, Some(ipproto::EGP))), None);
    }
}

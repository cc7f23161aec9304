//! CRIU's messages about open files, one kind beside the other, and what we make of them.

use prost::Message;

use super::super::socket::{Inet, Netlink, Packet, Socket, Unix};
use super::{File, Kind};

/// CRIU has a bigger message; what isn't here is skipped.
#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Entry {
    #[prost(uint32, tag = "1")]
    pub(in super::super) kind: u32,
    #[prost(uint32, tag = "2")]
    pub(in super::super) id: u32,
    #[prost(message, optional, tag = "3")]
    pub(in super::super) regular: Option<Regular>,
    #[prost(message, optional, tag = "4")]
    pub(in super::super) inet: Option<Inet>,
    #[prost(message, optional, tag = "6")]
    pub(in super::super) packet: Option<Packet>,
    #[prost(message, optional, tag = "7")]
    pub(in super::super) netlink: Option<Netlink>,
    #[prost(message, optional, tag = "8")]
    pub(in super::super) eventfd: Option<Eventfd>,
    #[prost(message, optional, tag = "9")]
    pub(in super::super) epoll: Option<Watches>,
    #[prost(message, optional, tag = "10")]
    pub(in super::super) signalfd: Option<Signalfd>,
    #[prost(message, optional, tag = "11")]
    pub(in super::super) tun: Option<Tun>,
    #[prost(message, optional, tag = "12")]
    pub(in super::super) timerfd: Option<Timerfd>,
    #[prost(message, optional, tag = "13")]
    pub(in super::super) inotify: Option<Inotify>,
    #[prost(message, optional, tag = "16")]
    pub(in super::super) unix: Option<Unix>,
    #[prost(message, optional, tag = "17")]
    pub(in super::super) fifo: Option<Fifo>,
    #[prost(message, optional, tag = "18")]
    pub(in super::super) pipe: Option<Pipe>,
    #[prost(message, optional, tag = "19")]
    pub(in super::super) terminal: Option<TerminalFile>,
    #[prost(message, optional, tag = "20")]
    pub(in super::super) memfd: Option<Memfd>,
    #[prost(message, optional, tag = "22")]
    pub(in super::super) pidfd: Option<Pidfd>,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Regular {
    #[prost(uint32, tag = "2")]
    pub(in super::super) flags: u32,
    #[prost(uint64, tag = "3")]
    pub(in super::super) position: u64,
    #[prost(string, tag = "6")]
    pub(in super::super) path: String,
    #[prost(uint64, optional, tag = "8")]
    pub(in super::super) size: Option<u64>,
    #[prost(bool, tag = "9")]
    pub(in super::super) external: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Eventfd {
    #[prost(uint32, tag = "2")]
    pub(in super::super) flags: u32,
    #[prost(uint64, tag = "4")]
    pub(in super::super) counter: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Watches {
    #[prost(uint32, tag = "2")]
    pub(in super::super) flags: u32,
    #[prost(message, repeated, tag = "4")]
    pub(in super::super) watched: Vec<Watched>,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Watched {
    #[prost(uint32, tag = "2")]
    pub(in super::super) fd: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Signalfd {
    #[prost(uint32, tag = "2")]
    pub(in super::super) flags: u32,
    #[prost(uint64, tag = "4")]
    pub(in super::super) signals: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Tun {
    #[prost(string, optional, tag = "2")]
    pub(in super::super) device: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Timerfd {
    #[prost(uint32, tag = "2")]
    pub(in super::super) flags: u32,
    #[prost(uint64, tag = "7")]
    pub(in super::super) left: u64,
    #[prost(uint64, tag = "9")]
    pub(in super::super) interval: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Inotify {
    #[prost(uint32, tag = "2")]
    pub(in super::super) flags: u32,
    #[prost(message, repeated, tag = "5")]
    pub(in super::super) watches: Vec<Watch>,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Watch {
    #[prost(uint64, tag = "2")]
    pub(in super::super) inode: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Fifo {
    #[prost(uint32, tag = "2")]
    pub(in super::super) pipe: u32,
    #[prost(uint32, optional, tag = "3")]
    pub(in super::super) regular: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Pipe {
    #[prost(uint32, tag = "2")]
    pub(in super::super) pipe: u32,
    #[prost(uint32, tag = "3")]
    pub(in super::super) flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct TerminalFile {
    #[prost(uint32, tag = "2")]
    pub(in super::super) terminal: u32,
    #[prost(uint32, tag = "3")]
    pub(in super::super) flags: u32,
}

/// In a file of its own.
#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Terminal {
    #[prost(uint32, tag = "1")]
    pub(in super::super) id: u32,
    #[prost(uint32, tag = "2")]
    pub(in super::super) kind: u32,
    #[prost(message, optional, tag = "12")]
    pub(in super::super) pseudo: Option<Pseudo>,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Pseudo {
    #[prost(uint32, tag = "1")]
    pub(in super::super) index: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Memfd {
    #[prost(uint32, tag = "2")]
    pub(in super::super) flags: u32,
    #[prost(uint64, tag = "3")]
    pub(in super::super) position: u64,
    #[prost(uint32, tag = "5")]
    pub(in super::super) inode: u32,
}

/// In a file of its own.
#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct MemfdInode {
    #[prost(string, tag = "1")]
    pub(in super::super) name: String,
    #[prost(uint64, tag = "4")]
    pub(in super::super) size: u64,
    #[prost(uint32, tag = "5")]
    pub(in super::super) memory: u32,
    #[prost(uint64, tag = "7")]
    pub(in super::super) id: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(in super::super) struct Pidfd {
    #[prost(uint32, tag = "3")]
    pub(in super::super) flags: u32,
    #[prost(int32, tag = "4")]
    pub(in super::super) process: i32,
}

/// How a file may have been opened, as the kernel's numbers for x86 and 64-bit Arm have in common.
const FLAGS: [(u32, &str); 5] = [
    (0o2000, "append"),
    (0o4000, "nonblocking"),
    (0o10000, "dsync"),
    (0o20000, "async"),
    (0o10000000, "path"),
];

impl Entry {
    /// The number under which the rest of its description is found.
    pub(super) fn described_by(&self) -> Option<u32> {
        let terminal = self.terminal.as_ref().map(|terminal| terminal.terminal);
        let memfd = self.memfd.as_ref().map(|memfd| memfd.inode);
        terminal.or(memfd).or_else(|| self.fifo.as_ref()?.regular)
    }

    pub(super) fn file(self) -> File {
        let mut file = File { id: self.id, kind: Kind::of(self.kind), ..File::default() };
        if let Some(flags) = self.flags() {
            file.flags = words(flags);
        }
        file.detail = self.detail();
        if let Some(Regular { position, path, size, external, .. }) = self.regular {
            file = File { position: Some(position), path: Some(path), size, external, ..file };
        }
        file.position = file.position.or(self.memfd.as_ref().map(|memfd| memfd.position));
        file.external |= file.kind == Kind::External;
        file.pipe = self.pipe.as_ref().map(|pipe| pipe.pipe).or(self.fifo.as_ref().map(|fifo| fifo.pipe));
        let socket = self.inet.map(Socket::from).or(self.unix.map(Socket::from));
        file.socket = socket.or(self.netlink.map(Socket::from)).or(self.packet.map(Socket::from));
        file
    }

    fn flags(&self) -> Option<u32> {
        (self.regular.as_ref().map(|file| file.flags))
            .or_else(|| Some(self.pipe.as_ref()?.flags))
            .or_else(|| Some(self.eventfd.as_ref()?.flags))
            .or_else(|| Some(self.epoll.as_ref()?.flags))
            .or_else(|| Some(self.inotify.as_ref()?.flags))
            .or_else(|| Some(self.signalfd.as_ref()?.flags))
            .or_else(|| Some(self.timerfd.as_ref()?.flags))
            .or_else(|| Some(self.terminal.as_ref()?.flags))
            .or_else(|| Some(self.memfd.as_ref()?.flags))
            .or_else(|| Some(self.pidfd.as_ref()?.flags))
    }

    fn detail(&self) -> Option<String> {
        if let Some(eventfd) = &self.eventfd {
            return Some(format!("counter {}", eventfd.counter));
        }
        if let Some(epoll) = &self.epoll {
            let watched: Vec<_> = epoll.watched.iter().map(|watched| watched.fd.to_string()).collect();
            let watched =
                if watched.is_empty() { "nothing".to_owned() } else { format!("fd {}", watched.join(", ")) };
            return Some(format!("watches {watched}"));
        }
        if let Some(inotify) = &self.inotify {
            let count = inotify.watches.len();
            return Some(format!("{count} watch{}", if count == 1 { "" } else { "es" }));
        }
        if let Some(timer) = &self.timerfd {
            let every =
                if timer.interval > 0 { format!(", every {} s", timer.interval) } else { String::new() };
            return Some(format!("{} s left{every}", timer.left));
        }
        if let Some(signalfd) = &self.signalfd {
            let signals = (0..u64::BITS).filter(|bit| signalfd.signals & 1 << bit != 0);
            let signals: Vec<_> = signals.map(|bit| (bit + 1).to_string()).collect();
            return Some(format!("signal {}", signals.join(", ")));
        }
        let process = self.pidfd.as_ref().map(|pidfd| format!("pid {}", pidfd.process));
        process.or_else(|| self.tun.as_ref()?.device.clone())
    }
}

impl Terminal {
    pub(super) fn path(&self) -> Option<String> {
        match (self.kind, &self.pseudo) {
            (1, Some(pseudo)) => Some(format!("/dev/pts/{}", pseudo.index)),
            (2, _) => Some("/dev/console".to_owned()),
            (4, _) => Some("/dev/tty".to_owned()),
            _ => None,
        }
    }
}

/// In the order of `open(2)`.
fn words(flags: u32) -> Vec<&'static str> {
    let access = match flags & 3 {
        0 => "read",
        1 => "write",
        _ => "read_write",
    };
    let others = FLAGS.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| word);
    std::iter::once(access).chain(others).collect()
}

//! All that is open in a container: files, pipes, sockets, timers and the like.

pub(super) mod entry;
mod unlinked;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use cryo::criu::messages::{MOST_LISTED, Messages};
use serde::Serialize;

use super::socket::{Peers, Socket};
use entry::{Entry, MemfdInode, Terminal};

pub(super) const FILES: u32 = 0x5630_3138;
const TERMINALS: u32 = 0x5945_3036;
const MEMFDS: u32 = 0x4845_3499;

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct File {
    /// CRIU's number: descriptors with the same one share its position.
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    pub(crate) path: Option<String>,
    /// How it was opened: `read`, `write`, `append`, `nonblocking`, …
    pub(crate) flags: Vec<&'static str>,
    pub(crate) position: Option<u64>,
    pub(crate) size: Option<u64>,
    /// It has no name any more; what can't be found without one is in the image.
    pub(crate) deleted: bool,
    /// Whoever restores it has to give it.
    pub(crate) external: bool,
    /// Both ends of a pipe have the same number.
    pub(crate) pipe: Option<u32>,
    /// What else there is to tell of its kind: a counter, what it watches.
    pub(crate) detail: Option<String>,
    pub(crate) socket: Option<Socket>,
    /// CRIU's number for the memory behind it.
    #[serde(skip)]
    pub(crate) memory: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    #[default]
    Unknown,
    Regular,
    Pipe,
    Fifo,
    Socket,
    Eventfd,
    Epoll,
    Inotify,
    Fanotify,
    Signalfd,
    Terminal,
    Namespace,
    Tun,
    External,
    Timerfd,
    Memfd,
    BpfMap,
    Pidfd,
}

impl Kind {
    pub(super) fn of(number: u32) -> Kind {
        match number {
            1 => Kind::Regular,
            2 => Kind::Pipe,
            3 => Kind::Fifo,
            4 | 5 | 10 | 13 => Kind::Socket,
            6 => Kind::Eventfd,
            7 => Kind::Epoll,
            8 => Kind::Inotify,
            9 => Kind::Signalfd,
            11 => Kind::Terminal,
            12 => Kind::Fanotify,
            14 => Kind::Namespace,
            15 => Kind::Tun,
            16 => Kind::External,
            17 => Kind::Timerfd,
            18 => Kind::Memfd,
            19 => Kind::BpfMap,
            20 => Kind::Pidfd,
            _ => Kind::Unknown,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Unknown => "unknown",
            Kind::Regular => "file",
            Kind::Pipe => "pipe",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
            Kind::Eventfd => "eventfd",
            Kind::Epoll => "epoll",
            Kind::Inotify => "inotify",
            Kind::Fanotify => "fanotify",
            Kind::Signalfd => "signalfd",
            Kind::Terminal => "terminal",
            Kind::Namespace => "namespace",
            Kind::Tun => "tun",
            Kind::External => "external",
            Kind::Timerfd => "timerfd",
            Kind::Memfd => "memfd",
            Kind::BpfMap => "BPF map",
            Kind::Pidfd => "pidfd",
        }
    }
}

impl File {
    /// One that a process has open, but that CRIU doesn't describe.
    pub(super) fn unknown(id: u32, kind: u32) -> File {
        File { id, kind: Kind::of(kind), ..File::default() }
    }

    /// Which file it is, for people.
    pub(crate) fn what(&self) -> String {
        match (&self.path, &self.socket, self.pipe) {
            (Some(path), ..) => path.clone(),
            (None, Some(socket), _) => socket.what(),
            (None, None, Some(pipe)) => format!("[{} {pipe}]", self.kind.name()),
            (None, None, None) => format!("[{}]", self.kind.name()),
        }
    }
}

/// By CRIU's numbers of them.
pub(super) fn all(folder: &Path) -> io::Result<BTreeMap<u32, Rc<File>>> {
    let messages = match Messages::<Entry>::open(&folder.join("files.img"), FILES, MOST_LISTED) {
        // Of an older CRIU, with another file for each kind.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        messages => messages?,
    };
    let mut files = BTreeMap::new();
    let mut elsewhere = BTreeMap::new();
    let mut peers = Peers::default();
    for entry in messages {
        let entry = entry?;
        if let Some(socket) = &entry.unix {
            peers.add(socket);
        }
        elsewhere.extend(entry.described_by().map(|other| (entry.id, other)));
        files.insert(entry.id, entry.file());
    }
    unlinked::mark(folder, &mut files)?;
    describe(folder, &mut files, &elsewhere)?;
    peers.name(files.values_mut().filter_map(|file| file.socket.as_mut()));
    Ok(files.into_iter().map(|(id, file)| (id, Rc::new(file))).collect())
}

/// Some kinds have their names under another number.
fn describe(
    folder: &Path,
    files: &mut BTreeMap<u32, File>,
    elsewhere: &BTreeMap<u32, u32>,
) -> io::Result<()> {
    let terminals: Vec<Terminal> = super::all(folder, "tty-info.img", TERMINALS)?;
    let terminals: BTreeMap<_, _> = terminals.iter().map(|terminal| (terminal.id, terminal)).collect();
    let memfds: Vec<MemfdInode> = super::all(folder, "memfd.img", MEMFDS)?;
    let memfds: BTreeMap<_, _> = memfds.iter().map(|memfd| (memfd.id, memfd)).collect();
    for (id, other) in elsewhere {
        let named = files.get(other).map(|file| (file.path.clone(), file.flags.clone()));
        let Some(file) = files.get_mut(id) else { continue };
        match file.kind {
            Kind::Terminal => file.path = terminals.get(other).and_then(|terminal| terminal.path()),
            Kind::Memfd => {
                let memfd = memfds.get(&u64::from(*other));
                file.path = memfd.map(|memfd| format!("memfd:{}", memfd.name));
                file.size = memfd.map(|memfd| memfd.size);
                file.memory = memfd.map(|memfd| memfd.memory);
            }
            _ => (file.path, file.flags) = named.unwrap_or_default(),
        }
    }
    Ok(())
}

//! The processes of an image and what each of them is.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use prost::Message;
use serde::Serialize;

use super::credentials::{self, Credentials};
use super::descriptors::{self, Descriptor};
use super::files::File;
use super::memory::{self, Memory};
use super::{Pages, all as messages, first};

const PSTREE: u32 = 0x5027_3030;
const CORE: u32 = 0x5505_3847;
const IDS: u32 = 0x5443_2030;
const FS: u32 = 0x5140_3912;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pstree {
    #[prost(uint32, tag = "1")]
    pub(super) pid: u32,
    #[prost(uint32, tag = "2")]
    pub(super) parent: u32,
    #[prost(uint32, tag = "3")]
    pub(super) group: u32,
    #[prost(uint32, tag = "4")]
    pub(super) session: u32,
    #[prost(uint32, repeated, packed = "false", tag = "5")]
    pub(super) threads: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Core {
    #[prost(message, optional, tag = "3")]
    pub(super) task: Option<Task>,
    #[prost(message, optional, tag = "5")]
    pub(super) thread: Option<ThreadCore>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Task {
    #[prost(uint32, tag = "1")]
    pub(super) state: u32,
    #[prost(uint32, tag = "2")]
    pub(super) exit_code: u32,
    #[prost(string, tag = "6")]
    pub(super) name: String,
    #[prost(message, optional, tag = "8")]
    pub(super) limits: Option<Limits>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Limits {
    #[prost(message, repeated, tag = "1")]
    pub(super) limits: Vec<LimitEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LimitEntry {
    #[prost(uint64, tag = "1")]
    pub(super) soft: u64,
    #[prost(uint64, tag = "2")]
    pub(super) hard: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ThreadCore {
    #[prost(message, optional, tag = "10")]
    pub(super) credentials: Option<credentials::Entry>,
    #[prost(uint32, tag = "11")]
    pub(super) seccomp: u32,
    #[prost(string, optional, tag = "13")]
    pub(super) name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Ids {
    #[prost(uint32, tag = "2")]
    pub(super) files: u32,
    #[prost(uint32, optional, tag = "9")]
    pub(super) mounts: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Folders {
    #[prost(uint32, tag = "1")]
    pub(super) working: u32,
    #[prost(uint32, tag = "2")]
    pub(super) root: u32,
    #[prost(uint32, optional, tag = "3")]
    pub(super) mask: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) process_group: u32,
    pub(crate) session: u32,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) exit_code: Option<u32>,
    /// From its memory, as it has them now; null if that isn't in the image.
    pub(crate) command_line: Option<Vec<String>>,
    pub(crate) environment: Option<Vec<Variable>>,
    pub(crate) executable: Option<String>,
    pub(crate) working_directory: Option<String>,
    pub(crate) root: Option<String>,
    pub(crate) umask: Option<u32>,
    pub(crate) credentials: Option<Credentials>,
    /// Itself among them.
    pub(crate) threads: Vec<Thread>,
    /// By the names of `prlimit`.
    pub(crate) limits: BTreeMap<&'static str, Limit>,
    pub(crate) mount_namespace: Option<u32>,
    pub(crate) files: Vec<Descriptor>,
    /// Nothing if it has ended.
    pub(crate) memory: Option<Memory>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Running,
    Stopped,
    Zombie,
    Unknown,
}

#[derive(Debug, Serialize)]
pub(crate) struct Thread {
    pub(crate) tid: u32,
    pub(crate) name: Option<String>,
}

/// Null is no limit.
#[derive(Debug, Serialize)]
pub(crate) struct Limit {
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// Null unless somebody asks for it: secrets are handed over like this.
    pub(crate) value: Option<String>,
}

/// As the kernel numbers them.
const LIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

pub(super) fn all(folder: &Path, files: &BTreeMap<u32, Rc<File>>) -> io::Result<Vec<Process>> {
    let tree: Vec<Pstree> = messages(folder, "pstree.img", PSTREE)?;
    tree.into_iter().map(|entry| Process::read(folder, entry, files)).collect()
}

impl Process {
    fn read(folder: &Path, entry: Pstree, files: &BTreeMap<u32, Rc<File>>) -> io::Result<Process> {
        let pid = entry.pid;
        let core: Core = first(folder, &format!("core-{pid}.img"), CORE)?.unwrap_or_default();
        let (task, thread) = (core.task.unwrap_or_default(), core.thread.unwrap_or_default());
        let ids: Option<Ids> = first(folder, &format!("ids-{pid}.img"), IDS)?;
        let folders: Option<Folders> = first(folder, &format!("fs-{pid}.img"), FS)?;
        let path = |id: u32| files.get(&id).and_then(|file| file.path.clone());
        let pages = Pages::open(folder, &pid.to_string())?;
        let found = memory::read(folder, pid, &pages, files)?;
        // Who has ended has none, and CRIU writes any number in their place.
        let ended = State::of(task.state) == State::Zombie;
        let threads = if ended { Vec::new() } else { threads(folder, &entry.threads)? };
        let arguments = found.as_ref().and_then(|found| memory::strings(&pages, found.arguments));
        let environment = found.as_ref().and_then(|found| memory::strings(&pages, found.environment));
        Ok(Process {
            pid,
            parent: entry.parent,
            process_group: entry.group,
            session: entry.session,
            name: task.name,
            state: State::of(task.state),
            exit_code: ended.then_some(task.exit_code),
            command_line: arguments,
            environment: environment.map(|all| all.into_iter().map(Variable::of).collect()),
            executable: found.as_ref().and_then(|found| path(found.executable)),
            working_directory: folders.as_ref().and_then(|folders| path(folders.working)),
            root: folders.as_ref().and_then(|folders| path(folders.root)),
            umask: folders.and_then(|folders| folders.mask),
            credentials: thread.credentials.map(|entry| Credentials::of(entry, thread.seccomp)),
            threads,
            limits: limits(task.limits.unwrap_or_default()),
            mount_namespace: ids.as_ref().and_then(|ids| ids.mounts),
            files: ids.map_or_else(|| Ok(Vec::new()), |ids| descriptors::all(folder, ids.files, files))?,
            memory: found.map(|found| found.memory),
        })
    }

    /// Its command line, after its name if that is another.
    pub(crate) fn command(&self) -> String {
        let words = self.command_line.as_deref().unwrap_or_default();
        let Some(first) = words.first() else { return format!("[{}]", self.name) };
        let program = first.rsplit('/').next().unwrap_or(first);
        let words = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        // The kernel keeps 15 letters of a name.
        if program.starts_with(&self.name) { words } else { format!("{}: {words}", self.name) }
    }
}

fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && !word.contains(|letter: char| letter.is_whitespace() || letter == '\'');
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

impl State {
    fn of(number: u32) -> State {
        match number {
            1 => State::Running,
            2 | 6 => State::Zombie,
            3 => State::Stopped,
            _ => State::Unknown,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Stopped => "stopped",
            State::Zombie => "zombie",
            State::Unknown => "unknown",
        }
    }
}

impl Variable {
    fn of(text: String) -> Variable {
        match text.split_once('=') {
            Some((name, value)) => Variable { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Variable { name: text, value: None },
        }
    }
}

fn threads(folder: &Path, numbers: &[u32]) -> io::Result<Vec<Thread>> {
    let thread = |tid: &u32| {
        let core: Option<Core> = first(folder, &format!("core-{tid}.img"), CORE)?;
        Ok(Thread { tid: *tid, name: core.and_then(|core| core.thread?.name) })
    };
    numbers.iter().map(thread).collect()
}

fn limits(entries: Limits) -> BTreeMap<&'static str, Limit> {
    let value = |value: u64| (value != u64::MAX).then_some(value);
    let limit = |entry: LimitEntry| Limit { soft: value(entry.soft), hard: value(entry.hard) };
    LIMITS.into_iter().zip(entries.limits.into_iter().map(limit)).collect()
}

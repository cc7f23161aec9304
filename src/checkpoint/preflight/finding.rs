//! One reason, as people and programs read it.

use std::fmt;

use serde::Serialize;

use super::process::Process;
use crate::message::shown;

/// The longest place a sentence has room for.
const PLACE: usize = 70;

/// Kinds of reasons. Programs know them by these names, which never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    Aio,
    DeletedName,
    Device,
    ExecSession,
    ExternalUnixSocket,
    FileLock,
    Frozen,
    GhostFile,
    Gpu,
    IoUring,
    LostLeader,
    LostSession,
    MessageQueue,
    NestedNamespace,
    NoSpace,
    OtherNamespace,
    OutOfTime,
    Rights,
    SeccompNotify,
    SecretMemory,
    Stopped,
    TcpConnection,
    Traced,
    UnreadMessages,
    UnsupportedFile,
    UnsupportedMount,
    UnsupportedSocket,
    Watch,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub what: What,
    pub pid: u32,
    pub program: String,
    /// A descriptor, a path, a mount point: where to look.
    pub place: String,
    /// A checkpoint would fail because of it.
    pub blocks: bool,
    pub remedy: &'static str,
}

/// What a checkpoint is refused for: at least one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blockers(Vec<Finding>);

impl Finding {
    pub(super) fn new(what: What, process: &Process, place: String, blocks: bool) -> Finding {
        let Process { pid, program, .. } = process;
        let (pid, program, place) = (*pid, program.clone(), shown(&place));
        Finding { what, pid, program, place, blocks, remedy: what.remedy() }
    }
}

impl Blockers {
    /// Those that block, if there are any.
    pub fn of(findings: Vec<Finding>) -> Option<Blockers> {
        let blocking: Vec<Finding> = findings.into_iter().filter(|finding| finding.blocks).collect();
        (!blocking.is_empty()).then_some(Blockers(blocking))
    }

    /// Whether it would do somewhere else.
    pub(in crate::checkpoint) fn is_only_room(&self) -> bool {
        self.0.iter().all(|finding| finding.what == What::NoSpace)
    }

    pub fn findings(&self) -> &[Finding] {
        &self.0
    }
}

impl What {
    fn words(self) -> &'static str {
        match self {
            What::Aio => "uses Linux AIO",
            What::DeletedName => "has a file open whose name was deleted while another remains",
            What::Device => "uses a device that CRIU can't save",
            What::ExecSession => "was added to the container",
            What::ExternalUnixSocket => "has a unix socket connected to the outside",
            What::FileLock => "holds a file lock",
            What::Frozen => "is frozen",
            What::GhostFile => "has a deleted file open that is over the limit",
            What::Gpu => "uses a GPU",
            What::IoUring => "uses io_uring",
            What::LostLeader => "has lost its first thread",
            What::LostSession => "belongs to a session",
            What::MessageQueue => "has a POSIX message queue",
            What::NestedNamespace => "has a namespace of its own",
            What::NoSpace => "has no space for its memory",
            What::OtherNamespace => "is in another namespace than the container's configuration says",
            What::OutOfTime => "was left behind by an exec into a restored container and could not come back",
            What::Rights => "may do more than the container's configuration allows",
            What::SeccompNotify => "decides about system calls of others",
            What::SecretMemory => "has memory that is secret even to CRIU",
            What::Stopped => "is stopped",
            What::TcpConnection => "has an open TCP connection",
            What::Traced => "is being traced",
            What::UnreadMessages => "has messages of the kernel that it hasn't read",
            What::UnsupportedFile => "uses a kind of file that CRIU can't save",
            What::UnsupportedMount => "has a mount that CRIU can't save",
            What::UnsupportedSocket => "uses a kind of socket that CRIU can't save",
            What::Watch => "watches a file that CRIU can't find again",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            What::Aio => "requests under way are waited for",
            What::DeletedName => "close it, or let the checkpoint stop the container",
            What::Device => "let it close the device",
            What::ExecSession => "it isn't in the checkpoint; end it first if that matters",
            What::ExternalUnixSocket => {
                "let it close the socket; the annotation cryo.external-unix-sockets=true keeps datagram sockets"
            }
            What::FileLock => "let it give the lock up, or leave out the annotation cryo.file-locks=false",
            What::Frozen => "thaw its cgroup, which lies inside the container's",
            What::GhostFile => "let it close the file, or set the annotation cryo.ghost-limit higher",
            What::Gpu => "install CRIU's plugin for it, or let it close the device",
            What::IoUring => "switch io_uring off in its configuration",
            What::LostLeader => "restart the program",
            What::LostSession => "start it under setsid",
            What::MessageQueue => "let it close the queue and remove it with mq_unlink",
            What::NestedNamespace => "end what has made the namespace, such as a sandbox",
            What::NoSpace => "make room, or choose another folder",
            What::OtherNamespace => {
                "let it stay there, or configure the container so (docker run --uts, --ipc, --pid)"
            }
            What::OutOfTime => "end it, or use runc 1.2.7 or newer, or crun",
            What::Rights => "end it, or give the container these rights",
            What::SeccompNotify => "end it first",
            What::SecretMemory => "turn off secret memory (memfd_secret) in the program",
            What::Stopped => "let it go on with SIGCONT",
            What::TcpConnection => {
                "close it, or set the annotation cryo.tcp=established to keep it or cryo.tcp=close to close it at the restore"
            }
            What::Traced => "end the debugger or tracer",
            What::UnreadMessages => "try again when it has read them",
            What::UnsupportedFile => "let it close the file",
            What::UnsupportedMount => {
                "unmount it, or mount it outside and bind it in the container's configuration"
            }
            What::UnsupportedSocket => "let it close the socket",
            What::Watch => "end the watch (tail -f has one), or let it watch a folder on a volume",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { what, pid, program, place, .. } = self;
        write!(f, "{program} (pid {pid}) {} ({})", what.words(), shortened(place))
    }
}

impl fmt::Display for Blockers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else { return Ok(()) };
        write!(f, "{first}: {}", first.remedy)?;
        if rest.is_empty() { Ok(()) } else { write!(f, " (and {} more)", rest.len()) }
    }
}

/// Of a long path the end tells most.
fn shortened(place: &str) -> String {
    let length = place.chars().count();
    if length <= PLACE {
        return place.to_owned();
    }
    let end: String = place.chars().skip(length - PLACE + 1).collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [What; 28] = [
        What::Aio,
        What::DeletedName,
        What::Device,
        What::ExecSession,
        What::ExternalUnixSocket,
        What::FileLock,
        What::Frozen,
        What::GhostFile,
        What::Gpu,
        What::IoUring,
        What::LostLeader,
        What::LostSession,
        What::MessageQueue,
        What::NestedNamespace,
        What::NoSpace,
        What::OtherNamespace,
        What::OutOfTime,
        What::Rights,
        What::SeccompNotify,
        What::SecretMemory,
        What::Stopped,
        What::TcpConnection,
        What::Traced,
        What::UnreadMessages,
        What::UnsupportedFile,
        What::UnsupportedMount,
        What::UnsupportedSocket,
        What::Watch,
    ];

    fn finding(what: What, place: &str, blocks: bool) -> Finding {
        let process = Process { pid: 12, program: "redis-server".to_owned(), ..Process::default() };
        Finding::new(what, &process, place.to_owned(), blocks)
    }

    #[test]
    fn a_finding_is_one_sentence() {
        let text = finding(What::IoUring, "fd 7", true).to_string();
        assert_eq!(text, "redis-server (pid 12) uses io_uring (fd 7)");
    }

    #[test]
    fn programs_get_stable_names() {
        let json = serde_json::to_value(finding(What::ExternalUnixSocket, "fd 7", true)).unwrap();
        assert_eq!((&json["what"], &json["pid"]), (&"external-unix-socket".into(), &12.into()));
        assert_eq!((&json["place"], &json["blocks"]), (&"fd 7".into(), &true.into()));
    }

    #[test]
    fn only_what_blocks_is_a_reason_to_refuse() {
        assert_eq!(Blockers::of(vec![finding(What::Aio, "", false)]), None);
        let two = vec![
            finding(What::Traced, "a", true),
            finding(What::Aio, "", false),
            finding(What::Gpu, "b", true),
        ];
        let blockers = Blockers::of(two).unwrap();
        let text = "redis-server (pid 12) is being traced (a): end the debugger or tracer (and 1 more)";
        assert_eq!((blockers.to_string().as_str(), blockers.findings().len()), (text, 2));
    }

    #[test]
    fn no_refusal_is_longer_than_a_line_can_hold() {
        for what in ALL {
            let process =
                Process { pid: 4_000_000, program: "fifteen-letters".to_owned(), ..Process::default() };
            let finding = Finding::new(what, &process, "/long".repeat(1000), true);
            let blockers = Blockers::of(vec![finding; 1000]).unwrap();
            let error = crate::checkpoint::Error::Preflight(blockers).to_string();
            assert!(error.chars().count() <= 300, "{} {error}", error.chars().count());
        }
    }
}

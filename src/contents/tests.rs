//! A small image as CRIU writes them, whole and damaged.

use std::fs;
use std::path::Path;

use prost::Message;

use super::files::entry::{self as open, Entry};
use super::process::{Core, Pstree, Task, ThreadCore};
use super::socket::{Inet, Unix};
use super::*;

const COMMON: u32 = 0x5456_4319;
const INVENTORY: u32 = 0x5831_3116;
/// Where its words lie, and where its heap begins.
const WORDS: u64 = 0x7000;
pub(crate) const HEAP: u64 = 0x1_0000;

#[derive(Clone, PartialEq, Message)]
struct Inventory {
    #[prost(message, optional, tag = "3")]
    hosts: Option<Ids>,
}

#[derive(Clone, PartialEq, Message)]
struct Ids {
    #[prost(uint32, tag = "2")]
    files: u32,
    #[prost(uint32, tag = "5")]
    pid: u32,
    #[prost(uint32, tag = "9")]
    mount: u32,
}

/// What a test may change before the image is written.
pub(crate) struct Sample {
    pub(crate) state: u32,
    pub(crate) position: u64,
    pub(crate) port: u32,
    pub(crate) environment: String,
    /// Of its heap, a page for each.
    pub(crate) pages: Vec<u8>,
    /// Of a file in memory that isn't mapped, its one page.
    pub(crate) buffer: u8,
    pub(crate) mounts: Vec<&'static str>,
    pub(crate) descriptors: Vec<(u32, u32)>,
}

impl Default for Sample {
    fn default() -> Sample {
        Sample {
            state: 1,
            position: 10,
            port: 80,
            environment: "TOKEN=secret\0LANG=C\0".to_owned(),
            pages: vec![1, 2, 3],
            buffer: 7,
            mounts: vec!["/", "/proc"],
            descriptors: vec![(0, 1), (3, 1), (4, 2), (5, 3), (6, 4), (7, 5), (9, 6)],
        }
    }
}

fn write(folder: &Path, name: &str, magic: u32, messages: &[impl Message]) {
    let mut bytes = [COMMON.to_le_bytes(), magic.to_le_bytes()].concat();
    for message in messages.iter().map(Message::encode_to_vec) {
        bytes.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
        bytes.extend(message);
    }
    fs::write(folder.join(name), bytes).unwrap();
}

/// Where pages are, and how many of them, with the number of the file that has their content.
fn write_pages(folder: &Path, whose: &str, file: u32, runs: &[(u64, u64)]) {
    let run = |(address, count): &(u64, u64)| pages::Entry {
        address: *address,
        flags: Some(4),
        count: Some(*count),
        ..pages::Entry::default()
    };
    write_pagemap(folder, whose, file, runs.iter().map(run));
}

fn write_pagemap(folder: &Path, whose: &str, file: u32, runs: impl Iterator<Item = pages::Entry>) {
    let mut bytes = [COMMON.to_le_bytes(), 0x5608_4025_u32.to_le_bytes()].concat();
    let head = std::iter::once(pages::Head { pages: file }.encode_to_vec());
    for message in head.chain(runs.map(|run| run.encode_to_vec())) {
        bytes.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
        bytes.extend(message);
    }
    fs::write(folder.join(format!("pagemap-{whose}.img")), bytes).unwrap();
}

impl Sample {
    pub(crate) fn write(&self, folder: &Path) {
        let ids = |files, pid| Ids { files, pid, mount: 9 };
        let inventory = Inventory { hosts: Some(ids(0, 1)) }.encode_to_vec();
        let length = u32::try_from(inventory.len()).unwrap();
        let bytes = [&INVENTORY.to_le_bytes()[..], &length.to_le_bytes(), &inventory].concat();
        fs::write(folder.join("inventory.img"), bytes).unwrap();
        let tree = |pid, parent| Pstree { pid, parent, group: 1, session: 1, threads: vec![pid] };
        write(folder, "pstree.img", 0x5027_3030, &[tree(1, 0), tree(2, 1)]);
        write(folder, "ids-1.img", 0x5443_2030, &[ids(7, 5)]);
        self.write_cores(folder);
        self.write_files(folder);
        self.write_memory(folder);
        let mounts = self.mounts.iter().zip(1..);
        let mount = |(place, id): (&&str, u32)| mounts::Entry {
            kind: if id == 1 { 17 } else { 1 },
            id,
            place: (*place).to_owned(),
            flags: u32::from(id == 2),
            key: (id == 1).then(|| "/".to_owned()),
            ..mounts::Entry::default()
        };
        write(folder, "mountpoints-9.img", 0x5556_3928, &mounts.map(mount).collect::<Vec<_>>());
    }

    fn write_cores(&self, folder: &Path) {
        let task = |state, name: &str| Task { state, name: name.to_owned(), ..Task::default() };
        let entry = credentials::Entry {
            effective_user: 999,
            effective: vec![1 << 10],
            no_new_privileges: 1,
            ..credentials::Entry::default()
        };
        let thread = ThreadCore { credentials: Some(entry), seccomp: 2, name: None };
        let leader = Core { task: Some(task(self.state, "server")), thread: Some(thread) };
        write(folder, "core-1.img", 0x5505_3847, &[leader]);
        write(folder, "core-2.img", 0x5505_3847, &[Core { task: Some(task(2, "ended")), thread: None }]);
    }

    fn write_files(&self, folder: &Path) {
        let path = "/var/log/x".to_owned();
        let regular =
            open::Regular { flags: 0o2001, position: self.position, path, size: Some(5), external: false };
        let inet = Inet {
            family: 2,
            kind: 1,
            protocol: 6,
            state: 10,
            source_port: self.port,
            source: vec![u32::from_ne_bytes([127, 0, 0, 1])],
            destination: vec![0],
            ..Inet::default()
        };
        let unix = |inode, peer, name: &[u8]| Unix {
            inode,
            peer,
            kind: 1,
            state: 1,
            name: name.to_vec(),
            ..Unix::default()
        };
        let file = |kind, id| Entry { kind, id, ..Entry::default() };
        let files = [
            Entry { regular: Some(regular), ..file(1, 1) },
            Entry { inet: Some(inet), ..file(4, 2) },
            Entry { unix: Some(unix(11, 12, b"")), ..file(5, 3) },
            Entry { unix: Some(unix(12, 11, b"/run/s\0")), ..file(5, 4) },
            Entry { eventfd: Some(open::Eventfd { flags: 2, counter: 3 }), ..file(6, 5) },
            Entry { memfd: Some(open::Memfd { flags: 2, position: 0, inode: 1 }), ..file(18, 6) },
        ];
        write(folder, "files.img", 0x5630_3138, &files);
        let inode = open::MemfdInode { name: "buffer".to_owned(), size: PAGE, memory: 77, id: 1 };
        write(folder, "memfd.img", 0x4845_3499, &[inode]);
        write_pages(folder, "shmem-77", 2, &[(0, 1)]);
        fs::write(folder.join("pages-2.img"), [self.buffer; PAGE as usize]).unwrap();
        let descriptor = |(fd, id): &(u32, u32)| descriptors::Entry { id: *id, flags: 0, kind: 1, fd: *fd };
        let descriptors: Vec<_> = self.descriptors.iter().map(descriptor).collect();
        write(folder, "fdinfo-7.img", 0x5621_3732, &descriptors);
    }

    fn write_memory(&self, folder: &Path) {
        let arguments = b"server\0--port\080\0";
        let environment = self.environment.as_bytes();
        let begin = WORDS + arguments.len() as u64;
        let area = |start, pages, status| memory::Area {
            start,
            end: start + pages * PAGE,
            protection: 3,
            status,
            ..memory::Area::default()
        };
        let entry = memory::Entry {
            arguments_start: WORDS,
            arguments_end: begin,
            environment_start: begin,
            environment_end: begin + environment.len() as u64,
            executable: 1,
            areas: vec![area(WORDS, 1, 1), area(HEAP, 16, 1 << 5)],
        };
        write(folder, "mm-1.img", 0x5749_2820, &[entry]);
        write_pages(folder, "1", 1, &[(WORDS, 1), (HEAP, self.pages.len() as u64)]);
        let mut content = [arguments, environment].concat();
        content.resize(PAGE as usize, 0);
        self.pages.iter().for_each(|byte| content.extend([*byte; PAGE as usize]));
        fs::write(folder.join("pages-1.img"), content).unwrap();
    }
}

/// One that does nothing, for tests of what is drawn.
pub(crate) fn process(pid: u32, parent: u32) -> Process {
    let folder = tempfile::tempdir().unwrap();
    Sample::default().write(folder.path());
    let contents = Contents::read(folder.path()).unwrap();
    Process { pid, parent, ..contents.processes.into_iter().nth(1).unwrap() }
}

fn sample() -> (tempfile::TempDir, Contents) {
    let folder = tempfile::tempdir().unwrap();
    Sample::default().write(folder.path());
    let contents = Contents::read(folder.path()).unwrap();
    (folder, contents)
}

#[test]
fn processes_tell_who_they_are() {
    let (_folder, contents) = sample();
    let [first, second] = contents.processes.as_slice() else { panic!("{:?}", contents.processes) };
    assert_eq!((first.pid, first.name.as_str(), first.state.name()), (1, "server", "running"));
    assert_eq!(first.command_line.as_deref().unwrap(), ["server", "--port", "80"]);
    let environment = first.environment.as_deref().unwrap();
    assert_eq!((environment[0].name.as_str(), environment[0].value.as_deref()), ("TOKEN", Some("secret")));
    assert_eq!(first.executable.as_deref(), Some("/var/log/x"));
    let credentials = first.credentials.as_ref().unwrap();
    assert_eq!((credentials.effective_user, credentials.no_new_privileges), (999, true));
    assert_eq!(credentials.capabilities.effective, ["CAP_NET_BIND_SERVICE"]);
    assert_eq!((second.parent, second.state.name(), second.threads.len()), (1, "zombie", 0));
    assert!(second.memory.is_none() && second.command_line.is_none());
}

#[test]
fn files_are_shared_and_sockets_know_their_peers() {
    let (_folder, contents) = sample();
    let first = &contents.processes[0];
    let file = &first.files[0].file;
    assert_eq!(
        (file.what().as_str(), file.position, &*file.flags),
        ("/var/log/x", Some(10), &["write", "append"][..])
    );
    assert_eq!(first.files[0].file.id, first.files[1].file.id);
    assert_eq!(first.files[5].file.detail.as_deref(), Some("counter 3"));
    let sockets: Vec<_> =
        contents.sockets().map(|(socket, holders)| (socket.what(), socket.state, holders[0].1)).collect();
    let expected = [
        ("[tcp 127.0.0.1:80]", "listen", 4),
        ("[unix unnamed to /run/s]", "established", 5),
        ("[unix /run/s to unnamed]", "established", 6),
    ];
    assert_eq!(sockets, expected.map(|(what, state, fd)| (what.to_owned(), state, fd)));
}

#[test]
fn totals_count_what_is_shared_once() {
    let (_folder, contents) = sample();
    let expected = Totals { processes: 2, threads: 1, files: 3, sockets: 3, mounts: 2, dumped: 5 * PAGE };
    assert_eq!(contents.totals, expected);
    assert_eq!(contents.namespaces.0.get("pid"), Some(&true));
    assert_eq!(contents.namespaces.0.get("mount"), Some(&false));
}

#[test]
fn mappings_and_mounts_are_described() {
    let (_folder, contents) = sample();
    let memory = contents.processes[0].memory.as_ref().unwrap();
    let heap = &memory.mappings[1];
    assert_eq!((heap.what().as_str(), heap.permissions.as_str()), ("[heap]", "rw-p"));
    assert_eq!((heap.size, heap.dumped), (16 * PAGE, 3 * PAGE));
    let [root, proc] = contents.mounts.as_slice() else { panic!("{:?}", contents.mounts) };
    assert_eq!((root.kind.as_str(), root.external.as_deref()), ("overlay", Some("/")));
    assert_eq!((proc.kind.as_str(), proc.read_only), ("proc", true));
}

#[test]
fn words_are_absent_if_the_pages_are_elsewhere() {
    let (folder, _) = sample();
    fs::remove_file(folder.path().join("pages-1.img")).unwrap();
    let contents = Contents::read(folder.path()).unwrap();
    assert!(contents.processes[0].command_line.is_none());
    assert_eq!(contents.totals.dumped, 5 * PAGE);
}

#[test]
fn pages_of_a_parent_take_no_room_in_the_file() {
    let (folder, _) = sample();
    let run =
        |address, flags| pages::Entry { address, flags: Some(flags), count: Some(1), ..Default::default() };
    write_pagemap(folder.path(), "1", 1, [run(HEAP, 1), run(HEAP + PAGE, 4)].into_iter());
    let pages = Pages::open(folder.path(), "1").unwrap();
    let mut buffer = [0; 4];
    assert_eq!(pages.read(HEAP, &mut buffer).unwrap(), None);
    assert_eq!(pages.read(HEAP + PAGE, &mut buffer).unwrap(), Some(()));
    assert_eq!(&buffer, b"serv");
    assert_eq!(pages.read(HEAP + 2 * PAGE - 2, &mut buffer).unwrap(), None);
}

/// Whatever is damaged, it is an error or something is missing; nothing panics.
#[test]
fn damaged_images_are_errors_and_no_panics() {
    let (folder, _) = sample();
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_content = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with("pages-");
    for path in names.iter().filter(|path| !is_content(path)) {
        let whole = fs::read(path).unwrap();
        for at in (0..whole.len()).step_by(2) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            fs::write(path, damaged).unwrap();
            let _ = Contents::read(folder.path());
            if at % 4 == 0 {
                fs::write(path, &whole[..at]).unwrap();
                let _ = Contents::read(folder.path());
            }
        }
        fs::write(path, whole).unwrap();
    }
    assert!(Contents::read(folder.path()).is_ok());
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let error = Contents::read(folder.path()).unwrap_err();
    assert_eq!(error.to_string(), "it has no inventory.img");
}

/// Programs rely on these names.
#[test]
fn names_in_json_stay() {
    let (_folder, contents) = sample();
    let json = serde_json::to_value(&contents).unwrap();
    let names =
        |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names(&json), "cgroups mounts namespaces processes totals");
    assert_eq!(
        names(&json["processes"][0]),
        "command_line credentials environment executable exit_code files limits memory mount_namespace name \
         parent pid process_group root session state threads umask working_directory"
    );
    assert_eq!(
        names(&json["processes"][0]["files"][0]),
        "close_on_exec deleted detail external fd flags id kind path pipe position size socket"
    );
    assert_eq!(
        names(&json["processes"][0]["memory"]["mappings"][0]),
        "dumped end kind offset path permissions shared size start"
    );
    assert_eq!(json["processes"][0]["memory"]["mappings"][1]["start"], "0x10000");
    assert_eq!(
        names(&json["mounts"][0]),
        "external id mount_point namespace options parent propagation read_only root source type"
    );
}

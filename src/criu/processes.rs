//! Who is in an image, and with which rights.

use std::io;
use std::path::Path;

use prost::Message;
use rustix::thread::CapabilitySet;

use super::filters::Filters;
use super::images::{self, Pstree};
use crate::rights::{FILTERED, Rights};

const CORE: u32 = 0x5505_3847;
const DEAD: u32 = 2;

/// A process or one of its threads.
#[derive(Debug)]
pub struct Process {
    /// Inside the container.
    pub number: u32,
    pub program: String,
    pub user: u32,
    pub rights: Rights,
    /// The number of its latest filter of system calls.
    pub filter: Option<u32>,
    /// What a security module calls it.
    pub label: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Core {
    #[prost(message, optional, tag = "3")]
    task: Option<Task>,
    #[prost(message, optional, tag = "5")]
    thread: Option<Thread>,
}

#[derive(Clone, PartialEq, Message)]
struct Task {
    #[prost(uint32, tag = "1")]
    state: u32,
    #[prost(string, tag = "6")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Thread {
    #[prost(message, optional, tag = "10")]
    credentials: Option<Credentials>,
    #[prost(uint32, tag = "11")]
    filter_mode: u32,
    #[prost(uint32, tag = "12")]
    filter: u32,
    #[prost(string, tag = "13")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Credentials {
    #[prost(uint32, tag = "1")]
    user: u32,
    #[prost(uint32, repeated, packed = "false", tag = "9")]
    inheritable: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "10")]
    permitted: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "11")]
    effective: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "12")]
    bounding: Vec<u32>,
    #[prost(string, optional, tag = "15")]
    label: Option<String>,
    #[prost(uint32, tag = "18")]
    no_new_privileges: u32,
    #[prost(uint32, repeated, packed = "false", tag = "19")]
    ambient: Vec<u32>,
}

/// All that will run, the container's first process before the others. Who has ended has no
/// rights any more.
pub fn all(folder: &Path, filters: &Filters) -> io::Result<Vec<Process>> {
    let mut all = Vec::new();
    for Pstree { pid, threads } in images::tree(folder)? {
        let Some(leader) = read(folder, pid)? else { continue };
        let shared = leader.filter.filter(|number| filters.are_of_all_threads(*number));
        all.push(leader);
        for number in threads.into_iter().filter(|number| *number != pid) {
            let Some(mut thread) = read(folder, number)? else { continue };
            if thread.filter.is_none() && shared.is_some() {
                thread.filter = shared;
                thread.rights.unfiltered = false;
            }
            all.push(thread);
        }
    }
    Ok(all)
}

fn read(folder: &Path, number: u32) -> io::Result<Option<Process>> {
    let name = format!("core-{number}.img");
    let core: Core = images::first(&folder.join(&name), CORE)?;
    if core.task.as_ref().is_some_and(|task| task.state == DEAD) {
        return Ok(None);
    }
    let process = Process::of(number, core).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{name}: it doesn't tell whose process it is"))
    })?;
    Ok(Some(process))
}

impl Process {
    fn of(number: u32, core: Core) -> Option<Process> {
        let thread = core.thread?;
        let credentials = thread.credentials?;
        let Credentials { inheritable, permitted, effective, bounding, ambient, .. } = &credentials;
        let sets = [inheritable, permitted, effective, bounding, ambient];
        let is_filtered = thread.filter_mode == FILTERED;
        let capabilities = sets.map(|words| CapabilitySet::from_bits_retain(bits(words)));
        Some(Process {
            number,
            program: core.task.map_or(thread.name, |task| task.name),
            user: credentials.user,
            rights: Rights {
                capabilities: capabilities.into_iter().collect(),
                may_gain: credentials.no_new_privileges == 0,
                unfiltered: !is_filtered,
            },
            filter: is_filtered.then_some(thread.filter),
            label: credentials.label,
        })
    }
}

/// The lowest 32 come first.
fn bits(words: &[u32]) -> u64 {
    let word = |at: usize| u64::from(words.get(at).copied().unwrap_or_default());
    word(0) | word(1) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::filters;
    use crate::criu::images::PSTREE;
    use crate::criu::images::tests::write_all;

    fn core(state: u32, credentials: Option<Credentials>) -> Core {
        let task = Task { state, name: "redis".into() };
        Core {
            task: Some(task),
            thread: Some(Thread { credentials, filter_mode: FILTERED, ..Thread::default() }),
        }
    }

    fn write(folder: &Path, processes: &[(u32, &[u32])], cores: Vec<(u32, Core)>) {
        let tree = processes.iter().map(|(pid, threads)| Pstree { pid: *pid, threads: threads.to_vec() });
        write_all(&folder.join("pstree.img"), PSTREE, &tree.collect::<Vec<_>>());
        for (number, core) in cores {
            write_all(&folder.join(format!("core-{number}.img")), CORE, &[core]);
        }
    }

    #[test]
    fn who_lives_is_read_with_its_rights() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = Credentials {
            user: 999,
            bounding: vec![1 << 5, 1 << 8],
            ambient: vec![1],
            no_new_privileges: 1,
            label: Some("docker-default".into()),
            ..Credentials::default()
        };
        let cores = vec![(12, core(1, Some(credentials))), (3, core(DEAD, None))];
        write(folder.path(), &[(12, &[12]), (3, &[3])], cores);
        let all = all(folder.path(), &Filters::default()).unwrap();
        assert_eq!(all.len(), 1);
        let Process { number, program, user, rights, label, filter } = &all[0];
        assert_eq!((*number, program.as_str(), *user), (12, "redis", 999));
        assert_eq!(*filter, Some(0));
        assert_eq!(label.as_deref(), Some("docker-default"));
        let capabilities = CapabilitySet::KILL | CapabilitySet::CHOWN | CapabilitySet::CHECKPOINT_RESTORE;
        assert_eq!(*rights, Rights { capabilities, may_gain: false, unfiltered: false });
    }

    #[test]
    fn threads_have_the_filters_of_their_process_if_criu_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = || Some(Credentials::default());
        let thread =
            Core { task: None, thread: Some(Thread { credentials: credentials(), ..Thread::default() }) };
        write(folder.path(), &[(1, &[1, 2])], vec![(1, core(1, credentials())), (2, thread)]);
        for (flags, unfiltered) in [(0, true), (1, false)] {
            filters::tests::write(folder.path(), flags);
            let all = all(folder.path(), &Filters::of(folder.path()).unwrap()).unwrap();
            let thread = all.iter().find(|process| process.number == 2).unwrap();
            assert_eq!(thread.rights.unfiltered, unfiltered);
        }
    }

    #[test]
    fn one_without_credentials_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[(1, &[1])], vec![(1, core(1, None))]);
        let error = all(folder.path(), &Filters::default()).unwrap_err().to_string();
        assert!(error.starts_with("core-1.img: "), "{error}");
    }
}

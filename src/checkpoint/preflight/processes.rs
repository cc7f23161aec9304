//! Processes in a state, or in a world of their own, that an image can't hold.

use std::cell::LazyCell;
use std::fs;
use std::path::PathBuf;

use super::process::{Process, program, text};
use super::{Finding, What};
use crate::cgroup::Cgroup;
use crate::rights::{Rights, in_proc};

/// Of these there can be only one of each in an image: CRIU nests no others than those
/// of mounts and of networks.
const SINGLE: [&str; 6] = ["pid", "user", "ipc", "uts", "cgroup", "time"];

/// Threads may leave these by themselves.
const OF_THREADS: [&str; 3] = ["net", "mnt", "uts"];

/// A process of the container that could be dumped and never restored, if there is one: it
/// lives in another time than the first process. A restored container has a time namespace of
/// its own; runc before 1.2.7 doesn't put processes into it that are added by exec, and one of
/// them may have left a child behind.
fn out_of_time(init: u32, family: &[Process]) -> Option<&Process> {
    let own = namespace(init, "time")?;
    if own == fs::read_link("/proc/self/ns/time").ok()? {
        return None;
    }
    let is_stray =
        |process: &&Process| process.inside && namespace(process.pid, "time").is_some_and(|time| time != own);
    family.iter().find(is_stray)
}

/// Who can't be stopped by CRIU. It stops all of the cgroup, not only the first process's
/// family.
pub(super) fn unstoppable(init: u32, family: &[Process]) -> Vec<Finding> {
    let memberships = text(&format!("/proc/{init}/cgroup")).unwrap_or_default();
    let freezer_is_old = has_old_freezer(&memberships);
    let first = LazyCell::new(|| Cgroup::of_process(init).ok());
    let mut found = Vec::new();
    for process in family {
        if process.tracer != 0 {
            let tracer = format!("by {} (pid {})", program(process.tracer), process.tracer);
            found.push(Finding::new(What::Traced, process, tracer, true));
        } else if process.is_stopped() {
            // The freezer of cgroup v1 keeps a stopped process from answering CRIU, which
            // then waits for it until it is killed.
            found.push(Finding::new(What::Stopped, process, "by a signal".to_owned(), freezer_is_old));
        }
        if let Some(cgroup) = frozen_apart(process, &memberships, &first) {
            found.push(Finding::new(What::Frozen, process, cgroup, true));
        }
        if process.state == 'Z' && process.threads > 1 {
            let left = format!("{} threads run on", process.threads - 1);
            found.push(Finding::new(What::LostLeader, process, left, process.inside));
        }
    }
    found
}

/// The cgroup inside the container's that was frozen with this process in it. CRIU lets a
/// container go to look at it, which leaves that one frozen.
fn frozen_apart(
    process: &Process,
    of_first: &str,
    first: &LazyCell<Option<Cgroup>, impl FnOnce() -> Option<Cgroup>>,
) -> Option<String> {
    if text(&format!("/proc/{}/cgroup", process.pid))? == of_first {
        return None;
    }
    let own = Cgroup::of_process(process.pid).ok()?;
    own.frozen_apart_from(first.as_ref()?).map(|folder| folder.display().to_string())
}

/// Who lives in namespaces, or in a session, that don't fit into an image.
pub(super) fn elsewhere(init: u32, family: &[Process], one_network: bool) -> Vec<Finding> {
    let of_first = SINGLE.map(|kind| namespace(init, kind));
    let ours = SINGLE.map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).ok());
    let [mounts, networks] = ["mnt", "net"].map(|kind| namespace(init, kind));
    let mut found = Vec::new();
    if let Some(stray) = out_of_time(init, family) {
        found.push(Finding::new(What::OutOfTime, stray, "in another time namespace".to_owned(), true));
    }
    for process in family.iter().filter(|process| process.inside && process.state != 'Z') {
        for ((kind, first), ours) in SINGLE.iter().zip(&of_first).zip(&ours) {
            let own = namespace(process.pid, kind);
            // CRIU knows its own namespaces too, and takes the host's for them.
            if own.is_some() && first.is_some() && own != *first && own != *ours {
                found.push(Finding::new(What::NestedNamespace, process, (*kind).to_owned(), true));
            }
        }
        let [time, childrens] = ["time", "time_for_children"].map(|kind| namespace(process.pid, kind));
        if time.is_some() && childrens.is_some() && time != childrens {
            found.push(Finding::new(What::NestedNamespace, process, "time of its children".to_owned(), true));
        }
        for (kind, first, blocks) in [("mnt", &mounts, false), ("net", &networks, one_network)] {
            if namespace(process.pid, kind) != *first {
                found.push(Finding::new(What::NestedNamespace, process, kind.to_owned(), blocks));
            }
        }
        found.extend(stray_thread(process));
        if process.session_is_outside && process.levels > 1 {
            found.push(Finding::new(What::LostSession, process, "from outside".to_owned(), true));
        }
    }
    found
}

/// A thread in another world than its process. CRIU takes all threads for one, and would
/// restore it in the wrong place.
fn stray_thread(process: &Process) -> Option<Finding> {
    if process.threads < 2 {
        return None;
    }
    let pid = process.pid;
    let own = OF_THREADS.map(|kind| namespace(pid, kind));
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        for (kind, own) in OF_THREADS.iter().zip(&own) {
            let its = fs::read_link(thread.path().join("ns").join(kind)).ok();
            if its.is_some() && own.is_some() && its != *own {
                let place = format!("{kind}, of thread {}", thread.file_name().display());
                return Some(Finding::new(What::NestedNamespace, process, place, true));
            }
        }
    }
    None
}

/// A first process that has left a namespace which the configuration shares with the host: no
/// restore would let it be where it is.
pub(super) fn astray(first: &Process, hosts: &[(&'static str, Option<bool>)]) -> Vec<Finding> {
    let other = hosts.iter().filter_map(|(kind, wanted)| {
        let its = namespace(first.pid, in_proc(kind))?;
        let hosts = fs::read_link(format!("/proc/self/ns/{}", in_proc(kind))).ok()?;
        (*wanted == Some(true) && its != hosts).then(|| format!("{kind}: its own instead of the host's"))
    });
    other.map(|place| Finding::new(What::OtherNamespace, first, place, true)).collect()
}

/// Who may do more than the configuration grants, such as what a privileged exec has left
/// behind: no restore would let it.
pub(super) fn mightier(family: &[Process], granted: &Rights) -> Vec<Finding> {
    let inside = family.iter().filter(|process| process.inside && process.state != 'Z');
    let more = inside.filter_map(|process| Some((process, process.rights().beyond(granted)?)));
    more.map(|(process, what)| Finding::new(What::Rights, process, what, true)).collect()
}

/// Processes that were added later: they aren't part of an image.
pub(super) fn execs(family: &[Process], refused: bool) -> Vec<Finding> {
    let added = family.iter().filter(|process| !process.inside && process.state != 'Z');
    added.map(|process| Finding::new(What::ExecSession, process, "by exec".to_owned(), refused)).collect()
}

fn namespace(pid: u32, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()
}

fn has_old_freezer(memberships: &str) -> bool {
    let controllers = memberships.lines().filter_map(|line| line.split(':').nth(1));
    controllers.flat_map(|list| list.split(',')).any(|controller| controller == "freezer")
}

#[cfg(test)]
mod tests {
    use super::super::process::family;
    use super::super::tests::{sleeper, until};
    use super::*;

    #[test]
    fn the_old_freezer_is_known_by_its_hierarchy() {
        assert!(has_old_freezer("5:freezer:/docker/abc\n1:name=systemd:/\n0::/\n"));
        assert!(has_old_freezer("5:cpu,freezer:/a\n"));
        assert!(!has_old_freezer("0::/freezer\n"));
    }

    #[test]
    fn a_stopped_process_is_found() {
        let child = sleeper();
        let pid = child.id();
        assert_eq!(unstoppable(pid, &family(pid, &[pid])), []);
        let stop = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(stop, rustix::process::Signal::STOP).unwrap();
        let found = until(|| unstoppable(pid, &family(pid, &[pid])).pop());
        assert_eq!((found.what, found.pid, found.program.as_str()), (What::Stopped, pid, "sleep"));
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap();
        assert_eq!(found.blocks, has_old_freezer(&memberships));
    }

    #[test]
    fn who_is_traced_blocks_and_names_the_tracer() {
        let process = Process { pid: 12, state: 't', tracer: std::process::id(), ..Process::default() };
        let found = unstoppable(12, &[process]);
        assert_eq!((found[0].what, found[0].blocks), (What::Traced, true));
        assert!(found[0].place.contains(&format!("(pid {})", std::process::id())), "{}", found[0].place);
    }

    #[test]
    fn a_leader_that_ended_before_its_threads_blocks() {
        let zombie = Process { pid: 12, state: 'Z', threads: 1, inside: true, ..Process::default() };
        assert_eq!(unstoppable(12, std::slice::from_ref(&zombie)), []);
        let found = unstoppable(12, &[Process { threads: 3, ..zombie }]);
        assert_eq!((found[0].what, found[0].blocks), (What::LostLeader, true));
    }

    /// Judges while a thread of this process has a network of its own. Only root may have
    /// that, and only root runs the rest of these tests too.
    fn in_another_network(judge: impl FnOnce(u32)) {
        let (left, has_left) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            left.send(crate::sys::leave_network().is_ok().then_some(own)).unwrap();
            let _ = ends.recv();
        });
        if let Some(thread) = has_left.recv().unwrap() {
            judge(thread);
        }
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn processes_of_one_world_are_no_finding() {
        let child = sleeper();
        let pid = child.id();
        assert_eq!(elsewhere(pid, &family(pid, &[pid]), true), []);
        assert_eq!(out_of_time(pid, &family(pid, &[pid])), None);
    }

    #[test]
    fn a_thread_in_a_world_of_its_own_blocks() {
        in_another_network(|_| {
            let own = std::process::id();
            let found = stray_thread(&family(own, &[own])[0]).unwrap();
            assert_eq!((found.what, found.blocks), (What::NestedNamespace, true));
            assert!(found.place.starts_with("net, of thread "), "{}", found.place);
        });
    }

    #[test]
    fn who_has_more_than_is_granted_blocks() {
        let ours = Process { capabilities: 1, inside: true, state: 'S', ..Process::default() };
        let granted = ours.rights();
        assert_eq!(mightier(std::slice::from_ref(&ours), &granted), []);
        let found = mightier(&[Process { capabilities: 0b11, ..ours.clone() }], &granted);
        assert_eq!((found[0].what, found[0].place.as_str()), (What::Rights, "has CAP_DAC_OVERRIDE"));
        assert!(found[0].blocks);
        // It won't be in the image, or has no rights left.
        assert_eq!(mightier(&[Process { capabilities: 0b11, inside: false, ..ours.clone() }], &granted), []);
        assert_eq!(mightier(&[Process { capabilities: 0b11, state: 'Z', ..ours }], &granted), []);
    }

    #[test]
    fn a_first_process_that_has_left_the_hosts_namespaces_blocks() {
        let ours = Process { pid: std::process::id(), ..Process::default() };
        let all = [("uts", Some(true)), ("mount", Some(true)), ("pid", None), ("ipc", Some(false))];
        assert_eq!(astray(&ours, &all), []);
        in_another_network(|thread| {
            let its = Process { pid: thread, ..Process::default() };
            let found = astray(&its, &[("net", Some(true))]).pop().unwrap();
            assert_eq!((found.what, found.blocks), (What::OtherNamespace, true));
            assert_eq!(found.place, "net: its own instead of the host's");
        });
    }

    #[test]
    fn who_was_added_blocks_only_if_that_is_asked_for() {
        let added = [Process { pid: 30, state: 'S', ..Process::default() }];
        assert!(!execs(&added, false)[0].blocks);
        assert!(execs(&added, true)[0].blocks);
    }
}

//! The processes: as a tree, or one after the other in detail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::command::table::{Table, plain, size};
use crate::contents::{Contents, Credentials, Limit, Process, Seccomp};

/// Deeper ones stand no farther to the right.
const DEEPEST: usize = 24;
const WIDTH: usize = 13;

pub(super) fn tree(contents: &Contents) -> String {
    let mut table =
        Table::new(&["PID", "USER", "STATE", "THREADS", "FILES", "MEMORY", "COMMAND"], &[0, 1, 3, 4, 5]);
    for (process, branches) in branches(&contents.processes) {
        let user = process.credentials.as_ref().map(|credentials| credentials.effective_user.to_string());
        table.row([
            process.pid.to_string(),
            user.unwrap_or_default(),
            process.state.name().to_owned(),
            process.threads.len().to_string(),
            process.files.len().to_string(),
            process.memory.as_ref().map(|memory| size(memory.dumped)).unwrap_or_default(),
            format!("{branches}{}", process.command()),
        ]);
    }
    table.text()
}

/// Every process once, parents before children, with the lines that lead to it.
fn branches(processes: &[Process]) -> Vec<(&Process, String)> {
    let known: BTreeSet<u32> = processes.iter().map(|process| process.pid).collect();
    let mut children: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut begin = Vec::new();
    for (at, process) in processes.iter().enumerate() {
        match known.contains(&process.parent) && process.parent != process.pid {
            true => children.entry(process.parent).or_default().push(at),
            false => begin.push(at),
        }
    }
    let mut found = Vec::new();
    let mut waiting: Vec<(usize, String, String)> =
        begin.into_iter().rev().map(|at| (at, String::new(), String::new())).collect();
    while let Some((at, line, below)) = waiting.pop() {
        let process = &processes[at];
        found.push((process, line));
        // Removed: a damaged image may have the same number twice.
        let children = children.remove(&process.pid).unwrap_or_default();
        let deep = below.chars().count() >= 3 * DEEPEST;
        for (place, child) in children.iter().enumerate().rev() {
            let (corner, bar) =
                if place + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let further = if deep { below.clone() } else { format!("{below}{bar}") };
            waiting.push((*child, format!("{below}{corner}"), further));
        }
    }
    // Parents in a ring are below nobody.
    let shown: BTreeSet<u32> = found.iter().map(|(process, _)| process.pid).collect();
    let rest = processes.iter().filter(|process| !shown.contains(&process.pid));
    found.extend(rest.map(|process| (process, String::new())));
    found
}

pub(super) fn details(contents: &Contents) -> String {
    contents.processes.iter().map(detail).collect::<Vec<_>>().join("\n")
}

fn detail(process: &Process) -> String {
    let Process { pid, parent, process_group, session, name, .. } = process;
    let mut text = format!("{pid}  {}  {}\n", plain(name), process.state.name());
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            // Writing to a string can't fail.
            let _ = writeln!(text, "  {name:WIDTH$} {}", plain(&value));
        }
    };
    line("Parent", Some(format!("{parent}, process group {process_group}, session {session}")));
    line("Exit code", process.exit_code.map(|code| code.to_string()));
    line("Command", process.command_line.as_ref().map(|_| process.command()));
    line("Executable", process.executable.clone());
    line("Folder", process.working_directory.clone());
    line("Root", process.root.clone().filter(|root| root != "/"));
    line("Umask", process.umask.map(|mask| format!("{mask:04o}")));
    if let Some(credentials) = &process.credentials {
        line("User", Some(users(credentials)));
        line("Capabilities", Some(capabilities(credentials)));
        line("Confined by", Some(confinement(credentials)));
    }
    let names = process.threads.iter().map(|thread| match &thread.name {
        Some(name) if name != &process.name => format!("{} {name}", thread.tid),
        _ => thread.tid.to_string(),
    });
    line("Threads", (process.threads.len() > 1).then(|| names.collect::<Vec<_>>().join(", ")));
    let memory = process.memory.as_ref();
    line("Memory", memory.map(|memory| format!("{} of {} mapped", size(memory.dumped), size(memory.mapped))));
    let limits = process.limits.iter().filter(|(_, limit)| limit.soft.is_some());
    line("Limits", Some(limits.map(|(name, limit)| limited(name, limit)).collect::<Vec<_>>().join(", ")));
    for (at, variable) in process.environment.iter().flatten().enumerate() {
        let value = variable.value.as_deref().unwrap_or("…");
        line(if at == 0 { "Environment" } else { "" }, Some(format!("{}={value}", variable.name)));
    }
    text
}

fn users(its: &Credentials) -> String {
    let mut text = format!("{}:{}", its.user, its.group);
    if (its.effective_user, its.effective_group) != (its.user, its.group) {
        text.push_str(&format!(", effectively {}:{}", its.effective_user, its.effective_group));
    }
    let groups: Vec<_> = its.groups.iter().map(u32::to_string).collect();
    if !groups.is_empty() {
        text.push_str(&format!(", also in groups {}", groups.join(" ")));
    }
    text
}

fn capabilities(its: &Credentials) -> String {
    let names = &its.capabilities.effective;
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn confinement(its: &Credentials) -> String {
    let seccomp = match its.seccomp {
        Seccomp::Filter => Some("a seccomp filter".to_owned()),
        Seccomp::Strict => Some("strict seccomp".to_owned()),
        Seccomp::Disabled | Seccomp::Unknown => None,
    };
    let privileges = its.no_new_privileges.then(|| "no new privileges".to_owned());
    let parts = [seccomp, privileges, its.label.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn limited(name: &str, limit: &Limit) -> String {
    let soft = limit.soft.map(|soft| soft.to_string()).unwrap_or_default();
    match limit.hard {
        _ if limit.hard == limit.soft => format!("{name} {soft}"),
        Some(hard) => format!("{name} {soft} up to {hard}"),
        None => format!("{name} {soft} up to any"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::tests::process;

    fn drawn(processes: &[(u32, u32)]) -> Vec<(u32, String)> {
        let processes: Vec<_> = processes.iter().map(|(pid, parent)| process(*pid, *parent)).collect();
        branches(&processes).into_iter().map(|(process, line)| (process.pid, line)).collect()
    }

    #[test]
    fn children_stand_below_their_parents() {
        let drawn = drawn(&[(1, 0), (2, 1), (3, 1), (4, 2)]);
        let expected = [(1, ""), (2, "├─ "), (4, "│  └─ "), (3, "└─ ")];
        assert_eq!(drawn, expected.map(|(pid, line)| (pid, line.to_owned())));
    }

    #[test]
    fn damaged_parents_lose_nobody() {
        let pids = |processes| drawn(processes).into_iter().map(|(pid, _)| pid).collect::<Vec<_>>();
        assert_eq!(pids(&[(1, 0), (2, 3), (3, 2)]), [1, 2, 3], "a ring");
        assert_eq!(pids(&[(1, 1), (5, 9)]), [1, 5], "its own parent, and none");
        assert_eq!(pids(&[(1, 0), (2, 1), (2, 1)]), [1, 2, 2], "twice the same");
        let deep: Vec<_> = (1..2000).map(|pid| (pid, pid - 1)).collect();
        let deepest = drawn(&deep).into_iter().map(|(_, line)| line.chars().count()).max();
        assert_eq!(deepest, Some(3 * DEEPEST + 3));
    }
}

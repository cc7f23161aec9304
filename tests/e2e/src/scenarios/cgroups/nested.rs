//! Cgroups that a container has made inside its own.

use std::fs;

use super::{LIMITS, seeing};
use crate::harness::*;

pub(super) fn scenarios() -> Vec<Scenario> {
    let loses = "with the stock shim limits of version 2 are lost, or the restore fails";
    vec![
        scenario!(cgroups_that_a_container_made_come_back).cryo_only_if(|_, _| cgroup::is_v2(), loses),
        scenario!(a_first_process_in_a_cgroup_below_comes_back).cryo_only_if(|_, _| cgroup::is_v2(), loses),
        scenario!(a_failed_restore_leaves_no_cgroup_below).cryo_only("the stock shim has no hooks"),
        scenario!(a_frozen_cgroup_inside_is_refused_by_name).cryo_only("the stock shim waits for CRIU"),
    ]
}

/// With version 2 no process may be left beside cgroups with limits.
const NEST: &str = r#"cd /sys/fs/cgroup
leaf=$(ps -o pid,args | awk '/guest leaf/ && !/awk/ { print $1; exit }')
if [ -e cgroup.controllers ]; then
    mkdir main inner inner/deep inner/empty
    # One of them is cat, which is gone by now.
    for pid in $(cat cgroup.procs); do echo "$pid" >main/cgroup.procs || true; done 2>/dev/null
    echo "+memory +pids" >cgroup.subtree_control
    echo "+pids" >inner/cgroup.subtree_control
    echo 50331648 >inner/memory.max; echo 33 >inner/pids.max; echo 11 >inner/deep/pids.max
    echo "$leaf" >inner/deep/cgroup.procs
else
    for controller in memory pids freezer; do mkdir -p $controller/inner/deep $controller/inner/empty; done
    echo 50331648 >memory/inner/memory.limit_in_bytes
    echo 33 >pids/inner/pids.max; echo 11 >pids/inner/deep/pids.max
    for controller in memory pids freezer; do echo "$leaf" >$controller/inner/deep/cgroup.procs; done
fi"#;

/// What there is below the container's cgroup: limits, and which programs.
fn picture(task: &Task<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for root in ["memory", "pids", "freezer"] {
        let top = cgroup::folder(root, task.cgroup());
        for folder in cgroup::tree(&top) {
            let name = folder.strip_prefix(&top).unwrap_or(&folder).display();
            let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
            let limits = LIMITS.iter().filter_map(|(_, file)| Some(format!("{file} {}", read(file)?.trim())));
            let control = read("cgroup.subtree_control").unwrap_or_default();
            let mut programs: Vec<String> =
                read("cgroup.procs").unwrap_or_default().lines().map(program).collect();
            programs.sort();
            lines.push(format!("{root} {name}: {:?} {control:?} {programs:?}", limits.collect::<Vec<_>>()));
        }
    }
    lines
}

fn program(pid: &str) -> String {
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.replace('\0', " ")
}

fn nested(bench: &Bench) -> Outcome<Task<'_>> {
    let task =
        seeing(bench.guest(&["tree", "2"]), "rw", true).memory_limit(128 << 20).pids_limit(60).start()?;
    task.stdout().wait_for_line("ready")?;
    task.output_of(&["/bin/sh", "-ec", NEST])?;
    Ok(task)
}

/// From inside.
fn view(task: &Task<'_>) -> Outcome<String> {
    let look = "for pid in /proc/[0-9]*; do
            [ \"$(readlink $pid/exe)\" != /bin/guest ] || grep -E '^0:|:(pids|memory):' $pid/cgroup
        done | sort; find /sys/fs/cgroup -type d -name 'inner' | sort";
    task.output_of(&["/bin/sh", "-c", look])
}

fn comes_back_as_it_was(task: &Task<'_>) -> Outcome {
    let (before, seen) = (picture(task), view(task)?);
    ensure!(
        before.iter().any(|line| line.contains("inner/deep") && line.contains("guest leaf")),
        "{before:#?}"
    );
    let image = task.copy_image()?;
    ensure_eq!(picture(task), before, "after the checkpoint");
    let other = task.clone_from(&image).start()?;
    ensure_eq!(picture(&other), before, "cgroups of the copy");
    ensure_eq!(view(&other)?, seen, "cgroups as the copy sees them");
    other.asks(1, "alive 2")?;
    let last = other.end_as_image()?;
    let again = other.again_from(&last).start()?;
    ensure_eq!(picture(&again), before, "cgroups in the next generation");
    again.end()?;
    task.asks(1, "alive 2")?;
    task.end()
}

fn cgroups_that_a_container_made_come_back(bench: &Bench) -> Outcome {
    let task = nested(bench)?;
    comes_back_as_it_was(&task)
}

fn a_first_process_in_a_cgroup_below_comes_back(bench: &Bench) -> Outcome {
    let task = nested(bench)?;
    let script = "cd /sys/fs/cgroup; mkdir -p inner/first pids/inner/first 2>/dev/null || true
        for folder in inner/first pids/inner/first; do
            [ ! -e $folder/cgroup.procs ] || echo 1 >$folder/cgroup.procs
        done";
    task.output_of(&["/bin/sh", "-c", script])?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", task.pid()?))?;
    ensure!(text.contains("/inner/first"), "the first process is in {text}");
    comes_back_as_it_was(&task)
}

fn a_failed_restore_leaves_no_cgroup_below(bench: &Bench) -> Outcome {
    let node = "[hooks.fails]\npath = \"/bin/false\"\nstages = [\"pre-resume\"]\n";
    bench.set_node_file(node)?;
    let task = nested(bench)?;
    let image = task.end_as_image()?;
    let plan = task.again_from(&image).annotation("cryo.hooks", "fails");
    let again = plan.create()?;
    refused(again.start(), &[])?;
    again.delete()?;
    for root in cgroup::roots() {
        let left =
            cgroup::tree(&root).into_iter().filter(|folder| folder.to_string_lossy().contains(&task.id));
        ensure_eq!(left.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new(), "cgroups left over");
    }
    let third = task.again_from(&image).start()?;
    third.asks(1, "alive 2")?;
    third.end()
}

/// In hierarchies where it is made.
fn set_frozen(task: &Task<'_>, frozen: bool) -> Outcome {
    let (file, word) = match (cgroup::is_v2(), frozen) {
        (true, true) => ("cgroup.freeze", "1"),
        (true, false) => ("cgroup.freeze", "0"),
        (false, true) => ("freezer.state", "FROZEN"),
        (false, false) => ("freezer.state", "THAWED"),
    };
    Ok(fs::write(cgroup::folder("freezer", task.cgroup()).join("inner").join(file), word)?)
}

fn a_frozen_cgroup_inside_is_refused_by_name(bench: &Bench) -> Outcome {
    let task = nested(bench)?;
    set_frozen(&task, true)?;
    let image = bench.fresh_folder("image")?;
    let checkpoint = Checkpoint::into_folder(&image).work_folder(&bench.fresh_folder("criu")?).exit();
    let text = refused(task.checkpoint(&checkpoint), &[Code::FailedPrecondition])?;
    for word in ["guest", "is frozen", "/inner", "thaw its cgroup"] {
        ensure!(text.contains(word), "{word:?} is not in {text}");
    }
    ensure_eq!(task.status()?, Status::Running, "after the refusal");
    set_frozen(&task, false)?;
    task.asks(1, "alive 2")?;
    task.checkpoint(&checkpoint)?;
    task.wait()?;
    task.delete()?;
    let again = task.again_from(&image).start()?;
    again.asks(1, "alive 2")?;
    // It can be ended all the same.
    set_frozen(&again, true)?;
    again.end()
}

//! What is mounted in a container is mounted there again: what injectors and hooks added,
//! what came and went on the host meanwhile, and what is kept in memory.

mod injected;
mod propagation;
mod roots;
mod shm;
mod sources;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let own = vec![
        scenario!(a_tree_in_memory_comes_back_as_it_was),
        scenario!(what_hides_the_kernels_files_can_not_be_written_after_a_restore).cryo_only(WRITABLE),
    ];
    let all = [
        own,
        injected::scenarios(),
        propagation::scenarios(),
        roots::scenarios(),
        shm::scenarios(),
        sources::scenarios(),
    ];
    all.into_iter().flatten().map(|scenario| scenario.fifo_only().restores()).collect()
}

const WRITABLE: &str = "the stock shim lets the container change the node's own /dev/null";

/// What is mounted where, with what limits and what propagation; sorted.
fn table(task: &Task<'_>) -> Outcome<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{}/mountinfo", task.pid()?))?;
    let mut lines: Vec<String> = text.lines().filter_map(described).collect();
    lines.sort();
    Ok(lines)
}

/// The same as another, or it itself before.
#[track_caller]
fn has_mounts(task: &Task<'_>, wanted: &[String], what: &str) -> Outcome {
    ensure_eq!(table(task)?.join("\n"), wanted.join("\n"), "{what}");
    Ok(())
}

fn described(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let fields: Vec<&str> = before.split(' ').collect();
    let (point, kind) = (fields[4], after.split(' ').next()?);
    // Hidden by whatever a runtime has at hand.
    if is_hidden(point) {
        return None;
    }
    let propagation = fields[6..].iter().map(|field| field.split(':').next().unwrap_or_default());
    let propagation = propagation.collect::<Vec<_>>().join(" ");
    Some(format!("{point} {kind} {} {propagation}", fields[5]))
}

fn is_hidden(point: &str) -> bool {
    ["/proc/acpi", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"].contains(&point)
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    let options = [&["rbind"], options].concat();
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

fn with(blueprint: Blueprint<'_>, mounts: Vec<Value>) -> Blueprint<'_> {
    blueprint.change(|spec| {
        for mount in mounts {
            if let Some(all) = spec["mounts"].as_array_mut() {
                all.retain(|other| other["destination"] != mount["destination"]);
                all.push(mount);
            }
        }
    })
}

pub(super) fn shell(task: &Task<'_>, script: &str) -> Outcome<String> {
    task.output_of(&["/bin/sh", "-ec", script])
}

fn a_tree_in_memory_comes_back_as_it_was(bench: &Bench) -> Outcome {
    let mount = json!({
        "destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "nodev", "size=32m", "mode=1770"],
    });
    let task = with(bench.guest(&["count"]), vec![mount]).start()?;
    let fill = "for top in /scratch /dev/shm; do
            mkdir -p $top/one/two/three; chmod 2750 $top/one/two; chown 7:8 $top/one/two
            echo text >$top/one/two/three/file; chmod 640 $top/one/two/three/file; chown 12:34 $top/one/two/three/file
            ln -s two/three/file $top/one/link; ln -s /gone $top/dangling; ln $top/one/two/three/file $top/hard
            mkfifo -m 622 $top/fifo; : >$top/empty; touch -d '2001-02-03 04:05:06' $top/old
            dd if=/dev/urandom of=$top/big bs=1M count=20 2>/dev/null
        done";
    shell(&task, fill)?;
    let tree = |task: &Task<'_>| {
        let look = "for top in /scratch /dev/shm; do
                df -k $top | tail -n 1; cd $top
                find . | sort | while read -r name; do stat -c '%n %F %s %a %u:%g %h %Y' $name; done
                find . -type l | sort | while read -r name; do readlink $name; done
                find . -type f | sort | while read -r name; do md5sum $name; done
            done";
        // A folder's time changes with what is put into it again.
        shell(task, look)
    };
    let before = tree(&task)?;
    ensure!(before.contains("./big regular file 20971520 644 0:0 1 "), "{before}");
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    ensure_eq!(tree(&again)?, before, "what lies in memory");
    again.end()
}

fn what_hides_the_kernels_files_can_not_be_written_after_a_restore(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let again = task.clone_from(&image).start()?;
    let text = fs::read_to_string(format!("/proc/{}/mountinfo", again.pid()?))?;
    let hidden = text.lines().filter(|line| line.split(' ').nth(4).is_some_and(is_hidden));
    let writable: Vec<&str> = hidden
        .clone()
        .filter(|line| line.split(' ').nth(5).is_some_and(|options| options.starts_with("rw")))
        .collect();
    ensure!(hidden.count() >= 3 && writable.is_empty(), "may be written: {writable:?} of {text}");
    let said = shell(&again, "(chmod 600 /proc/keys; mkdir /sys/firmware/mine) 2>&1 || true")?;
    ensure_eq!(said.matches("Read-only file system").count(), 2, "changing what hides says {said}");
    ensure_eq!(shell(&again, "cat /proc/keys; ls /sys/firmware; echo x >/proc/keys")?, "", "what is seen");
    again.end()
}

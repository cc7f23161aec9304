//! Memory that a client mounts for a container, or for several that share it.

use std::path::{Path, PathBuf};

use super::{bind, shell, with};
use crate::harness::*;

pub(super) fn scenarios() -> Vec<Scenario> {
    let empty = "with the stock shim it is empty";
    let all = vec![
        scenario!(memory_that_a_client_mounts_is_carried_along),
        scenario!(memory_of_others_stays_as_it_is),
        scenario!(memory_stays_behind_if_that_is_asked_for),
        scenario!(memory_that_has_no_room_is_named),
    ];
    all.into_iter().map(|scenario| scenario.cryo_only(empty)).collect()
}

/// As clients make it for a pod.
fn memory(bench: &Bench, size: &str) -> Outcome<PathBuf> {
    let folder = bench.fresh_folder("shm")?;
    bench.shell("mount -t tmpfs -o mode=1777,size=$2 shm $1", &[&folder, Path::new(size)])?;
    Ok(folder)
}

fn unmount(bench: &Bench, folders: &[&Path]) -> Outcome {
    for folder in folders {
        bench.shell("umount $1", &[folder])?;
    }
    Ok(())
}

fn holding<'b>(bench: &'b Bench, memory: &Path) -> Outcome<Task<'b>> {
    let fill = "cd /dev/shm; mkdir deep; echo text >deep/file; ln deep/file second; chmod 640 second
        chown 12:34 deep/file; truncate -s 1M deep/sparse; mkfifo pipe; exec 7<deep/file; exec /bin/guest count";
    let plan = bench.guest(&[]).program(&["/bin/sh", "-ec", fill]);
    let task = with(plan, vec![bind(memory, "/dev/shm", &["rw"])]).start()?;
    task.stdout().wait_for_counting(3)?;
    Ok(task)
}

const LOOK: &str =
    "cd /dev/shm; find . | sort; stat -c '%n %i %a %u:%g %s %h' second deep/file deep/sparse pipe |
    sed 's/ [0-9]* / /'; cat second; [ second -ef deep/file ]";

fn memory_that_a_client_mounts_is_carried_along(bench: &Bench) -> Outcome {
    let (old, new) = (memory(bench, "8M")?, memory(bench, "8M")?);
    let task = holding(bench, &old)?;
    let before = shell(&task, LOOK)?;
    let image = task.end_as_image()?;
    let again = with(task.again_from(&image), vec![bind(&new, "/dev/shm", &["rw"])]).start()?;
    again.stdout().wait_for_counting(3)?;
    ensure_eq!(shell(&again, LOOK)?, before, "what is in it");
    again.end()?;
    unmount(bench, &[&old, &new])
}

/// Another container of the pod may have come back before, and be using it.
fn memory_of_others_stays_as_it_is(bench: &Bench) -> Outcome {
    let (old, new) = (memory(bench, "8M")?, memory(bench, "8M")?);
    let task = holding(bench, &old)?;
    let image = task.end_as_image()?;
    bench.shell("cd $1; mkdir deep; echo else >deep/sparse; echo theirs >theirs", &[&new])?;
    let again = with(task.again_from(&image), vec![bind(&new, "/dev/shm", &["rw"])]).start()?;
    ensure_eq!(shell(&again, "cd /dev/shm; cat deep/sparse theirs second")?, "else\ntheirs\ntext\n", "files");
    again.end()?;
    unmount(bench, &[&old, &new])
}

fn memory_stays_behind_if_that_is_asked_for(bench: &Bench) -> Outcome {
    let (old, new) = (memory(bench, "8M")?, memory(bench, "8M")?);
    let plan = with(bench.guest(&["count"]), vec![bind(&old, "/dev/shm", &["rw"])]);
    let task = plan.annotation("cryo.shm", "leave").start()?;
    shell(&task, "echo text >/dev/shm/file")?;
    let image = task.end_as_image()?;
    let again = with(task.again_from(&image), vec![bind(&new, "/dev/shm", &["rw"])]).start()?;
    ensure_eq!(shell(&again, "ls /dev/shm")?, "", "what is in it");
    again.end()?;
    unmount(bench, &[&old, &new])
}

fn memory_that_has_no_room_is_named(bench: &Bench) -> Outcome {
    let (old, new) = (memory(bench, "8M")?, memory(bench, "64k")?);
    let plan = with(bench.guest(&["count"]), vec![bind(&old, "/dev/shm", &["rw"])]);
    let task = plan.start()?;
    shell(&task, "dd if=/dev/urandom of=/dev/shm/file bs=1M count=1 2>&1")?;
    let image = task.end_as_image()?;
    let again = with(task.again_from(&image), vec![bind(&new, "/dev/shm", &["rw"])]).create()?;
    let Err(status) = again.start() else { return Err(Failure::new("it came back")) };
    let said = status.message();
    ensure!(said.contains("/dev/shm: No space left") && said.contains("cryo.shm=leave"), "{said}");
    again.delete()?;
    ensure_eq!(bench.shell("ls $1", &[&new])?, "", "what is left");
    // With room it comes back.
    bench.shell("mount -o remount,size=8M $1", &[&new])?;
    let again = with(task.again_from(&image), vec![bind(&new, "/dev/shm", &["rw"])]).start()?;
    again.end()?;
    unmount(bench, &[&old, &new])
}

//! Memory that a client mounts for a container, or for several that share it.

use std::path::{Path, PathBuf};

use super::{bind, shell, with};
use crate::harness::*;

pub(super) fn scenarios() -> Vec<Scenario> {
    let empty = "with the stock shim it is empty";
    let all = vec![
        scenario!(memory_that_a_client_mounts_is_carried_along),
        scenario!(memory_of_others_stays_as_it_is),
        scenario!(memory_of_a_failed_restore_goes_again),
        scenario!(what_is_mounted_below_memory_is_not_its_content),
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

fn memory_of_a_failed_restore_goes_again(bench: &Bench) -> Outcome {
    let (old, new) = (memory(bench, "8M")?, memory(bench, "8M")?);
    let task = holding(bench, &old)?;
    let image = task.end_as_image()?;
    // CRIU finds that only after it was put back.
    bench.shell("mkdir $1/deep; echo other >$1/deep/file", &[&new])?;
    let again = with(task.again_from(&image), vec![bind(&new, "/dev/shm", &["rw"])]).create()?;
    refused(again.start(), &[])?;
    again.delete()?;
    ensure_eq!(bench.shell("cd $1; find . | sort", &[&new])?, ".\n./deep\n./deep/file\n", "what is left");
    unmount(bench, &[&old, &new])
}

/// As with a volume in memory and configuration mounted in it.
fn what_is_mounted_below_memory_is_not_its_content(bench: &Bench) -> Outcome {
    let (old, new) = (memory(bench, "8M")?, memory(bench, "8M")?);
    let below = bench.fresh_folder("below")?;
    bench.shell("echo text >$1/file; mkdir $2/conf $3/conf", &[&below, &old, &new])?;
    let mounts = |memory| vec![bind(memory, "/dev/shm", &["rw"]), bind(&below, "/dev/shm/conf", &["rw"])];
    let task = with(bench.guest(&["count"]), mounts(&old)).start()?;
    shell(&task, "echo kept >/dev/shm/file")?;
    let image = task.end_as_image()?;
    let again = with(task.again_from(&image), mounts(&new)).start()?;
    ensure_eq!(shell(&again, "cat /dev/shm/file /dev/shm/conf/file")?, "kept\ntext\n", "files");
    again.end()?;
    ensure_eq!(bench.shell("ls $1/conf", &[&new])?, "", "what is below the mount");
    unmount(bench, &[&old, &new])
}

fn memory_stays_behind_if_that_is_asked_for(bench: &Bench) -> Outcome {
    let (old, new) = (memory(bench, "8M")?, memory(bench, "8M")?);
    for (dumps, restores) in [("leave", "keep"), ("keep", "leave")] {
        let plan = with(bench.guest(&["count"]), vec![bind(&old, "/dev/shm", &["rw"])]);
        let task = plan.annotation("cryo.shm", dumps).start()?;
        shell(&task, "echo text >/dev/shm/file")?;
        let image = task.end_as_image()?;
        let plan = with(task.again_from(&image), vec![bind(&new, "/dev/shm", &["rw"])]);
        let again = plan.annotation("cryo.shm", restores).start()?;
        ensure_eq!(shell(&again, "ls /dev/shm")?, "", "what is in it");
        again.end()?;
    }
    unmount(bench, &[&old, &new])
}

fn memory_that_has_no_room_is_named(bench: &Bench) -> Outcome {
    let (old, new) = (memory(bench, "8M")?, memory(bench, "64k")?);
    let plan = with(bench.guest(&["count"]), vec![bind(&old, "/dev/shm", &["rw"])]);
    let task = plan.start()?;
    let sum =
        shell(&task, "dd if=/dev/urandom of=/dev/shm/file bs=1M count=1 2>/dev/null; md5sum /dev/shm/file")?;
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
    ensure_eq!(shell(&again, "md5sum /dev/shm/file")?, sum, "what is in it");
    again.end()?;
    unmount(bench, &[&old, &new])
}

//! Root file systems that aren't folders of the host.

use std::path::{Path, PathBuf};

use super::shell;
use crate::harness::slot::BASE;
use crate::harness::*;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_root_in_a_file_is_mounted_by_a_loop_device),
        scenario!(a_root_in_a_file_that_is_none_is_refused),
        scenario!(a_root_may_be_a_program_of_users).impossible_if(
            |_, _| !Path::new("/usr/bin/fuse-overlayfs").exists(),
            "there is no fuse-overlayfs",
        ),
    ]
}

/// As the blockfile snapshotter has them.
fn disk(bench: &Bench) -> Outcome<PathBuf> {
    let folder = bench.fresh_folder("disk")?;
    let make = "cd $1; truncate -s 64M disk; busybox mke2fs -F disk >/dev/null; mkdir m; mount -o loop disk m
        tar -xf $2 -C m; umount m";
    bench.shell(make, &[&folder, &Path::new(BASE).join("root.tar")])?;
    Ok(folder.join("disk"))
}

/// The devices that are in use for a file.
fn devices_for(bench: &Bench, file: &Path) -> Outcome<usize> {
    Ok(bench.shell("losetup --noheadings -j $1", &[file])?.lines().count())
}

fn a_root_in_a_file_is_mounted_by_a_loop_device(bench: &Bench) -> Outcome {
    let disk = disk(bench)?;
    let task = bench.guest(&["heap", "8"]).root("ext4", &disk, &["loop", "noatime"]).start()?;
    task.stdout().wait_for_line("ready")?;
    ensure_eq!(devices_for(bench, &disk)?, 1, "loop devices");
    shell(&task, "echo text >/file")?;
    let image = task.end_as_image()?;
    eventually("the device is free", || (devices_for(bench, &disk).ok()? == 0).then_some(()))?;
    let again = task.again_from(&image).start()?;
    again.asks(1, "same")?;
    ensure_eq!(
        shell(&again, "cat /file; grep -c ' / ext4 .*noatime' /proc/mounts")?,
        "text\n1\n",
        "its root"
    );
    again.end()?;
    eventually("the device is free", || (devices_for(bench, &disk).ok()? == 0).then_some(()))
}

fn a_root_in_a_file_that_is_none_is_refused(bench: &Bench) -> Outcome {
    let file = bench.fresh_folder("disk")?.join("disk");
    std::fs::write(&file, [7; 4096])?;
    let (task, answer) = bench.guest(&["count"]).root("ext4", &file, &["loop"]).try_create()?;
    let said = refused(answer, &[])?;
    ensure!(said.contains(&file.display().to_string()) || said.contains("ext4"), "{said}");
    ensure_eq!(devices_for(bench, &file)?, 0, "loop devices");
    drop(task);
    Ok(())
}

/// As the fuse-overlayfs snapshotter has them.
fn a_root_may_be_a_program_of_users(bench: &Bench) -> Outcome {
    let folder = bench.fresh_folder("fuse")?;
    bench.shell("cd $1; mkdir l u w; tar -xf $2 -C l", &[&folder, &Path::new(BASE).join("root.tar")])?;
    let place = |name: &str| format!("{name}dir={}", folder.join(&name[..1]).display());
    let options = [place("lower"), place("upper"), place("work")];
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let plan = bench.guest(&["heap", "8"]).root("fuse3.fuse-overlayfs", Path::new("overlay"), &options);
    let task = plan.start()?;
    task.stdout().wait_for_line("ready")?;
    shell(&task, "echo text >/file")?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    again.asks(1, "same")?;
    ensure_eq!(
        shell(&again, "cat /file; grep -c ' / fuse.fuse-overlayfs' /proc/mounts")?,
        "text\n1\n",
        "its root"
    );
    again.end()
}

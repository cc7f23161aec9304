//! What is mounted on one side after a restore appears on the other, or doesn't.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{bind, has_mounts, shell, table, with};
use crate::harness::*;

const UNNAMED: &str = "the stock shim's error isn't meant for users";
const UNLISTED: &str = "the stock shim refuses such a mount or makes a copy of what is in it";
const UNMOUNTS: &str = "with the stock shim runc unmounts what the host has mounted";
const PEERLESS: &str = "with the stock shim they are no peers any more";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(what_was_mounted_on_the_host_meanwhile_is_not_taken_for_the_containers).cryo_only(UNLISTED),
        scenario!(a_restore_leaves_the_hosts_mounts_as_they_are).cryo_only(UNMOUNTS),
        scenario!(what_the_host_mounts_below_a_slave_appears_after_a_restore),
        scenario!(a_slave_whose_source_tells_nothing_any_more_is_named).cryo_only(UNNAMED),
        scenario!(what_the_host_mounts_below_a_private_mount_never_appears),
        scenario!(a_shared_mount_shows_both_sides_what_is_mounted_below_it).cryo_only(PEERLESS),
    ]
}

/// A mount of the host's that shows others what is mounted below it.
fn shared_source(bench: &Bench) -> Outcome<PathBuf> {
    let source = bench.fresh_folder("shared")?;
    bench.shell("mount -t tmpfs host $1; mount --make-shared $1; mkdir $1/early $1/late", &[&source])?;
    Ok(source)
}

fn unmount(bench: &Bench, source: &Path) -> Outcome {
    bench.shell("umount -R $1", &[source])?;
    Ok(())
}

fn mount_below(bench: &Bench, source: &Path, name: &str) -> Outcome {
    let script = "mount -t tmpfs below $1; echo seen >$1/file";
    bench.shell(script, &[&source.join(name)])?;
    Ok(())
}

fn sees(task: &Task<'_>, name: &str) -> Outcome<bool> {
    Ok(shell(task, &format!("cat /data/{name}/file 2>/dev/null || true"))? == "seen\n")
}

/// As Docker writes it.
fn propagating<'b>(bench: &'b Bench, source: &Path, how: &str) -> Blueprint<'b> {
    let root = how.strip_prefix('r').unwrap_or(how).to_owned();
    with(bench.guest(&["count"]), vec![bind(source, "/data", &[how])])
        .change(|spec| spec["linux"]["rootfsPropagation"] = json!(root))
}

fn what_was_mounted_on_the_host_meanwhile_is_not_taken_for_the_containers(bench: &Bench) -> Outcome {
    let source = shared_source(bench)?;
    let task = propagating(bench, &source, "rslave").start()?;
    mount_below(bench, &source, "early")?;
    ensure!(sees(&task, "early")?, "the slave doesn't see it");
    let before = table(&task)?;
    let image = task.copy_image()?;
    bench.shell("echo changed >$1/early/file", &[&source])?;
    let copy = task.clone_from(&image).start()?;
    has_mounts(&copy, &before, "what is mounted")?;
    ensure_eq!(shell(&copy, "cat /data/early/file")?, "changed\n", "the host's file");
    copy.end()?;
    task.end()?;
    unmount(bench, &source)
}

fn a_restore_leaves_the_hosts_mounts_as_they_are(bench: &Bench) -> Outcome {
    let source = shared_source(bench)?;
    mount_below(bench, &source, "early")?;
    let host = || bench.shell("cut -d ' ' -f 4- /proc/self/mountinfo | grep \"$1\"", &[&source]);
    for how in ["rprivate", "rslave", "rshared"] {
        let task = propagating(bench, &source, how).start()?;
        let before = host()?;
        let image = task.end_as_image()?;
        let again = task.again_from(&image).start()?;
        ensure_eq!(host()?, before, "what the host has mounted, beside {how}");
        ensure!(sees(&again, "early")?, "with {how} it has gone");
        again.end()?;
        ensure_eq!(host()?, before, "what the host has mounted after {how}");
    }
    unmount(bench, &source)
}

fn what_the_host_mounts_below_a_slave_appears_after_a_restore(bench: &Bench) -> Outcome {
    let source = shared_source(bench)?;
    let task = propagating(bench, &source, "rslave").start()?;
    let before = table(&task)?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    has_mounts(&again, &before, "what is mounted")?;
    mount_below(bench, &source, "late")?;
    ensure!(sees(&again, "late")?, "it doesn't appear");
    again.end()?;
    unmount(bench, &source)
}

fn a_slave_whose_source_tells_nothing_any_more_is_named(bench: &Bench) -> Outcome {
    let (source, private) = (shared_source(bench)?, bench.fresh_folder("private")?);
    let task = propagating(bench, &source, "rslave").start()?;
    let image = task.end_as_image()?;
    let (again, answer) = propagating_again(&task, &image, &private).try_create()?;
    answer?;
    let text = refused(again.start(), &[])?;
    ensure!(text.contains("propagation") && text.contains("rprivate"), "it says {text}");
    again.delete()?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(3)?;
    again.end()?;
    unmount(bench, &source)
}

fn propagating_again<'b>(task: &Task<'b>, image: &Path, source: &Path) -> Blueprint<'b> {
    with(task.again_from(image), vec![bind(source, "/data", &["rslave"])])
}

fn what_the_host_mounts_below_a_private_mount_never_appears(bench: &Bench) -> Outcome {
    let source = shared_source(bench)?;
    let task = propagating(bench, &source, "rprivate").start()?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    mount_below(bench, &source, "late")?;
    ensure!(!sees(&again, "late")?, "it appears");
    again.end()?;
    unmount(bench, &source)
}

fn a_shared_mount_shows_both_sides_what_is_mounted_below_it(bench: &Bench) -> Outcome {
    let source = shared_source(bench)?;
    let task = propagating(bench, &source, "rshared").start()?;
    mount_below(bench, &source, "early")?;
    ensure!(sees(&task, "early")?, "it doesn't appear before");
    bench.shell("umount $1/early", &[&source])?;
    let before = table(&task)?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    has_mounts(&again, &before, "what is mounted")?;
    mount_below(bench, &source, "late")?;
    ensure!(sees(&again, "late")?, "what the host mounts doesn't appear");
    let pid = again.pid()?.to_string();
    bench.shell("nsenter -t $1 -m mount -t tmpfs inside /data/early", &[Path::new(&pid)])?;
    bench.shell("grep -q \" $1/early \" /proc/self/mountinfo", &[&source])?;
    again.end()?;
    unmount(bench, &source)
}

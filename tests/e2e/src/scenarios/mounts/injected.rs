//! Mounts that no client asked for: injectors add them to a specification, hooks mount
//! them, and they lie below what is bound.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{bind, has_mounts, shell, table, with};
use crate::harness::*;

const LIMITS: &str = "with the stock shim some mounts forget that they may only be read";
const UNLISTED: &str = "the stock shim refuses such a mount or makes a copy of what is in it";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(what_an_injector_added_is_mounted_again).cryo_only(LIMITS),
        scenario!(what_an_injector_added_is_mounted_in_a_copy).cryo_only(LIMITS),
        scenario!(what_a_hook_mounted_is_mounted_again).cryo_only(UNLISTED),
        scenario!(what_is_mounted_below_a_source_is_the_hosts_after_a_restore).cryo_only(UNLISTED),
    ]
}

/// As a driver's CDI file does: libraries, a tool, a socket's folder, a device.
fn injected<'b>(bench: &'b Bench, driver: &Path) -> Outcome<Blueprint<'b>> {
    let script = "cd $1; mkdir -p lib/firmware lib/cache run data/logs data/sealed
        for file in lib/one.so lib/two.so tool vendor.conf data/sealed/key; do echo $file >$file; done
        touch lib/over.so; chmod 755 tool";
    bench.shell(script, &[driver])?;
    let at = |name: &str| driver.join(name);
    let mounts = vec![
        bind(&at("lib"), "/usr/lib/vendor", &["ro", "nosuid", "nodev"]),
        bind(&at("lib/one.so"), "/usr/lib/vendor/over.so", &["ro"]),
        bind(&at("lib/cache"), "/usr/lib/vendor/cache", &["rw"]),
        bind(&at("lib/two.so"), "/lib64/two.so.1", &["ro", "nosuid", "nodev"]),
        bind(&at("tool"), "/bin/vendor-tool", &["ro", "nosuid", "nodev"]),
        bind(&at("vendor.conf"), "/etc/vendor/vendor.conf", &["ro", "noexec"]),
        bind(&at("run"), "/run/vendor", &["rw", "noexec"]),
        bind(&at("data"), "/data", &["rw", "rprivate"]),
        bind(&at("data/sealed"), "/data/sealed", &["ro"]),
        bind(&at("vendor.conf"), "/data/logs", &["ro"]),
    ];
    fs::remove_dir(at("data/logs"))?;
    fs::write(at("data/logs"), "covered\n")?;
    let device = json!({ "path": "/dev/vendor0", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666 });
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw" });
    Ok(with(bench.guest(&["count"]), mounts).change(|spec| {
        spec["linux"]["devices"] = json!([device]);
        if let Some(rules) = spec["linux"]["resources"]["devices"].as_array_mut() {
            rules.push(rule);
        }
    }))
}

fn injected_things_work(task: &Task<'_>) -> Outcome {
    let read = shell(
        task,
        "cd /usr/lib/vendor; cat one.so over.so /lib64/two.so.1 /bin/vendor-tool /data/sealed/key /data/logs
         test -c /dev/vendor0; head -c 3 /dev/vendor0 | wc -c
         echo x >cache/new; echo x >/run/vendor/new; echo x >/data/new; rm cache/new /run/vendor/new /data/new",
    )?;
    let wanted = "lib/one.so\nlib/one.so\nlib/two.so\ntool\ndata/sealed/key\nvendor.conf\n3\n";
    ensure_eq!(read, wanted, "what is read");
    for file in [
        "/usr/lib/vendor/new",
        "/usr/lib/vendor/over.so",
        "/bin/vendor-tool",
        "/data/sealed/key",
        "/data/logs",
    ] {
        let said = shell(task, &format!("(echo x >>{file}) 2>&1 || true"))?;
        ensure!(said.contains("Read-only file system"), "writing {file}: {said}");
    }
    Ok(())
}

fn what_an_injector_added_is_mounted_again(bench: &Bench) -> Outcome {
    let task = injected(bench, &bench.fresh_folder("driver")?)?.start()?;
    injected_things_work(&task)?;
    let before = table(&task)?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    has_mounts(&again, &before, "what is mounted")?;
    injected_things_work(&again)?;
    again.end()
}

fn what_an_injector_added_is_mounted_in_a_copy(bench: &Bench) -> Outcome {
    let task = injected(bench, &bench.fresh_folder("driver")?)?.start()?;
    let before = table(&task)?;
    let image = task.copy_image()?;
    let copy = task.clone_from(&image).start()?;
    has_mounts(&copy, &before, "what is mounted")?;
    injected_things_work(&copy)?;
    injected_things_work(&task)?;
    copy.end()?;
    task.end()
}

/// Mounts into the container's mount namespace what no specification tells of.
fn mounting_hook(bench: &Bench, driver: &Path) -> Outcome<PathBuf> {
    let hook = bench.fresh_folder("hook")?.join("hook");
    let script = format!(
        r#"#!/usr/bin/python3
import json, subprocess, sys
state = json.load(sys.stdin)
script = """
    mkdir -p $0/opt/vendor
    touch $0/etc/vendor.conf
    mount --bind $1/lib $0/opt/vendor
    mount -o remount,bind,ro $0/opt/vendor
    mount --bind $1/vendor.conf $0/etc/vendor.conf
"""
enter = ["nsenter", "--target", str(state["pid"]), "--mount", "sh", "-ec", script]
subprocess.run(enter + [state["bundle"] + "/rootfs", "{}"], check=True)
"#,
        driver.display()
    );
    fs::write(&hook, script)?;
    bench.shell(
        "chmod 755 $1; mkdir $2/lib; echo library >$2/lib/one.so; echo configured >$2/vendor.conf",
        &[&hook, driver],
    )?;
    Ok(hook)
}

fn what_a_hook_mounted_is_mounted_again(bench: &Bench) -> Outcome {
    let driver = bench.fresh_folder("driver")?;
    let hook = mounting_hook(bench, &driver)?;
    let blueprint = bench.guest(&["count"]).change(|spec| {
        spec["hooks"] =
            json!({ "prestart": [{ "path": hook, "env": ["PATH=/usr/bin:/bin:/usr/sbin:/sbin"] }] })
    });
    let task = blueprint.start()?;
    let works = |task: &Task<'_>| -> Outcome {
        ensure_eq!(
            shell(task, "cat /opt/vendor/one.so /etc/vendor.conf")?,
            "library\nconfigured\n",
            "the files"
        );
        let said = shell(task, "(echo x >/opt/vendor/new) 2>&1 || true")?;
        ensure!(said.contains("Read-only file system"), "writing: {said}");
        Ok(())
    };
    works(&task)?;
    let before = table(&task)?;
    let image = task.copy_image()?;
    let copy = task.clone_from(&image).start()?;
    has_mounts(&copy, &before, "what is mounted in the copy")?;
    works(&copy)?;
    copy.end()?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    has_mounts(&again, &before, "what is mounted")?;
    works(&again)?;
    // Once more, as a container that has been restored before.
    let image = again.end_as_image()?;
    let last = again.again_from(&image).start()?;
    has_mounts(&last, &before, "what is mounted at last")?;
    works(&last)?;
    last.end()
}

fn what_is_mounted_below_a_source_is_the_hosts_after_a_restore(bench: &Bench) -> Outcome {
    let (first, second) = (bench.fresh_folder("first")?, bench.fresh_folder("second")?);
    let script = "mkdir $1/below; mount -t tmpfs below $1/below
        mkdir $1/below/deep; mount -t tmpfs deep $1/below/deep
        basename $1 | tee $1/below/file >$1/below/deep/file";
    bench.shell(script, &[&first])?;
    bench.shell(script, &[&second])?;
    let task = with(bench.guest(&["count"]), vec![bind(&first, "/data", &["rw"])]).start()?;
    let before = table(&task)?;
    let image = task.copy_image()?;
    let copy = task.clone_from(&image).start()?;
    has_mounts(&copy, &before, "what is mounted")?;
    shell(&copy, "echo inside >/data/below/new")?;
    ensure_eq!(fs::read_to_string(first.join("below/new")).unwrap_or_default(), "", "outside the slot");
    ensure_eq!(bench.shell("cat $1/below/new", &[&first])?, "inside\n", "the host's file");
    copy.end()?;
    task.end()?;
    let moved = with(task.again_from(&image), vec![bind(&second, "/data", &["rw"])]).start()?;
    let name = second.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let read = shell(&moved, "cat /data/below/file /data/below/deep/file")?;
    ensure_eq!(read, format!("{name}\n").repeat(2), "what is read from the new source");
    moved.end()?;
    unmount_below(bench, &[&first, &second])
}

fn unmount_below(bench: &Bench, folders: &[&Path]) -> Outcome {
    for folder in folders {
        bench.shell("umount -R $1/below", &[folder])?;
    }
    Ok(())
}

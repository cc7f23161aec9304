//! Files and folders of the host's that were moved, swapped, replaced or removed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use super::{bind, shell, with};
use crate::harness::*;

const REPLACED: &str = "with the stock shim such a restore fails";
const UNNAMED: &str = "the stock shim's error isn't meant for users";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(sources_may_have_moved_all_at_once),
        scenario!(links_that_an_atomic_writer_swapped_lead_to_what_is_new).cryo_only(REPLACED),
        scenario!(a_file_may_have_been_replaced_before_the_checkpoint).cryo_only(REPLACED),
        scenario!(mount_points_that_a_copys_root_lacks_are_made),
        scenario!(a_missing_file_or_folder_is_named_and_the_container_starts_afresh).cryo_only(UNNAMED),
    ]
}

fn sources_may_have_moved_all_at_once(bench: &Bench) -> Outcome {
    let (first, second) = (bench.fresh_folder("first")?, bench.fresh_folder("second")?);
    for folder in [&first, &second] {
        bench.shell(
            "cd $1; mkdir -p tree/deep; basename $1 | tee tree/which tree/deep/which file",
            &[folder],
        )?;
    }
    let mounts = |folder: &Path| {
        vec![
            bind(&folder.join("tree"), "/data", &["ro"]),
            bind(&folder.join("tree/deep"), "/data/deep", &["rw"]),
            bind(&folder.join("file"), "/etc/which", &["ro"]),
        ]
    };
    let task = with(bench.guest(&["count"]), mounts(&first)).start()?;
    let image = task.end_as_image()?;
    let before = second.file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs::remove_dir_all(&first)?;
    let again = with(task.again_from(&image), mounts(&second)).start()?;
    let read = shell(&again, "cat /data/which /data/deep/which /etc/which")?;
    ensure_eq!(read, format!("{before}\n").repeat(3), "what is read");
    let said = shell(&again, "echo x >/data/deep/new; (echo x >/data/new) 2>&1 || true")?;
    ensure!(said.contains("Read-only file system"), "writing: {said}");
    again.end()
}

/// As the kubelet writes configuration: into a new folder, to which a link is then swapped.
fn write_version(volume: &Path, version: &str, old: Option<&str>) -> Outcome {
    let folder = volume.join(format!("..{version}"));
    fs::create_dir(&folder)?;
    fs::write(folder.join("key"), format!("{version}\n"))?;
    symlink(format!("..{version}"), volume.join("..data_tmp"))?;
    fs::rename(volume.join("..data_tmp"), volume.join("..data"))?;
    match old {
        Some(old) => fs::remove_dir_all(volume.join(format!("..{old}")))?,
        None => symlink("..data/key", volume.join("key"))?,
    }
    Ok(())
}

fn links_that_an_atomic_writer_swapped_lead_to_what_is_new(bench: &Bench) -> Outcome {
    let volume = bench.fresh_folder("configmap")?;
    write_version(&volume, "2026_1", None)?;
    let mounts = vec![
        bind(&volume, "/config", &["ro", "rprivate"]),
        bind(&volume.join("key"), "/etc/key", &["ro", "rprivate"]),
        bind(&volume.join("..data/key"), "/etc/key2", &["ro", "rprivate"]),
    ];
    let task = with(bench.guest(&["count"]), mounts).start()?;
    let read = |task: &Task<'_>| shell(task, "cat /config/key /etc/key /etc/key2");
    ensure_eq!(read(&task)?, "2026_1\n".repeat(3), "what is read before");
    let image = task.end_as_image()?;
    write_version(&volume, "2026_2", Some("2026_1"))?;
    let again = task.again_from(&image).start()?;
    ensure_eq!(read(&again)?, "2026_2\n".repeat(3), "what is read after a restore");
    // A file that is mounted stays what it was; the folder shows what is new.
    write_version(&volume, "2026_3", Some("2026_2"))?;
    ensure_eq!(read(&again)?, "2026_3\n2026_2\n2026_2\n", "what is read after one more");
    let image = again.end_as_image()?;
    let last = task.again_from(&image).start()?;
    ensure_eq!(read(&last)?, "2026_3\n".repeat(3), "what is read at last");
    last.end()
}

fn a_file_may_have_been_replaced_before_the_checkpoint(bench: &Bench) -> Outcome {
    let folder = bench.fresh_folder("replaced")?;
    let file = folder.join("file");
    fs::write(&file, "first\n")?;
    let task = with(bench.guest(&["count"]), vec![bind(&file, "/etc/file", &["ro"])]).start()?;
    fs::write(folder.join("new"), "second\n")?;
    fs::rename(folder.join("new"), &file)?;
    ensure_eq!(shell(&task, "cat /etc/file")?, "first\n", "the file before");
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    ensure_eq!(shell(&again, "cat /etc/file")?, "second\n", "the file after");
    ensure_eq!(fs::read_to_string(&file)?, "second\n", "the file outside");
    again.end()
}

fn mount_points_that_a_copys_root_lacks_are_made(bench: &Bench) -> Outcome {
    let folder = bench.fresh_folder("bound")?;
    fs::write(folder.join("file"), "here\n")?;
    let mounts = vec![
        bind(&folder, "/a/deep/folder", &["rw"]),
        bind(&folder.join("file"), "/b/deep/file", &["ro"]),
        json!({ "destination": "/c/deep/memory", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"] }),
    ];
    let task = with(bench.guest(&["count"]), mounts).start()?;
    shell(&task, "echo kept >/c/deep/memory/file")?;
    let image = task.copy_image()?;
    let copy = task.clone_from(&image).start()?;
    let read = shell(&copy, "cat /a/deep/folder/file /b/deep/file /c/deep/memory/file")?;
    ensure_eq!(read, "here\nhere\nkept\n", "what is read");
    copy.end()?;
    task.end()
}

fn a_missing_file_or_folder_is_named_and_the_container_starts_afresh(bench: &Bench) -> Outcome {
    let folder = bench.fresh_folder("bound")?;
    for name in ["file", "folder"] {
        let source = folder.join(name);
        if name == "file" {
            fs::write(&source, "here\n")?
        } else {
            fs::create_dir(&source)?
        }
        let task = with(bench.guest(&["count"]), vec![bind(&source, "/mnt/bound", &["ro"])]).start()?;
        let image = task.end_as_image()?;
        let away = folder.join("away");
        fs::rename(&source, &away)?;
        let (again, answer) = task.again_from(&image).try_create()?;
        let text = match answer {
            Err(status) => status.message().to_owned(),
            Ok(_) => refused(again.start(), &[])?,
        };
        let sentence = format!("{}, mounted at /mnt/bound, is missing", source.display());
        ensure!(text.contains(&sentence) && text.lines().count() == 1, "it says {text}");
        // Deleted already if it wasn't created.
        let _ = again.delete();
        fs::rename(&away, &source)?;
        task.again_from(&image).start()?.end()?;
        let mut afresh = task.blueprint.clone();
        afresh.stdio = Kind::Fifo;
        let afresh = afresh.start()?;
        ensure_eq!(shell(&afresh, "test -e /mnt/bound && echo here")?, "here\n", "the mount");
        afresh.end()?;
    }
    Ok(())
}

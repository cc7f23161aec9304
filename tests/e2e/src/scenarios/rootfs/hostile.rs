//! Layers that were changed, or are somebody else's.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::super::mounts::shell;
use super::capability;
use crate::harness::*;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(files_that_were_damaged_are_refused),
        scenario!(files_that_mean_harm_change_nothing_outside),
        scenario!(files_of_another_image_are_refused),
        scenario!(files_arent_put_into_a_folder_that_others_may_use),
    ]
}

// containerd 1 passes neither on.
const UNTRUSTED: [Code; 2] = [Code::DataLoss, Code::Unknown];
const FULL: [Code; 2] = [Code::ResourceExhausted, Code::Unknown];

/// Tells how a copy was refused; it and all that belongs to it is gone.
fn refusal(task: &Task<'_>, image: &Path, codes: &[Code]) -> Outcome<String> {
    let (copy, answer) = task.clone_from(image).try_create()?;
    let text = match answer {
        Err(status) => {
            ensure!(codes.contains(&status.code()), "{status}");
            status.message().to_owned()
        }
        Ok(_) => {
            let text = refused(copy.start(), codes)?;
            ensure_eq!(copy.status()?, Status::Stopped, "after the refusal");
            copy.delete()?;
            text
        }
    };
    ensure!(text.chars().count() <= 300 && text.lines().count() == 1, "{text}");
    Ok(text)
}

fn imaged(bench: &Bench) -> Outcome<(Task<'_>, PathBuf)> {
    let task = bench.run(&["count"])?;
    shell(&task, "echo text >/file")?;
    let image = task.copy_image()?;
    Ok((task, image))
}

/// Another archive in its place, or the manifest changed to fit.
fn replace(bench: &Bench, image: &Path, archive: &[u8]) -> Outcome {
    let layer = image.join("rootfs-diff.tar");
    fs::write(&layer, archive)?;
    let digest = bench.shell("sha256sum $1 | cut -d' ' -f1", &[&layer])?;
    let path = image.join(cryo::DESCRIPTION);
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    manifest["rootfs"]["layer"]["digest"] = json!(format!("sha256:{}", digest.trim()));
    manifest["files"]["rootfs-diff.tar"] = json!(archive.len());
    Ok(fs::write(path, manifest.to_string())?)
}

fn files_that_were_damaged_are_refused(bench: &Bench) -> Outcome {
    let (task, image) = imaged(bench)?;
    let layer = image.join("rootfs-diff.tar");
    let whole = fs::read(&layer)?;
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&layer, &damaged)?;
    let text = refusal(&task, &image, &UNTRUSTED)?;
    ensure!(text.contains("it isn't what it was") && text.contains("take the checkpoint again"), "{text}");
    fs::write(&layer, &whole[..700])?;
    let text = refusal(&task, &image, &UNTRUSTED)?;
    ensure!(text.contains("rootfs-diff.tar has 700 of"), "{text}");
    fs::remove_file(&layer)?;
    let text = refusal(&task, &image, &UNTRUSTED)?;
    ensure!(text.contains("rootfs-diff.tar is missing"), "{text}");
    fs::write(&layer, &whole)?;
    let copy = task.clone_from(&image).start()?;
    ensure_eq!(shell(&copy, "cat /file")?, "text\n", "the file");
    copy.end()?;
    task.end()
}

/// Of a name that others wouldn't write.
fn head(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    (header.as_old_mut().uid, header.as_old_mut().gid) = (*b"0000000\0", *b"0000000\0");
    header.set_mtime(1);
    header.set_size(size);
    header.set_cksum();
    header
}

fn member(name: &str, kind: EntryType, to: &str, content: &[u8]) -> Vec<u8> {
    let mut header = head(name, kind, content.len() as u64);
    if !to.is_empty() {
        // A name as short as that fits.
        let _ = header.set_link_name_literal(to);
    }
    if kind == EntryType::Block {
        let _ = header.set_device_major(8).and_then(|()| header.set_device_minor(0));
    }
    header.set_cksum();
    let mut archive = Builder::new(Vec::new());
    let written = archive.append(&header, content);
    written
        .and_then(|()| archive.into_inner())
        .map(|bytes| bytes[..bytes.len() - 1024].to_vec())
        .unwrap_or_default()
}

fn files_that_mean_harm_change_nothing_outside(bench: &Bench) -> Outcome {
    let task = bench.guest(&["count"]).change(|spec| capability(spec, "CAP_MKNOD", false)).start()?;
    let image = task.copy_image()?;
    let outside = bench.fresh_folder("outside")?;
    fs::write(outside.join("precious"), "precious")?;
    let there = outside.join("precious").display().to_string();
    let up = format!("{}{}", "../".repeat(12), there.trim_start_matches('/'));
    let short = |path: &str| path.len() < 100;
    ensure!(short(&up), "{up} doesn't fit into a header");
    let (file, link, hard) = (EntryType::Regular, EntryType::Symlink, EntryType::Link);
    let folder = outside.display().to_string();
    for members in [
        vec![member(&up, file, "", b"harm")],
        vec![member(&there, file, "", b"harm")],
        vec![member("way", link, &folder, b""), member("way/precious", file, "", b"harm")],
        vec![member("way", hard, &up, b""), member("way", file, "", b"harm")],
        vec![member("way", hard, &there, b"")],
        vec![member("disk", EntryType::Block, "", b"")],
        vec![member("../.wh.rootfs", file, "", b"")],
        vec![member(".wh...", file, "", b"")],
        vec![b"no archive".repeat(200)],
    ] {
        let archive = [members.concat(), vec![0; 1024]].concat();
        replace(bench, &image, &archive)?;
        let text = refusal(&task, &image, &UNTRUSTED)?;
        ensure!(text.contains("aren't trusted"), "{text}");
        ensure_eq!(fs::read_to_string(outside.join("precious"))?, "precious", "what is outside");
        ensure_eq!(fs::read_dir(&outside)?.count(), 1, "files outside");
    }
    // One that claims to be huge.
    replace(bench, &image, head("huge", file, 10 << 40).as_bytes())?;
    let text = refusal(&task, &image, &FULL)?;
    ensure!(text.contains("MB are needed at least") && text.contains("make room"), "{text}");
    task.end()
}

fn files_of_another_image_are_refused(bench: &Bench) -> Outcome {
    let (task, image) = imaged(bench)?;
    let other = format!("sha256:{}", "0".repeat(64));
    let id = bench.next_id();
    ctr(bench, &["snapshots", "prepare", "other", ""])?;
    ctr(bench, &["snapshots", "commit", &other, "other"])?;
    ctr(bench, &["snapshots", "prepare", &id, &other])?;
    let (_copy, answer) = task.again_from(&image).id(id).try_create()?;
    let Err(status) = answer else { return Err(Failure::new("it was made")) };
    let text = status.message();
    ensure!(text.contains("changes of another image") && text.contains("cryo.rootfs=leave"), "{text}");
    ensure_eq!(status.code(), Code::FailedPrecondition, "the code");
    ensure!(text.chars().count() <= 300, "{text}");
    task.end()
}

fn files_arent_put_into_a_folder_that_others_may_use(bench: &Bench) -> Outcome {
    let (task, image) = imaged(bench)?;
    let root = bench.fresh_folder("root")?;
    let elsewhere = |spec: &mut Value| spec["root"] = json!({"path": root, "readonly": true});
    let (_copy, answer) = task.clone_from(&image).change(elsewhere).try_create()?;
    let Err(status) = answer else { return Err(Failure::new("it was made")) };
    let text = status.message();
    ensure!(text.contains("a folder of the host's") && text.contains("cryo.rootfs=leave"), "{text}");
    ensure_eq!(status.code(), Code::FailedPrecondition, "the code");
    ensure!(text.chars().count() <= 300, "{text}");
    ensure_eq!(fs::read_dir(&root)?.count(), 0, "files there");
    task.end()
}

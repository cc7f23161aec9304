//! What a container has changed in its root file system, in a container that has another.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::mounts::shell;
use crate::harness::*;

mod hostile;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let without = "the stock shim leaves files to its clients";
    let mut all = vec![
        scenario!(changed_files_are_there_in_a_copy),
        scenario!(a_copy_beside_its_original_has_files_of_its_own),
        scenario!(a_container_that_comes_back_finds_its_files_as_they_are),
        scenario!(files_that_crius_dump_gave_a_name_travel_too),
        scenario!(a_file_that_grows_while_it_is_open_goes_on_growing),
        scenario!(a_file_without_a_name_needs_its_folder),
        scenario!(what_is_mounted_over_files_stays_in_front_of_them),
        scenario!(files_stay_behind_if_that_is_asked_for),
        scenario!(files_belong_to_the_users_of_a_container_with_users_of_its_own),
        scenario!(changed_files_travel_to_another_node),
        scenario!(files_of_a_root_without_an_overlay_are_left_out_or_refused_by_name),
        scenario!(files_that_have_no_room_are_named_and_the_container_runs_on),
        scenario!(a_checkpoint_that_copies_files_can_be_called_off),
    ];
    all.extend(hostile::scenarios());
    all.into_iter().map(|scenario| scenario.restores().fifo_only().cryo_only(without)).collect()
}

fn capability(spec: &mut Value, name: &str, granted: bool) {
    let sets = spec["process"]["capabilities"].as_object_mut();
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        set.retain(|had| had != name);
        if granted {
            set.push(json!(name));
        }
    }
}

/// A container that has changed whatever can be changed, and counts.
fn changing(bench: &Bench) -> Outcome<Task<'_>> {
    let script = "cd /; echo new >etc/new; echo more >>etc/passwd; rm bin/wget; rm -r var; mkdir -m 1771 var
        echo inside >var/in; ln etc/new etc/second; ln -s new etc/link; chown 12:34 etc/new; chmod 4755 etc/new
        mkdir -p deep/er/est; echo deep >deep/er/est/file; mkfifo etc/pipe; mknod etc/zero c 1 5
        truncate -s 300M sparse; echo end | dd of=sparse bs=1 seek=314572800 conv=notrunc 2>/dev/null
        rm -r tmp; echo file >tmp; touch -d '2001-02-03 04:05:06' deep/er etc/link
        exec /bin/guest count";
    let task = bench
        .guest(&[])
        .program(&["/bin/sh", "-ec", script])
        .change(|spec| capability(spec, "CAP_MKNOD", true))
        .start()?;
    task.stdout().wait_for_counting(3)?;
    Ok(task)
}

/// All that can be said of all files that are in no mount.
const LOOK: &str = "cd /; find . -xdev | sort | xargs stat -c '%n %f %u %g %t,%T'
    find . -xdev ! -type d | sort | xargs stat -c '%n %s %h %Y'
    find . -xdev -type l | sort | xargs ls -l; find . -xdev -type f | sort | xargs md5sum";

/// Whether all files of a container are as they were.
fn same(task: &Task<'_>, before: &str) -> Outcome {
    let now = shell(task, LOOK)?;
    let of = |text: &str, other: &str| {
        let lines = text.lines().filter(|line| !other.lines().any(|found| found == *line));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    ensure_eq!((of(&now, before), of(before, &now)), (Vec::new(), Vec::new()), "what differs");
    Ok(())
}

fn changed_files_are_there_in_a_copy(bench: &Bench) -> Outcome {
    let task = changing(bench)?;
    let upper = upper_of(&task)?;
    bench.shell(
        "setfattr -n user.note -v text $1/etc/new 2>/dev/null || python3 -c \"import os, sys
os.setxattr(sys.argv[1] + '/etc/new', 'user.note', b'text')\" $1",
        &[&upper],
    )?;
    let before = shell(&task, LOOK)?;
    let image = task.copy_image()?;
    same(&task, &before)?;
    let manifest: Value = serde_json::from_str(&fs::read_to_string(image.join(cryo::DESCRIPTION))?)?;
    let had = &manifest["rootfs"];
    ensure!(had["chain"].as_str().is_some_and(|chain| chain.starts_with("sha256:")), "{had}");
    ensure_eq!(had["image"], json!("cryo.test/guest:1"), "the image's name");
    ensure!(fs::metadata(image.join("rootfs-diff.tar"))?.len() < 4 << 20, "holes were copied");
    let copy = task.clone_from(&image).start()?;
    copy.stdout().wait_for_counting(3)?;
    same(&copy, &before)?;
    let upper = upper_of(&copy)?;
    let note = bench.shell(
        "python3 -c \"import os, sys; print(os.getxattr(sys.argv[1] + '/etc/new', 'user.note').decode())\" $1",
        &[&upper],
    )?;
    ensure_eq!(note, "text\n", "the attribute");
    copy.end()?;
    task.end()
}

/// Where the container's changes are.
fn upper_of(task: &Task<'_>) -> Outcome<PathBuf> {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", task.pid()?))?;
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"));
    let upper = root.and_then(|line| line.split("upperdir=").nth(1)?.split(',').next());
    Ok(upper.ok_or_else(|| Failure::new("it stands on no overlay"))?.into())
}

fn a_copy_beside_its_original_has_files_of_its_own(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    shell(&task, "echo before >/file; echo x >/gone")?;
    let image = task.copy_image()?;
    shell(&task, "echo original >/file; rm /gone; echo x >/later")?;
    let copies = [task.clone_from(&image).start()?, task.clone_from(&image).start()?];
    for (number, copy) in copies.iter().enumerate() {
        ensure_eq!(
            shell(copy, "cat /file /gone; ls /later 2>&1 | wc -l; ls / | grep later || true")?,
            "before\nx\n1\n",
            "files of a copy"
        );
        shell(copy, &format!("echo copy {number} >/file"))?;
    }
    ensure_eq!(shell(&task, "cat /file; ls /gone 2>/dev/null || true")?, "original\n", "of the original");
    for (number, copy) in copies.iter().enumerate() {
        ensure_eq!(shell(copy, "cat /file")?, format!("copy {number}\n"), "of a copy");
        // It is as good an original as any.
        let again = copy.clone_from(&copy.copy_image()?).start()?;
        ensure_eq!(shell(&again, "cat /file /gone")?, format!("copy {number}\nx\n"), "of its copy");
        again.end()?;
        copy.end()?;
    }
    task.end()
}

fn a_container_that_comes_back_finds_its_files_as_they_are(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    shell(&task, "echo then >/file; echo x >/gone")?;
    let upper = upper_of(&task)?;
    let image = task.end_as_image()?;
    ensure!(image.join("rootfs-diff.tar").exists(), "the image has no layer");
    bench.shell("echo now >$1/file; rm $1/gone", &[&upper])?;
    let again = task.again_from(&image).start()?;
    ensure_eq!(shell(&again, "cat /file; ls /gone 2>/dev/null || true")?, "now\n", "files");
    again.end()
}

fn files_that_crius_dump_gave_a_name_travel_too(bench: &Bench) -> Outcome {
    let script = "echo text >/one; ln /one /two; exec 7</two; rm /two; exec /bin/guest count";
    let task = bench.guest(&[]).program(&["/bin/sh", "-ec", script]).start()?;
    task.stdout().wait_for_counting(3)?;
    let image = task.end_as_image()?;
    let copy = task.clone_from(&image).start()?;
    copy.stdout().wait_for_counting(3)?;
    ensure_eq!(
        shell(&copy, "cat /proc/1/fd/7 /one; ls / | grep link_remap || true")?,
        "text\ntext\n",
        "files"
    );
    copy.end()
}

fn a_file_that_grows_while_it_is_open_goes_on_growing(bench: &Bench) -> Outcome {
    let script =
        "exec 7>>/log; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo $i >&7; echo $i; usleep 20000; done";
    let task = bench.guest(&[]).program(&["/bin/sh", "-c", script]).start()?;
    task.stdout().wait_for_counting(3)?;
    let copy = task.clone_from(&task.copy_image()?).start()?;
    copy.stdout().wait_for_counting(3)?;
    let whole = "n=0; while read i; do n=$((n+1)); [ $i = $n ] || echo $i for $n; done </log; tail -n 1 /log >/dev/null";
    ensure_eq!(shell(&copy, whole)?, "", "lines of the copy's log that are wrong");
    ensure_eq!(shell(&task, whole)?, "", "lines of the original's log that are wrong");
    copy.end()?;
    task.end()
}

fn a_file_without_a_name_needs_its_folder(bench: &Bench) -> Outcome {
    let script = "mkdir -p /made/here; exec 7<>/made/here/file; echo text >&7; rm /made/here/file; exec /bin/guest count";
    let task = bench.guest(&[]).program(&["/bin/sh", "-ec", script]).start()?;
    task.stdout().wait_for_counting(3)?;
    let copy = task.clone_from(&task.copy_image()?).start()?;
    copy.stdout().wait_for_counting(3)?;
    ensure_eq!(shell(&copy, "cat /proc/1/fd/7; ls /made/here")?, "text\n", "the file, and its folder");
    copy.end()?;
    task.end()
}

fn what_is_mounted_over_files_stays_in_front_of_them(bench: &Bench) -> Outcome {
    let over = |spec: &mut Value| {
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.push(json!({"destination": "/cover", "type": "tmpfs", "source": "tmpfs"}));
        }
    };
    let task = bench.guest(&["count"]).change(over).start()?;
    shell(&task, "echo above >/cover/file; echo beside >/beside")?;
    let upper = upper_of(&task)?;
    bench.shell("echo below >$1/cover/file", &[&upper])?;
    let copy = task.clone_from(&task.copy_image()?).start()?;
    ensure_eq!(shell(&copy, "cat /cover/file /beside")?, "above\nbeside\n", "files");
    let below = fs::read_to_string(upper_of(&copy)?.join("cover/file"))?;
    ensure_eq!(below, "below\n", "what is below");
    copy.end()?;
    task.end()
}

fn files_stay_behind_if_that_is_asked_for(bench: &Bench) -> Outcome {
    for (dumps, restores) in [("leave", "keep"), ("keep", "leave")] {
        let task = bench.guest(&["count"]).annotation("cryo.rootfs", dumps).start()?;
        shell(&task, "echo text >/file")?;
        let image = task.copy_image()?;
        ensure_eq!(image.join("rootfs-diff.tar").exists(), dumps == "keep", "whether there is a layer");
        let copy = task.clone_from(&image).annotation("cryo.rootfs", restores).start()?;
        ensure_eq!(shell(&copy, "ls /file 2>/dev/null || true")?, "", "what is there");
        copy.end()?;
        task.end()?;
    }
    // The node's owner may say so for all that say nothing.
    bench.set_node_file("[defaults]\nrootfs = \"leave\"\n")?;
    let task = bench.run(&["count"])?;
    ensure!(!task.copy_image()?.join("rootfs-diff.tar").exists(), "there is one");
    task.end()?;
    // Archives of containerd's have none but for those who ask.
    bench.set_node_file("")?;
    for (asks, has) in [(None, false), (Some("keep"), true)] {
        let plan = bench.guest(&["count"]);
        let plan = match asks {
            Some(asks) => plan.annotation("cryo.rootfs", asks),
            None => plan,
        };
        let task = plan.start()?;
        shell(&task, "echo text >/file")?;
        let descriptors = task.checkpoint(&Checkpoint::into_content())?;
        let image = descriptors.into_iter().find(|found| found.media_type.ends_with("criu.tar"));
        let image = image.ok_or_else(|| Failure::new("there is no image"))?;
        let copy = task.blueprint.clone().id(bench.next_id()).restoring_content(image).start()?;
        ensure_eq!(
            shell(&copy, "ls /file 2>/dev/null || true")?.is_empty(),
            !has,
            "whether the file is missing"
        );
        copy.end()?;
        task.end()?;
    }
    Ok(())
}

fn files_belong_to_the_users_of_a_container_with_users_of_its_own(bench: &Bench) -> Outcome {
    let task = bench.guest(&["count"]).user_namespace(300_000).start()?;
    shell(&task, "mkdir /made; echo text >/made/file; chown 5:6 /made/file; rm /bin/wget")?;
    let look = "stat -c '%n %a %u %g' /made /made/file; cat /made/file; ls /bin | grep -c wget || true";
    let before = shell(&task, look)?;
    let copy = task.clone_from(&task.copy_image()?).start()?;
    ensure_eq!(shell(&copy, look)?, before, "files");
    copy.end()?;
    task.end()
}

fn changed_files_travel_to_another_node(bench: &Bench) -> Outcome {
    let store = bench.fresh_folder("store")?;
    bench.set_node_file(&format!("restore_from = [{store:?}]\n[store]\npath = {store:?}\n"))?;
    let archive = bench.fresh_folder("archive")?.join("web.tar").display().to_string();
    for options in [&[][..], &["--uncompressed"], &["--format", "plain"]] {
        let task = changing(bench)?;
        let before = shell(&task, LOOK)?;
        let image = task.end_as_image()?;
        let folder = image.display().to_string();
        let said = cryo(bench, &["inspect", &folder])?;
        ensure!(said.contains("files changed in the root file system, of cryo.test/guest:1"), "{said}");
        cryo(bench, &[&["export", &folder, "-o", &archive], options].concat())?;
        fs::remove_dir_all(image)?;
        if !options.is_empty() {
            let names = "cd $1; tar xf $2; for layer in blobs/sha256/* $2; do tar tf $layer || true; done 2>/dev/null";
            let names = bench.shell(names, &[&bench.fresh_folder("layout")?, Path::new(&archive)])?;
            ensure!(names.lines().any(|name| name == "rootfs-diff.tar"), "others don't find it: {names}");
        }
        cryo(bench, &["import", &archive])?;
        ensure!(cryo(bench, &["store", "verify"])?.contains("web: good"), "it isn't good");
        let said = cryo(bench, &["inspect", "web"])?;
        ensure!(said.contains("files changed in the root file system"), "{said}");
        let plan = task.blueprint.clone().id(bench.next_id());
        let copy = plan.annotation("cryo.restore-from", "web").start()?;
        same(&copy, &before)?;
        copy.end()?;
        // What was imported can be exported as well.
        cryo(bench, &[&["export", "web", "-o", &archive], options].concat())?;
        cryo(bench, &["rm", "web"])?;
        cryo(bench, &["import", &archive])?;
        cryo(bench, &["rm", "web"])?;
    }
    Ok(())
}

fn cryo(bench: &Bench, args: &[&str]) -> Outcome<String> {
    let output = bench.slot.command("cryo").args(args).output()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(text) } else { Err(Failure::new(format!("cryo {args:?}: {text}"))) }
}

/// A container whose root is a folder of the host's, as with many a snapshotter.
fn on_a_folder<'b>(bench: &'b Bench, asks: Option<&str>) -> Outcome<Task<'b>> {
    let root = bench.fresh_folder("root")?;
    bench.shell(
        "mkdir $1/bin $1/dev $1/proc $1/sys $1/tmp; cp $2 $1/bin/guest",
        &[&root, &bench.guest_outside()],
    )?;
    let plan = bench.guest(&["count"]).change(|spec| spec["root"]["path"] = json!(root));
    let plan = match asks {
        Some(asks) => plan.annotation("cryo.rootfs", asks),
        None => plan,
    };
    let task = plan.start()?;
    task.stdout().wait_for_counting(3)?;
    Ok(task)
}

fn files_of_a_root_without_an_overlay_are_left_out_or_refused_by_name(bench: &Bench) -> Outcome {
    let task = on_a_folder(bench, None)?;
    let image = task.copy_image()?;
    ensure!(!image.join("rootfs-diff.tar").exists(), "there is a layer");
    let manifest: Value = serde_json::from_str(&fs::read_to_string(image.join(cryo::DESCRIPTION))?)?;
    let left = manifest["rootfs"]["left"].as_str().unwrap_or_default();
    ensure!(left.contains("only an overlay says"), "{manifest}");
    let said = cryo(bench, &["inspect", &image.display().to_string()])?;
    ensure!(said.contains("changed ones aren't here"), "{said}");
    task.end()?;
    let task = on_a_folder(bench, Some("keep"))?;
    let image = Checkpoint::into_folder(&bench.fresh_folder("image")?);
    let text = refused(task.checkpoint(&image), &[Code::FailedPrecondition])?;
    ensure!(text.contains("only an overlay says") && text.contains("cryo.rootfs=leave"), "{text}");
    let seen = task.stdout().lines().len();
    task.stdout().wait_for_counting(seen + 2)?;
    task.end()
}

fn files_that_have_no_room_are_named_and_the_container_runs_on(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    shell(&task, "head -c 40000000 /dev/urandom >/big")?;
    let small = bench.fresh_folder("small")?;
    bench.shell("mount -t tmpfs -o size=20m small $1", &[&small])?;
    let image = small.join("image");
    let text = refused(task.checkpoint(&Checkpoint::into_folder(&image)), &[])?;
    ensure!(text.contains("MB needed") && text.chars().count() <= 400, "{text}");
    ensure!(!image.exists(), "something is left");
    // What is only found out when it is full.
    bench.shell("mount -o remount,size=60m $1", &[&small])?;
    let fill = bench.fresh_folder("hook")?.join("fill");
    write_program(&fill, &format!("#!/bin/sh\nhead -c 25000000 /dev/zero >{}/other\n", small.display()))?;
    bench.set_node_file(&format!(
        "[hooks.fill]\npath = {fill:?}\nstages = [\"post-dump\"]\n[defaults]\nhooks = \"fill\"\n"
    ))?;
    let text = refused(task.checkpoint(&Checkpoint::into_folder(&image)), &[])?;
    ensure!(text.contains("no space left") && text.contains("make room"), "{text}");
    ensure!(!image.exists(), "something is left");
    let seen = task.stdout().lines().len();
    task.stdout().wait_for_counting(seen + 2)?;
    task.end()?;
    bench.shell("umount $1", &[&small])?;
    Ok(())
}

fn a_checkpoint_that_copies_files_can_be_called_off(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    shell(&task, "mkdir /many; cd /many; seq 60000 | xargs -n 5000 touch")?;
    let image = bench.fresh_folder("image")?;
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| task.checkpoint(&Checkpoint::into_folder(&image)));
        let copying = eventually("files are copied", || {
            let layers = cgroup::tree(&image).into_iter().map(|folder| folder.join("rootfs-diff.tar"));
            layers.filter_map(|layer| fs::metadata(layer).ok()).find(|found| found.len() > 1 << 20).map(drop)
        });
        task.kill(KILL)?;
        let taken = taken.join().map_err(|_| Failure::new("the client panicked"))?;
        copying?;
        ensure!(taken.is_err(), "it was taken");
        Ok(())
    })?;
    ensure_eq!(fs::read_dir(&image)?.count(), 0, "files that are left");
    task.wait()?;
    task.delete()?;
    Ok(())
}

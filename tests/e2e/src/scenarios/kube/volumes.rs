//! What the kubelet mounts for containers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::script;
use crate::harness::cri::MountPropagation;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        kube_scenario!(a_last_word_is_found_in_its_file),
        kube_scenario!(names_and_hosts_are_the_pods),
        kube_scenario!(a_configuration_changes_while_it_is_mounted),
        kube_scenario!(a_volume_in_memory_is_shared),
        kube_scenario!(a_part_of_a_volume_is_mounted),
        kube_scenario!(a_link_is_followed),
        kube_scenario!(a_volume_may_be_read_only),
        kube_scenario!(a_volume_may_be_read_only_with_all_that_is_in_it)
            .impossible_if(|_, settings| settings.containerd < Version(2, 0), "the CRI can't say it"),
        kube_scenario!(mounts_of_the_host_appear_if_that_was_asked_for),
        kube_scenario!(mounts_of_a_container_appear_at_the_host_if_that_was_asked_for),
        kube_scenario!(an_image_may_be_a_volume)
            .impossible_if(|_, settings| settings.containerd < Version(2, 1), "the CRI can't say it"),
    ]
}

fn a_last_word_is_found_in_its_file(kubelet: Kubelet<'_>) -> Outcome {
    let file = kubelet.bench.fresh_folder("termination")?.join("log");
    fs::write(&file, "")?;
    let pod = kubelet.pod()?;
    let plan = script(&pod, "echo 'the last word' >/dev/termination-log; exit 1");
    let container = plan.mount(&file, "/dev/termination-log").start()?;
    ensure_eq!(container.wait()?.exit_code, 1, "the exit code");
    ensure_eq!(fs::read_to_string(&file)?, "the last word\n", "what it said");
    let mounts = container.status()?.mounts;
    ensure!(mounts.iter().any(|mount| mount.container_path == "/dev/termination-log"), "{mounts:?}");
    pod.end()
}

fn names_and_hosts_are_the_pods(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    ensure_eq!(container.shell("cat /etc/hostname")?.trim(), pod.plan.config.hostname, "its name");
    ensure_eq!(
        container.shell("cat /etc/resolv.conf")?.trim(),
        "nameserver 10.88.0.1",
        "who is asked for names"
    );
    ensure!(container.shell("cat /etc/hosts")?.contains("localhost"), "nobody is in its hosts");
    pod.end()
}

/// The kubelet writes a new folder and lets a link point there, in one step.
fn a_configuration_changes_while_it_is_mounted(kubelet: Kubelet<'_>) -> Outcome {
    let volume = kubelet.bench.fresh_folder("config")?;
    let write = |version: &str, text: &str| -> Outcome {
        fs::create_dir(volume.join(version))?;
        fs::write(volume.join(version).join("key"), text)?;
        symlink(version, volume.join("..data_tmp"))?;
        Ok(fs::rename(volume.join("..data_tmp"), volume.join("..data"))?)
    };
    write("..1", "one")?;
    symlink("..data/key", volume.join("key"))?;
    let pod = kubelet.pod()?;
    let plan = pod.container(&["/bin/guest", "idle"]);
    let container = plan.mount_with(&volume, "/etc/config", |mount| mount.readonly = true).start()?;
    ensure_eq!(container.shell("cat /etc/config/key")?, "one", "at first");
    write("..2", "two")?;
    ensure_eq!(container.shell("cat /etc/config/key")?, "two", "after a change");
    ensure!(container.shell("touch /etc/config/file 2>&1 || true")?.contains("Read-only"), "it can write");
    pod.end()
}

/// As the kubelet makes it: a tmpfs in the pod's folder.
fn a_volume_in_memory_is_shared(kubelet: Kubelet<'_>) -> Outcome {
    let volume = kubelet.bench.fresh_folder("pods")?.join("volumes/kubernetes.io~empty-dir/cache");
    fs::create_dir_all(&volume)?;
    kubelet.bench.shell("mount -t tmpfs -o size=8m tmpfs $1", &[&volume])?;
    let pod = kubelet.pod()?;
    let container = || pod.container(&["/bin/guest", "idle"]).mount(&volume, "/cache").start();
    let (one, two) = (container()?, container()?);
    one.shell("echo text >/cache/file")?;
    ensure_eq!(two.shell("cat /cache/file; stat -f -c %T /cache")?, "text\ntmpfs\n", "what is there");
    pod.end()?;
    kubelet.bench.shell("umount $1", &[&volume])?;
    Ok(())
}

fn a_part_of_a_volume_is_mounted(kubelet: Kubelet<'_>) -> Outcome {
    let volume = kubelet.bench.fresh_folder("volume")?;
    fs::create_dir(volume.join("part"))?;
    fs::write(volume.join("part/file"), "a file")?;
    let pod = kubelet.pod()?;
    let plan = pod.container(&["/bin/guest", "idle"]).mount(&volume.join("part"), "/part");
    let container = plan.mount(&volume.join("part/file"), "/etc/new/file").start()?;
    ensure_eq!(container.shell("ls /part; cat /etc/new/file")?, "file\na file", "what is there");
    pod.end()
}

fn a_link_is_followed(kubelet: Kubelet<'_>) -> Outcome {
    let folder = kubelet.bench.fresh_folder("volume")?;
    fs::create_dir(folder.join("real"))?;
    fs::write(folder.join("real/file"), "a file")?;
    symlink("real", folder.join("link"))?;
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "idle"]).mount(&folder.join("link"), "/volume").start()?;
    ensure_eq!(container.shell("cat /volume/file")?, "a file", "what is there");
    pod.end()
}

/// A volume with another mount in it.
fn nested(kubelet: Kubelet<'_>) -> Outcome<PathBuf> {
    let volume = kubelet.bench.fresh_folder("volume")?;
    fs::create_dir(volume.join("inner"))?;
    kubelet.bench.shell("mount -t tmpfs tmpfs $1/inner", &[&volume])?;
    Ok(volume)
}

const TRY: &str = "touch /volume/file 2>&1 || true; touch /volume/inner/file 2>&1 || true";

fn a_volume_may_be_read_only(kubelet: Kubelet<'_>) -> Outcome {
    let volume = nested(kubelet)?;
    let pod = kubelet.pod()?;
    let plan = pod.container(&["/bin/guest", "idle"]);
    let container = plan.mount_with(&volume, "/volume", |mount| mount.readonly = true).start()?;
    ensure_eq!(container.shell(TRY)?.matches("Read-only").count(), 1, "what is read-only");
    pod.end()?;
    kubelet.bench.shell("umount $1/inner", &[&volume])?;
    Ok(())
}

fn a_volume_may_be_read_only_with_all_that_is_in_it(kubelet: Kubelet<'_>) -> Outcome {
    let volume = nested(kubelet)?;
    let pod = kubelet.pod()?;
    let plan = pod.container(&["/bin/guest", "idle"]).mount_with(&volume, "/volume", |mount| {
        mount.readonly = true;
        mount.recursive_read_only = true;
    });
    let container = plan.start()?;
    ensure_eq!(container.shell(TRY)?.matches("Read-only").count(), 2, "what is read-only");
    pod.end()?;
    kubelet.bench.shell("umount $1/inner", &[&volume])?;
    Ok(())
}

/// A volume whose mounts can be seen elsewhere.
fn shared(kubelet: Kubelet<'_>) -> Outcome<PathBuf> {
    let volume = kubelet.bench.fresh_folder("volume")?;
    fs::create_dir(volume.join("inner"))?;
    kubelet.bench.shell("mount --bind $1 $1; mount --make-shared $1", &[&volume])?;
    Ok(volume)
}

fn mounts_of_the_host_appear_if_that_was_asked_for(kubelet: Kubelet<'_>) -> Outcome {
    let volume = shared(kubelet)?;
    let pod = kubelet.pod()?;
    let container = |propagation: MountPropagation| {
        let plan = pod.container(&["/bin/guest", "idle"]);
        plan.mount_with(&volume, "/volume", |mount| mount.propagation = propagation as i32).start()
    };
    let (deaf, hearing) = (
        container(MountPropagation::PropagationPrivate)?,
        container(MountPropagation::PropagationHostToContainer)?,
    );
    kubelet.bench.shell("mount -t tmpfs tmpfs $1/inner; touch $1/inner/file", &[&volume])?;
    ensure_eq!(hearing.shell("ls /volume/inner")?, "file\n", "what one sees that hears of mounts");
    ensure_eq!(deaf.shell("ls /volume/inner")?, "", "what the other sees");
    pod.end()?;
    kubelet.bench.shell("umount $1/inner; umount $1", &[&volume])?;
    Ok(())
}

fn mounts_of_a_container_appear_at_the_host_if_that_was_asked_for(kubelet: Kubelet<'_>) -> Outcome {
    let volume = shared(kubelet)?;
    let pod = kubelet.plan().security(|context| context.privileged = true).start()?;
    let plan = pod.container(&["/bin/guest", "idle"]).security(|context| context.privileged = true);
    let container = plan
        .mount_with(&volume, "/volume", |mount| {
            mount.propagation = MountPropagation::PropagationBidirectional as i32;
        })
        .start()?;
    container.shell("mount -t tmpfs tmpfs /volume/inner; touch /volume/inner/file")?;
    ensure_eq!(kubelet.bench.shell("ls $1/inner", &[&volume])?, "file\n", "what the host sees");
    pod.end()?;
    kubelet.bench.shell("umount $1/inner; umount $1", &[&volume])?;
    Ok(())
}

fn an_image_may_be_a_volume(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let plan = pod.container(&["/bin/guest", "idle"]).mount_with("".as_ref(), "/image", |mount| {
        mount.image = Some(cri::image_of("cryo.test/guest:1"));
        mount.readonly = true;
    });
    let container = plan.start()?;
    let tried = container.shell("ls /image/bin/guest; touch /image/file 2>&1 || true")?;
    ensure!(tried.starts_with("/image/bin/guest\n") && tried.contains("Read-only"), "{tried}");
    pod.end()
}

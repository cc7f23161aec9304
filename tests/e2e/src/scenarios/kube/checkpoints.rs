//! The CRI's own checkpoints, and restores by creating a container from one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{counting, ready};
use crate::harness::kube::PUBLISHED;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let with_archive = vec![
        kube_scenario!(a_checkpoint_is_an_archive_and_the_container_runs_on),
        kube_scenario!(a_checkpoint_under_our_own_name_is_one_too)
            .impossible_if(|_, settings| settings.shim != Shim::Cryo, "there is no handler of that name"),
        kube_scenario!(a_container_may_be_checkpointed_again_and_again),
        kube_scenario!(a_container_starts_from_an_archive).restores(),
        kube_scenario!(two_containers_of_a_pod_come_back_into_a_new_one).restores(),
        kube_scenario!(a_container_from_an_archive_is_one_like_any_other).restores(),
        kube_scenario!(a_container_from_an_archive_logs_on_over_a_restart).restores(),
    ];
    with_archive
        .into_iter()
        .map(|scenario| {
            scenario.impossible_if(
                |_, settings| settings.containerd < Version(2, 0),
                "the CRI of containerd 1 has no checkpoints",
            )
        })
        .collect()
}

/// What is in a tar, by path: mode and size.
fn contents(archive: &Path) -> Outcome<BTreeMap<PathBuf, Vec<u8>>> {
    let mut archive = tar::Archive::new(File::open(archive)?);
    let mut found = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        ensure!(kind.is_file() || kind.is_dir(), "{:?} is neither file nor folder", entry.path()?);
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if kind.is_file() {
            found.insert(entry.path()?.into_owned(), bytes);
        }
    }
    Ok(found)
}

pub(super) fn archive(kubelet: Kubelet<'_>) -> Outcome<PathBuf> {
    Ok(kubelet.bench.fresh_folder("checkpoints")?.join("checkpoint.tar"))
}

/// For the kubelet, and for tools like checkpointctl.
fn is_whole(file: &Path) -> Outcome {
    ensure_eq!(fs::metadata(file)?.mode() & 0o777, 0o600, "who may read it");
    let contents = contents(file)?;
    for name in ["config.dump", "spec.dump", "status.dump", "container.log", "rootfs-diff.tar"] {
        ensure!(contents.contains_key(Path::new(name)), "{name} is missing: {:?}", contents.keys());
    }
    for name in ["inventory.img", "pstree.img", "descriptors.json"] {
        let path = Path::new("checkpoint").join(name);
        ensure!(contents.contains_key(&path), "{name} is missing: {:?}", contents.keys());
    }
    let deep = contents.keys().find(|path| path.components().count() > 2);
    ensure!(deep.is_none(), "{deep:?} is in a folder, which the CRI can't unpack");
    let empty = |name: &str| contents.get(Path::new(name)).is_some_and(Vec::is_empty);
    ensure!(!empty("stats-dump") && !empty("dump.log"), "CRIU's figures or its log are empty");
    Ok(())
}

fn a_checkpoint_is_an_archive_and_the_container_runs_on(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = counting(&pod)?;
    let pid = container.pid()?;
    let file = archive(kubelet)?;
    container.checkpoint(&file)?;
    is_whole(&file)?;
    let contents = contents(&file)?;
    for name in ["stats-dump", "dump.log"] {
        ensure!(contents.contains_key(Path::new(name)), "{name} is missing: {:?}", contents.keys());
    }
    ensure_eq!(container.pid()?, pid, "its pid");
    container.wait_for_counting(3)?;
    ensure_eq!(*container.counted()?.start(), 1, "the first number");
    ensure!(!cgroup::is_frozen(&container.cgroup()), "it is frozen");
    ensure_eq!(container.output_of(&["echo", "well"])?, "well\n", "a probe");
    pod.end()
}

/// There the CRI says neither a work path nor options.
fn a_checkpoint_under_our_own_name_is_one_too(kubelet: Kubelet<'_>) -> Outcome {
    let own = if kubelet.bench.runtime() == Runtime::Crun { "own-crun" } else { "own" };
    let pod = kubelet.plan().handler(own).start()?;
    let container = counting(&pod)?;
    let file = archive(kubelet)?;
    container.checkpoint(&file)?;
    is_whole(&file)?;
    container.wait_for_counting(3)?;
    pod.end()
}

fn a_container_may_be_checkpointed_again_and_again(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = ready(&pod, &["heap", "8"])?;
    for round in 1..=3 {
        container.checkpoint(&archive(kubelet)?)?;
        container.asks(round, "same")?;
    }
    pod.end()
}

fn published<'p, 'b>(pod: &'p Pod<'b>, guest: &[&str]) -> ContainerPlan<'p, 'b> {
    pod.container(&[&["/bin/guest"], guest].concat()).image(PUBLISHED)
}

fn a_container_starts_from_an_archive(kubelet: Kubelet<'_>) -> Outcome {
    let _registry = kubelet.published_image()?;
    let pod = kubelet.pod()?;
    let original = published(&pod, &["count"]).start()?;
    original.wait_for_counting(3)?;
    original.shell("echo text >/file")?;
    let file = archive(kubelet)?;
    original.checkpoint(&file)?;
    // Beside the original, and in its place.
    let second = kubelet.pod()?;
    let copy = second.container(&[]).image(&file.display().to_string()).start()?;
    copy.wait_for_counting(3)?;
    original.wait_for_counting(3)?;
    ensure!(*copy.counted()?.start() > 3, "it began anew: {:?}", copy.counted()?);
    ensure_eq!(copy.shell("cat /file")?, "text\n", "a file of its own");
    ensure_eq!(copy.status()?.image.unwrap_or_default().image, PUBLISHED, "its image");
    pod.end()?;
    copy.wait_for_counting(3)?;
    second.end()
}

fn two_containers_of_a_pod_come_back_into_a_new_one(kubelet: Kubelet<'_>) -> Outcome {
    let _registry = kubelet.published_image()?;
    let pod = kubelet.pod()?;
    let heap = published(&pod, &["heap", "8"]).name("heap").start()?;
    let server = published(&pod, &["listen", "8080"]).name("server").start()?;
    heap.wait_for_line("ready")?;
    server.wait_for_line("ready")?;
    let (heap_file, server_file) = (archive(kubelet)?, archive(kubelet)?);
    heap.checkpoint(&heap_file)?;
    server.checkpoint(&server_file)?;
    pod.end()?;
    let pod = kubelet.pod()?;
    let from = |name: &str, file: &Path| pod.container(&[]).name(name).image(&file.display().to_string());
    let heap = from("heap", &heap_file).start()?;
    from("server", &server_file).start()?;
    heap.asks(1, "same")?;
    let connection = pod.forward(8080)?;
    connection.write(b"hello")?;
    connection.output().wait_for_text("hello")?;
    pod.end()
}

fn a_container_from_an_archive_is_one_like_any_other(kubelet: Kubelet<'_>) -> Outcome {
    let _registry = kubelet.published_image()?;
    let pod = kubelet.pod()?;
    let original = published(&pod, &["signals"]).start()?;
    original.wait_for_line("ready")?;
    let file = archive(kubelet)?;
    original.checkpoint(&file)?;
    pod.end()?;
    let pod = kubelet.pod()?;
    let container = pod.container(&[]).image(&file.display().to_string()).start()?;
    ensure_eq!(container.output_of(&["echo", "well"])?, "well\n", "a probe");
    let request = cri::ContainerStatsRequest { container_id: container.id.clone() };
    let stats = kube::call(kubelet.cri().runtime().container_stats(request))?.stats.unwrap_or_default();
    ensure!(stats.memory.is_some_and(|memory| memory.usage_bytes.is_some()), "it has no figures");
    // Once more, and over a restart of containerd.
    container.checkpoint(&archive(kubelet)?)?;
    kubelet.bench.restart_containerd(nix::sys::signal::Signal::SIGTERM)?;
    container.stop(20)?;
    ensure_eq!(container.status()?.exit_code, 42, "the exit code");
    pod.end()
}

fn a_container_from_an_archive_logs_on_over_a_restart(kubelet: Kubelet<'_>) -> Outcome {
    let _registry = kubelet.published_image()?;
    let pod = kubelet.pod()?;
    let original = published(&pod, &["count"]).start()?;
    original.wait_for_counting(3)?;
    let file = archive(kubelet)?;
    original.checkpoint(&file)?;
    let copy = pod.container(&[]).name("copy").image(&file.display().to_string()).start()?;
    copy.wait_for_counting(3)?;
    kubelet.bench.restart_containerd(nix::sys::signal::Signal::SIGTERM)?;
    original.wait_for_counting(3)?;
    copy.wait_for_counting(3)?;
    pod.end()
}

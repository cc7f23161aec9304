//! Checkpoints and restores that can't be: one sentence each, and nothing left.

use std::fs;
use std::path::{Path, PathBuf};

use super::checkpoints::archive;
use super::{counting, ready};
use crate::harness::kube::PUBLISHED;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let old = |_: &Combination, settings: &Settings| settings.containerd < Version(2, 0);
    let none = "the CRI of containerd 1 has no checkpoints";
    vec![
        kube_scenario!(pods_live_without_criu_and_checkpoints_name_it)
            .cryo_only("the stock shim's words are runc's"),
        kube_scenario!(a_connection_is_in_the_way_of_a_checkpoint)
            .cryo_only("the stock shim's words are CRIU's")
            .impossible_if(old, none),
        kube_scenario!(a_damaged_archive_is_refused_as_often_as_it_is_tried)
            .cryo_only("the stock shim's words are CRIU's")
            .impossible_if(old, none),
        kube_scenario!(a_file_that_is_no_archive_is_refused).impossible_if(old, none),
        kube_scenario!(a_container_that_does_not_run_has_no_checkpoint).impossible_if(old, none),
        kube_scenario!(processes_that_a_pod_shares_stay_where_they_are)
            .cryo_only("the stock shim's words are CRIU's")
            .impossible_if(old, none),
    ]
}

/// A sentence for an event of the pod, and the one who runs kubectl.
#[track_caller]
pub(super) fn is_a_sentence(said: &str, words: &[&str]) -> Outcome {
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in {said:?}");
    }
    ensure!(!said.trim().contains('\n'), "more than a line: {said:?}");
    // What the CRI and containerd say before, and our 300 characters.
    ensure!(said.len() < 700, "{} characters: {said:?}", said.len());
    Ok(())
}

fn pods_live_without_criu_and_checkpoints_name_it(kubelet: Kubelet<'_>) -> Outcome {
    hiding_criu(kubelet, || without_criu(kubelet))
}

/// Acts on a node that has no CRIU meanwhile.
pub(super) fn hiding_criu(kubelet: Kubelet<'_>, act: impl FnOnce() -> Outcome) -> Outcome {
    let farm = kubelet.bench.fresh_folder("sbin")?;
    // A folder with all that there is but CRIU in the place of the real one.
    let hide = "real=$(dirname \"$(readlink -f \"$(command -v criu)\")\"); mkdir $1/all $1/real
        mount --bind $real $1/real; for name in $1/real/*; do ln -s $name $1/all/; done
        rm $1/all/criu; mount --bind $1/all $real; ! command -v criu >/dev/null; echo $real";
    let place = PathBuf::from(kubelet.bench.shell(hide, &[&farm])?.trim());
    let outcome = act();
    kubelet.bench.shell("umount $2; umount $1/real", &[&farm, &place])?;
    outcome
}

fn without_criu(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = counting(&pod)?;
    if settings().containerd >= Version(2, 0) {
        is_a_sentence(&refused(container.checkpoint(&archive(kubelet)?), &[])?, &["CRIU"])?;
    }
    // As `cryo checkpoint` does, without the CRI.
    let folder = kubelet.bench.fresh_folder("image")?;
    let options = Checkpoint::into_folder(&folder).packed();
    let said = refused(kubelet.bench.api().checkpoint(&container.id, options, PATIENCE), &[])?;
    is_a_sentence(&said, &["criu", "PATH"])?;
    container.wait_for_counting(3)?;
    ensure_eq!(container.output_of(&["echo", "well"])?, "well\n", "a probe");
    pod.end()
}

fn a_connection_is_in_the_way_of_a_checkpoint(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = ready(&pod, &["connected"])?;
    for round in 1..=2 {
        let file = archive(kubelet)?;
        let said = refused(container.checkpoint(&file), &[])?;
        is_a_sentence(&said, &["TCP", "cryo.tcp"])?;
        container.asks(round, "passed")?;
        ensure!(!file.exists(), "there is an archive");
    }
    let left: Vec<_> = fs::read_dir(kubelet.bench.slot.folder.join("tmp"))?.flatten().collect();
    ensure!(left.is_empty(), "{left:?}");
    pod.end()
}

/// An archive in which one file is another.
fn damaged(kubelet: Kubelet<'_>, good: &Path, name: &str, damage: impl Fn(&mut Vec<u8>)) -> Outcome<PathBuf> {
    let file = archive(kubelet)?;
    let mut builder = tar::Builder::new(fs::File::create(&file)?);
    let mut found = false;
    for entry in tar::Archive::new(fs::File::open(good)?).entries()? {
        let mut entry = entry?;
        let mut header = entry.header().clone();
        let path = entry.path()?.into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes)?;
        if path.display().to_string().contains(name) {
            found = true;
            damage(&mut bytes);
        }
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, &*bytes)?;
    }
    ensure!(found, "the archive has no {name}");
    builder.into_inner()?;
    Ok(file)
}

fn a_damaged_archive_is_refused_as_often_as_it_is_tried(kubelet: Kubelet<'_>) -> Outcome {
    let _registry = kubelet.published_image()?;
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "count"]).image(PUBLISHED).start()?;
    container.wait_for_counting(2)?;
    let good = archive(kubelet)?;
    container.checkpoint(&good)?;
    let empty = |bytes: &mut Vec<u8>| bytes.clear();
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let flip = |bytes: &mut Vec<u8>| bytes.iter_mut().skip(40).step_by(7).for_each(|byte| *byte ^= 0x55);
    let other = |bytes: &mut Vec<u8>| bytes.extend(b"{");
    let bad = [
        damaged(kubelet, &good, "inventory.img", empty)?,
        damaged(kubelet, &good, "pages-1.img", cut)?,
        damaged(kubelet, &good, "core-1.img", flip)?,
        damaged(kubelet, &good, "cryo.json", other)?,
    ];
    let before = leaks::found_in(&kubelet.bench.slot).len();
    for file in &bad {
        // The kubelet makes a new attempt each time, and removes the old one later.
        for attempt in 0..2 {
            let plan = pod.container(&[]).name("bad").attempt(attempt).image(&file.display().to_string());
            let copy = plan.create()?;
            is_a_sentence(&refused(copy.start(), &[])?, &["checkpoint"])?;
            ensure_eq!(copy.state()?, cri::ContainerState::ContainerExited, "its state");
            copy.remove()?;
        }
    }
    eventually("nothing more is left than before", || {
        (leaks::found_in(&kubelet.bench.slot).len() <= before).then_some(())
    })
    .map_err(|_| Failure::new(format!("{:#?}", leaks::found_in(&kubelet.bench.slot))))?;
    container.wait_for_counting(2)?;
    pod.end()
}

fn a_file_that_is_no_archive_is_refused(kubelet: Kubelet<'_>) -> Outcome {
    let file = archive(kubelet)?;
    fs::write(&file, "no archive")?;
    let pod = kubelet.pod()?;
    let said = pod.container(&[]).image(&file.display().to_string()).refusal()?;
    ensure!(said.contains("archive") || said.contains("spec.dump"), "{said}");
    pod.end()
}

fn a_container_that_does_not_run_has_no_checkpoint(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "exit", "0"]).create()?;
    is_a_sentence(&refused(container.checkpoint(&archive(kubelet)?), &[])?, &["CREATED"])?;
    container.start()?;
    container.wait()?;
    is_a_sentence(&refused(container.checkpoint(&archive(kubelet)?), &[])?, &["EXITED"])?;
    pod.end()
}

/// Its processes have numbers there that somebody has already.
fn processes_that_a_pod_shares_stay_where_they_are(kubelet: Kubelet<'_>) -> Outcome {
    let _registry = kubelet.published_image()?;
    let pod =
        kubelet.plan().namespaces(|namespaces| namespaces.pid = cri::NamespaceMode::Pod as i32).start()?;
    let container = pod.container(&["/bin/guest", "count"]).image(PUBLISHED).start()?;
    container.wait_for_counting(2)?;
    let file = archive(kubelet)?;
    container.checkpoint(&file)?;
    let copy = pod.container(&[]).name("copy").image(&file.display().to_string());
    is_a_sentence(&copy.refusal()?, &["pid"])?;
    container.wait_for_counting(2)?;
    pod.end()
}

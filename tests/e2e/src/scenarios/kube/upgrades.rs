//! Another version of our shim while pods run: upwards, and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use super::checkpoints::archive;
use super::many::for_each;
use super::{counting, shims_of};
use crate::harness::slot::BASE;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let all = vec![
        kube_scenario!(twenty_containers_live_through_an_upgrade_and_a_downgrade).long(),
        kube_scenario!(archives_and_pods_outlive_an_upgrade).impossible_if(
            |_, settings| settings.containerd < Version(2, 0),
            "the CRI of containerd 1 has no checkpoints",
        ),
    ];
    let of_ours = |scenario: Scenario| {
        scenario
            .impossible_if(|_, settings| settings.shim != Shim::Cryo, "only ours is upgraded")
            .impossible_if(
                |_, settings| settings.previous.is_none(),
                "there is no shim of a previous version",
            )
    };
    all.into_iter().map(of_ours).collect()
}

/// The place where a node has its shim.
struct Installed(PathBuf);

impl Installed {
    fn at(kubelet: Kubelet<'_>) -> Outcome<Self> {
        let place = kubelet.bench.fresh_folder("bin")?.join("containerd-shim-cryo-v2");
        let ours = format!("{BASE}/bin/containerd-shim-cryo-v2");
        kubelet.reconfigure(|text| text.replace(&ours, &place.display().to_string()))?;
        Ok(Installed(place))
    }

    /// As package managers do it: a new file takes the old one's name.
    fn install(&self, program: &Path) -> Outcome {
        let aside = self.0.with_extension("new");
        // By another process, for the reason of `write_program`.
        let installed = Command::new("install").args(["-m", "755"]).args([program, &aside]).status()?;
        ensure!(installed.success(), "{} can't be copied", program.display());
        Ok(fs::rename(aside, &self.0)?)
    }

    fn install_previous(&self) -> Outcome {
        let previous = settings().previous.as_ref().ok_or_else(|| Failure::new("no previous version"))?;
        self.install(&previous.join("containerd-shim-cryo-v2"))
    }

    fn install_current(&self) -> Outcome {
        self.install(&Path::new(BASE).join("bin/containerd-shim-cryo-v2"))
    }
}

/// Whether all shims of these were started from the file that is installed now.
fn are_current(kubelet: Kubelet<'_>, ids: &[&str]) -> Outcome<bool> {
    let shims = shims_of(kubelet, ids);
    ensure_eq!(shims.len(), ids.len(), "shims");
    let is_old = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.to_string_lossy().ends_with(" (deleted)"))
    };
    let old = shims.iter().filter(|pid| is_old(pid)).count();
    ensure!(old == 0 || old == shims.len(), "{old} of {} shims are old", shims.len());
    Ok(old == 0)
}

/// On a busy machine the version before sometimes ends the streams of a program that was added
/// before containerd listens, which then waits for ever. The kubelet asks three times, too.
fn is_well(container: &PodContainer<'_, '_>) -> Outcome {
    let ask = || container.cri().exec_sync(&container.id, &["echo", "well"], 5);
    let mut answer = ask();
    for _ in 0..2 {
        if answer.as_ref().is_err_and(|status| status.code() == Code::DeadlineExceeded) {
            answer = ask();
        }
    }
    let answer = answer?;
    ensure_eq!(answer.stdout, b"well\n", "a probe");
    Ok(())
}

fn twenty_containers_live_through_an_upgrade_and_a_downgrade(kubelet: Kubelet<'_>) -> Outcome {
    let installed = Installed::at(kubelet)?;
    installed.install_previous()?;
    let pods = for_each(0..10, |_| kubelet.pod())?;
    let containers = for_each(pods.iter().chain(&pods), counting)?;
    let ids: Vec<_> = pods.iter().map(|pod| &*pod.id).chain(containers.iter().map(|one| &*one.id)).collect();
    let all_are_well = || -> Outcome {
        for_each(&containers, |container| {
            is_well(container)?;
            container.wait_for_counting(1)
        })?;
        Ok(())
    };
    ensure!(are_current(kubelet, &ids)?, "they were started from another file");
    let mut newer = Vec::new();
    for upwards in [true, false] {
        if upwards {
            installed.install_current()?
        } else {
            installed.install_previous()?
        }
        ensure!(!are_current(kubelet, &ids)?, "nothing was replaced");
        all_are_well()?;
        let pod = kubelet.pod()?;
        let id = counting(&pod)?.id;
        ensure!(are_current(kubelet, &[&pod.id, &id])?, "a new pod runs on the old shim");
        // New containers of old pods, too.
        let id = counting(&pods[0])?.id;
        ensure!(are_current(kubelet, &[&id])?, "a new container runs on the old shim");
        newer.push(pod);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            kubelet.bench.restart_containerd(signal)?;
            all_are_well()?;
        }
    }
    // Those of all ages are checkpointed, and end.
    let file = archive(kubelet)?;
    if settings().containerd >= Version(2, 0) {
        for_each(&containers[..4], |container| {
            Ok(container.checkpoint(&file.with_extension(&container.id))?)
        })?;
        all_are_well()?;
    }
    for_each(&containers[..10], |container| Ok(container.stop(0)?))?;
    for_each(pods.iter().chain(&newer), Pod::end)?;
    Ok(())
}

/// What the version before has dumped, and into a pod whose first shim's program was replaced
/// since: containerd 2.1 has that one take the container in.
fn archives_and_pods_outlive_an_upgrade(kubelet: Kubelet<'_>) -> Outcome {
    let _registry = kubelet.published_image()?;
    let installed = Installed::at(kubelet)?;
    installed.install_previous()?;
    let pod = kubelet.pod()?;
    let original = pod.container(&["/bin/guest", "count"]).image(kube::PUBLISHED).start()?;
    original.wait_for_counting(2)?;
    let file = archive(kubelet)?;
    original.checkpoint(&file)?;
    installed.install_current()?;
    let second = kubelet.pod()?;
    for round in 0..2 {
        let plan = second.container(&[]).name("copy").attempt(round).image(&file.display().to_string());
        let copy = plan.start()?;
        copy.wait_for_counting(2)?;
        ensure_eq!(copy.output_of(&["echo", "well"])?, "well\n", "a probe");
        kubelet.bench.restart_containerd(Signal::SIGTERM)?;
        copy.wait_for_counting(2)?;
        copy.stop(0)?;
        copy.remove()?;
        installed.install_current()?;
    }
    original.wait_for_counting(2)?;
    pod.end()?;
    second.end()
}

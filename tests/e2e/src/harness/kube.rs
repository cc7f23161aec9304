//! A node of Kubernetes without a kubelet: tests play it, by the CRI of the slot's containerd.
//!
//! A [`PodPlan`] becomes a [`Pod`], in which a [`ContainerPlan`] becomes a [`PodContainer`].
//! Plans are what the kubelet would send, and can be changed before. A pod has its cgroup
//! from us, as from the kubelet, and its logs below [`Pod::folder`].

mod config;
mod container;
mod container_plan;
pub(crate) mod cri;
mod log;
mod pod;
mod pod_plan;
mod registry;
mod stream;

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

pub(crate) use super::api::call;
pub(crate) use config::{configuration, untouched, version_2};
pub(crate) use container::PodContainer;
pub(crate) use container_plan::ContainerPlan;
pub(crate) use log::entries;
pub(crate) use pod::Pod;
pub(crate) use pod_plan::PodPlan;
pub(crate) use registry::{PUBLISHED, Registry};
pub(crate) use stream::{Forwarded, Streams};

use super::api::{Answer, Api};
use super::bench::Bench;
use super::cgroup;
use super::failure::{Failure, Outcome};
use super::image;
use super::settings::settings;
use super::slot::Slot;
use super::wait::eventually;
use cri::Cri;

/// containerd's, for all that the CRI makes.
pub(crate) const NAMESPACE: &str = "k8s.io";
pub(super) const BRIDGE: &str = "cni0";

/// The images that a node has from the start.
const STAYING: [&str; 2] = [image::NAME, image::PAUSE];

/// Makes a slot a node: a network for pods, and the image of their first containers.
pub(super) fn prepare(slot: &Slot) -> Outcome {
    let folder = slot.folder.join("net.d");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("pods.conflist"), config::network_description())?;
    // There from the start, so that it isn't left over.
    slot.command("ip").args(["link", "add", BRIDGE, "type", "bridge"]).status()?;
    image::import_pause(slot, NAMESPACE)?;
    let cri = Cri::by(&slot.daemon().api());
    eventually("the CRI knows its images", || {
        STAYING.iter().all(|name| cri.image(name).is_ok_and(|found| found.is_some())).then_some(())
    })?;
    eventually("the network is ready", || cri.is_ready().then_some(()))
}

/// After each start of containerd.
pub(super) fn wait_until_ready(api: &Api) -> Outcome {
    eventually("the CRI answers", || Cri::by(api).version().ok().map(drop))
}

/// Where containerd has its folders, without anything else.
pub(crate) fn head_of(configuration: &str) -> String {
    let lines = configuration.lines().take_while(|line| !line.starts_with("version"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[derive(Clone, Copy)]
pub(crate) struct Kubelet<'b> {
    pub(crate) bench: &'b Bench,
}

impl<'b> Kubelet<'b> {
    pub(crate) fn at(bench: &'b Bench) -> Self {
        Kubelet { bench }
    }

    pub(crate) fn cri(&self) -> Cri {
        Cri::by(&self.bench.api())
    }

    /// What the shim and the runtime that are tested are called in a RuntimeClass.
    pub(crate) fn handler(&self) -> &'static str {
        config::tested(self.bench.runtime(), settings())
    }

    pub(crate) fn plan(self) -> PodPlan<'b> {
        PodPlan::new(self, self.bench.next_id())
    }

    #[track_caller]
    pub(crate) fn pod(self) -> Outcome<Pod<'b>> {
        self.plan().start()
    }

    /// An image that containerd can pull again: one that it has from a registry.
    #[track_caller]
    pub(crate) fn published_image(&self) -> Outcome<Registry> {
        let registry = Registry::serve(&self.bench.slot)?;
        self.cri().pull(PUBLISHED)?;
        Ok(registry)
    }

    /// While some containers count.
    #[track_caller]
    pub(crate) fn restart_containerd(&self, signal: Signal, counting: &[&PodContainer<'_, '_>]) -> Outcome {
        let api = self.bench.api();
        let fifo = |container: &&PodContainer<'_, '_>| api.state(&container.id, "").map(|state| state.stdout);
        let fifos = counting.iter().map(fifo).collect::<Answer<Vec<_>>>()?;
        self.bench.stop_containerd(signal)?;
        for (container, fifo) in counting.iter().zip(fifos) {
            let lines = container.lines()?;
            container.lost.note(lines.last().map_or("", String::as_str), &self.bench.slot.outside(&fifo))?;
        }
        self.bench.start_containerd()
    }

    /// Has containerd start again with another configuration; the usual one is back afterwards.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(&str) -> String) -> Outcome {
        self.configure(change)?;
        self.bench.restart_containerd(Signal::SIGTERM)
    }

    /// Has containerd start with the configuration of a node that never heard of Cryo. Where that is.
    pub(crate) fn forget_cryo(&self, older: bool) -> Outcome<PathBuf> {
        let bare = untouched(&self.bench.slot, older);
        self.reconfigure(|text| head_of(text) + &bare)?;
        Ok(self.bench.slot.folder.join("containerd.toml"))
    }

    /// An image of Cryo's programs in a folder, as the node has it after a pull.
    #[track_caller]
    pub(crate) fn installer_image(&self, programs: &Path, name: &str) -> Outcome {
        let file = self.bench.fresh_folder("image")?.join("image.tar");
        image::write_installer(programs, name, &file)?;
        image::import_file(&self.bench.slot, NAMESPACE, &file)?;
        eventually("the CRI knows the image", || {
            self.cri().image(name).is_ok_and(|found| found.is_some()).then_some(())
        })
    }

    /// The same without a start, so that nothing has changed yet.
    pub(crate) fn configure(&self, change: impl FnOnce(&str) -> String) -> Outcome {
        let file = self.bench.slot.folder.join("containerd.toml");
        let text = fs::read_to_string(&file)?;
        let kept = file.with_extension("kept");
        if !kept.exists() {
            fs::write(kept, &text)?;
        }
        Ok(fs::write(&file, change(&text))?)
    }

    /// Removes all that a trial may have made.
    pub(super) fn tidy(&self) -> Outcome {
        let file = self.bench.slot.folder.join("containerd.toml");
        if file.with_extension("kept").exists() {
            fs::rename(file.with_extension("kept"), &file)?;
            self.bench.restart_containerd(Signal::SIGTERM)?;
        }
        let cri = self.cri();
        for pod in cri.pods()? {
            // A shim may have been killed a moment ago: then containerd is cleaning up.
            let mut last = String::new();
            let removed = eventually("removed", || {
                let answer = cri.stop_pod(&pod.id).and_then(|()| cri.remove_pod(&pod.id));
                answer.map_err(|status| last = status.message().to_owned()).ok()
            });
            removed.map_err(|_| Failure::new(format!("pod {} could not be removed: {last}", pod.id)))?;
        }
        self.remove_pod_cgroups();
        self.remove_images()
    }

    /// All but those that a node has from the start, which have a name and an id.
    fn remove_images(&self) -> Outcome {
        let mut staying = STAYING.map(str::to_owned).to_vec();
        for name in STAYING {
            staying.extend(self.cri().image(name)?.map(|image| image.id));
        }
        let api = self.bench.api();
        for found in api.list_images()?.into_iter().filter(|found| !staying.contains(&found.name)) {
            api.delete_image(&found.name)?;
        }
        Ok(())
    }

    /// As the kubelet does; what isn't empty stays, and is found.
    fn remove_pod_cgroups(&self) {
        let top = self.bench.slot.containers_cgroup();
        for root in cgroup::roots() {
            let folders = cgroup::tree(&root.join(top.trim_start_matches('/')));
            for folder in folders.iter().skip(1).filter(|folder| pod_plan::is_pod_cgroup(folder)) {
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

//! What a trial left behind: whatever is in its slot now and was not before.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::cgroup;
use super::docker;
use super::docker::Dockerd;
use super::settings::settings;
use super::slot::Slot;
use super::wait::eventually_within;

/// Shims end, and cgroups are freed, a moment after the task is deleted.
const GRACE: Duration = Duration::from_secs(10);

/// Everything in a slot that can outlive a container, by what it is called.
#[derive(Default)]
pub(crate) struct Traces(BTreeMap<String, String>);

impl Traces {
    pub(crate) fn of(slot: &Slot) -> Self {
        let mut traces = Traces::default();
        traces.note_processes(slot);
        traces.note_cgroups(slot);
        traces.note_mounts(slot);
        traces.note_files(slot, "run");
        traces.note_files(slot, "tmp");
        // What is complete stays until nobody names it.
        traces.note_files(slot, "cryo/store/new");
        traces.note_files(slot, "cryo/store/rubbish");
        traces.note_firewall(slot);
        traces.note_network_devices(slot);
        traces.note_docker(slot);
        traces.note_pods(slot);
        traces
    }

    fn note(&mut self, what: &str, name: impl AsRef<str>, detail: impl Into<String>) {
        self.0.insert(format!("{what} {}", name.as_ref()), detail.into());
    }

    fn note_processes(&mut self, slot: &Slot) {
        let daemons = [slot.daemon().pid(), slot.dockerd().and_then(Dockerd::pid)];
        let mut pids = cgroup::processes(&slot.daemon_cgroup());
        pids.extend(cgroup::processes(&slot.containers_cgroup()));
        for pid in pids.into_iter().filter(|pid| !daemons.contains(&Some(*pid))) {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            self.note("process", pid.to_string(), command.replace('\0', " "));
        }
    }

    fn note_cgroups(&mut self, slot: &Slot) {
        let top = slot.containers_cgroup();
        for root in cgroup::roots() {
            // The parent of all containers stays; each container's own must go.
            for folder in cgroup::tree(&root.join(top.trim_start_matches('/'))).into_iter().skip(1) {
                let inside = folder.strip_prefix(&root).unwrap_or(&folder).display().to_string();
                let detail = if cgroup::is_frozen(&inside) { "frozen" } else { "" };
                self.note("cgroup", folder.display().to_string(), detail);
            }
        }
    }

    /// Includes network namespaces that are kept by a bind mount.
    fn note_mounts(&mut self, slot: &Slot) {
        let Some(pid) = slot.daemon().pid() else { return };
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        for line in mounts.lines() {
            let point = line.split(' ').nth(4).unwrap_or(line);
            self.note("mount", point, line);
        }
    }

    /// Bundles, shim sockets, runtime state, pipes, unpacked checkpoints and the like.
    fn note_files(&mut self, slot: &Slot, name: &str) {
        let top = slot.folder.join(name);
        for folder in cgroup::tree(&top) {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                let inside = Path::new("/").join(name).join(path.strip_prefix(&top).unwrap_or(&path));
                self.note("file", inside.display().to_string(), "");
            }
        }
    }

    fn note_firewall(&mut self, slot: &Slot) {
        for (program, args) in [("nft", &["list", "ruleset"][..]), ("iptables-save", &[])] {
            let Ok(output) = slot.command(program).args(args).output() else { continue };
            let rules = String::from_utf8_lossy(&output.stdout);
            for line in rules.lines().filter(|line| !line.starts_with('#')) {
                self.note("firewall rule", without_counts(line), program);
            }
        }
    }

    fn note_network_devices(&mut self, slot: &Slot) {
        let Some(pid) = slot.daemon().pid() else { return };
        let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
        for (name, _) in devices.lines().filter_map(|line| line.split_once(':')) {
            self.note("network device", name.trim(), "");
        }
    }

    /// Root file systems, containers and volumes that dockerd knows.
    fn note_docker(&mut self, slot: &Slot) {
        if slot.dockerd().is_none() {
            return;
        }
        let kept = docker::layer_of(slot, docker::WORKLOADS);
        for kind in ["containers", "overlay2", "volumes"] {
            let Ok(entries) = fs::read_dir(slot.folder.join("docker").join(kind)) else { continue };
            let paths = entries.flatten().map(|entry| entry.path());
            for path in paths.filter(|path| kept.as_ref() != Some(path)) {
                self.note("in Docker", path.display().to_string(), "");
            }
        }
    }

    /// Addresses of pods, what the CRI keeps of them, and what containerd does.
    fn note_pods(&mut self, slot: &Slot) {
        if !slot.is_for_pods() {
            return;
        }
        self.note_files(slot, "cni");
        self.note_files(slot, "root/io.containerd.grpc.v1.cri");
        let api = slot.daemon().api();
        for container in api.list_containers().unwrap_or_default() {
            self.note("container", container.id, "in containerd");
        }
        for snapshot in api.list_snapshots().unwrap_or_default() {
            self.note("snapshot", snapshot, "in containerd");
        }
        for image in api.list_images().unwrap_or_default() {
            self.note("image", image.name, "in containerd");
        }
    }

    fn beyond(&self, before: &Traces) -> Vec<String> {
        let new = self.0.iter().filter(|(name, _)| !before.0.contains_key(*name));
        new.map(|(name, detail)| format!("{name} {detail}").trim_end().to_owned())
            .filter(|trace| !is_usual(trace))
            .collect()
    }
}

/// A firewall's rule without what it has counted so far.
fn without_counts(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let counts = *word == "packets" && words.get(at + 2) == Some(&"bytes");
        let total = word.starts_with('[') && word.contains(':');
        at += if counts { 4 } else { 1 };
        if !counts && !total {
            kept.push(*word);
        }
    }
    kept.join(" ")
}

/// What is there around rules as soon as iptables has been asked for anything.
fn is_frame(line: &str) -> bool {
    let (line, _) = line.rsplit_once(' ').unwrap_or((line, ""));
    ["", "}", "COMMIT"].contains(&line)
        || ["INPUT", "FORWARD", "OUTPUT"]
            .iter()
            .any(|chain| line == format!(":{chain} ACCEPT") || line == format!("chain {chain} {{"))
}

/// Folders that outlive every container, whichever shim made them.
fn is_usual(trace: &str) -> bool {
    if let Some(rule) = trace.strip_prefix("firewall rule ") {
        // A table and a chain that have nothing in them: Docker 28 leaves those.
        let accepts = rule.starts_with("type ") && rule.contains("policy accept;");
        let is_empty = accepts || rule.starts_with("table ") || rule.starts_with('*');
        return (is_empty && !rule.contains("CRIU")) || is_frame(rule);
    }
    if trace.starts_with("mount /run/docker/netns/default ") {
        // The host's network, which dockerd keeps once a container has used it.
        return true;
    }
    let Some(path) = trace.strip_prefix("file ") else { return false };
    // Cached probes, CRIU's and ours of runtimes; parents of per-container folders; pipes that ctr leaves;
    // what crun masks folders with, one for each of its state roots.
    path == "/run/criu.kdat"
        || path.starts_with("/run/containerd/fifo")
        || path == "/run/containerd/s"
        || path == "/run/containerd/runc"
        || path == "/run/crun"
        || path == "/run/cryo"
        || path == "/run/cryo/crun"
        || path == "/run/cryo/runc"
        || path == "/run/cryo/stops"
        || path.ends_with("/.empty-directory")
        // dockerd removes these files once a minute; a namespace that is still there is
        // found by its mount.
        || path.starts_with("/run/docker/netns")
        // What crun compiled seccomp profiles to.
        || path.ends_with("/.cache")
        || path.contains("/.cache/seccomp")
        || path.ends_with("/io.containerd.grpc.v1.cri/containers")
        || path.ends_with("/io.containerd.grpc.v1.cri/sandboxes")
        || path.ends_with("/io.containerd.grpc.v1.cri/image-volumes")
        || path == "/run/netns"
        // Where CNI keeps leases and what it has given out last.
        || ["results", "networks", "networks/pods", "networks/pods/lock", "networks/pods/last_reserved_ip.0"]
            .iter()
            .any(|name| path.strip_prefix("/cni/") == Some(name))
        || path == "/run/docker/containerd"
        || path == "/run/docker/runtime-runc"
        || path == "/run/docker/runtime-runc/moby"
        || path.starts_with("/run/docker/libnetwork/")
        || (path.starts_with("/run/containerd/runc/") && path.split('/').count() == 5)
        || (path.starts_with("/run/containerd/io.containerd.runtime.v2.task/")
            && path.split('/').count() == 5)
}

/// What is in the slot now and was not before the first trial.
pub(crate) fn found_in(slot: &Slot) -> Vec<String> {
    Traces::of(slot).beyond(&slot.untouched)
}

/// Waits until the slot is as it was before the first trial; else what is left over.
pub(crate) fn left_in(slot: &Slot) -> Vec<String> {
    let mut left = Vec::new();
    let clean = eventually_within(GRACE, "nothing is left over", || {
        forgive_stock(slot);
        left = found_in(slot);
        left.is_empty().then_some(())
    });
    cgroup::clean_hidden_hierarchy(&slot.daemon_cgroup());
    if clean.is_ok() { Vec::new() } else { left }
}

/// What the stock shim always leaves and ours must not: the socket of a shim that was
/// killed, and the copy of a checkpoint that containerd unpacks for each restore from
/// its content store.
fn forgive_stock(slot: &Slot) {
    if settings().shim.is_cryo() {
        return;
    }
    let files = |folder: &str| fs::read_dir(slot.folder.join(folder)).into_iter().flatten().flatten();
    for path in files("tmp").map(|entry| entry.path()) {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ctrd-checkpoint")) {
            // If it can't be removed it is found and reported.
            let _ = fs::remove_dir_all(path);
        }
    }
    for path in files("run/containerd/s").map(|entry| entry.path()) {
        if UnixStream::connect(&path).is_err() {
            let _ = fs::remove_file(path);
        }
    }
}

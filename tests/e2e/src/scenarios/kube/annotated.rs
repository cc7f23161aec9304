//! Pods that start from a checkpoint because an annotation says so.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{counting, faults};
use crate::harness::kube::Registry;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let all = vec![
        kube_scenario!(a_pod_starts_from_a_checkpoint_of_the_nodes_store),
        kube_scenario!(containers_of_a_pod_start_each_from_its_own_checkpoint),
        kube_scenario!(a_container_that_ends_begins_at_its_checkpoint_again),
        kube_scenario!(an_annotation_for_a_pod_of_several_containers_says_which),
        kube_scenario!(an_annotation_that_names_nothing_usable_is_a_sentence),
        kube_scenario!(without_criu_pods_live_and_restores_name_it),
        kube_scenario!(a_pod_starts_from_a_checkpoint_in_a_registry_on_another_node),
        kube_scenario!(registries_that_cant_help_are_told_about),
    ];
    let unknown = "the stock shim knows no annotations";
    all.into_iter().map(|scenario| scenario.restores().cryo_only(unknown)).collect()
}

fn cryo(bench: &Bench, args: &[&str]) -> Outcome<String> {
    let output = bench.slot.command("cryo").args(args).output()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(text) } else { Err(Failure::new(format!("cryo {args:?}: {text}"))) }
}

/// A store of its own, from which pods may start; and what else is allowed.
fn own_store(bench: &Bench, besides: &[&str]) -> Outcome<PathBuf> {
    let store = bench.fresh_folder("store")?;
    let besides: String = besides.iter().map(|source| format!(", {source:?}")).collect();
    let text = format!("restore_from = [{store:?}{besides}]\n[store]\npath = {store:?}\n");
    bench.set_node_file(&text)?;
    Ok(store)
}

fn listed(bench: &Bench) -> Outcome<Vec<Value>> {
    let text = cryo(bench, &["ls", "--json"])?;
    serde_json::from_str(&text).during(|| text.clone())
}

/// Checkpoints a pod's container into the store, where it lets it go on.
fn keep(container: &PodContainer<'_, '_>, name: &str) -> Outcome<PathBuf> {
    let bench = container.pod().plan.kubelet.bench;
    let image = bench.fresh_folder("image")?;
    bench.api().checkpoint(&container.id, Checkpoint::into_folder(&image).packed(), PATIENCE)?;
    let archive = bench.fresh_folder("archive")?.join("archive.tar");
    let paths = [image.display().to_string(), archive.display().to_string()];
    cryo(bench, &["export", &paths[0], "-o", &paths[1]])?;
    cryo(bench, &["import", &paths[1], "--name", name])?;
    Ok(archive)
}

fn called<'p, 'b>(pod: &'p Pod<'b>, name: &str) -> ContainerPlan<'p, 'b> {
    pod.container(&["/bin/guest", "count"]).name(name)
}

/// A container that has counted, and written.
fn writing<'p, 'b>(pod: &'p Pod<'b>, name: &str) -> Outcome<PodContainer<'p, 'b>> {
    let container = called(pod, name).start()?;
    container.wait_for_counting(3)?;
    container.shell(&format!("echo of {name} >/file; rm /bin/wget; echo {name} >>/etc/passwd"))?;
    Ok(container)
}

fn is_back(container: &PodContainer<'_, '_>, name: &str) -> Outcome {
    container.wait_for_counting(3)?;
    ensure!(*container.counted()?.start() > 3, "it began anew: {:?}", container.counted()?);
    let look = "cat /file; tail -n 1 /etc/passwd; ls /bin/wget 2>/dev/null || true; hostname";
    let host = &container.pod().plan.config.hostname;
    ensure_eq!(
        container.shell(look)?,
        format!("of {name}\n{name}\n{host}\n"),
        "its files and its pod's name"
    );
    Ok(())
}

fn a_pod_starts_from_a_checkpoint_of_the_nodes_store(kubelet: Kubelet<'_>) -> Outcome {
    own_store(kubelet.bench, &[])?;
    let first = kubelet.pod()?;
    keep(&writing(&first, "web")?, "warm")?;
    for annotation in ["cryo.restore-from", "cryo.restore-from.web"] {
        // Beside the first one.
        let pod = kubelet.plan().annotation(annotation, "warm").start()?;
        let copy = called(&pod, "web").start()?;
        is_back(&copy, "web")?;
        ensure!(pod.address()? != first.address()?, "it has the first one's address");
        ensure!(
            copy.output_of(&["ip", "address"])?.contains(&pod.address()?),
            "it isn't in its pod's network"
        );
        pod.end()?;
    }
    ensure_eq!(listed(kubelet.bench)?.len(), 1, "checkpoints");
    first.end()
}

fn containers_of_a_pod_start_each_from_its_own_checkpoint(kubelet: Kubelet<'_>) -> Outcome {
    own_store(kubelet.bench, &[])?;
    let first = kubelet.pod()?;
    let server = first.container(&["/bin/guest", "listen", "7000"]).name("web").start()?;
    server.wait_for_line("ready")?;
    server.shell("echo of web >/file")?;
    let client = writing(&first, "client")?;
    keep(&server, "web-warm")?;
    keep(&client, "client-warm")?;
    first.end()?;
    let plan = kubelet.plan().annotation("cryo.restore-from.web", "web-warm");
    let pod = plan.annotation("cryo.restore-from.client", "client-warm").start()?;
    let fresh = called(&pod, "fresh").start()?;
    let server = pod.container(&["true"]).name("web").start()?;
    let client = called(&pod, "client").start()?;
    is_back(&client, "client")?;
    ensure_eq!(server.shell("cat /file")?, "of web\n", "the server's file");
    fresh.wait_for_line("1")?;
    let shared = "for kind in uts ipc net; do readlink /proc/1/ns/$kind; done; hostname";
    ensure_eq!(client.shell(shared)?, fresh.shell(shared)?, "what the pod's containers share");
    for container in [&client, &fresh] {
        let talk = "echo hello | timeout 5 nc 127.0.0.1 7000 | head -n 1";
        ensure_eq!(container.shell(talk)?, "hello\n", "what the server says within the pod");
    }
    pod.end()
}

fn a_container_that_ends_begins_at_its_checkpoint_again(kubelet: Kubelet<'_>) -> Outcome {
    own_store(kubelet.bench, &[])?;
    let first = kubelet.pod()?;
    keep(&writing(&first, "web")?, "warm")?;
    first.end()?;
    let pod = kubelet.plan().annotation("cryo.restore-from", "warm").start()?;
    for attempt in 0..3 {
        let container = called(&pod, "web").attempt(attempt).start()?;
        is_back(&container, "web")?;
        container.signal(nix::sys::signal::Signal::SIGKILL)?;
        ensure_eq!(container.wait()?.exit_code, 137, "its exit status");
    }
    pod.end()
}

/// The words of the event that the pod would have; whatever was tried is gone.
fn refusal(plan: ContainerPlan<'_, '_>) -> Outcome<String> {
    let mut said = String::new();
    for attempt in 0..3 {
        let container = plan.clone().attempt(attempt).create()?;
        let text = refused(container.start(), &[])?;
        ensure!(said.is_empty() || text.len() == said.len(), "{said}, then {text}");
        said = text;
        container.remove()?;
    }
    Ok(said)
}

fn an_annotation_for_a_pod_of_several_containers_says_which(kubelet: Kubelet<'_>) -> Outcome {
    own_store(kubelet.bench, &[])?;
    let first = kubelet.pod()?;
    keep(&writing(&first, "web")?, "warm")?;
    first.end()?;
    let pod = kubelet.plan().annotation("cryo.restore-from", "warm").start()?;
    let said = refusal(called(&pod, "init"))?;
    faults::is_a_sentence(&said, &["one of container web", "cryo.restore-from.init"])?;
    let web = called(&pod, "web").start()?;
    is_back(&web, "web")?;
    let said = refusal(called(&pod, "log"))?;
    faults::is_a_sentence(&said, &["other containers (web)", "cryo.restore-from.log"])?;
    web.wait_for_counting(2)?;
    pod.end()
}

fn an_annotation_that_names_nothing_usable_is_a_sentence(kubelet: Kubelet<'_>) -> Outcome {
    let store = own_store(kubelet.bench, &[])?;
    let first = kubelet.pod()?;
    let container = writing(&first, "web")?;
    keep(&container, "warm")?;
    let said = |value: &str| -> Outcome<String> {
        let pod = kubelet.plan().annotation("cryo.restore-from", value).start()?;
        let said = refusal(called(&pod, "web"))?;
        pod.end()?;
        Ok(said)
    };
    faults::is_a_sentence(&said("cold")?, &["there is no checkpoint \"cold\"", "cryo ls"])?;
    faults::is_a_sentence(
        &said("/var/lib/elsewhere")?,
        &["doesn't allow restores from there", "restore_from"],
    )?;
    faults::is_a_sentence(&said("oci://r.example/web:1")?, &["doesn't allow restores from there", "oci://"])?;
    faults::is_a_sentence(&said("oci://web")?, &["a registry, a repository and a tag"])?;
    // Damaged: a byte of its memory, and one of its files.
    for name in ["pages-1.img", "rootfs-diff.tar"] {
        let flip = "file=$(find $1/entries -name $2); at=$(($(stat -c %s $file) / 2))
            byte=$(od -An -tu1 -j $at -N 1 $file); printf \"\\\\$(printf %o $((byte ^ 1)))\" |
            dd of=$file bs=1 seek=$at conv=notrunc 2>/dev/null";
        kubelet.bench.shell(flip, &[&store, Path::new(name)])?;
        let text = said("warm")?;
        ensure!(text.contains("damaged"), "{text}");
        kubelet.bench.shell(flip, &[&store, Path::new(name)])?;
    }
    // Foreign: somebody else's folder, and nobody's.
    kubelet.bench.set_node_file(&format!("restore_from = [{:?}]\n", store.with_file_name("")))?;
    let folder = kubelet.bench.fresh_folder("holiday")?;
    fs::write(folder.join("beach.jpg"), [7; 1000])?;
    kubelet.bench.shell("chmod 700 $1", &[&folder])?;
    faults::is_a_sentence(&said(&folder.display().to_string())?, &["holds no checkpoint"])?;
    container.wait_for_counting(2)?;
    first.end()
}

fn without_criu_pods_live_and_restores_name_it(kubelet: Kubelet<'_>) -> Outcome {
    own_store(kubelet.bench, &[])?;
    let first = kubelet.pod()?;
    keep(&writing(&first, "web")?, "warm")?;
    first.end()?;
    faults::hiding_criu(kubelet, || {
        let pod = kubelet.plan().annotation("cryo.restore-from.web", "warm").start()?;
        let said = refusal(called(&pod, "web"))?;
        faults::is_a_sentence(&said, &["criu", "PATH"])?;
        counting(&pod)?;
        pod.end()
    })
}

/// Puts an archive into a registry, as users do.
fn publish(bench: &Bench, archive: &Path, reference: &str) -> Outcome {
    let archive = archive.display().to_string();
    cryo(bench, &["export", "warm", "-o", &archive])?;
    ctr(bench, &["images", "import", "--no-unpack", &archive])?;
    ctr(bench, &["images", "tag", "localhost/checkpoint:warm", reference])?;
    ctr(bench, &["images", "push", "--plain-http", reference])?;
    ctr(bench, &["images", "rm", "--sync", "localhost/checkpoint:warm", reference])?;
    Ok(())
}

const REFERENCE: &str = "127.0.0.1:5000/team/web:warm";

fn a_pod_starts_from_a_checkpoint_in_a_registry_on_another_node(kubelet: Kubelet<'_>) -> Outcome {
    let registry = Registry::serve(&kubelet.bench.slot)?;
    own_store(kubelet.bench, &[])?;
    let first = kubelet.pod()?;
    let archive = keep(&writing(&first, "web")?, "warm")?;
    publish(kubelet.bench, &archive, REFERENCE)?;
    first.end()?;
    kubelet.bench.on_another_node(|bench| {
        let kubelet = Kubelet::at(bench);
        registry.serve_also(&bench.slot)?;
        own_store(bench, &["oci://127.0.0.1:5000/team"])?;
        let plan = || kubelet.plan().annotation("cryo.restore-from", &format!("oci://{REFERENCE}"));
        let pods = [plan().start()?, plan().start()?];
        let containers = [called(&pods[0], "web").start()?, called(&pods[1], "web").start()?];
        for container in &containers {
            is_back(container, "web")?;
        }
        // One entry, whoever asked for it, and no second copy with containerd.
        let all = listed(bench)?;
        ensure_eq!(all.len(), 1, "checkpoints");
        ensure!(cryo(bench, &["ls"])?.contains(REFERENCE), "where it is from isn't shown");
        let images = ctr(bench, &["images", "ls", "-q"])?;
        ensure!(!images.contains("team/web"), "containerd keeps it: {images}");
        // As long as a container may begin there again, it stays.
        cryo(bench, &["store", "prune"])?;
        ensure_eq!(listed(bench)?.len(), 1, "checkpoints");
        pods[0].end()?;
        cryo(bench, &["store", "prune"])?;
        ensure_eq!(listed(bench)?.len(), 1, "checkpoints");
        pods[1].end()?;
        cryo(bench, &["store", "prune"])?;
        ensure_eq!(listed(bench)?.len(), 0, "checkpoints that nobody needs");
        // One that containerd has already is taken from there, and stays there.
        ctr(bench, &["images", "pull", "--plain-http", REFERENCE])
            .map(drop)
            .or_else(|_| ctr(bench, &["content", "fetch", "--plain-http", REFERENCE]).map(drop))?;
        let pod = plan().start()?;
        is_back(&called(&pod, "web").start()?, "web")?;
        ensure!(ctr(bench, &["images", "ls", "-q"])?.contains("team/web"), "it is gone");
        ctr(bench, &["images", "rm", "--sync", REFERENCE])?;
        pod.end()
    })
}

fn registries_that_cant_help_are_told_about(kubelet: Kubelet<'_>) -> Outcome {
    own_store(kubelet.bench, &["oci://127.0.0.1:5000"])?;
    let said = |reference: &str| -> Outcome<String> {
        let pod = kubelet.plan().annotation("cryo.restore-from", &format!("oci://{reference}")).start()?;
        let said = refusal(called(&pod, "web"))?;
        pod.end()?;
        Ok(said)
    };
    let text = said(REFERENCE)?;
    faults::is_a_sentence(&text, &["containerd can't pull it", "refused"])?;
    let _registry = Registry::serve(&kubelet.bench.slot)?;
    faults::is_a_sentence(&said(REFERENCE)?, &["no registry has it"])?;
    let text = said("127.0.0.1:5000/guest:1")?;
    faults::is_a_sentence(&text, &["no archive of a checkpoint", "its manifest"])?;
    ensure_eq!(listed(kubelet.bench)?.len(), 0, "checkpoints");
    // Under its other name it is the node's.
    let images = ctr(kubelet.bench, &["images", "ls", "-q"])?;
    ensure!(images.contains("cryo.test/guest:1") && !images.contains("127.0.0.1:5000"), "{images}");
    Ok(())
}

//! The DaemonSet's pod on a node: an image of two programs that changes the node below `/host`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::super::shims_of;
use super::*;
use crate::harness::cri::NamespaceMode;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        kube_scenario!(an_image_of_two_programs_installs_upgrades_and_leaves),
        kube_scenario!(programs_that_are_not_from_an_image_are_left_alone),
        kube_scenario!(an_image_that_does_not_see_the_nodes_processes_says_so),
    ]
}

/// The node's folder for programs, the slot's own.
struct Node<'b> {
    kubelet: Kubelet<'b>,
    file: PathBuf,
    programs: PathBuf,
}

impl<'b> Node<'b> {
    fn new(kubelet: Kubelet<'b>) -> Outcome<Self> {
        let file = kubelet.forget_cryo(false)?;
        let programs = kubelet.bench.fresh_folder("programs")?;
        kubelet.bench.shell("mount --bind \"$1\" /usr/local/bin", &[&programs])?;
        Ok(Node { kubelet, file, programs })
    }

    fn leave(&self) -> Outcome {
        self.kubelet.bench.shell("umount /usr/local/bin", &[])?;
        Ok(())
    }

    /// What the DaemonSet's privileged container does, until it needn't be done again. How it
    /// ended, and its log.
    #[track_caller]
    fn carry_out(&self, image: &str, arguments: &[&str]) -> Outcome<(i32, String)> {
        self.carry_out_in(NamespaceMode::Node, image, arguments)
    }

    #[track_caller]
    fn carry_out_in(&self, pids: NamespaceMode, image: &str, arguments: &[&str]) -> Outcome<(i32, String)> {
        let plan = self.kubelet.plan().handler("").namespaces(|shared| shared.pid = pids as i32);
        let pod = plan.security(|context| context.privileged = true).start()?;
        let labels = self.kubelet.bench.fresh_folder("labels")?;
        let mut attempt = 0;
        let ended = eventually("cryo is alone", || {
            let ended = self.attempt(&pod, image, arguments, &labels, attempt);
            attempt += 1;
            match ended {
                Ok((_, log)) if is_busy(&log) => None,
                ended => Some(ended),
            }
        })??;
        pod.end()?;
        fs::copy(labels.join("patch.json"), self.programs.with_file_name("patch.json")).ok();
        Ok(ended)
    }

    fn attempt(
        &self,
        pod: &Pod<'_>,
        image: &str,
        arguments: &[&str],
        labels: &Path,
        attempt: u32,
    ) -> Outcome<(i32, String)> {
        let container = pod
            .container(&[])
            .name("install")
            .attempt(attempt)
            .image(image)
            .change(|config| {
                config.args = [&["install", "kubernetes", "--host", "/host"], arguments]
                    .concat()
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect();
            })
            .security(|context| {
                context.privileged = true;
                context.readonly_rootfs = true;
            })
            .mount(Path::new("/"), "/host")
            .mount(labels, "/labels")
            .start()?;
        let code = container.wait()?.exit_code;
        Ok((code, container.lines()?.join("\n")))
    }

    #[track_caller]
    fn install(&self, image: &str) -> Outcome {
        let file = self.file.display().to_string();
        let (code, log) = self.carry_out(image, &["--config", &file, "--labels", "/labels/patch.json"])?;
        ensure_eq!(code, 0, "how the install ended: {log}");
        Ok(())
    }

    fn shim(&self) -> PathBuf {
        self.programs.join(OURS)
    }
}

/// The next version: the same programs, and not the same.
fn another(kubelet: Kubelet<'_>, programs: &Path) -> Outcome<PathBuf> {
    let folder = kubelet.bench.fresh_folder("next")?;
    for name in ["cryo", OURS] {
        fs::copy(programs.join(name), folder.join(name))?;
        fs::File::options().append(true).open(folder.join(name))?.write_all(b"next")?;
    }
    Ok(folder)
}

#[track_caller]
fn runs_from(kubelet: Kubelet<'_>, id: &str) -> Outcome<String> {
    let shim = *shims_of(kubelet, &[id]).first().ok_or_else(|| Failure::new("it has no shim"))?;
    Ok(fs::read_link(format!("/proc/{shim}/exe"))?.display().to_string())
}

const ONE: &str = "cryo.test/installer:1";
const TWO: &str = "cryo.test/installer:2";

fn an_image_of_two_programs_installs_upgrades_and_leaves(kubelet: Kubelet<'_>) -> Outcome {
    let node = Node::new(kubelet)?;
    let before = fs::read_to_string(&node.file)?;
    let first = Path::new(BASE).join("bin");
    kubelet.installer_image(&first, ONE)?;
    kubelet.installer_image(&another(kubelet, &first)?, TWO)?;
    node.install(ONE)?;
    ensure_eq!(fs::read(node.shim())?, fs::read(first.join(OURS))?, "the shim that was brought");
    let labels: serde_json::Value =
        serde_json::from_slice(&fs::read(node.programs.with_file_name("patch.json"))?)?;
    let label = |name: &str| labels["metadata"]["labels"][format!("cryo/{name}")].as_str().map(str::to_owned);
    ensure_eq!(label("checkpoint").as_deref(), Some("true"), "whether it checkpoints, of {labels}");
    ensure!(label("criu").is_some_and(|version| version.starts_with("4.")), "{labels}");
    restart(kubelet, &[])?;
    let old = kubelet.plan().handler("cryo").start()?;
    let running = counting(&old)?;
    ensure!(runs_from(kubelet, &running.id)?.ends_with(OURS), "it runs from elsewhere");

    // An upgrade: what runs keeps its shim, what starts has the new one.
    node.install(TWO)?;
    ensure!(runs_from(kubelet, &running.id)?.ends_with("(deleted)"), "the shim was written over");
    let new = kubelet.plan().handler("cryo").start()?;
    let started = counting(&new)?;
    let shim = shims_of(kubelet, &[&started.id])[0];
    ensure_eq!(fs::read(format!("/proc/{shim}/exe"))?, fs::read(node.shim())?, "the new one's shim");
    for container in [&running, &started] {
        ensure_eq!(container.output_of(&["echo", "well"])?, "well\n", "a probe");
    }
    new.end()?;

    // Nothing goes as long as somebody needs it.
    let installed = fs::read_to_string(&node.file)?;
    let (code, log) = node.carry_out(TWO, &["--uninstall"])?;
    ensure_eq!(code, 1, "how an uninstall ended that has to wait: {log}");
    ensure!(log.contains("2 containers still run on Cryo"), "{log}");
    ensure_eq!(fs::read_to_string(&node.file)?, installed, "the configuration meanwhile");
    ensure_eq!(running.output_of(&["echo", "well"])?, "well\n", "a probe");
    old.end()?;
    let (code, log) = node.carry_out(TWO, &["--uninstall"])?;
    ensure_eq!(code, 0, "how the uninstall ended: {log}");
    ensure_eq!(fs::read_to_string(&node.file)?, before, "the configuration afterwards");
    ensure_eq!(names_in(&node.programs)?, [""; 0], "programs that are left");
    ensure!(!kubelet.bench.slot.folder.join("cryo/install.json").exists(), "the record is left");
    node.leave()
}

fn programs_that_are_not_from_an_image_are_left_alone(kubelet: Kubelet<'_>) -> Outcome {
    let node = Node::new(kubelet)?;
    let before = fs::read_to_string(&node.file)?;
    kubelet.installer_image(&Path::new(BASE).join("bin"), ONE)?;
    fs::write(node.shim(), "an administrator's own")?;
    let file = node.file.display().to_string();
    let (code, log) = node.carry_out(ONE, &["--config", &file])?;
    ensure_eq!(code, 1, "how it ended: {log}");
    ensure!(log.contains(OURS) && log.contains("isn't from this command"), "{log}");
    ensure_eq!(fs::read_to_string(node.shim())?, "an administrator's own", "his program");
    ensure_eq!(fs::read_to_string(&node.file)?, before, "the configuration");
    node.leave()
}

fn an_image_that_does_not_see_the_nodes_processes_says_so(kubelet: Kubelet<'_>) -> Outcome {
    let node = Node::new(kubelet)?;
    kubelet.installer_image(&Path::new(BASE).join("bin"), ONE)?;
    let (code, log) = node.carry_out_in(NamespaceMode::Container, ONE, &[])?;
    ensure_eq!(code, 1, "how it ended: {log}");
    ensure!(log.contains("/host/proc doesn't show this process") && log.contains("hostPID"), "{log}");
    ensure_eq!(names_in(&node.programs)?, [""; 0], "programs that are there");
    node.leave()
}

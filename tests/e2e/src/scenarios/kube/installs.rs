//! `cryo install kubernetes` on nodes whose containerd runs pods.

mod image;
mod refusals;

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use super::counting;
use super::handlers::{OURS, STOCK, programs};
use crate::harness::slot::BASE;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let is_1 = |_: &Combination, settings: &Settings| settings.containerd < Version(2, 0);
    let is_2 = |_: &Combination, settings: &Settings| settings.containerd >= Version(2, 0);
    let mut all = vec![
        kube_scenario!(a_node_gets_cryo_by_one_command_and_loses_it_by_another),
        kube_scenario!(a_node_with_an_older_configuration_does_too)
            .impossible_if(is_1, "it is the usual one"),
        kube_scenario!(a_node_that_describes_no_handler_keeps_its_own)
            .impossible_if(is_2, "containerd 2 doesn't forget what it describes itself"),
        kube_scenario!(an_interrupted_install_is_finished_by_the_next),
    ];
    all.extend(image::scenarios());
    all.extend(refusals::scenarios());
    all.into_iter()
        .map(|scenario| {
            scenario
                .impossible_if(|_, settings| settings.shim != Shim::Cryo, "it is Cryo that is installed")
                .impossible_if(|combination, _| combination.runtime == Runtime::Crun, "the handler runs runc")
        })
        .collect()
}

/// How the command ended, and all that it said.
struct Said {
    well: bool,
    text: String,
}

/// As the node's administrator. Other slots' administrators are at the same machine.
#[track_caller]
fn cryo(kubelet: Kubelet<'_>, arguments: &[&str]) -> Outcome<Said> {
    eventually("cryo is alone", || {
        let output = kubelet.bench.slot.command("cryo").args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (!is_busy(&text)).then_some(Said { well: output.status.success(), text })
    })
}

fn is_busy(text: &str) -> bool {
    text.contains("another cryo install is running")
}

#[track_caller]
fn install(kubelet: Kubelet<'_>, file: &Path) -> Outcome<String> {
    // Its own, so that nobody else's containers need it.
    let shim = kubelet.bench.slot.folder.join("bin").join(OURS);
    if !shim.exists() {
        fs::copy(Path::new(BASE).join("bin").join(OURS), &shim)?;
    }
    let (shim, file) = (shim.display().to_string(), file.display().to_string());
    let said = cryo(kubelet, &["install", "kubernetes", "--shim", &shim, "--config", &file])?;
    ensure!(said.well, "it failed: {}", said.text);
    Ok(said.text)
}

#[track_caller]
fn uninstall(kubelet: Kubelet<'_>) -> Outcome<String> {
    let said = cryo(kubelet, &["install", "kubernetes", "--uninstall"])?;
    ensure!(said.well, "it failed: {}", said.text);
    Ok(said.text)
}

/// What containerd makes of its configuration.
#[track_caller]
fn dump(kubelet: Kubelet<'_>, file: &Path) -> Outcome<String> {
    kubelet.bench.shell("containerd --config \"$1\" config dump", &[file])
}

#[track_caller]
fn restart(kubelet: Kubelet<'_>, counting: &[&PodContainer<'_, '_>]) -> Outcome {
    kubelet.restart_containerd(Signal::SIGTERM, counting)
}

#[track_caller]
fn has_no_handler(kubelet: Kubelet<'_>) -> Outcome {
    let said = kubelet.plan().handler("cryo").refusal()?;
    ensure!(said.contains("no runtime for \"cryo\""), "{said}");
    Ok(())
}

fn comes_and_goes(kubelet: Kubelet<'_>, file: &Path) -> Outcome {
    let before = fs::read_to_string(file)?;
    let plain = kubelet.plan().handler("").start()?;
    let others = counting(&plain)?;
    has_no_handler(kubelet)?;
    let text = install(kubelet, file)?;
    ensure!(text.contains("restart containerd"), "{text}");
    restart(kubelet, &[&others])?;
    let pod = kubelet.plan().handler("cryo").annotation("cryo.timeout", "90s").start()?;
    let container = counting(&pod)?;
    let found = programs(kubelet, &[&pod.id, &container.id])?;
    ensure!(found.len() == 2 && found.iter().all(|name| name == OURS), "the shims are {found:?}");
    let said = kubelet.plan().handler("cryo").annotation("cryo.nonsense", "1").refusal()?;
    ensure!(said.contains("cryo.nonsense"), "annotations don't reach it: {said}");
    let another = kubelet.plan().handler("").start()?;
    let found = programs(kubelet, &[&another.id, &counting(&another)?.id])?;
    ensure!(found.iter().all(|name| name == STOCK), "other pods' shims are {found:?}");
    another.end()?;
    let installed = fs::read_to_string(file)?;
    let text = install(kubelet, file)?;
    ensure!(!text.contains("wrote"), "the second time: {text}");
    ensure_eq!(fs::read_to_string(file)?, installed, "the configuration after the second time");

    // Not while it needs it: without a handler containerd has no probes.
    let said = cryo(kubelet, &["install", "kubernetes", "--uninstall"])?;
    ensure!(!said.well && said.text.contains("2 containers still run on Cryo"), "{}", said.text);
    ensure_eq!(fs::read_to_string(file)?, installed, "the configuration after a refusal");
    ensure_eq!(container.output_of(&["echo", "well"])?, "well\n", "a probe");
    container.counted()?;
    pod.end()?;
    uninstall(kubelet)?;
    ensure_eq!(fs::read_to_string(file)?, before, "the configuration afterwards");
    ensure!(!file.with_file_name("conf.d").exists(), "a folder is left");
    ensure!(!kubelet.bench.slot.folder.join("cryo/install.json").exists(), "the record is left");
    restart(kubelet, &[&others])?;
    has_no_handler(kubelet)?;
    others.wait_for_counting(3)?;
    ensure_eq!(others.output_of(&["echo", "well"])?, "well\n", "another pod's probe");
    others.counted()?;
    plain.end()
}

fn a_node_gets_cryo_by_one_command_and_loses_it_by_another(kubelet: Kubelet<'_>) -> Outcome {
    let file = kubelet.forget_cryo(false)?;
    keeps_everything_else(kubelet, &file)?;
    comes_and_goes(kubelet, &file)
}

fn a_node_with_an_older_configuration_does_too(kubelet: Kubelet<'_>) -> Outcome {
    let file = kubelet.forget_cryo(true)?;
    keeps_everything_else(kubelet, &file)?;
    comes_and_goes(kubelet, &file)
}

fn a_node_that_describes_no_handler_keeps_its_own(kubelet: Kubelet<'_>) -> Outcome {
    let file = kubelet.forget_cryo(false)?;
    let text = fs::read_to_string(&file)?;
    let (text, handlers) =
        text.split_once("[plugins.\"io.containerd.grpc.v1.cri\".containerd").unwrap_or_default();
    ensure!(handlers.contains("runc"), "what is described is {handlers}");
    fs::write(&file, text)?;
    restart(kubelet, &[])?;
    comes_and_goes(kubelet, &file)
}

/// By containerd's own account, line by line.
fn keeps_everything_else(kubelet: Kubelet<'_>, file: &Path) -> Outcome {
    let before = dump(kubelet, file)?;
    install(kubelet, file)?;
    let after = dump(kubelet, file)?;
    let mut lines = after.lines();
    let lost: Vec<_> = before
        .lines()
        .filter(|line| !line.starts_with("imports"))
        .filter(|line| !lines.by_ref().any(|there| there == *line))
        .collect();
    ensure!(lost.is_empty(), "containerd lost {lost:?}");
    ensure!(after.contains("containerd-shim-cryo-v2") && after.contains("cryo.*"), "the handler isn't there");
    uninstall(kubelet)?;
    ensure_eq!(dump(kubelet, file)?, before, "what containerd has afterwards");
    Ok(())
}

/// Killed at each change to the disk, in either direction.
fn an_interrupted_install_is_finished_by_the_next(kubelet: Kubelet<'_>) -> Outcome {
    let file = kubelet.forget_cryo(false)?;
    let folder = kubelet.bench.fresh_folder("interrupted")?;
    let copy = folder.join("config.toml");
    fs::copy(&file, &copy)?;
    let before = fs::read_to_string(&copy)?;
    install(kubelet, &copy)?;
    let (installed, others) = (fs::read_to_string(&copy)?, names_in(&folder)?);
    let drop_in = || fs::read_to_string(folder.join("conf.d/cryo.toml")).unwrap_or_default();
    let imported = drop_in();
    uninstall(kubelet)?;
    for call in ["rename,renameat,renameat2", "unlink,unlinkat", "fsync"] {
        let mut deaths = 0;
        while interrupted(kubelet, &copy, false, call, deaths + 1)? {
            deaths += 1;
            install(kubelet, &copy)?;
            ensure_eq!(fs::read_to_string(&copy)?, installed, "after a death at {call} {deaths}");
            ensure_eq!(drop_in(), imported, "the drop-in after a death at {call} {deaths}");
            ensure_eq!(names_in(&folder)?, others, "what is there after a death at {call} {deaths}");
            uninstall(kubelet)?;
            ensure_eq!(fs::read_to_string(&copy)?, before, "after a death at {call} {deaths}, and back");
        }
        ensure!(deaths > 0, "{call} isn't called at all");
        let mut deaths = 0;
        while interrupted(kubelet, &copy, true, call, deaths + 1)? {
            deaths += 1;
            uninstall(kubelet)?;
            ensure_eq!(
                fs::read_to_string(&copy)?,
                before,
                "after a death at {call} {deaths} on the way back"
            );
            ensure_eq!(names_in(&folder)?, ["config.toml"], "what is left after {call} {deaths}");
            install(kubelet, &copy)?;
        }
        ensure_eq!(names_in(&folder)?, ["config.toml"], "what is left");
    }
    Ok(())
}

/// Whether it was killed when it made that call for the time that is named.
fn interrupted(kubelet: Kubelet<'_>, file: &Path, back: bool, call: &str, time: usize) -> Outcome<bool> {
    let arguments = if back {
        vec!["--uninstall".to_owned()]
    } else {
        let shim = kubelet.bench.slot.folder.join("bin").join(OURS);
        ["--shim", &shim.display().to_string(), "--config", &file.display().to_string()]
            .map(str::to_owned)
            .into()
    };
    eventually("cryo is alone", || {
        let output = kubelet
            .bench
            .slot
            .command("strace")
            .args([
                "-qq",
                "-e",
                &format!("trace={call}"),
                "-e",
                &format!("inject={call}:signal=KILL:when={time}"),
            ])
            .args(["cryo", "install", "kubernetes"])
            .args(&arguments)
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (!is_busy(&text)).then_some(!output.status.success())
    })
}

#[track_caller]
fn names_in(folder: &Path) -> Outcome<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

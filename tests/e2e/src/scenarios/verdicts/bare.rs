//! A checkpoint without anybody's preflight: the runtime's own command.

use std::fs;
use std::path::Path;

use crate::harness::*;

/// Longer than any dump here takes.
const SECONDS: &str = "15";

/// With what our shim would ask for in the same case; the words of whoever refuses.
pub(super) fn checkpoint(task: &Task<'_>, image: &Path) -> Outcome<Option<String>> {
    let bench = task.bench;
    let work = bench.fresh_folder("bare")?;
    let config = work.join("criu.conf");
    fs::write(&config, settings_of(task)?)?;
    let mut command = bench.slot.command("timeout");
    command.args(["--signal=KILL", SECONDS, bench.runtime().binary()]);
    command.arg("--root").arg(format!("/run/containerd/runc/{}", task.namespace));
    command.args(["checkpoint", "--leave-running", "--image-path"]).arg(image);
    command.arg("--work-path").arg(&work).env("CRIU_CONFIG_FILE", &config);
    if annotation(task, "cryo.file-locks") != Some("false") {
        command.arg("--file-locks");
    }
    if annotation(task, "cryo.external-unix-sockets") == Some("true") {
        command.arg("--ext-unix-sk");
    }
    let output = command.arg(&task.id).output()?;
    if output.status.success() {
        return Ok(None);
    }
    let log = ["dump.log", "criu-dump.log"].iter().find_map(|name| fs::read_to_string(work.join(name)).ok());
    let error = log
        .as_deref()
        .unwrap_or_default()
        .lines()
        .find(|line| line.contains("Error (") && !line.contains("rlimit:"));
    let words = String::from_utf8_lossy(&output.stderr);
    Ok(Some(error.or(words.lines().last()).unwrap_or("without a word").trim().to_owned()))
}

fn settings_of(task: &Task<'_>) -> Outcome<String> {
    let limit = annotation(task, "cryo.ghost-limit").unwrap_or("64M");
    let mut settings = format!("ghost-limit {limit}\nskip-in-flight\nlink-remap\nnetwork-lock skip\n");
    if task.bench.runtime() == Runtime::Crun {
        let network = task.network_namespace()?.display().to_string();
        settings += &format!("external {network}:extRootNetNS\n");
    }
    Ok(settings.replace("net:[", "net["))
}

fn annotation<'t>(task: &'t Task<'_>, name: &str) -> Option<&'t str> {
    task.blueprint.spec["annotations"][name].as_str()
}

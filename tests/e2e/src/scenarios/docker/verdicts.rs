//! `cryo check`: what it says of a container, and whether that comes true.

use serde_json::Value;

use super::{names, ready};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(what_can_be_checkpointed_is_told_and_true).comes_back(),
        docker_scenario!(what_is_in_the_way_is_told_and_true),
        docker_scenario!(a_stopped_container_is_judged_by_its_cgroups),
        docker_scenario!(a_container_is_found_by_name_and_by_id),
    ]
}

/// The exit status and what was printed.
fn check(docker: &Docker<'_>, args: &[&str]) -> Outcome<(i32, String)> {
    let output = docker.bench.slot.command("cryo").arg("check").args(args).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
}

fn verdict(docker: &Docker<'_>, container: &Container<'_>) -> Outcome<Value> {
    let (status, text) = check(docker, &["--json", &container.name])?;
    let verdict: Value = serde_json::from_str(&text).during(|| text.clone())?;
    ensure_eq!(verdict["ready"], Value::from(status == 0), "what it says and how it ends");
    ensure_eq!(verdict["container"], Value::from(container.id.as_str()), "the container");
    Ok(verdict)
}

/// Kinds of all that blocks.
fn blocking(verdict: &Value) -> Vec<&str> {
    let findings = verdict["findings"].as_array().into_iter().flatten();
    findings
        .filter(|finding| finding["blocks"] == true)
        .filter_map(|finding| finding["what"].as_str())
        .collect()
}

const GHOST_65: &str = "68157440";
const GHOST_63: &str = "66060288";

fn what_can_be_checkpointed_is_told_and_true(docker: &Docker<'_>) -> Outcome {
    let kept: &[&str] = &["--annotation", "cryo.tcp=established"];
    let closed: &[&str] = &["--annotation", "cryo.tcp=close"];
    let large: &[&str] = &["--annotation", "cryo.ghost-limit=70M"];
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["heap", "8"]),
        (&[], &["tree", "5"]),
        (&[], &["listen", "80"]),
        (&[], &["loopback"]),
        (&["--network", "none"], &["heap", "1"]),
        (&["--init"], &["heap", "1"]),
        (&["--tmpfs", "/scratch"], &["ghost", "/scratch/file", "4096"]),
        (&["--read-only"], &["heap", "1"]),
        (&[], &["lock", "/tmp/file"]),
        (&[], &["posix-lock", "/tmp/file"]),
        (&[], &["ghost", "/tmp/file", GHOST_63]),
        (large, &["ghost", "/tmp/file", GHOST_65]),
        (kept, &["connected"]),
        (closed, &["connected"]),
        (kept, &["stream"]),
    ];
    for (options, guest) in cases {
        let container = ready(docker, options, guest)?;
        let verdict = verdict(docker, &container)?;
        ensure!(verdict["ready"] == true, "{guest:?}: {verdict}");
        container.come_back("one").during(|| format!("{guest:?}"))?;
        container.rm()?;
    }
    Ok(())
}

fn what_is_in_the_way_is_told_and_true(docker: &Docker<'_>) -> Outcome {
    let unlocked: &[&str] = &["--annotation", "cryo.file-locks=false"];
    let small: &[&str] = &["--annotation", "cryo.ghost-limit=1M"];
    let cases: &[(&[&str], &[&str], &str)] = &[
        (&[], &["connected"], "tcp-connection"),
        (&[], &["stream"], "tcp-connection"),
        (&[], &["ghost", "/tmp/file", GHOST_65], "ghost-file"),
        (small, &["ghost", "/tmp/file", "2097152"], "ghost-file"),
        (unlocked, &["lock", "/tmp/file"], "file-lock"),
        (unlocked, &["posix-lock", "/tmp/file"], "file-lock"),
    ];
    for (options, guest, what) in cases {
        let container = ready(docker, options, guest)?;
        let verdict = verdict(docker, &container)?;
        ensure!(blocking(&verdict).contains(what), "{guest:?}: {verdict}");
        let (status, text) = check(docker, &[&container.name])?;
        ensure!(status == 1 && text.contains("can't be checkpointed"), "{guest:?}: {status} {text}");
        names(&container.checkpoint_refusal("one")?, &["guest (pid "])?;
        container.rm()?;
    }
    Ok(())
}

fn a_stopped_container_is_judged_by_its_cgroups(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &[], &["heap", "1"])?;
    container.call(&["kill", "--signal", "STOP"])?;
    let stopped = || {
        let verdict = verdict(docker, &container).ok()?;
        let found = verdict["findings"].as_array()?.iter().any(|finding| finding["what"] == "stopped");
        found.then_some(verdict)
    };
    let verdict = eventually("it is seen to be stopped", stopped)?;
    ensure_eq!(verdict["ready"], Value::from(cgroup::is_v2()), "whether it can be checkpointed");
    container.call(&["kill", "--signal", "CONT"])?;
    container.come_back("one")?;
    container.asks(1, "same")?;
    container.rm()
}

fn a_container_is_found_by_name_and_by_id(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &[], &["heap", "1"])?;
    for name in [&*container.name, &container.id, &container.id[..12]] {
        let (status, text) = check(docker, &[name])?;
        ensure!(status == 0 && text.contains("1 process) can be checkpointed"), "{name}: {status} {text}");
    }
    let (status, text) = check(docker, &["--namespace", "default", &container.name])?;
    ensure!(status == 2 && text.contains("no container"), "{status} {text}");
    container.call(&["kill"])?;
    container.wait_for_status("exited")?;
    let (status, text) = check(docker, &[&container.name])?;
    ensure!(status == 2 && text.starts_with("cryo: no container"), "{status} {text}");
    container.rm()
}

//! The shim as a program: what it prints, what it leaves in a bundle, and how it
//! cleans up after one of its kind that died.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use cryo_protos::protobuf::Message;
use cryo_protos::{api as wire, introspection};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(the_shim_tells_its_version).fifo_only(),
        scenario!(the_shim_tells_what_the_runtime_can_do).fifo_only().cryo_only_if(
            |_, settings| settings.containerd < Version(2, 0),
            "containerd 1.7's own shim isn't asked",
        ),
        scenario!(a_bundle_holds_what_others_look_for).fifo_only(),
        scenario!(a_dead_shims_container_is_deleted_by_the_delete_command),
        scenario!(our_delete_cleans_up_after_the_stock_shim).fifo_only().cryo_only("it takes both shims"),
        scenario!(the_stock_delete_cleans_up_after_our_shim).fifo_only().cryo_only("it takes both shims"),
    ]
}

const STOCK: &str = "/usr/bin/containerd-shim-runc-v2";

fn the_shim_tells_its_version(bench: &Bench) -> Outcome {
    let output = bench.slot.command(settings().shim.binary_name()).arg("-v").output()?;
    ensure!(output.status.success(), "it ended with {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.lines().any(|line| line.contains("ersion")), "it says {text:?}");
    Ok(())
}

fn the_shim_tells_what_the_runtime_can_do(bench: &Bench) -> Outcome {
    let plan = bench.guest(&["idle"]);
    let options = cryo_protos::pack(&plan.options)?;
    let mut process = bench
        .slot
        .command(settings().shim.binary_name())
        .arg("-info")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = process.stdin.take() {
        stdin.write_all(&options.write_to_bytes()?)?;
    }
    let output = process.wait_with_output()?;
    ensure!(output.status.success(), "it ended with {}", output.status);
    let info = introspection::RuntimeInfo::parse_from_bytes(&output.stdout)?;
    let features = String::from_utf8_lossy(&info.features.value).into_owned();
    ensure!(features.contains("ociVersionMax"), "the features are {features:?}");
    Ok(())
}

fn a_bundle_holds_what_others_look_for(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let bundle = bundle_of(&task);
    for name in ["config.json", "address", "runtime", "options.json", "log"] {
        // containerd 2 keeps the address elsewhere, and its own shim so does.
        let elsewhere = name == "address" && bundle.join("bootstrap.json").exists();
        ensure!(bundle.join(name).exists() || elsewhere, "there is no {name}");
    }
    let pid = fs::read_to_string(bundle.join("init.pid"))?;
    ensure_eq!(pid.trim(), task.pid()?.to_string(), "what init.pid says");
    let runtime = fs::read_to_string(bundle.join("runtime"))?;
    ensure_eq!(runtime.trim(), bench.runtime().binary(), "what runtime says");
    task.end()
}

/// Kills the shim of `task` while containerd can't see it, and calls `delete`.
fn deletes(task: &Task<'_>, shim: &str) -> Outcome {
    let bench = task.bench;
    let (pid, bundle) = (task.pid()?, bundle_of(task));
    let inside = format!("/run/containerd/io.containerd.runtime.v2.task/{}/{}", task.namespace, task.id);
    let request = wire::ConnectRequest { id: task.id.clone(), ..Default::default() };
    let answer: wire::ConnectResponse =
        ShimSocket::of(task)?.call(TaskVersion::usual(), "Connect", &request)?;
    bench.stop_containerd(Signal::SIGKILL)?;
    kill(Pid::from_raw(answer.shim_pid as i32), Signal::SIGKILL)?;
    let script = "cd \"$1\" && shift && exec \"$@\"";
    let output = bench
        .slot
        .command("sh")
        .args(["-c", script, "sh", &inside, shim])
        .args(["-namespace", &task.namespace, "-address", "/run/containerd/containerd.sock"])
        .args(["-publish-binary", "containerd", "-id", &task.id, "-bundle", &inside, "delete"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "it ended with {}: {said}", output.status);
    let response = wire::DeleteResponse::parse_from_bytes(&output.stdout)?;
    ensure_eq!(response.pid, pid, "the pid it tells");
    ensure_eq!(response.exit_status, 137, "the exit status it tells");
    ensure!(response.exited_at.is_some(), "it doesn't tell when");
    eventually("its processes are gone", || cgroup::processes(task.cgroup()).is_empty().then_some(()))?;
    ensure!(!bundle.join("rootfs/bin").exists(), "the root filesystem is still mounted");
    bench.start_containerd()
}

fn a_dead_shims_container_is_deleted_by_the_delete_command(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "3"])?;
    deletes(&task, settings().shim.binary_name())
}

fn our_delete_cleans_up_after_the_stock_shim(bench: &Bench) -> Outcome {
    let name = if settings().shim == Shim::DropIn { STOCK } else { "io.containerd.runc.v2" };
    let task = bench.guest(&["tree", "3"]).runtime_name(name).start()?;
    deletes(&task, settings().shim.binary_name())
}

fn the_stock_delete_cleans_up_after_our_shim(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "3"])?;
    deletes(&task, STOCK)
}

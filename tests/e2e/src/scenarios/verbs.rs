//! `cryo checkpoint` and `cryo restore`, through containerd.

mod counted;
mod deaths;
mod refusals;

use std::fs;

use serde_json::Value;

use crate::harness::cryo::{cryo, cryo_prints, cryo_refuses};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ours = "the stock shim has no store";
    let mut all = vec![
        scenario!(a_container_runs_on_after_its_checkpoint),
        scenario!(a_container_that_ended_with_its_checkpoint_goes_on_again_and_again),
        scenario!(a_checkpoint_without_a_name_gets_one).fifo_only(),
        scenario!(a_second_container_goes_on_beside_the_first),
        scenario!(a_paused_container_stays_paused).fifo_only(),
        scenario!(a_container_is_found_by_its_pod).fifo_only(),
        scenario!(any_name_of_the_runtime_will_do).fifo_only(),
        scenario!(a_checkpoint_that_others_took_goes_on_as_well).fifo_only(),
        scenario!(a_container_of_ctr_goes_on).fifo_only(),
    ];
    all.extend(refusals::scenarios());
    all.extend(deaths::scenarios());
    all.extend(counted::scenarios());
    all.into_iter().map(|scenario| scenario.restores().cryo_only(ours)).collect()
}

/// A store and metrics of this trial's own.
fn own_node(bench: &Bench, more: &str) -> Outcome {
    let folder = bench.fresh_folder("node")?;
    let (store, metrics) = (folder.join("store"), folder.join("cryo.prom"));
    bench.set_node_file(&format!("[store]\npath = {store:?}\n{more}[metrics]\npath = {metrics:?}\n"))
}

#[track_caller]
fn counting(bench: &Bench) -> Outcome<Task<'_>> {
    own_node(bench, "")?;
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    Ok(task)
}

fn listed(bench: &Bench) -> Outcome<Vec<Value>> {
    let text = cryo_prints(bench, &["ls", "--json"])?;
    serde_json::from_str(&text).during(|| text.clone())
}

/// Has a container go on, and reads on where it wrote before: whoever read there has seen the
/// end of that.
#[track_caller]
fn go_on(task: &Task<'_>, name: &str) -> Outcome<Output> {
    let output = Output::read(task.pipes.stdio.stdout.as_ref(), false)?;
    let said = cryo(task.bench, &["restore", name])?;
    ensure!(said.status == 0 && said.out.trim() == task.id, "{}", said.errors);
    ensure!(said.errors.contains(&format!("goes on from {name}")), "{}", said.errors);
    ensure_eq!(task.status()?, Status::Running, "its state right after");
    Ok(output)
}

/// From where it was at the checkpoint.
#[track_caller]
fn counts_on(output: &Output) -> Outcome {
    output.wait_for_counting(3)?;
    ensure!(*output.counted()?.start() > 3, "it begins afresh: {}", output.text());
    Ok(())
}

/// None of these is told of a container that its client doesn't pause.
fn was_paused(task: &Task<'_>) -> bool {
    task.events().iter().any(|event| matches!(event, Event::Paused | Event::Resumed))
}

fn a_container_runs_on_after_its_checkpoint(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    let (pid, id) = (task.pid()?, task.id.as_str());
    let said = cryo(bench, &["checkpoint", id, "one"])?;
    ensure_eq!((said.status, said.out.as_str()), (0, "one\n"), "what is said");
    for part in ["was checkpointed in", "stood still for", "it runs on"] {
        ensure!(said.errors.contains(part), "{}", said.errors);
    }
    ensure_eq!(task.status()?, Status::Running, "its state right after");
    ensure_eq!(task.pid()?, pid, "its process");
    task.stdout().wait_for_counting(3)?;
    task.stdout().counted()?;
    let json = cryo_prints(bench, &["checkpoint", id, "two", "--json"])?;
    let json: Value = serde_json::from_str(&json).during(|| json.clone())?;
    ensure!(json["name"] == "two" && json["container"] == id && json["left_running"] == true, "{json}");
    let figure = |name: &str| json["figures"][name].as_u64().unwrap_or_default();
    ensure!(figure("frozen_us") >= figure("frozen_by_criu_us") && figure("frozen_by_criu_us") > 0, "{json}");
    ensure!(figure("pages") > 0 && figure("bytes") > figure("pages") * 4096, "{json}");
    task.wait_for_event("checkpointed", |event| matches!(event, Event::Checkpointed { .. }))?;
    ensure!(!was_paused(&task), "{:?}", task.events());
    let all = listed(bench)?;
    ensure!(all.len() == 2 && all.iter().all(|entry| entry["figures"]["frozen_us"].is_u64()), "{all:?}");
    let table = cryo_prints(bench, &["ls"])?;
    ensure!(table.lines().next().is_some_and(|head| head.contains("FROZEN")), "{table}");
    let inspected = cryo_prints(bench, &["inspect", "one"])?;
    ensure!(inspected.contains("stood still for") && inspected.contains("by CRIU"), "{inspected}");
    cryo_prints(bench, &["store", "verify"])?;
    task.end()
}

fn a_container_that_ended_with_its_checkpoint_goes_on_again_and_again(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    let id = task.id.as_str();
    let said = cryo(bench, &["checkpoint", "--exit", id, "one"])?;
    ensure!(said.status == 0 && said.errors.contains("it was stopped"), "{}", said.errors);
    ensure_eq!(task.status()?, Status::Stopped, "its state right after");
    ensure_eq!(task.wait()?, 137, "its exit status");
    ensure!(!was_paused(&task), "{:?}", task.events());
    for _ in 0..3 {
        counts_on(&go_on(&task, "one")?)?;
        task.kill(KILL)?;
        task.wait()?;
    }
    task.delete()?;
    Ok(())
}

fn a_checkpoint_without_a_name_gets_one(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(cryo_prints(bench, &["checkpoint", &task.id])?.trim().to_owned());
    }
    ensure!(names.iter().all(|name| name.starts_with(&format!("{}-2", task.id))), "{names:?}");
    let all = listed(bench)?;
    ensure_eq!(all.len(), 3, "checkpoints");
    ensure!(names.iter().all(|name| all.iter().any(|entry| entry["name"] == name.as_str())), "{names:?}");
    task.end()
}

fn a_second_container_goes_on_beside_the_first(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    cryo_prints(bench, &["checkpoint", &task.id, "one"])?;
    let (copy, log) = (bench.next_id(), bench.fresh_folder("log")?.join("out"));
    let uri = format!("file://{}", log.display());
    let said = cryo_prints(bench, &["restore", "one", "--id", &copy, "--log-uri", &uri])?;
    ensure_eq!(said.trim(), copy, "what is said");
    let lines = || fs::read_to_string(&log).unwrap_or_default();
    eventually("the copy counts", || (lines().lines().count() >= 3).then_some(()))?;
    ensure!(lines().lines().next() != Some("1"), "it begins afresh: {}", lines());
    task.stdout().wait_for_counting(3)?;
    task.stdout().counted()?;
    let api = bench.api();
    let record = api.list_containers()?.into_iter().find(|record| record.id == copy);
    ensure!(record.is_some_and(|record| record.snapshot_key == copy), "it has no snapshot of its own");
    ensure_eq!(api.state(&copy, "")?.status, Status::Running as i32, "its state");
    let said = cryo_refuses(bench, &["restore", "one", "--id", &copy])?;
    ensure!(said.contains("choose another --id"), "{said}");
    ensure_eq!(api.state(&copy, "")?.status, Status::Running as i32, "its state after that");
    api.kill(&copy, "", KILL, false)?;
    api.wait(&copy, "", PATIENCE)?;
    api.delete(&copy)?;
    task.end()
}

fn a_paused_container_stays_paused(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    task.pause()?;
    cryo_prints(bench, &["checkpoint", &task.id, "one"])?;
    ensure_eq!(task.status()?, Status::Paused, "its state");
    task.resume()?;
    task.stdout().wait_for_counting(3)?;
    task.end()
}

fn a_container_is_found_by_its_pod(bench: &Bench) -> Outcome {
    own_node(bench, "")?;
    let of_pod = |name: &str| {
        let plan = bench.guest(&["count"]).annotation("io.kubernetes.cri.sandbox-namespace", "shop");
        let plan = plan.annotation("io.kubernetes.cri.sandbox-name", "web");
        plan.annotation("io.kubernetes.cri.container-name", name)
    };
    let app = of_pod("app").start()?;
    let name = cryo_prints(bench, &["checkpoint", "--pod", "shop/web"])?;
    ensure!(name.starts_with("web-2"), "{name}");
    let side = of_pod("side").start()?;
    let said = cryo_refuses(bench, &["checkpoint", "--pod", "shop/web", "one"])?;
    ensure!(said.contains("--container") && said.contains("app, side"), "{said}");
    cryo_prints(bench, &["checkpoint", "--pod", "shop/web", "--container", "side", "one"])?;
    let all = listed(bench)?;
    let one = all.iter().find(|entry| entry["name"] == "one");
    ensure!(one.is_some_and(|entry| entry["container"] == side.id.as_str()), "{all:?}");
    let said = cryo_refuses(bench, &["checkpoint", "--pod", "shop/web", "--container", "db"])?;
    ensure!(said.contains("no container of that name, but app, side"), "{said}");
    let said = cryo_refuses(bench, &["checkpoint", "--pod", "web"])?;
    ensure!(said.contains("NAMESPACE/NAME"), "{said}");
    let said = cryo_refuses(bench, &["checkpoint", "--pod", "shop/none"])?;
    ensure!(said.contains("no container of a pod"), "{said}");
    let log = bench.slot.daemon().log_since(0);
    let told = log.lines().any(|line| {
        let parts = ["operation=checkpoint", "pod=web", "pod_namespace=shop", "container=side"];
        parts.iter().all(|part| line.contains(part))
    });
    ensure!(told, "containerd's log doesn't say so");
    app.end()?;
    side.end()
}

/// containerd 1 hands a path on only under names that begin like the stock shim's.
fn any_name_of_the_runtime_will_do(bench: &Bench) -> Outcome {
    own_node(bench, "")?;
    let task = bench.guest(&["count"]).runtime_name("io.containerd.cryo.v2").start()?;
    task.stdout().wait_for_counting(3)?;
    cryo_prints(bench, &["checkpoint", "--exit", &task.id, "one"])?;
    ensure_eq!(task.status()?, Status::Stopped, "its state");
    counts_on(&go_on(&task, "one")?)?;
    task.end()
}

/// By any client that names the place.
fn a_checkpoint_that_others_took_goes_on_as_well(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    let archive = bench.fresh_folder("archive")?.join("counter.tar").display().to_string();
    let image = task.copy_image()?;
    cryo_prints(bench, &["export", &image.display().to_string(), "-o", &archive])?;
    cryo_prints(bench, &["import", &archive])?;
    task.kill(KILL)?;
    task.wait()?;
    counts_on(&go_on(&task, "counter")?)?;
    task.end()
}

/// As it is typed.
fn a_container_of_ctr_goes_on(bench: &Bench) -> Outcome {
    own_node(bench, "")?;
    let folder = bench.fresh_folder("ctr")?;
    let (config, log, id) = (folder.join("runtime.toml"), folder.join("log"), bench.next_id());
    let systemd = settings().systemd;
    fs::write(&config, format!("BinaryName = {:?}\nSystemdCgroup = {systemd}\n", bench.runtime().binary()))?;
    let (config, uri) = (config.display().to_string(), format!("file://{}", log.display()));
    let runtime = settings().shim.runtime_name();
    let options = ["--runtime", runtime, "--runtime-config-path", &config, "--log-uri", &uri];
    ctr(bench, &[&["run", "-d"], &options[..], &["cryo.test/guest:1", &id, "/bin/guest", "count"]].concat())?;
    let counted = || counted(&fs::read_to_string(&log).unwrap_or_default());
    let counts_to = |number: u64| {
        eventually("it counts", || counted().is_ok_and(|range| *range.end() >= number).then_some(()))
    };
    counts_to(3)?;
    let state = |word: &str| -> Outcome {
        let tasks = ctr(bench, &["task", "ls"])?;
        ensure!(tasks.lines().any(|line| line.contains(&id) && line.contains(word)), "{tasks}");
        Ok(())
    };
    cryo_prints(bench, &["checkpoint", &id, "one"])?;
    state("RUNNING")?;
    cryo_prints(bench, &["checkpoint", "--exit", &id, "two"])?;
    state("STOPPED")?;
    let before = *counted()?.end();
    cryo_prints(bench, &["restore", "two"])?;
    state("RUNNING")?;
    counts_to(before + 3)?;
    ensure_eq!(*counted()?.start(), 1, "the first number");
    ctr(bench, &["task", "rm", "--force", &id])?;
    ctr(bench, &["containers", "rm", &id])?;
    Ok(())
}

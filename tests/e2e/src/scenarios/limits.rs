//! Limits that hold, limits that change, and figures about what is used.

use cryo_protos::protobuf::Message;
use cryo_protos::{cgroups, cgroups_v2};
use serde_json::json;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(limits_hold_as_asked).fifo_only(),
        scenario!(an_update_changes_the_limits).fifo_only(),
        scenario!(a_stopped_task_takes_no_update).fifo_only(),
        scenario!(figures_tell_what_is_used).fifo_only(),
        scenario!(figures_tell_the_limits).fifo_only(),
        scenario!(pids_list_every_process_and_name_execs).fifo_only(),
        scenario!(after_a_restore_limits_hold_and_can_be_changed).fifo_only().restores(),
        scenario!(after_a_restore_figures_tell_what_is_used).fifo_only().restores(),
        scenario!(after_a_restore_running_out_of_memory_is_told).fifo_only().restores(),
        scenario!(a_restore_in_another_cgroup_obeys_the_new_limits).fifo_only().restores(),
    ]
}

fn limited<'b>(bench: &'b Bench, args: &[&str]) -> Blueprint<'b> {
    bench.guest(args).memory_limit(64 << 20).pids_limit(40).cpu_limit(500)
}

fn check_limits(task: &Task<'_>, mib: u64, pids: u64, cpu: u64) -> Outcome {
    ensure_eq!(cgroup::memory_limit(task.cgroup())?, mib << 20, "bytes of memory allowed");
    ensure_eq!(cgroup::pids_limit(task.cgroup())?, pids, "processes allowed");
    ensure_eq!(cgroup::cpu_limit(task.cgroup())?, cpu, "thousandths of a processor allowed");
    let inside = cgroup::processes(task.cgroup());
    for process in task.pids()? {
        ensure!(inside.contains(&process.pid), "process {} is in another cgroup", process.pid);
    }
    Ok(())
}

fn change_limits(task: &Task<'_>) -> Outcome {
    task.update(&json!({
        "memory": { "limit": 96 << 20, "swap": 96 << 20 },
        "pids": { "limit": 30 },
        "cpu": { "quota": 25_000, "period": 100_000 },
    }))?;
    check_limits(task, 96, 30, 250)
}

fn limits_hold_as_asked(bench: &Bench) -> Outcome {
    let task = limited(bench, &["idle"]).start()?;
    check_limits(&task, 64, 40, 500)?;
    task.end()
}

fn an_update_changes_the_limits(bench: &Bench) -> Outcome {
    let task = limited(bench, &["idle"]).start()?;
    change_limits(&task)?;
    task.end()
}

fn a_stopped_task_takes_no_update(bench: &Bench) -> Outcome {
    let task = bench.run(&["exit", "0"])?;
    task.wait()?;
    refused(task.update(&json!({ "pids": { "limit": 30 } })), &[])?;
    task.delete()?;
    Ok(())
}

struct Figures {
    memory: u64,
    memory_limit: u64,
    pids: u64,
    pids_limit: u64,
    cpu_ns: u64,
}

fn figures(task: &Task<'_>) -> Outcome<Figures> {
    let metrics = task.api().metrics(&task.id)?;
    let metric = metrics.first().ok_or_else(|| Failure::new("there are no figures"))?;
    ensure_eq!(metric.id, task.id, "whose figures they are");
    let data = metric.data.clone().unwrap_or_default();
    match data.type_url.rsplit('/').next() {
        Some("io.containerd.cgroups.v1.Metrics") => {
            let found = cgroups::metrics::Metrics::parse_from_bytes(&data.value)?;
            ensure!(found.blkio.is_some(), "nothing is told about disks");
            Ok(Figures {
                memory: found.memory.usage.usage,
                memory_limit: found.memory.usage.limit,
                pids: found.pids.current,
                pids_limit: found.pids.limit,
                cpu_ns: found.cpu.usage.total,
            })
        }
        Some("io.containerd.cgroups.v2.Metrics") => {
            let found = cgroups_v2::metrics::Metrics::parse_from_bytes(&data.value)?;
            ensure!(found.io.is_some(), "nothing is told about disks");
            Ok(Figures {
                memory: found.memory.usage,
                memory_limit: found.memory.usage_limit,
                pids: found.pids.current,
                pids_limit: found.pids.limit,
                cpu_ns: found.cpu.usage_usec * 1000,
            })
        }
        other => Err(Failure::new(format!("the figures are of type {other:?}"))),
    }
}

fn check_figures(task: &Task<'_>) -> Outcome {
    let figures = figures(task)?;
    ensure!(figures.memory >= 8 << 20, "8 MiB are held, but only {} bytes are told of", figures.memory);
    ensure_eq!(figures.pids, 1, "processes told of");
    ensure!(figures.cpu_ns > 0, "no processor time is told of");
    Ok(())
}

fn figures_tell_the_limits(bench: &Bench) -> Outcome {
    let task = limited(bench, &["idle"]).start()?;
    let figures = figures(&task)?;
    ensure_eq!(figures.memory_limit, 64 << 20, "bytes of memory allowed");
    ensure_eq!(figures.pids_limit, 40, "processes allowed");
    task.end()
}

fn figures_tell_what_is_used(bench: &Bench) -> Outcome {
    let task = bench.run(&["heap", "8"])?;
    task.stdout().wait_for_line("ready")?;
    check_figures(&task)?;
    task.end()
}

fn pids_list_every_process_and_name_execs(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "2"])?;
    task.stdout().wait_for_line("ready")?;
    let exec = task.exec(&["/bin/guest", "idle"])?;
    let exec_pid = exec.start()?;
    let processes = task.pids()?;
    ensure_eq!(processes.len(), 4, "processes listed");
    let init = task.pid()?;
    ensure!(processes.iter().any(|process| process.pid == init), "the first process isn't listed");
    let named = processes.iter().find(|process| process.pid == exec_pid);
    let info = named.and_then(|process| process.info.clone());
    let info = info.ok_or_else(|| Failure::new("the exec isn't named"))?;
    let details = cryo_protos::runc::ProcessDetails::parse_from_bytes(&info.value)?;
    ensure_eq!(details.exec_id, exec.id, "the exec's name");
    task.end()
}

fn after_a_restore_limits_hold_and_can_be_changed(bench: &Bench) -> Outcome {
    let task = limited(bench, &["tree", "2"]).start()?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    ensure_eq!(again.pids()?.len(), 3, "processes that came back");
    check_limits(&again, 64, 40, 500)?;
    change_limits(&again)?;
    again.end()
}

fn a_restore_in_another_cgroup_obeys_the_new_limits(bench: &Bench) -> Outcome {
    let task = limited(bench, &["tree", "2"]).start()?;
    task.stdout().wait_for_line("ready")?;
    let image = task.copy_image()?;
    let other = task.clone_from(&image).memory_limit(80 << 20).pids_limit(20).cpu_limit(300).start()?;
    ensure_eq!(other.pids()?.len(), 3, "processes of the new one");
    check_limits(&other, 80, 20, 300)?;
    check_limits(&task, 64, 40, 500)?;
    other.asks(1, "alive 2")?;
    task.asks(1, "alive 2")?;
    other.end()?;
    task.end()
}

fn after_a_restore_figures_tell_what_is_used(bench: &Bench) -> Outcome {
    let task = bench.run(&["heap", "8"])?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    check_figures(&again)?;
    again.end()
}

fn after_a_restore_running_out_of_memory_is_told(bench: &Bench) -> Outcome {
    let task = bench.guest(&["oom"]).memory_limit(16 << 20).start()?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    let again = task.clone_from(&image).start()?;
    again.kill(USR1)?;
    ensure_eq!(again.wait()?, 137, "the exit status");
    again.wait_for_event("oom", |event| *event == Event::Oom)?;
    again.delete()?;
    Ok(())
}

//! Cgroups over a checkpoint and restore: who is where, what may be used, and what others
//! left frozen.

mod frozen;
mod nested;

use std::fs;

use serde_json::{Value, json};

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let own = vec![
        scenario!(processes_come_back_into_their_cgroup_in_every_hierarchy),
        scenario!(a_restore_has_the_limits_of_its_configuration_and_no_others),
        scenario!(a_container_sees_its_own_cgroups_again)
            .cryo_only(SEES)
            .impossible_if(|_, _| cgroup::is_v2(), "only cgroups of version 1 are bound one by one"),
        scenario!(a_task_that_fills_its_limit_comes_back_and_the_limit_holds),
    ];
    let all = [own, nested::scenarios(), frozen::scenarios()];
    all.into_iter().flatten().map(|scenario| scenario.fifo_only().restores()).collect()
}

const SEES: &str = "with the stock shim it sees those of the shim";

/// Limits as files of version 1 and 2 tell them.
const LIMITS: [(&str, &str); 19] = [
    ("cpu", "cpu.cfs_period_us"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpu", "cpu.max"),
    ("cpu", "cpu.shares"),
    ("cpu", "cpu.weight"),
    ("cpuset", "cpuset.cpus"),
    ("cpuset", "cpuset.cpus.effective"),
    ("cpuset", "cpuset.mems"),
    ("memory", "memory.high"),
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.low"),
    ("memory", "memory.max"),
    ("memory", "memory.memsw.limit_in_bytes"),
    ("memory", "memory.min"),
    ("memory", "memory.oom.group"),
    ("memory", "memory.soft_limit_in_bytes"),
    ("memory", "memory.swap.max"),
    ("memory", "memory.swappiness"),
    ("pids", "pids.max"),
];

fn limits(cgroup: &str) -> Vec<String> {
    let tell = |(controller, file): &(&str, &str)| {
        let value = cgroup::read(controller, cgroup, file).ok()?;
        Some(format!("{file} {value}"))
    };
    LIMITS.iter().filter_map(tell).collect()
}

/// The cgroups of all its processes in all hierarchies, with ID in place of its own.
fn places(task: &Task<'_>) -> Outcome<Vec<String>> {
    let mut places = Vec::new();
    for process in task.pids()? {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", process.pid))?;
        places.push(text.replace(&task.id, "ID"));
    }
    places.sort();
    Ok(places)
}

fn processes_come_back_into_their_cgroup_in_every_hierarchy(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "2"])?;
    task.stdout().wait_for_line("ready")?;
    let before = places(&task)?;
    let known = ["cpu", "cpuset", "devices", "freezer", "memory", "pids"];
    for line in before.iter().flat_map(|place| place.lines()) {
        let (controllers, path) =
            line.split_once(':').and_then(|(_, rest)| rest.split_once(':')).unwrap_or_default();
        let counts = controllers.split(',').any(|name| known.contains(&name)) || cgroup::is_v2();
        ensure!(!counts || path.contains("ID"), "it isn't in a cgroup of its own: {line}");
    }
    let image = task.copy_image()?;
    let other = task.clone_from(&image).start()?;
    ensure_eq!(places(&other)?, before, "where the processes of a copy are");
    task.end()?;
    let again = task.again_from(&image).start()?;
    ensure_eq!(places(&again)?, before, "where the processes are");
    again.asks(1, "alive 2")?;
    again.end()?;
    other.end()
}

/// A container that sees cgroups: its own, or all of the machine's.
fn seeing<'b>(plan: Blueprint<'b>, access: &str, is_private: bool) -> Blueprint<'b> {
    plan.change(|spec| {
        let mount = json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": [access, "nosuid", "noexec", "nodev"],
        });
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.push(mount);
        }
        if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut()
            && is_private
        {
            namespaces.push(json!({ "type": "cgroup" }));
        }
    })
}

/// What of which cgroup is mounted where, and how.
fn mounts(task: &Task<'_>) -> Outcome<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{}/mountinfo", task.pid()?))?;
    let lines = text.lines().filter(|line| line.contains(" - cgroup "));
    let told = lines.map(|line| line.split(' ').skip(3).take(3).collect::<Vec<_>>().join(" "));
    let mut told: Vec<String> = told.map(|line| line.replace(&task.id, "ID")).collect();
    told.sort();
    Ok(told)
}

fn a_container_sees_its_own_cgroups_again(bench: &Bench) -> Outcome {
    for (access, is_private) in [("ro", false), ("rw", false), ("ro", true), ("rw", true)] {
        let sees = |task: &Task<'_>, wanted: &[String]| -> Outcome {
            ensure_eq!(mounts(task)?, wanted, "mounts of cgroups, {access}, private: {is_private}");
            ensure_eq!(task.output_of(&["/bin/cat", "/sys/fs/cgroup/pids/pids.max"])?, "41\n", "its limit");
            Ok(())
        };
        let task = seeing(bench.guest(&["count"]), access, is_private).pids_limit(41).start()?;
        let before = mounts(&task)?;
        ensure!(before.len() > 5, "it sees only {before:?}");
        sees(&task, &before)?;
        let image = task.copy_image()?;
        let other = task.clone_from(&image).start()?;
        sees(&other, &before)?;
        other.end()?;
        task.end()?;
        let again = task.again_from(&image).start()?;
        sees(&again, &before)?;
        let last = again.end_as_image()?;
        let third = again.again_from(&last).start()?;
        sees(&third, &before)?;
        third.end()?;
    }
    Ok(())
}

fn resources(mib: u64, pids: u64, quota: u64, shares: u64, cpus: &str) -> Value {
    json!({
        "memory": { "limit": mib << 20, "swap": mib << 20, "reservation": mib << 19 },
        "pids": { "limit": pids },
        "cpu": { "quota": quota, "period": 50_000, "shares": shares, "cpus": cpus, "mems": "0" },
    })
}

fn a_restore_has_the_limits_of_its_configuration_and_no_others(bench: &Bench) -> Outcome {
    let task = with_resources(bench.guest(&["heap", "8"]), &resources(64, 40, 25_000, 512, "0")).start()?;
    task.stdout().wait_for_line("ready")?;
    task.update(&resources(96, 30, 20_000, 256, "1"))?;
    let image = task.copy_image()?;
    let plans = [resources(64, 40, 25_000, 512, "0"), resources(80, 20, 40_000, 2048, "1"), json!({})];
    let mut seen = vec![limits(task.cgroup())];
    for plan in &plans {
        let fresh = with_resources(bench.guest(&["idle"]), plan).start()?;
        let wanted = limits(fresh.cgroup());
        fresh.end()?;
        ensure!(wanted.len() >= 6, "only {wanted:?} can be read");
        ensure!(!seen.contains(&wanted), "{plan} makes no difference: {wanted:?}");
        let other = with_resources(task.clone_from(&image), plan).start()?;
        ensure_eq!(limits(other.cgroup()), wanted, "limits of a copy with {plan}");
        let cpus = plan["cpu"]["cpus"].as_str().unwrap_or("0-1");
        let status = fs::read_to_string(format!("/proc/{}/status", other.pid()?))?;
        ensure!(status.contains(&format!("Cpus_allowed_list:\t{cpus}\n")), "not on {cpus}: {status}");
        other.asks(1, "same")?;
        other.end()?;
        seen.push(wanted);
    }
    ensure_eq!(limits(task.cgroup()), seen[0], "limits of the one that was copied");
    task.end()
}

fn with_resources<'b>(plan: Blueprint<'b>, resources: &Value) -> Blueprint<'b> {
    plan.change(|spec| {
        for kind in ["memory", "pids", "cpu"] {
            spec["linux"]["resources"][kind] = resources[kind].clone();
            if resources[kind].is_null()
                && let Some(all) = spec["linux"]["resources"].as_object_mut()
            {
                all.remove(kind);
            }
        }
    })
}

fn oom_kills(task: &Task<'_>) -> Outcome<u64> {
    let file = if cgroup::is_v2() { "memory.events" } else { "memory.oom_control" };
    let text = cgroup::read("memory", task.cgroup(), file)?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    let count = count.ok_or_else(|| Failure::new(format!("nothing is counted in {text}")))?;
    Ok(count.parse()?)
}

fn a_task_that_fills_its_limit_comes_back_and_the_limit_holds(bench: &Bench) -> Outcome {
    let task = bench.guest(&["heap", "250"]).memory_limit(256 << 20).start()?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    let again = task.clone_from(&image).start()?;
    again.asks(1, "same")?;
    ensure_eq!(oom_kills(&again)?, 0, "processes killed for want of memory");
    ensure_eq!(cgroup::memory_limit(again.cgroup())?, 256 << 20, "bytes of memory allowed");
    ensure!(!again.events().contains(&Event::Oom), "memory is said to have run out");
    let hungry = again.exec(&["/bin/guest", "oom"])?;
    hungry.start()?;
    hungry.stdout().wait_for_line("ready")?;
    hungry.kill(USR1)?;
    // The kernel takes the biggest.
    ensure_eq!(again.wait()?, 137, "the exit status");
    again.wait_for_event("oom", |event| *event == Event::Oom)?;
    again.delete()?;
    Ok(())
}

//! Containers in user namespaces: root inside is nobody special outside.

use std::os::unix::fs::MetadataExt;

use super::execs::an_exec_works_in;
use crate::harness::*;

const ROOT_OUTSIDE: u32 = 100_000;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_container_runs_in_a_user_namespace),
        scenario!(a_container_in_a_user_namespace_goes_on_over_a_checkpoint).cryo_only_if(
            |combination, _| combination.runtime == Runtime::Crun,
            "CRIU refuses the devices that crun binds there unless it is told of them",
        ),
        scenario!(a_container_in_a_user_namespace_comes_back).restores(),
        scenario!(a_container_in_a_user_namespace_comes_back_with_its_network)
            .cryo_only("with the stock shim the loopback device is down"),
        scenario!(sysctls_of_the_network_hold_after_a_restore)
            .fifo_only()
            .cryo_only("with the stock shim they are lost"),
    ]
}

fn run<'b>(bench: &'b Bench, args: &[&str]) -> Outcome<Task<'b>> {
    bench.guest(args).user_namespace(ROOT_OUTSIDE).start()
}

fn is_mapped(task: &Task<'_>) -> Outcome {
    let owner = std::fs::metadata(format!("/proc/{}", task.pid()?))?.uid();
    ensure_eq!(owner, ROOT_OUTSIDE, "whose process it is outside");
    ensure_eq!(task.output_of(&["/bin/id", "-u"])?, "0\n", "who it is inside");
    Ok(())
}

fn a_container_runs_in_a_user_namespace(bench: &Bench) -> Outcome {
    let task = run(bench, &["echo"])?;
    task.stdout().wait_for_line("ready")?;
    is_mapped(&task)?;
    task.pipes.write(b"one\n")?;
    task.stdout().wait_for_line("heard one")?;
    an_exec_works_in(&task)?;
    task.end()
}

fn a_container_in_a_user_namespace_goes_on_over_a_checkpoint(bench: &Bench) -> Outcome {
    let task = run(bench, &["count"])?;
    let image = bench.fresh_folder("image")?;
    task.checkpoint(&Checkpoint::into_folder(&image).work_folder(&bench.fresh_folder("criu")?))?;
    task.stdout().wait_for_counting(3)?;
    task.stdout().counted()?;
    task.end()
}

fn a_container_in_a_user_namespace_comes_back(bench: &Bench) -> Outcome {
    let task = run(bench, &["count"])?;
    task.stdout().wait_for_counting(3)?;
    let image = task.end_as_image()?;
    task.stdout().wait_for_end()?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(3)?;
    let (before, after) = (task.stdout().counted()?, again.stdout().counted()?);
    ensure_eq!(*after.start(), before.end() + 1, "the first number after the restore");
    is_mapped(&again)?;
    an_exec_works_in(&again)?;
    again.end()
}

fn a_container_in_a_user_namespace_comes_back_with_its_network(bench: &Bench) -> Outcome {
    let task = run(bench, &["loopback"])?;
    task.stdout().wait_for_line("ready")?;
    task.comes_back("up")
}

/// Docker lets everybody in a container bind low ports, and ping.
fn sysctls_of_the_network_hold_after_a_restore(bench: &Bench) -> Outcome {
    const FILE: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let plan = |root: Option<u32>| {
        let plan = bench.guest(&["heap", "1"]);
        let plan = if let Some(root) = root { plan.user_namespace(root) } else { plan };
        plan.change(|spec| spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] = "7".into())
    };
    for root in [None, Some(ROOT_OUTSIDE)] {
        let task = plan(root).start()?;
        task.stdout().wait_for_line("ready")?;
        ensure_eq!(task.output_of(&["/bin/cat", FILE])?, "7\n", "before");
        let image = task.end_as_image()?;
        let again = task.again_from(&image).start()?;
        ensure_eq!(again.output_of(&["/bin/cat", FILE])?, "7\n", "after, with users of {root:?}");
        again.end()?;
    }
    Ok(())
}

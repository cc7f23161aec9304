//! What is refused, in one sentence that comes through whole; everything stays as it was.

use super::{counting, cryo_prints, cryo_refuses, listed, own_node};
use crate::harness::*;

/// Of a message, whatever stands before it.
const LONGEST: usize = 300;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(whom_nobody_knows_is_named).fifo_only(),
        scenario!(a_name_that_is_taken_or_none_is_refused).fifo_only(),
        scenario!(why_a_container_can_not_be_checkpointed_comes_through_whole).fifo_only(),
        scenario!(a_container_of_the_stock_shim_is_told)
            .fifo_only()
            .impossible_if(|_, settings| settings.shim != Shim::Cryo, "the stock shim's name is Cryo's here"),
        scenario!(a_full_store_leaves_the_container_alone).fifo_only(),
        scenario!(what_can_not_go_on_is_refused_with_what_can_be_done).fifo_only(),
    ]
}

/// Still counting, whatever was asked.
#[track_caller]
fn unharmed(task: &Task<'_>) -> Outcome {
    ensure_eq!(task.status()?, Status::Running, "its state");
    task.stdout().wait_for_counting(3)?;
    task.stdout().counted()?;
    Ok(())
}

fn whom_nobody_knows_is_named(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    let said = cryo_refuses(bench, &["checkpoint", "nobody"])?;
    ensure!(said.contains("no container nobody runs here"), "{said}");
    let twin = bench.guest(&["count"]).id(format!("{}-twin", task.id)).start()?;
    let beginning = &task.id[..task.id.len() - 1];
    let said = cryo_refuses(bench, &["checkpoint", beginning])?;
    ensure!(said.contains(&format!("containers begin with {beginning}")), "{said}");
    // The same id elsewhere.
    let other = bench.guest(&["count"]).id(twin.id.clone()).namespace("e2e-other");
    let other = other.cgroup(&bench.slot.cgroup_of("elsewhere")).start()?;
    let said = cryo_refuses(bench, &["checkpoint", &twin.id])?;
    ensure!(said.contains("give --namespace"), "{said}");
    cryo_prints(bench, &["checkpoint", &twin.id, "one", "--namespace", "e2e-other"])?;
    ensure_eq!(listed(bench)?[0]["namespace"].as_str(), Some("e2e-other"), "whose it is");
    other.end()?;
    twin.kill(KILL)?;
    twin.wait()?;
    let said = cryo_refuses(bench, &["checkpoint", &twin.id])?;
    ensure!(said.contains("doesn't run"), "{said}");
    twin.delete()?;
    unharmed(&task)?;
    task.end()
}

fn a_name_that_is_taken_or_none_is_refused(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    cryo_prints(bench, &["checkpoint", &task.id, "one"])?;
    for (options, name, words) in [
        (&[][..], "one", "the name \"one\" is taken by"),
        (&["--exit"], "one", "the name \"one\" is taken by"),
        (&["--exit"], "a/b", "is no name for a checkpoint"),
        (&["--exit"], "../../etc", "is no name for a checkpoint"),
        (&["--exit"], &"x".repeat(500), "is no name for a checkpoint"),
    ] {
        let said = cryo_refuses(bench, &[&["checkpoint", &task.id, name], options].concat())?;
        ensure!(said.contains(words) && said.chars().count() <= LONGEST, "{said}");
        unharmed(&task)?;
    }
    ensure_eq!(listed(bench)?.len(), 1, "checkpoints");
    task.end()
}

fn why_a_container_can_not_be_checkpointed_comes_through_whole(bench: &Bench) -> Outcome {
    own_node(bench, "")?;
    let task = bench.guest(&["count"]).annotation("cryo.exec", "refuse").start()?;
    task.stdout().wait_for_counting(3)?;
    let exec = task.exec(&["/bin/guest", "count"])?;
    exec.start()?;
    for options in [&[][..], &["--exit"]] {
        let said = cryo_refuses(bench, &[&["checkpoint", &task.id, "one"], options].concat())?;
        let folder = bench.fresh_folder("image")?;
        let answer = task.checkpoint(&Checkpoint::into_folder(&folder));
        let Err(status) = answer else { return Err(Failure::new("it can be checkpointed")) };
        // containerd 1.7 repeats the class, for programs.
        let message = status.message();
        let message = message.strip_suffix(": failed precondition").unwrap_or(message);
        ensure_eq!(said.as_str(), message, "what containerd says");
        ensure!(said.contains("cryo.exec=refuse is set"), "{said}");
    }
    exec.kill(KILL)?;
    exec.wait()?;
    exec.delete()?;
    cryo_prints(bench, &["checkpoint", &task.id, "one"])?;
    unharmed(&task)?;
    task.end()
}

fn a_container_of_the_stock_shim_is_told(bench: &Bench) -> Outcome {
    own_node(bench, "")?;
    let task = bench.guest(&["count"]).runtime_name("io.containerd.runc.v2").start()?;
    task.stdout().wait_for_counting(3)?;
    let said = cryo_refuses(bench, &["checkpoint", &task.id])?;
    ensure!(
        said.contains("was started by containerd-shim-runc-v2") && said.contains("cryo install"),
        "{said}"
    );
    unharmed(&task)?;
    task.end()
}

fn a_full_store_leaves_the_container_alone(bench: &Bench) -> Outcome {
    own_node(bench, "max-bytes = \"1K\"\n")?;
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    for options in [&[][..], &["--exit"]] {
        let said = cryo_refuses(bench, &[&["checkpoint", &task.id, "one"], options].concat())?;
        ensure!(said.contains("may hold 1.0 KiB"), "{said}");
        unharmed(&task)?;
    }
    ensure_eq!(listed(bench)?.len(), 0, "checkpoints");
    task.end()
}

fn what_can_not_go_on_is_refused_with_what_can_be_done(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    let said = cryo_refuses(bench, &["restore", "none"])?;
    ensure!(said.contains("there is no checkpoint \"none\""), "{said}");
    cryo_prints(bench, &["checkpoint", &task.id, "one"])?;
    let said = cryo_refuses(bench, &["restore", "one"])?;
    ensure!(said.contains("hasn't ended") && said.contains("--id"), "{said}");
    unharmed(&task)?;
    task.end()?;
    bench.api().delete_container(&task.id)?;
    let said = cryo_refuses(bench, &["restore", "one"])?;
    ensure!(said.contains("any longer") && said.contains("cryo.restore-from=one"), "{said}");
    let pod = bench.guest(&["count"]).namespace("k8s.io").start()?;
    cryo_prints(bench, &["checkpoint", &pod.id, "two"])?;
    pod.end()?;
    let said = cryo_refuses(bench, &["restore", "two"])?;
    ensure!(said.contains("kubelet") && said.contains("cryo.restore-from=two"), "{said}");
    Ok(())
}

//! The command, or the shim that it has asked, is killed in the middle.

use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};

use super::{counting, cryo_prints, listed};
use crate::harness::*;
use crate::scenarios::shim_gone::{is_gone, shim_of};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_checkpoint_outlives_the_command).fifo_only(),
        scenario!(a_shim_that_dies_is_told_and_leaves_nothing).fifo_only(),
        scenario!(a_containerd_that_dies_is_told_and_the_checkpoint_goes_on).fifo_only(),
    ]
}

fn begin(bench: &Bench, args: &[&str]) -> Outcome<Child> {
    let mut command = bench.slot.command("cryo");
    Ok(command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// How it ends by itself.
fn ended(child: Child) -> Outcome<(i32, String)> {
    let output = child.wait_with_output()?;
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn a_checkpoint_outlives_the_command(bench: &Bench) -> Outcome {
    for (name, options) in [("one", &[][..]), ("two", &["--exit"])] {
        let task = counting_on(bench, name)?;
        let gate = Gate::before_criu(bench)?;
        let mut command = begin(bench, &[&["checkpoint", &task.id, name], options].concat())?;
        gate.wait_for_arrival()?;
        command.kill()?;
        command.wait()?;
        gate.open()?;
        let wanted = usize::from(name == "two") + 1;
        eventually("it is in the store", || (listed(bench).ok()?.len() == wanted).then_some(()))?;
        if options.is_empty() {
            task.stdout().wait_for_counting(3)?;
            task.stdout().counted()?;
            task.end()?;
        } else {
            ensure_eq!(task.wait()?, 137, "its exit status");
            cryo_prints(bench, &["restore", name])?;
            task.end()?;
        }
    }
    Ok(())
}

/// The first one makes the trial's store.
fn counting_on<'b>(bench: &'b Bench, name: &str) -> Outcome<Task<'b>> {
    if name == "one" {
        return counting(bench);
    }
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    Ok(task)
}

fn a_shim_that_dies_is_told_and_leaves_nothing(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    let gate = Gate::before_criu(bench)?;
    let command = begin(bench, &["checkpoint", "--exit", &task.id, "one"])?;
    gate.wait_for_arrival()?;
    kill(shim_of(&task)?, Signal::SIGKILL)?;
    let (status, said) = ended(command)?;
    ensure!(
        status == 2 && said.contains("has died meanwhile") && said.lines().count() == 1,
        "{status}: {said}"
    );
    gate.open()?;
    is_gone(&task)?;
    ensure_eq!(listed(bench)?.len(), 0, "checkpoints");
    cryo_prints(bench, &["store", "prune"])?;
    // The container can be run, and checkpointed, anew.
    let again = task.blueprint.clone().start()?;
    again.stdout().wait_for_counting(3)?;
    cryo_prints(bench, &["checkpoint", &again.id, "one"])?;
    again.end()
}

fn a_containerd_that_dies_is_told_and_the_checkpoint_goes_on(bench: &Bench) -> Outcome {
    let task = counting(bench)?;
    let gate = Gate::before_criu(bench)?;
    let command = begin(bench, &["checkpoint", &task.id, "one"])?;
    gate.wait_for_arrival()?;
    bench.stop_containerd(Signal::SIGKILL)?;
    let (status, said) = ended(command)?;
    ensure!(status == 2 && said.contains("may still be finished"), "{status}: {said}");
    gate.open()?;
    eventually("it is in the store", || (listed(bench).ok()?.len() == 1).then_some(()))?;
    bench.start_containerd()?;
    task.stdout().wait_for_counting(3)?;
    task.end()
}

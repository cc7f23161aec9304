//! Checkpoints whose client doesn't say whether the container shall end, and those
//! that fail.

use std::path::Path;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(without_options_a_task_goes_on).fifo_only().cryo_only_if(
            |combination, _| combination.runtime == Runtime::Crun,
            "the stock shim names a work folder in a folder that crun doesn't make",
        ),
        scenario!(without_options_a_task_of_docker_ends)
            .fifo_only()
            .cryo_only("the stock shim lets it run on, though Docker meant it to stop"),
        scenario!(an_annotation_decides_when_the_client_does_not)
            .fifo_only()
            .cryo_only("an annotation of ours"),
        scenario!(a_client_that_decides_is_obeyed_whatever_the_annotation).fifo_only().cryo_only_if(
            |combination, _| combination.runtime == Runtime::Crun,
            "the stock shim names a work folder in a folder that crun doesn't make",
        ),
        scenario!(a_failed_checkpoint_lets_the_task_go_on),
        scenario!(a_failed_checkpoint_of_a_paused_task_leaves_it_paused),
        scenario!(after_a_failed_checkpoint_the_next_may_succeed).fifo_only(),
        scenario!(a_failed_checkpoint_names_cause_log_and_remedy)
            .cryo_only("the stock shim's error says type NOTIFY errno 0"),
        scenario!(a_failed_checkpoint_leaves_no_image)
            .fifo_only()
            .cryo_only("the stock shim leaves a part of one"),
    ]
}

fn ends(task: &Task<'_>) -> Outcome {
    ensure_eq!(task.wait()?, 137, "the exit status");
    task.delete()?;
    Ok(())
}

fn goes_on(task: &Task<'_>) -> Outcome {
    task.stdout().wait_for_counting(3)?;
    task.end()
}

fn without_options_a_task_goes_on(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let found = task.checkpoint(&Checkpoint::without_options())?;
    ensure!(!found.is_empty(), "containerd has stored nothing");
    goes_on(&task)
}

fn without_options_a_task_of_docker_ends(bench: &Bench) -> Outcome {
    let task = bench.guest(&["count"]).namespace("moby").start()?;
    task.checkpoint(&Checkpoint::without_options())?;
    ends(&task)
}

fn an_annotation_decides_when_the_client_does_not(bench: &Bench) -> Outcome {
    let task = bench.guest(&["count"]).annotation(cryo::EXIT_ANNOTATION, "true").start()?;
    task.checkpoint(&Checkpoint::without_options())?;
    ends(&task)?;
    let plan = bench.guest(&["count"]).namespace("moby");
    let task = plan.annotation(cryo::EXIT_ANNOTATION, "false").start()?;
    task.checkpoint(&Checkpoint::without_options())?;
    goes_on(&task)
}

fn a_client_that_decides_is_obeyed_whatever_the_annotation(bench: &Bench) -> Outcome {
    let task = bench.guest(&["count"]).annotation(cryo::EXIT_ANNOTATION, "false").start()?;
    task.checkpoint(&Checkpoint::into_folder(&bench.fresh_folder("image")?).exit())?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    Ok(())
}

/// A container that no CRIU dumps without being told to: it holds a TCP connection.
fn connected(bench: &Bench) -> Outcome<Task<'_>> {
    let task = bench.run(&["connected"])?;
    task.stdout().wait_for_line("ready")?;
    Ok(task)
}

fn refused_checkpoint(bench: &Bench, task: &Task<'_>, image: &Path) -> Outcome<String> {
    let checkpoint = Checkpoint::into_folder(image).work_folder(&bench.fresh_folder("criu")?).exit();
    refused(task.checkpoint(&checkpoint), &[])
}

fn a_failed_checkpoint_lets_the_task_go_on(bench: &Bench) -> Outcome {
    let task = connected(bench)?;
    refused_checkpoint(bench, &task, &bench.fresh_folder("image")?)?;
    ensure_eq!(task.status()?, Status::Running, "after the failure");
    ensure!(!cgroup::is_frozen(task.cgroup()), "the cgroup is frozen");
    task.asks(1, "passed")?;
    super::execs::an_exec_works_in(&task)?;
    task.end()
}

fn a_failed_checkpoint_of_a_paused_task_leaves_it_paused(bench: &Bench) -> Outcome {
    let task = connected(bench)?;
    task.pause()?;
    refused_checkpoint(bench, &task, &bench.fresh_folder("image")?)?;
    ensure_eq!(task.status()?, Status::Paused, "after the failure");
    task.resume()?;
    task.asks(1, "passed")?;
    task.end()
}

fn after_a_failed_checkpoint_the_next_may_succeed(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let dying = fake(bench, "criu", "*", "exit 1")?;
    let work = bench.fresh_folder("criu")?;
    let checkpoint = |image: &Path| task.checkpoint(&Checkpoint::into_folder(image).work_folder(&work));
    refused(checkpoint(&bench.fresh_folder("image")?), &[])?;
    std::fs::remove_file(dying)?;
    let image = bench.fresh_folder("image")?;
    checkpoint(&image)?;
    ensure!(image.join("inventory.img").exists(), "the image has no inventory");
    goes_on(&task)
}

fn a_failed_checkpoint_names_cause_log_and_remedy(bench: &Bench) -> Outcome {
    let task = connected(bench)?;
    let text = refused_checkpoint(bench, &task, &bench.fresh_folder("image")?)?;
    ensure!(text.contains("open TCP connections: 127.0.0.1:"), "the cause isn't named: {text}");
    ensure!(text.contains("of guest (pid "), "who has it isn't named: {text}");
    ensure!(text.contains("cryo.tcp="), "no annotation is named that would help: {text}");
    task.end()?;

    // More than what is carried along: only CRIU finds that.
    let task = bench.run(&["ghost", "/tmp/file", &(65 << 20).to_string()])?;
    task.stdout().wait_for_line("ready")?;
    let text = refused_checkpoint(bench, &task, &bench.fresh_folder("image")?)?;
    ensure!(text.contains("ghost file"), "the cause isn't named: {text}");
    ensure!(text.contains("make the deleted file smaller or close it"), "no remedy is named: {text}");
    let log = text.split("(log: ").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
    ensure!(bench.slot.outside(log).is_file(), "the log isn't named, or isn't there: {text}");
    ensure!(!text.contains("errno 0"), "the error repeats what means nothing: {text}");
    task.end()
}

fn a_failed_checkpoint_leaves_no_image(bench: &Bench) -> Outcome {
    let task = connected(bench)?;
    let image = bench.fresh_folder("image")?;
    refused_checkpoint(bench, &task, &image)?;
    let left: Vec<_> = std::fs::read_dir(&image)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left.is_empty(), "there are {left:?}");
    task.end()
}

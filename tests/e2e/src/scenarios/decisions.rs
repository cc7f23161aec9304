//! Checkpoints whose client doesn't say whether the container shall end, and those
//! that fail.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::harness::*;

/// In which nothing that hangs would end.
const AT_ONCE: Duration = Duration::from_secs(1);
/// It is given 2 s to get there.
const SOON: Duration = Duration::from_secs(3);

pub(crate) fn scenarios() -> Vec<Scenario> {
    let hangs = "with the stock shim CRIU waits for it until it is killed";
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
        scenario!(a_stopped_task_is_checkpointed_or_refused_at_once).fifo_only().alone().cryo_only(hangs),
        scenario!(a_traced_task_is_refused_at_once).fifo_only().alone().cryo_only(hangs),
        scenario!(a_task_that_never_gets_to_its_program_is_refused_soon).fifo_only().alone().cryo_only(hangs),
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

    // Only CRIU finds out what its owner has told it behind our back.
    let task = bench.run(&["ghost", "/tmp/file", &(2 << 20).to_string()])?;
    task.stdout().wait_for_line("ready")?;
    fake(bench, "criu", "*", "echo ghost-limit 1M >>\"$CRIU_CONFIG_FILE\"")?;
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

/// Nobody waits for what can't be seized, and nothing stays frozen.
#[track_caller]
fn refused_at_once(bench: &Bench, task: &Task<'_>, words: &[&str]) -> Outcome {
    refused_within(AT_ONCE, bench, task, words)
}

#[track_caller]
fn refused_within(limit: Duration, bench: &Bench, task: &Task<'_>, words: &[&str]) -> Outcome {
    let begun = Instant::now();
    let text = refused_checkpoint(bench, task, &bench.fresh_folder("image")?)?;
    ensure!(begun.elapsed() < patient(limit), "it took {:?}", begun.elapsed());
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in {text}");
    }
    ensure!(!cgroup::is_frozen(task.cgroup()), "the cgroup is frozen");
    Ok(())
}

fn a_stopped_task_is_checkpointed_or_refused_at_once(bench: &Bench) -> Outcome {
    let task = bench.run(&["heap", "1"])?;
    task.stdout().wait_for_line("ready")?;
    task.kill(Signal::SIGSTOP as u32)?;
    let pid = task.pid()?;
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.contains(") T ").then_some(())
    };
    eventually("it is stopped", is_stopped)?;
    if cgroup::is_v2() {
        task.checkpoint(&Checkpoint::into_folder(&bench.fresh_folder("image")?))?;
    } else {
        refused_at_once(bench, &task, &["guest (pid ", "is stopped", "SIGCONT"])?;
    }
    is_stopped().ok_or_else(|| Failure::new("it isn't stopped any more"))?;
    task.kill(Signal::SIGCONT as u32)?;
    task.asks(1, "same")?;
    task.comes_back("same")
}

fn a_task_that_never_gets_to_its_program_is_refused_soon(bench: &Bench) -> Outcome {
    let task = bench.run(&["hold", "vfork"])?;
    task.stdout().wait_for_line("ready")?;
    let words = ["guest (pid ", "between vfork and exec", "start its program"];
    refused_within(SOON, bench, &task, &words)?;
    task.asks(1, "same")?;
    task.end()
}

fn a_traced_task_is_refused_at_once(bench: &Bench) -> Outcome {
    let task = bench.run(&["heap", "1"])?;
    task.stdout().wait_for_line("ready")?;
    let pid = Pid::from_raw(task.pid()?.cast_signed());
    ptrace::seize(pid, ptrace::Options::empty())?;
    refused_at_once(bench, &task, &["guest (pid ", "is being traced", "tracer"])?;
    // A tracer lets go only of what stands still.
    kill(pid, Signal::SIGSTOP)?;
    waitpid(pid, Some(WaitPidFlag::__WALL))?;
    ptrace::detach(pid, Signal::SIGCONT)?;
    task.kill(Signal::SIGCONT as u32)?;
    task.asks(1, "same")?;
    task.end()
}

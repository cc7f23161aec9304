//! containerd ends, by TERM or KILL, and starts again: whatever went on goes on.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::execs::an_exec_works_in;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let tied = "the stock shim ends the dump with the call";
    let dropped = "the stock shim fails Pids then, and containerd throws the task away";
    vec![
        scenario!(a_running_task_goes_on_over_a_restart_of_containerd),
        scenario!(a_paused_task_stays_paused_over_a_restart_of_containerd),
        scenario!(a_task_that_was_not_started_is_there_after_a_restart).fifo_only(),
        scenario!(an_exec_goes_on_over_a_restart_of_containerd),
        scenario!(an_exit_while_containerd_is_away_is_told_afterwards)
            .cryo_only("the stock shim ends before it has told"),
        scenario!(a_task_that_ended_while_containerd_was_away_is_there_afterwards)
            .fifo_only()
            .cryo_only(dropped),
        scenario!(events_while_containerd_is_away_for_a_minute_are_told_in_order)
            .fifo_only()
            .long()
            .cryo_only("the stock shim drops events after five tries"),
        scenario!(output_goes_on_while_containerd_is_away),
        scenario!(containerd_may_be_killed_during_a_dump).fifo_only(),
        scenario!(containerd_may_be_killed_during_a_dump_with_exit).fifo_only().cryo_only(tied),
        scenario!(containerd_may_be_killed_during_a_restore).fifo_only().cryo_only(tied),
        scenario!(containerd_may_be_restarted_between_checkpoint_and_restore).restores(),
        scenario!(a_task_that_ended_by_a_checkpoint_is_there_after_a_restart).fifo_only().cryo_only(dropped),
        scenario!(a_restore_that_was_not_started_is_there_after_a_restart).cryo_only(dropped),
        scenario!(a_restored_task_goes_on_over_a_restart_of_containerd).restores(),
    ]
}

const BOTH: [Signal; 2] = [Signal::SIGTERM, Signal::SIGKILL];

fn goes_on(task: &Task<'_>, bench: &Bench) -> Outcome {
    for signal in BOTH {
        let pid = task.pid()?;
        bench.restart_containerd(signal)?;
        ensure_eq!(task.status()?, Status::Running, "after {signal}");
        ensure_eq!(task.pid()?, pid, "the pid after {signal}");
        task.stdout().wait_for_counting(3)?;
        an_exec_works_in(task)?;
    }
    task.stdout().counted()?;
    Ok(())
}

fn a_running_task_goes_on_over_a_restart_of_containerd(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    goes_on(&task, bench)?;
    task.end()
}

fn a_paused_task_stays_paused_over_a_restart_of_containerd(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.pause()?;
    for signal in BOTH {
        bench.restart_containerd(signal)?;
        ensure_eq!(task.status()?, Status::Paused, "after {signal}");
    }
    task.resume()?;
    task.stdout().wait_for_counting(3)?;
    task.end()
}

fn a_task_that_was_not_started_is_there_after_a_restart(bench: &Bench) -> Outcome {
    let task = bench.guest(&["count"]).create()?;
    bench.restart_containerd(Signal::SIGKILL)?;
    ensure_eq!(task.status()?, Status::Created, "after the restart");
    task.start()?;
    task.stdout().wait_for_counting(3)?;
    task.end()
}

fn an_exec_goes_on_over_a_restart_of_containerd(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let exec = task.exec(&["/bin/guest", "count"])?;
    exec.start()?;
    exec.stdout().wait_for_counting(3)?;
    bench.restart_containerd(Signal::SIGKILL)?;
    exec.stdout().wait_for_counting(3)?;
    exec.stdout().counted()?;
    exec.kill(KILL)?;
    ensure_eq!(exec.wait()?, 137, "the exec's exit status");
    exec.delete()?;
    task.end()
}

/// A task that ends with 42 while containerd is away, and its pid.
fn ends_while_containerd_is_away(
    bench: &Bench,
    signal: Signal,
    meanwhile: impl FnOnce(),
) -> Outcome<(Task<'_>, u32)> {
    let task = bench.run(&["signals"])?;
    task.stdout().wait_for_line("ready")?;
    let pid = task.pid()?;
    bench.stop_containerd(signal)?;
    meanwhile();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGTERM)?;
    eventually("it has ended", || cgroup::processes(task.cgroup()).is_empty().then_some(()))?;
    bench.start_containerd()?;
    Ok((task, pid))
}

fn an_exit_while_containerd_is_away_is_told_afterwards(bench: &Bench) -> Outcome {
    for signal in BOTH {
        let door = Door::new(bench)?;
        let (task, pid) = ends_while_containerd_is_away(bench, signal, || door.close())?;
        door.open();
        let ended = Event::Exit { of: task.id.clone(), pid, status: 42 };
        task.wait_for_event("exit", |event| *event == ended)?;
    }
    Ok(())
}

fn a_task_that_ended_while_containerd_was_away_is_there_afterwards(bench: &Bench) -> Outcome {
    for signal in BOTH {
        let (task, _) = ends_while_containerd_is_away(bench, signal, || ())?;
        ensure_eq!(task.wait()?, 42, "the exit status after {signal}");
        ensure_eq!(task.status()?, Status::Stopped, "after {signal}");
        ensure_eq!(task.delete()?.status, 42, "what Delete says");
    }
    Ok(())
}

fn events_while_containerd_is_away_for_a_minute_are_told_in_order(bench: &Bench) -> Outcome {
    let door = Door::new(bench)?;
    let task = bench.run(&["signals"])?;
    task.stdout().wait_for_line("ready")?;
    let exec = task.exec(&["/bin/guest", "idle"])?;
    let exec_pid = exec.start()?;
    let pid = task.pid()?;
    bench.stop_containerd(Signal::SIGKILL)?;
    door.close();
    let kill = |pid: u32, signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal);
    kill(exec_pid, Signal::SIGKILL)?;
    kill(pid, Signal::SIGTERM)?;
    eventually("it has ended", || cgroup::processes(task.cgroup()).is_empty().then_some(()))?;
    // The minute is what is tested: so long a shim must keep what it has to tell.
    thread::sleep(Duration::from_secs(60));
    bench.start_containerd()?;
    door.open();
    let exit = |of: &str, pid, status| {
        let wanted = Event::Exit { of: of.into(), pid, status };
        task.wait_for_event("exit", move |event| *event == wanted)
    };
    let (first, second) = (exit(&exec.id, exec_pid, 137)?, exit(&task.id, pid, 42)?);
    ensure!(first < second, "the container's exit was told first");
    task.delete()?;
    Ok(())
}

fn output_goes_on_while_containerd_is_away(bench: &Bench) -> Outcome {
    let task = bench.run(&["count", "--interval-ms", "2"])?;
    task.stdout().wait_for_counting(3)?;
    bench.stop_containerd(Signal::SIGKILL)?;
    task.stdout().wait_for_counting(50)?;
    bench.start_containerd()?;
    task.stdout().wait_for_counting(10)?;
    task.stdout().counted()?;
    task.end()
}

/// Kills containerd while CRIU waits before its door, and lets it in afterwards.
fn containerd_dies_meanwhile(bench: &Bench, operation: impl FnOnce() + Send) -> Outcome {
    let gate = Gate::before_criu(bench)?;
    thread::scope(|scope| {
        scope.spawn(operation);
        let arrived = gate.wait_for_arrival();
        bench.stop_containerd(Signal::SIGKILL)?;
        gate.open()?;
        arrived
    })?;
    bench.start_containerd()
}

fn containerd_may_be_killed_during_a_dump(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    let checkpoint = Checkpoint::into_folder(&image).work_folder(&bench.fresh_folder("criu")?);
    containerd_dies_meanwhile(bench, || drop(task.checkpoint(&checkpoint)))?;
    eventually("the task runs", || (task.status().ok()? == Status::Running).then_some(()))?;
    task.stdout().wait_for_counting(3)?;
    task.stdout().counted()?;
    // Finished or rolled back: either is right, half an image isn't.
    eventually("the dump is over", || {
        let sealed = image.join(cryo::DESCRIPTION).exists();
        let empty = std::fs::read_dir(&image).ok()?.next().is_none();
        (sealed || empty).then_some(())
    })?;
    task.end()
}

fn containerd_may_be_killed_during_a_dump_with_exit(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    containerd_dies_meanwhile(bench, || drop(task.checkpoint(&Checkpoint::into_folder(&image).exit())))?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    task.delete()?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(3)?;
    again.end()
}

fn containerd_may_be_killed_during_a_restore(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).create()?;
    containerd_dies_meanwhile(bench, || drop(again.start()))?;
    eventually("the task runs", || (again.status().ok()? == Status::Running).then_some(()))?;
    again.stdout().wait_for_counting(3)?;
    again.end()
}

fn containerd_may_be_restarted_between_checkpoint_and_restore(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    let image = task.end_as_image()?;
    task.stdout().wait_for_end()?;
    bench.restart_containerd(Signal::SIGKILL)?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(3)?;
    let (before, after) = (task.stdout().counted()?, again.stdout().counted()?);
    ensure_eq!(*after.start(), before.end() + 1, "the first number after the restore");
    again.end()
}

fn a_task_that_ended_by_a_checkpoint_is_there_after_a_restart(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.checkpoint(&Checkpoint::into_folder(&bench.fresh_folder("image")?).exit())?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    bench.restart_containerd(Signal::SIGKILL)?;
    ensure_eq!(task.status()?, Status::Stopped, "after the restart");
    ensure_eq!(task.wait()?, 137, "the exit status after the restart");
    task.delete()?;
    Ok(())
}

fn a_restore_that_was_not_started_is_there_after_a_restart(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).create()?;
    bench.restart_containerd(Signal::SIGKILL)?;
    ensure_eq!(again.status()?, Status::Created, "after the restart");
    again.start()?;
    again.stdout().wait_for_counting(3)?;
    again.end()
}

fn a_restored_task_goes_on_over_a_restart_of_containerd(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(3)?;
    goes_on(&again, bench)?;
    again.end()
}

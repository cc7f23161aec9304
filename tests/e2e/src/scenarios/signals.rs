//! Signals: who gets them, and what they end.

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(signals_arrive_and_term_can_be_handled),
        scenario!(kill_ends_with_137),
        scenario!(a_process_without_handlers_ignores_term),
        scenario!(a_signal_to_all_reaches_the_children).fifo_only(),
        scenario!(a_stopped_task_takes_no_signal),
        scenario!(a_paused_task_dies_once_it_is_killed),
        scenario!(orphans_in_the_hosts_pid_namespace_end_with_the_container).fifo_only(),
        scenario!(pausing_stops_the_output_and_resuming_goes_on),
        scenario!(pause_and_resume_refuse_the_wrong_state),
        scenario!(a_paused_task_that_goes_on_already_can_be_resumed)
            .fifo_only()
            .cryo_only("the stock shim hands on that runc refuses it"),
    ]
}

fn signals_arrive_and_term_can_be_handled(bench: &Bench) -> Outcome {
    let task = bench.run(&["signals"])?;
    task.stdout().wait_for_line("ready")?;
    task.kill(USR1)?;
    task.stdout().wait_for_line("SIGUSR1")?;
    task.kill(TERM)?;
    ensure_eq!(task.wait()?, 42, "the exit status");
    task.stdout().wait_for_line("SIGTERM")?;
    task.delete()?;
    Ok(())
}

fn kill_ends_with_137(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    task.kill(KILL)?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    task.delete()?;
    Ok(())
}

fn a_process_without_handlers_ignores_term(bench: &Bench) -> Outcome {
    // The first process of a pid namespace has no default actions.
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(1)?;
    task.kill(TERM)?;
    task.stdout().wait_for_counting(5)?;
    task.end()
}

fn a_signal_to_all_reaches_the_children(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "3"])?;
    task.stdout().wait_for_line("ready")?;
    ensure_eq!(task.pids()?.len(), 4, "processes before");
    bench.api().kill(&task.id, "", KILL, true)?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    ensure!(cgroup::processes(task.cgroup()).is_empty(), "some of its processes are alive");
    task.delete()?;
    Ok(())
}

fn a_stopped_task_takes_no_signal(bench: &Bench) -> Outcome {
    let task = bench.run(&["exit", "0"])?;
    task.wait()?;
    refused(task.kill(TERM), &[Code::NotFound])?;
    task.delete()?;
    Ok(())
}

fn a_paused_task_dies_once_it_is_killed(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    task.pause()?;
    task.kill(KILL)?;
    // A frozen process takes the signal when it is thawed; some runtimes thaw it themselves.
    let _ = task.resume();
    ensure_eq!(task.wait()?, 137, "the exit status");
    task.delete()?;
    Ok(())
}

fn orphans_in_the_hosts_pid_namespace_end_with_the_container(bench: &Bench) -> Outcome {
    let task = bench.guest(&["orphans", "3"]).host_pids().start()?;
    task.stdout().wait_for_line("ready")?;
    ensure_eq!(cgroup::processes(task.cgroup()).len(), 4, "processes before");
    task.kill(USR1)?;
    ensure_eq!(task.wait()?, 0, "the exit status");
    eventually("the orphans are gone", || cgroup::processes(task.cgroup()).is_empty().then_some(()))?;
    task.delete()?;
    Ok(())
}

fn pausing_stops_the_output_and_resuming_goes_on(bench: &Bench) -> Outcome {
    let task = bench.run(&["count", "--interval-ms", "5"])?;
    task.stdout().wait_for_counting(3)?;
    task.pause()?;
    ensure!(cgroup::is_frozen(task.cgroup()), "the cgroup isn't frozen");
    // What was on its way when the freeze came may still arrive.
    let mut last = task.stdout().bytes().len();
    eventually("no output comes", || {
        let before = std::mem::replace(&mut last, task.stdout().bytes().len());
        std::thread::sleep(std::time::Duration::from_millis(50));
        (before == task.stdout().bytes().len()).then_some(())
    })?;
    task.resume()?;
    task.stdout().wait_for_counting(3)?;
    task.stdout().counted()?;
    task.end()
}

fn pause_and_resume_refuse_the_wrong_state(bench: &Bench) -> Outcome {
    let task = bench.guest(&["idle"]).create()?;
    refused(task.resume(), &[])?;
    task.start()?;
    refused(task.resume(), &[])?;
    task.pause()?;
    refused(task.pause(), &[])?;
    ensure_eq!(task.status()?, Status::Paused, "after the refusal");
    task.resume()?;
    task.kill(KILL)?;
    task.wait()?;
    refused(task.pause(), &[])?;
    task.delete()?;
    Ok(())
}

fn a_paused_task_that_goes_on_already_can_be_resumed(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.pause()?;
    cgroup::thaw(task.cgroup())?;
    task.stdout().wait_for_counting(3)?;
    task.resume()?;
    ensure_eq!(task.status()?, Status::Running, "after it was resumed");
    task.wait_for_event("resumed", |event| matches!(event, Event::Resumed))?;
    task.pause()?;
    task.resume()?;
    task.end()
}

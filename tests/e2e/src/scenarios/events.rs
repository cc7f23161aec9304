//! What containerd's subscribers are told, and in which order.

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(events_come_in_the_order_of_things),
        scenario!(deleting_is_told_last).cryo_only_if(
            |_, settings| settings.containerd >= Version(2, 0),
            "containerd 2's own shim may end before it has sent its last event",
        ),
        scenario!(an_exec_exits_before_its_container),
        scenario!(pausing_and_resuming_are_told),
        scenario!(a_short_life_is_told_in_order_too),
        scenario!(running_out_of_memory_is_told).fifo_only(),
        scenario!(running_out_of_memory_is_told_before_the_exit)
            .fifo_only()
            .cryo_only("the stock shim's exit event may overtake its OOM event"),
        scenario!(a_restore_is_told_like_a_start).restores(),
    ]
}

fn events_come_in_the_order_of_things(bench: &Bench) -> Outcome {
    let task = bench.run(&["signals"])?;
    let pid = task.pid()?;
    task.stdout().wait_for_line("ready")?;
    task.kill(TERM)?;
    task.wait()?;
    let wanted = vec![
        Event::Create { pid, checkpoint: String::new() },
        Event::Start { pid },
        Event::Exit { of: task.id.clone(), pid, status: 42 },
    ];
    task.wait_for_event("exit", |event| matches!(event, Event::Exit { .. }))?;
    ensure_eq!(task.events(), wanted, "all events");
    task.delete()?;
    Ok(())
}

fn deleting_is_told_last(bench: &Bench) -> Outcome {
    for _ in 0..5 {
        let task = bench.run(&["exit", "3"])?;
        let pid = task.pid()?;
        task.wait()?;
        task.delete()?;
        let deleted = Event::Delete { pid, status: 3 };
        let at = task.wait_for_event("delete", |event| *event == deleted)?;
        ensure_eq!(at, 3, "events before it, of {:?}", task.events());
    }
    Ok(())
}

fn an_exec_exits_before_its_container(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let exec = task.exec(&["/bin/guest", "idle"])?;
    let exec_pid = exec.start()?;
    task.kill(KILL)?;
    task.wait()?;
    ensure_eq!(exec.wait()?, 137, "the exec's exit status");
    exec.delete()?;
    task.delete()?;
    let of = exec.id.clone();
    let added = task.wait_for_event("exec-added", |event| *event == Event::ExecAdded { exec: of.clone() })?;
    let started = Event::ExecStarted { exec: of.clone(), pid: exec_pid };
    let started = task.wait_for_event("exec-started", |event| *event == started)?;
    let ended = Event::Exit { of, pid: exec_pid, status: 137 };
    let ended = task.wait_for_event("exit of the exec", |event| *event == ended)?;
    let init_ended =
        task.wait_for_event("exit", |event| matches!(event, Event::Exit { of, .. } if *of == task.id))?;
    ensure!(added < started && started < ended && ended < init_ended, "the order is {:?}", task.events());
    Ok(())
}

fn pausing_and_resuming_are_told(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    task.pause()?;
    task.resume()?;
    let paused = task.wait_for_event("paused", |event| *event == Event::Paused)?;
    let resumed = task.wait_for_event("resumed", |event| *event == Event::Resumed)?;
    ensure!(paused < resumed, "resumed was told before paused");
    task.end()
}

fn a_short_life_is_told_in_order_too(bench: &Bench) -> Outcome {
    for _ in 0..5 {
        let task = bench.run(&["exit", "0"])?;
        task.wait()?;
        task.wait_for_event("exit", |event| matches!(event, Event::Exit { .. }))?;
        let events = task.events();
        let in_order = matches!(events[..], [Event::Create { .. }, Event::Start { .. }, Event::Exit { .. }]);
        ensure!(in_order, "the events are {events:?}");
        task.delete()?;
    }
    Ok(())
}

fn run_out_of_memory(bench: &Bench) -> Outcome<Task<'_>> {
    let task = bench.guest(&["oom"]).memory_limit(16 << 20).start()?;
    task.stdout().wait_for_line("ready")?;
    task.kill(USR1)?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    task.wait_for_event("oom", |event| *event == Event::Oom)?;
    Ok(task)
}

fn running_out_of_memory_is_told(bench: &Bench) -> Outcome {
    run_out_of_memory(bench)?.delete()?;
    Ok(())
}

fn running_out_of_memory_is_told_before_the_exit(bench: &Bench) -> Outcome {
    for _ in 0..5 {
        let task = run_out_of_memory(bench)?;
        let oom = task.wait_for_event("oom", |event| *event == Event::Oom)?;
        let exit = task.wait_for_event("exit", |event| matches!(event, Event::Exit { .. }))?;
        ensure!(oom < exit, "the exit was told first: {:?}", task.events());
        task.delete()?;
    }
    Ok(())
}

fn a_restore_is_told_like_a_start(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let image = task.end_as_image()?;
    let again = task.clone_from(&image).start()?;
    let pid = again.pid()?;
    again.kill(KILL)?;
    again.wait_for_event("exit", |event| matches!(event, Event::Exit { .. }))?;
    let events = again.events();
    let in_order = matches!(
        &events[..],
        [Event::Create { checkpoint, .. }, Event::Start { pid: started }, Event::Exit { status: 137, .. }]
            if *started == pid && !checkpoint.is_empty()
    );
    ensure!(in_order, "the events are {events:?}");
    again.delete()?;
    Ok(())
}

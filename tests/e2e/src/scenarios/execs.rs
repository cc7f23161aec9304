//! Processes that are added to a running container.

use std::thread;

use crate::harness::*;

const GUEST: &str = "/bin/guest";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(an_exec_runs_and_its_status_comes_back),
        scenario!(an_exec_reads_what_is_written_and_ends_at_eof),
        scenario!(an_exec_can_be_killed_alone),
        scenario!(an_exec_has_states_of_its_own),
        scenario!(an_exec_loses_no_last_byte),
        scenario!(a_terminal_of_an_exec_can_be_resized).terminal_only(),
        scenario!(a_missing_program_of_an_exec_is_named_and_harms_nobody),
        scenario!(an_exec_id_is_taken_only_once),
        scenario!(a_running_exec_is_not_deleted).fifo_only(),
        scenario!(a_task_that_is_not_running_takes_no_exec).fifo_only(),
        scenario!(execs_at_the_same_time_do_not_mix).fifo_only(),
        scenario!(an_exec_may_have_another_stdio_than_its_container),
        scenario!(after_a_restore_execs_work).restores(),
    ]
}

fn an_exec_runs_and_its_status_comes_back(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let exec = task.exec(&[GUEST, "exit", "5"])?;
    ensure!(exec.start()? != 0, "the exec has no pid");
    ensure_eq!(exec.wait()?, 5, "what Wait says");
    ensure_eq!(exec.state()?.exit_status, 5, "what the state says");
    ensure_eq!(exec.delete()?.status, 5, "what Delete says");
    refused(exec.state(), &[Code::NotFound])?;
    ensure_eq!(task.status()?, Status::Running, "the container meanwhile");
    task.end()
}

fn an_exec_reads_what_is_written_and_ends_at_eof(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let exec = task.exec(&[GUEST, "echo"])?;
    exec.start()?;
    exec.stdout().wait_for_line("ready")?;
    exec.pipes.write(b"hello\n")?;
    exec.stdout().wait_for_line("heard hello")?;
    if bench.has_terminal() {
        exec.pipes.write(b"\x04")?;
    } else {
        exec.end_stdin()?;
    }
    ensure_eq!(exec.wait()?, 0, "the exit status");
    exec.stdout().wait_for_line("EOF")?;
    exec.delete()?;
    task.end()
}

fn an_exec_can_be_killed_alone(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let exec = task.exec(&[GUEST, "idle"])?;
    refused(exec.kill(KILL), &[Code::FailedPrecondition, Code::NotFound, Code::Unknown])?;
    exec.start()?;
    exec.kill(KILL)?;
    ensure_eq!(exec.wait()?, 137, "the exec's exit status");
    refused(exec.kill(KILL), &[Code::NotFound])?;
    exec.delete()?;
    ensure_eq!(task.status()?, Status::Running, "the container meanwhile");
    task.end()
}

fn an_exec_has_states_of_its_own(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let exec = task.exec(&[GUEST, "idle"])?;
    ensure_eq!(exec.state()?.status, Status::Created as i32, "before Start");
    let pid = exec.start()?;
    let state = exec.state()?;
    ensure_eq!(state.status, Status::Running as i32, "after Start");
    ensure_eq!(state.pid, pid, "its pid");
    ensure_eq!(state.stdout, exec.pipes.stdio.stdout, "where its output goes");
    ensure!(cgroup::processes(task.cgroup()).contains(&pid), "the exec is in another cgroup");
    exec.kill(KILL)?;
    exec.wait()?;
    ensure_eq!(exec.state()?.status, Status::Stopped as i32, "after Kill");
    exec.delete()?;
    task.end()
}

fn an_exec_loses_no_last_byte(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    for _ in 0..5 {
        let exec = task.exec(&[GUEST, "burst", "200000"])?;
        exec.start()?;
        ensure_eq!(exec.wait()?, 0, "the exit status");
        exec.delete()?;
        exec.stdout().wait_for_end()?;
        check_burst(exec.stdout(), 200_000)?;
    }
    task.end()
}

fn a_terminal_of_an_exec_can_be_resized(bench: &Bench) -> Outcome {
    let task = bench.guest(&["idle"]).stdio(Kind::Null).start()?;
    let exec = task.exec_with(Kind::Terminal, &[GUEST, "tty"])?;
    exec.start()?;
    exec.stdout().wait_for_text("stdin true stdout true")?;
    exec.resize(33, 99)?;
    exec.stdout().wait_for_line("stdin true stdout true size 33x99")?;
    exec.kill(KILL)?;
    exec.wait()?;
    exec.delete()?;
    task.end()
}

fn a_missing_program_of_an_exec_is_named_and_harms_nobody(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let exec = task.exec(&["/bin/no-such-program"])?;
    let text = refused(exec.start(), &[])?;
    ensure!(text.contains("no-such-program"), "the error doesn't name the program: {text}");
    exec.delete()?;
    task.stdout().wait_for_counting(3)?;
    ensure_eq!(task.output_of(&[GUEST, "exit", "0"])?, "", "the output of the next exec");
    task.end()
}

fn an_exec_id_is_taken_only_once(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let exec = task.exec(&[GUEST, "exit", "0"])?;
    let (_, answer) = task.try_exec(exec.id.clone(), bench.stdio(), &[GUEST, "exit", "1"])?;
    refused(answer, &[Code::AlreadyExists])?;
    exec.start()?;
    exec.wait()?;
    exec.delete()?;
    let (again, answer) = task.try_exec(exec.id.clone(), bench.stdio(), &[GUEST, "exit", "2"])?;
    answer?;
    again.start()?;
    ensure_eq!(again.wait()?, 2, "the exit status of the second one by that name");
    again.delete()?;
    task.end()
}

fn a_running_exec_is_not_deleted(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let exec = task.exec(&[GUEST, "idle"])?;
    exec.start()?;
    refused(exec.delete(), &[Code::FailedPrecondition, Code::Unknown])?;
    ensure_eq!(exec.state()?.status, Status::Running as i32, "after the refusal");
    task.end()
}

fn a_task_that_is_not_running_takes_no_exec(bench: &Bench) -> Outcome {
    let task = bench.run(&["exit", "0"])?;
    task.wait()?;
    let (exec, answer) = task.try_exec(bench.next_exec_id(), Kind::Fifo, &[GUEST, "exit", "0"])?;
    // Shims may refuse to add it or to start it.
    match answer {
        Err(_) => {}
        Ok(()) => {
            refused(exec.start(), &[])?;
        }
    }
    task.delete()?;
    Ok(())
}

fn execs_at_the_same_time_do_not_mix(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    thread::scope(|scope| -> Outcome {
        let one = |status: u32| -> Outcome {
            let script = format!("for n in 1 2 3 4 5 6 7 8 9; do echo {status}; done; exit {status}");
            let exec = task.exec_with(Kind::Fifo, &["/bin/sh", "-c", &script])?;
            exec.start()?;
            ensure_eq!(exec.wait()?, status, "the exit status");
            exec.delete()?;
            exec.stdout().wait_for_end()?;
            ensure_eq!(exec.stdout().text(), format!("{status}\n").repeat(9), "the output");
            Ok(())
        };
        let all: Vec<_> = (1..=8).map(|status| scope.spawn(move || one(status))).collect();
        for thread in all {
            thread.join().map_err(|_| Failure::new("a thread panicked"))??;
        }
        Ok(())
    })?;
    task.end()
}

fn an_exec_may_have_another_stdio_than_its_container(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let other = if bench.has_terminal() { Kind::Fifo } else { Kind::Terminal };
    let exec = task.exec_with(other, &[GUEST, "tty"])?;
    exec.start()?;
    exec.stdout().wait_for_text(&format!("stdin {}", !bench.has_terminal()))?;
    exec.kill(KILL)?;
    exec.wait()?;
    exec.delete()?;
    let exec = task.exec_with(Kind::Null, &[GUEST, "exit", "4"])?;
    exec.start()?;
    ensure_eq!(exec.wait()?, 4, "the exit status without any stdio");
    exec.delete()?;
    task.end()
}

fn after_a_restore_execs_work(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    an_exec_works_in(&again)?;
    again.end()
}

/// Input, output and exit status of an exec, in one go.
pub(crate) fn an_exec_works_in(task: &Task<'_>) -> Outcome {
    let exec = task.exec(&[GUEST, "echo"])?;
    exec.start()?;
    exec.stdout().wait_for_line("ready")?;
    exec.pipes.write(b"hello\n")?;
    exec.stdout().wait_for_line("heard hello")?;
    exec.kill(KILL)?;
    ensure_eq!(exec.wait()?, 137, "the exec's exit status");
    exec.delete()?;
    Ok(())
}

/// Whether what came is the guest's burst, whole and in order.
pub(crate) fn check_burst(output: &Output, bytes: usize) -> Outcome {
    let found = output.bytes();
    ensure_eq!(found.len(), bytes, "bytes that came");
    check_pattern(&found)
}

/// Whether no byte of the guest's pattern is missing or came twice.
pub(crate) fn check_pattern(found: &[u8]) -> Outcome {
    let pattern: Vec<u8> = (b'!'..).take(89).collect();
    let wrong = found.chunks(89).position(|chunk| !pattern.starts_with(chunk));
    ensure!(
        wrong.is_none(),
        "of {} bytes those from {:?} on are wrong",
        found.len(),
        wrong.map(|at| at * 89)
    );
    Ok(())
}

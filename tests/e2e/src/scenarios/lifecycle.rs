//! From create to delete: states, exits and refusals.

use std::thread;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(an_exit_status_comes_back),
        scenario!(states_follow_the_life_of_a_task),
        scenario!(a_task_that_was_never_started_can_be_deleted),
        scenario!(a_task_that_was_never_started_can_be_killed),
        scenario!(a_running_task_is_not_deleted),
        scenario!(a_task_starts_only_once),
        scenario!(an_id_is_taken_only_once).fifo_only(),
        scenario!(unknown_tasks_are_not_found).fifo_only(),
        scenario!(a_missing_program_is_named),
        scenario!(short_lived_tasks_lose_no_exit),
        scenario!(all_who_wait_learn_the_exit).fifo_only(),
        scenario!(a_deleted_task_can_be_created_again),
    ]
}

fn an_exit_status_comes_back(bench: &Bench) -> Outcome {
    let task = bench.run(&["exit", "7"])?;
    ensure_eq!(task.wait()?, 7, "what Wait says");
    let state = task.state()?;
    ensure_eq!(state.status, Status::Stopped as i32, "the state afterwards");
    ensure_eq!(state.exit_status, 7, "the state's exit status");
    ensure!(state.exited_at.is_some(), "the state doesn't say when it ended");
    let deleted = task.delete()?;
    ensure_eq!(deleted.status, 7, "what Delete says");
    ensure_eq!(deleted.at, state.exited_at, "when it ended, says Delete");
    Ok(())
}

fn states_follow_the_life_of_a_task(bench: &Bench) -> Outcome {
    let task = bench.guest(&["idle"]).create()?;
    ensure_eq!(task.status()?, Status::Created, "after Create");
    let pid = task.pid()?;
    ensure!(pid != 0, "a created task has no pid");
    ensure_eq!(task.created_pid(), pid, "the pid that Create answered");
    let state = task.state()?;
    ensure_eq!(state.stdout, task.pipes.stdio.stdout, "where the state says output goes");
    ensure_eq!(state.terminal, bench.has_terminal(), "whether the state tells of a terminal");

    ensure_eq!(task.start()?, pid, "the pid that Start answered");
    ensure_eq!(task.status()?, Status::Running, "after Start");
    task.pause()?;
    ensure_eq!(task.status()?, Status::Paused, "after Pause");
    task.resume()?;
    ensure_eq!(task.status()?, Status::Running, "after Resume");
    task.kill(KILL)?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    ensure_eq!(task.status()?, Status::Stopped, "after Kill");
    task.delete()?;
    refused(task.state(), &[Code::NotFound])?;
    Ok(())
}

fn a_task_that_was_never_started_can_be_deleted(bench: &Bench) -> Outcome {
    let task = bench.guest(&["idle"]).create()?;
    task.delete()?;
    refused(task.state(), &[Code::NotFound])?;
    Ok(())
}

fn a_task_that_was_never_started_can_be_killed(bench: &Bench) -> Outcome {
    let task = bench.guest(&["idle"]).create()?;
    task.kill(KILL)?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    ensure_eq!(task.status()?, Status::Stopped, "after Kill");
    task.delete()?;
    Ok(())
}

fn a_running_task_is_not_deleted(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    refused(task.delete(), &[Code::FailedPrecondition, Code::Unknown])?;
    ensure_eq!(task.status()?, Status::Running, "after the refusal");
    task.end()
}

fn a_task_starts_only_once(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    refused(task.start(), &[Code::FailedPrecondition, Code::Unknown])?;
    ensure_eq!(task.status()?, Status::Running, "after the refusal");
    task.kill(KILL)?;
    task.wait()?;
    refused(task.start(), &[Code::FailedPrecondition, Code::Unknown])?;
    ensure_eq!(task.delete()?.status, 137, "the exit status");
    Ok(())
}

fn an_id_is_taken_only_once(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let (_, answer) = task.blueprint.clone().try_create()?;
    refused(answer, &[Code::AlreadyExists])?;
    ensure_eq!(task.status()?, Status::Running, "the one who was there first");
    task.end()
}

fn unknown_tasks_are_not_found(bench: &Bench) -> Outcome {
    let api = bench.api();
    let unknown = &[Code::NotFound];
    refused(api.start("nobody", ""), unknown)?;
    refused(api.state("nobody", ""), unknown)?;
    refused(api.pids("nobody"), unknown)?;
    refused(api.kill("nobody", "", KILL, false), unknown)?;
    refused(api.delete("nobody"), unknown)?;
    refused(api.pause("nobody"), unknown)?;
    refused(api.resume("nobody"), unknown)?;
    refused(api.close_stdin("nobody", ""), unknown)?;
    refused(api.resize("nobody", "", 24, 80), unknown)?;
    refused(api.wait("nobody", "", PATIENCE), unknown)?;
    let task = bench.run(&["idle"])?;
    refused(api.state(&task.id, "nobody"), unknown)?;
    refused(api.kill(&task.id, "nobody", KILL, false), unknown)?;
    refused(api.start(&task.id, "nobody"), unknown)?;
    refused(api.wait(&task.id, "nobody", PATIENCE), unknown)?;
    refused(api.delete_exec(&task.id, "nobody"), unknown)?;
    task.end()
}

fn a_missing_program_is_named(bench: &Bench) -> Outcome {
    let (task, answer) = bench.guest(&[]).program(&["/bin/no-such-program"]).try_create()?;
    // Runtimes may find out only when the program is to run.
    let text = match answer {
        Err(status) => status.message().to_owned(),
        Ok(_) => refused(task.start(), &[])?,
    };
    ensure!(text.contains("no-such-program"), "the error doesn't name the program: {text}");
    Ok(())
}

fn short_lived_tasks_lose_no_exit(bench: &Bench) -> Outcome {
    for status in 0..8 {
        let task = bench.guest(&["exit", &status.to_string()]).create()?;
        thread::scope(|scope| {
            let waiter = scope.spawn(|| task.wait());
            task.start()?;
            let found = waiter.join().map_err(|_| Failure::new("the waiter panicked"))??;
            ensure_eq!(found, status, "the exit status");
            Ok(())
        })?;
        task.delete()?;
    }
    Ok(())
}

fn all_who_wait_learn_the_exit(bench: &Bench) -> Outcome {
    let task = bench.run(&["signals"])?;
    task.stdout().wait_for_line("ready")?;
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| task.wait())).collect();
        task.kill(TERM)?;
        for waiter in waiters {
            let found = waiter.join().map_err(|_| Failure::new("a waiter panicked"))??;
            ensure_eq!(found, 42, "the exit status");
        }
        Ok(())
    })?;
    ensure_eq!(task.wait()?, 42, "the exit status for one who comes late");
    task.delete()?;
    Ok(())
}

fn a_deleted_task_can_be_created_again(bench: &Bench) -> Outcome {
    let task = bench.run(&["exit", "1"])?;
    task.wait()?;
    task.delete()?;
    let again = task.blueprint.clone().start()?;
    ensure_eq!(again.wait()?, 1, "the exit status the second time");
    again.delete()?;
    Ok(())
}

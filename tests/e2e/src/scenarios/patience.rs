//! Questions in the middle of a dump or a restore are answered at once, and whoever
//! asked for it may go away.

use std::thread;
use std::time::{Duration, Instant};

use containerd_client::tonic::Status as Refused;
use cryo_protos::api as wire;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let locked = "the stock shim holds a lock meanwhile";
    let tied = "the stock shim ends the dump with the call";
    let questions = vec![
        scenario!(questions_are_answered_at_once_during_a_dump).alone(),
        scenario!(questions_are_answered_at_once_during_the_dump_of_a_big_heap).alone(),
        scenario!(questions_are_answered_at_once_during_a_restore).alone(),
        scenario!(a_kill_during_a_dump_ends_the_task).alone(),
        scenario!(a_kill_during_a_restore_ends_the_task).alone(),
        scenario!(an_exec_during_a_dump_is_refused_or_waits),
    ];
    let agreed = vec![
        scenario!(other_containers_of_the_shim_go_on_during_a_dump).fifo_only(),
        scenario!(a_second_checkpoint_during_a_dump_harms_neither).fifo_only(),
        scenario!(a_restore_goes_on_when_its_client_goes_away).fifo_only().restores(),
    ];
    let abandoned = vec![
        scenario!(a_dump_goes_on_when_its_client_goes_away),
        scenario!(a_dump_with_exit_ends_the_task_though_its_client_went_away),
    ];
    let questions = questions.into_iter().map(|scenario| scenario.fifo_only().cryo_only(locked));
    let abandoned = abandoned.into_iter().map(|scenario| scenario.fifo_only().cryo_only(tied));
    questions.chain(abandoned).chain(agreed).collect()
}

fn at_once<T>(what: &str, question: impl FnOnce() -> Result<T, Refused>) -> Outcome<T> {
    let started = Instant::now();
    let answer = question();
    let took = started.elapsed();
    ensure!(took < AT_ONCE, "{what} was answered after {took:?}");
    Ok(answer?)
}

/// Everything that asks and changes nothing.
fn questions_are_answered(task: &Task<'_>, socket: &ShimSocket) -> Outcome {
    at_once("State", || task.state())?;
    at_once("Pids", || task.pids())?;
    let started = Instant::now();
    let request = wire::ConnectRequest { id: task.id.clone(), ..Default::default() };
    let _: wire::ConnectResponse = socket.call(TaskVersion::usual(), "Connect", &request)?;
    ensure!(started.elapsed() < AT_ONCE, "Connect was answered after {:?}", started.elapsed());
    // A wait has no answer yet, but it must not be refused either.
    match task.api().wait(&task.id, "", Duration::from_millis(100)) {
        Err(status) if status.code() == Code::DeadlineExceeded => Ok(()),
        other => Err(Failure::new(format!("Wait answered {other:?}"))),
    }
}

/// Lets `work` go on while a dump or restore of `task` stands before CRIU's door.
fn meanwhile<T: Send>(
    bench: &Bench,
    operation: impl FnOnce() -> Result<T, Refused> + Send,
    work: impl FnOnce(&Gate) -> Outcome,
) -> Outcome<Result<T, Refused>> {
    let gate = Gate::before_criu(bench)?;
    thread::scope(|scope| {
        let running = scope.spawn(operation);
        let outcome = gate.wait_for_arrival().and_then(|_| work(&gate));
        // Also after a failure: else the scope would never end.
        gate.open()?;
        let answer = running.join().map_err(|_| Failure::new("the operation panicked"))?;
        outcome.map(|()| answer)
    })
}

fn questions_are_answered_at_once_during_a_dump(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let socket = ShimSocket::of(&task)?;
    let image = bench.fresh_folder("image")?;
    let pid = task.pid()?;
    meanwhile(
        bench,
        || task.checkpoint(&Checkpoint::into_folder(&image)),
        |_| {
            questions_are_answered(&task, &socket)?;
            ensure_eq!(task.pid()?, pid, "the pid meanwhile");
            Ok(())
        },
    )??;
    task.stdout().wait_for_counting(3)?;
    task.stdout().counted()?;
    task.end()
}

fn questions_are_answered_at_once_during_the_dump_of_a_big_heap(bench: &Bench) -> Outcome {
    let task = bench.run(&["heap", "256"])?;
    task.stdout().wait_for_line("ready")?;
    let image = bench.fresh_folder("image")?;
    thread::scope(|scope| -> Outcome {
        let dump = scope.spawn(|| task.checkpoint(&Checkpoint::into_folder(&image)));
        while !dump.is_finished() {
            at_once("State", || task.state())?;
            at_once("Pids", || task.pids())?;
        }
        dump.join().map_err(|_| Failure::new("the dump panicked"))??;
        Ok(())
    })?;
    task.asks(1, "same")?;
    task.end()
}

fn questions_are_answered_at_once_during_a_restore(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).create()?;
    let socket = ShimSocket::of(&again)?;
    meanwhile(bench, || again.start(), |_| questions_are_answered(&again, &socket))??;
    again.stdout().wait_for_counting(3)?;
    again.end()
}

fn other_containers_of_the_shim_go_on_during_a_dump(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let other = bench.guest(&["count"]).beside(&task).start()?;
    let image = bench.fresh_folder("image")?;
    let checkpoint = Checkpoint::into_folder(&image).work_folder(&bench.fresh_folder("criu")?);
    meanwhile(
        bench,
        || task.checkpoint(&checkpoint),
        |_| {
            other.stdout().wait_for_counting(5)?;
            super::execs::an_exec_works_in(&other)?;
            let third = bench.guest(&["exit", "3"]).beside(&task).start()?;
            ensure_eq!(third.wait()?, 3, "the exit status of one that comes meanwhile");
            third.delete()?;
            other.end()
        },
    )??;
    task.end()
}

fn a_kill_during_a_dump_ends_the_task(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    let answer = meanwhile(
        bench,
        || task.checkpoint(&Checkpoint::into_folder(&image)),
        |_| at_once("Kill", || task.kill(KILL)),
    )?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    // Whether the image was finished before is a matter of luck; half of one isn't left.
    if answer.is_err() {
        ensure!(!image.join(cryo::DESCRIPTION).exists(), "a failed dump left a sealed image");
    }
    task.delete()?;
    Ok(())
}

fn a_kill_during_a_restore_ends_the_task(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).create()?;
    let answer = meanwhile(bench, || again.start(), |_| at_once("Kill", || again.kill(KILL)))?;
    ensure_eq!(again.wait()?, 137, "the exit status");
    drop(answer);
    again.delete()?;
    refused(again.state(), &[Code::NotFound])?;
    Ok(())
}

fn an_exec_during_a_dump_is_refused_or_waits(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    meanwhile(
        bench,
        || task.checkpoint(&Checkpoint::into_folder(&image)),
        |gate| {
            let (exec, added) =
                task.try_exec(bench.next_exec_id(), Kind::Null, &["/bin/guest", "exit", "3"])?;
            let refusal = match added {
                Err(status) => Some(status),
                Ok(()) => thread::scope(|scope| {
                    let starting = scope.spawn(|| exec.start());
                    gate.open()?;
                    starting.join().map_err(|_| Failure::new("the start panicked")).map(Result::err)
                })?,
            };
            if let Some(status) = refusal {
                let text = status.message().to_lowercase();
                ensure!(text.contains("checkpoint"), "the refusal doesn't say why: {text}");
            }
            Ok(())
        },
    )??;
    super::execs::an_exec_works_in(&task)?;
    task.end()
}

fn a_second_checkpoint_during_a_dump_harms_neither(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let (first, second) = (bench.fresh_folder("image")?, bench.fresh_folder("image")?);
    let work = bench.fresh_folder("criu")?;
    let dump = |image| task.checkpoint(&Checkpoint::into_folder(image).work_folder(&work));
    thread::scope(|scope| -> Outcome {
        let gate = Gate::before_criu(bench)?;
        let one = scope.spawn(|| dump(&first));
        let arrived = gate.wait_for_arrival();
        let two = scope.spawn(|| dump(&second));
        // It is refused, or waits for its turn.
        let _ = eventually_within(Duration::from_secs(1), "refused", || two.is_finished().then_some(()));
        gate.open()?;
        arrived?;
        one.join().map_err(|_| Failure::new("the first panicked"))??;
        if two.join().map_err(|_| Failure::new("the second panicked"))?.is_ok() {
            ensure!(second.join("inventory.img").exists(), "the second image has no inventory");
        }
        Ok(())
    })?;
    ensure!(first.join("inventory.img").exists(), "the first image has no inventory");
    task.stdout().wait_for_counting(3)?;
    task.end()
}

/// Asks for something, and gives up before CRIU is let in.
fn gives_up<T>(bench: &Bench, ask: impl FnOnce(Duration) -> Result<T, Refused>) -> Outcome {
    let gate = Gate::before_criu(bench)?;
    let given_up = match ask(Duration::from_millis(500)) {
        Err(status) if status.code() == Code::DeadlineExceeded => Ok(()),
        _ => Err(Failure::new("it was answered though CRIU hadn't begun")),
    };
    gate.wait_for_arrival()?;
    gate.open()?;
    given_up
}

fn a_dump_goes_on_when_its_client_goes_away(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    let options = Checkpoint::into_folder(&image).packed();
    gives_up(bench, |deadline| task.api().checkpoint(&task.id, options, deadline))?;
    eventually("the image is finished", || image.join(cryo::DESCRIPTION).exists().then_some(()))?;
    eventually("the task runs", || (task.status().ok()? == Status::Running).then_some(()))?;
    task.stdout().wait_for_counting(3)?;
    task.stdout().counted()?;
    task.end()
}

fn a_dump_with_exit_ends_the_task_though_its_client_went_away(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    let options = Checkpoint::into_folder(&image).exit().packed();
    gives_up(bench, |deadline| task.api().checkpoint(&task.id, options, deadline))?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    ensure!(image.join(cryo::DESCRIPTION).exists(), "the image isn't sealed");
    task.delete()?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(3)?;
    again.end()
}

fn a_restore_goes_on_when_its_client_goes_away(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).create()?;
    gives_up(bench, |deadline| again.api().start_within(&again.id, deadline))?;
    eventually("the task runs", || (again.status().ok()? == Status::Running).then_some(()))?;
    again.stdout().wait_for_counting(3)?;
    again.end()
}

//! Between Create and Start of a restore, and restores that fail.

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_restore_that_was_not_started_can_be_deleted).restores(),
        scenario!(a_restore_that_was_not_started_can_be_killed)
            .cryo_only("the stock shim answers NotFound, as there is no process yet"),
        scenario!(a_restore_that_was_not_started_tells_its_state).restores(),
        scenario!(a_restore_that_was_not_started_refuses_what_needs_a_process).restores(),
        scenario!(a_killed_restore_can_be_tried_again).cryo_only("the stock shim can't kill it"),
        scenario!(a_failed_restore_can_be_deleted_and_tried_again).restores(),
        scenario!(a_failed_restore_is_a_stopped_task).cryo_only("the stock shim calls it created for ever"),
        scenario!(a_failed_restore_names_cause_and_log)
            .fifo_only()
            .cryo_only("the stock shim's error says type NOTIFY errno 0"),
        scenario!(whoever_waits_for_a_restore_that_fails_learns_of_it)
            .fifo_only()
            .cryo_only("the stock shim leaves him waiting"),
    ]
}

fn image_of_a_counter<'b>(bench: &'b Bench) -> Outcome<(Task<'b>, std::path::PathBuf)> {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    let image = task.end_as_image()?;
    Ok((task, image))
}

fn comes_back(task: &Task<'_>, image: &std::path::Path) -> Outcome {
    let again = task.again_from(image).start()?;
    again.stdout().wait_for_counting(3)?;
    again.end()
}

fn a_restore_that_was_not_started_can_be_deleted(bench: &Bench) -> Outcome {
    let (task, image) = image_of_a_counter(bench)?;
    let again = task.again_from(&image).create()?;
    again.delete()?;
    refused(again.state(), &[Code::NotFound])?;
    comes_back(&task, &image)
}

fn a_restore_that_was_not_started_can_be_killed(bench: &Bench) -> Outcome {
    let (task, image) = image_of_a_counter(bench)?;
    let again = task.again_from(&image).create()?;
    again.kill(KILL)?;
    ensure_eq!(again.wait()?, 137, "the exit status");
    ensure_eq!(again.status()?, Status::Stopped, "after Kill");
    again.wait_for_event("exit", |event| matches!(event, Event::Exit { status: 137, .. }))?;
    refused(again.start(), &[])?;
    again.delete()?;
    Ok(())
}

fn a_restore_that_was_not_started_tells_its_state(bench: &Bench) -> Outcome {
    let (task, image) = image_of_a_counter(bench)?;
    let again = task.again_from(&image).create()?;
    let state = again.state()?;
    ensure_eq!(state.status, Status::Created as i32, "the state");
    ensure_eq!(state.pid, again.created_pid(), "the pid");
    ensure_eq!(state.stdout, again.pipes.stdio.stdout, "where output goes");
    again.start()?;
    again.end()
}

fn a_restore_that_was_not_started_refuses_what_needs_a_process(bench: &Bench) -> Outcome {
    let (task, image) = image_of_a_counter(bench)?;
    let again = task.again_from(&image).create()?;
    refused(again.pause(), &[])?;
    refused(again.resume(), &[])?;
    refused(again.checkpoint(&Checkpoint::into_folder(&bench.fresh_folder("image")?)), &[])?;
    let (exec, answer) = again.try_exec(bench.next_exec_id(), Kind::Null, &["/bin/guest", "idle"])?;
    if answer.is_ok() {
        refused(exec.start(), &[])?;
        exec.delete()?;
    }
    ensure_eq!(again.status()?, Status::Created, "after all refusals");
    again.start()?;
    again.stdout().wait_for_counting(3)?;
    again.end()
}

fn a_killed_restore_can_be_tried_again(bench: &Bench) -> Outcome {
    let (task, image) = image_of_a_counter(bench)?;
    let again = task.again_from(&image).create()?;
    again.kill(KILL)?;
    again.wait()?;
    again.delete()?;
    comes_back(&task, &image)
}

/// A restore whose Start fails, though its image is good.
fn failed_restore<'b>(bench: &'b Bench) -> Outcome<(Task<'b>, std::path::PathBuf, String)> {
    let (task, image) = image_of_a_counter(bench)?;
    let dying = fake(bench, "criu", "*", "exit 1")?;
    let again = task.again_from(&image).create()?;
    let text = refused(again.start(), &[])?;
    std::fs::remove_file(dying)?;
    Ok((again, image, text))
}

fn a_failed_restore_can_be_deleted_and_tried_again(bench: &Bench) -> Outcome {
    let (again, image, _) = failed_restore(bench)?;
    again.delete()?;
    refused(again.state(), &[Code::NotFound])?;
    comes_back(&again, &image)
}

fn a_failed_restore_is_a_stopped_task(bench: &Bench) -> Outcome {
    let (again, _, _) = failed_restore(bench)?;
    let state = again.state()?;
    ensure_eq!(state.status, Status::Stopped as i32, "the state");
    ensure_eq!(state.pid, 0, "the pid");
    ensure!(again.wait()? != 0, "Wait tells of success");
    again.wait_for_event("exit", |event| matches!(event, Event::Exit { .. }))?;
    again.delete()?;
    Ok(())
}

fn a_failed_restore_names_cause_and_log(bench: &Bench) -> Outcome {
    let (task, image) = image_of_a_counter(bench)?;
    // CRIU itself finds that out, and only its log says so.
    std::fs::write(image.join("pages-1.img"), "")?;
    std::fs::remove_file(image.join("core-1.img"))?;
    let (again, answer) = task.again_from(&image).try_create()?;
    let text = match answer {
        Err(status) => status.message().to_owned(),
        Ok(_) => refused(again.start(), &[])?,
    };
    ensure!(text.contains("core-1.img"), "the cause isn't named: {text}");
    ensure!(!text.contains("errno 0"), "the error repeats what means nothing: {text}");
    Ok(())
}

fn whoever_waits_for_a_restore_that_fails_learns_of_it(bench: &Bench) -> Outcome {
    let (task, image) = image_of_a_counter(bench)?;
    let _dying = fake(bench, "criu", "*", "exit 1")?;
    let again = task.again_from(&image).create()?;
    std::thread::scope(|scope| -> Outcome {
        let waiter = scope.spawn(|| again.wait());
        refused(again.start(), &[])?;
        let status = waiter.join().map_err(|_| Failure::new("the waiter panicked"))??;
        ensure!(status != 0, "Wait tells of success");
        Ok(())
    })?;
    again.delete()?;
    Ok(())
}

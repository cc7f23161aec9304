//! The shim is killed with -9, at any moment: containerd learns of it, the container
//! is gone with all it had, and nothing stays frozen.

use std::thread;

use cryo_protos::api as wire;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let lingers = "the stock shim leaves the runtime's half-made state";
    vec![
        scenario!(a_running_task_ends_with_its_shim),
        scenario!(a_task_that_was_not_started_ends_with_its_shim),
        scenario!(a_paused_task_ends_with_its_shim),
        scenario!(execs_end_with_the_shim),
        scenario!(all_containers_of_a_group_end_with_their_shim).fifo_only(),
        scenario!(a_stopped_task_is_cleaned_up_after_its_shim).fifo_only(),
        scenario!(a_task_that_ended_by_a_checkpoint_is_cleaned_up_after_its_shim).fifo_only().restores(),
        scenario!(a_shim_may_die_before_criu_begins_a_dump).fifo_only(),
        scenario!(a_shim_may_die_in_the_middle_of_a_dump).fifo_only(),
        scenario!(a_shim_may_die_before_criu_begins_a_restore).fifo_only().restores(),
        scenario!(a_shim_may_die_in_the_middle_of_a_restore).fifo_only().cryo_only(lingers),
        scenario!(a_shim_may_die_between_create_and_start_of_a_restore).restores(),
        scenario!(a_restored_task_ends_with_its_shim).restores(),
        scenario!(a_restored_task_that_is_paused_ends_with_its_shim).fifo_only().restores(),
        scenario!(a_half_made_image_is_known_as_such).fifo_only().restores(),
        scenario!(a_shim_may_die_while_containerd_is_away).fifo_only(),
    ]
}

pub(super) fn shim_of(task: &Task<'_>) -> Outcome<Pid> {
    let request = wire::ConnectRequest { id: task.id.clone(), ..Default::default() };
    let answer: wire::ConnectResponse =
        ShimSocket::of(task)?.call(TaskVersion::usual(), "Connect", &request)?;
    Ok(Pid::from_raw(answer.shim_pid as i32))
}

/// What must be so after the shim's death; the leak check after the trial does the rest.
pub(super) fn is_gone(task: &Task<'_>) -> Outcome {
    // Of one whose shim is dead and that is being cleaned up after it says no more than "not found".
    let unknown = format!("task {} not found", task.id);
    eventually("containerd knows the task no more", || {
        let said = task.state().err()?;
        (said.code() == Code::NotFound && said.message().contains(&unknown)).then_some(())
    })?;
    eventually("all its processes are gone", || cgroup::processes(task.cgroup()).is_empty().then_some(()))?;
    eventually("its bundle is gone", || (!bundle_of(task).exists()).then_some(()))
}

fn ends_with_its_shim(task: &Task<'_>) -> Outcome {
    let pid = task.pid()?;
    kill(shim_of(task)?, Signal::SIGKILL)?;
    is_gone(task)?;
    let ended = Event::Exit { of: task.id.clone(), pid, status: 137 };
    task.wait_for_event("exit", |event| *event == ended)?;
    // The container can be run anew.
    let again = task.blueprint.clone().start()?;
    again.end()
}

fn a_running_task_ends_with_its_shim(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    ends_with_its_shim(&task)
}

fn a_task_that_was_not_started_ends_with_its_shim(bench: &Bench) -> Outcome {
    ends_with_its_shim(&bench.guest(&["count"]).create()?)
}

fn a_paused_task_ends_with_its_shim(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "3"])?;
    task.pause()?;
    ends_with_its_shim(&task)
}

fn execs_end_with_the_shim(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let exec = task.exec(&["/bin/guest", "count"])?;
    exec.start()?;
    ends_with_its_shim(&task)
}

fn all_containers_of_a_group_end_with_their_shim(bench: &Bench) -> Outcome {
    let first = bench.run(&["count"])?;
    let second = bench.guest(&["count"]).beside(&first).start()?;
    kill(shim_of(&second)?, Signal::SIGKILL)?;
    is_gone(&first)?;
    is_gone(&second)
}

fn a_stopped_task_is_cleaned_up_after_its_shim(bench: &Bench) -> Outcome {
    let task = bench.run(&["exit", "5"])?;
    task.wait()?;
    kill(shim_of(&task)?, Signal::SIGKILL)?;
    is_gone(&task)
}

fn a_task_that_ended_by_a_checkpoint_is_cleaned_up_after_its_shim(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    task.checkpoint(&Checkpoint::into_folder(&image).exit())?;
    task.wait()?;
    kill(shim_of(&task)?, Signal::SIGKILL)?;
    is_gone(&task)?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(3)?;
    again.end()
}

fn a_shim_may_die_before_criu_begins_a_dump(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "3"])?;
    let (shim, image) = (shim_of(&task)?, bench.fresh_folder("image")?);
    let checkpoint = Checkpoint::into_folder(&image).work_folder(&bench.fresh_folder("criu")?);
    let gate = Gate::before_criu(bench)?;
    thread::scope(|scope| -> Outcome {
        scope.spawn(|| task.checkpoint(&checkpoint));
        let arrived = gate.wait_for_arrival();
        kill(shim, Signal::SIGKILL)?;
        gate.open()?;
        arrived?;
        Ok(())
    })?;
    is_gone(&task)
}

/// Kills the shim while CRIU writes the pages of a big container.
fn shim_dies_while_pages_are_written(bench: &Bench) -> Outcome<(Task<'_>, std::path::PathBuf)> {
    let task = bench.run(&["heap", "256"])?;
    task.stdout().wait_for_line("ready")?;
    let (shim, image) = (shim_of(&task)?, bench.fresh_folder("image")?);
    let checkpoint = Checkpoint::into_folder(&image).work_folder(&bench.fresh_folder("criu")?);
    thread::scope(|scope| -> Outcome {
        scope.spawn(|| task.checkpoint(&checkpoint));
        let writing = at_every_moment("CRIU writes", || {
            let staged = cgroup::tree(&image).into_iter().map(|folder| folder.join("pages-1.img"));
            staged.chain([image.with_extension("partial")]).find(|path| path.exists())
        });
        kill(shim, Signal::SIGKILL)?;
        writing?;
        Ok(())
    })?;
    is_gone(&task)?;
    Ok((task, image))
}

fn a_shim_may_die_in_the_middle_of_a_dump(bench: &Bench) -> Outcome {
    shim_dies_while_pages_are_written(bench)?;
    Ok(())
}

fn a_half_made_image_is_known_as_such(bench: &Bench) -> Outcome {
    let (task, image) = shim_dies_while_pages_are_written(bench)?;
    let (again, answer) = task.again_from(&image).try_create()?;
    if answer.is_ok() {
        refused(again.start(), &[])?;
        again.delete()?;
    }
    // The next checkpoint into the same folder removes the rubbish.
    let fresh = task.blueprint.clone().start()?;
    fresh.stdout().wait_for_line("ready")?;
    fresh.checkpoint(&Checkpoint::into_folder(&image).exit())?;
    fresh.wait()?;
    fresh.delete()?;
    let again = task.again_from(&image).start()?;
    again.asks(1, "same")?;
    again.end()
}

fn a_shim_may_die_before_criu_begins_a_restore(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "3"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).create()?;
    let shim = shim_of(&again)?;
    let gate = Gate::before_criu(bench)?;
    thread::scope(|scope| -> Outcome {
        scope.spawn(|| again.start());
        let arrived = gate.wait_for_arrival();
        kill(shim, Signal::SIGKILL)?;
        gate.open()?;
        arrived?;
        Ok(())
    })?;
    is_gone(&again)
}

fn a_shim_may_die_in_the_middle_of_a_restore(bench: &Bench) -> Outcome {
    let task = bench.run(&["heap", "256"])?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).create()?;
    let shim = shim_of(&again)?;
    thread::scope(|scope| -> Outcome {
        scope.spawn(|| again.start());
        let restoring = eventually("CRIU makes processes", || {
            (!cgroup::processes(again.cgroup()).is_empty()).then_some(())
        });
        kill(shim, Signal::SIGKILL)?;
        restoring
    })?;
    is_gone(&again)?;
    let third = task.again_from(&image).start()?;
    third.asks(1, "same")?;
    third.end()
}

fn a_shim_may_die_between_create_and_start_of_a_restore(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).create()?;
    kill(shim_of(&again)?, Signal::SIGKILL)?;
    is_gone(&again)?;
    let third = task.again_from(&image).start()?;
    third.stdout().wait_for_counting(3)?;
    third.end()
}

fn a_restored_task_ends_with_its_shim(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let again = task.clone_from(&image).start()?;
    let pid = again.pid()?;
    kill(shim_of(&again)?, Signal::SIGKILL)?;
    is_gone(&again)?;
    let ended = Event::Exit { of: again.id.clone(), pid, status: 137 };
    again.wait_for_event("exit", |event| *event == ended)?;
    Ok(())
}

fn a_restored_task_that_is_paused_ends_with_its_shim(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "2"])?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    again.pause()?;
    ensure!(cgroup::is_frozen(again.cgroup()), "the cgroup isn't frozen");
    kill(shim_of(&again)?, Signal::SIGKILL)?;
    is_gone(&again)?;
    let third = task.again_from(&image).start()?;
    third.asks(1, "alive 2")?;
    third.end()
}

fn a_shim_may_die_while_containerd_is_away(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let shim = shim_of(&task)?;
    bench.stop_containerd(Signal::SIGKILL)?;
    kill(shim, Signal::SIGKILL)?;
    bench.start_containerd()?;
    is_gone(&task)
}

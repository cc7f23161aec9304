//! Taking a checkpoint: what ends, what goes on, what lies in the image.

use std::fs;
use std::path::Path;

use super::execs::an_exec_works_in;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_checkpoint_with_exit_ends_the_task_with_137),
        scenario!(a_task_that_ended_by_a_checkpoint_can_be_deleted).cryo_only_if(
            |combination, _| combination.runtime == Runtime::Crun,
            "crun has removed its state by itself, and the stock shim's delete fails on that",
        ),
        scenario!(a_checkpoint_without_exit_goes_on),
        scenario!(a_paused_task_stays_paused_over_a_checkpoint),
        scenario!(a_paused_task_ends_by_a_checkpoint_with_exit),
        scenario!(only_a_task_that_runs_or_is_paused_has_something_to_checkpoint),
        scenario!(an_image_is_a_flat_folder_of_files),
        scenario!(the_clients_work_folder_keeps_the_log_and_figures),
        scenario!(an_image_folder_that_does_not_exist_is_made).fifo_only(),
        scenario!(execs_go_on_over_a_checkpoint),
        scenario!(execs_end_before_their_container_by_a_checkpoint_with_exit),
        scenario!(many_processes_go_on_over_a_checkpoint).fifo_only(),
        scenario!(one_checkpoint_after_another_succeeds),
        scenario!(output_that_never_rests_stays_whole),
        scenario!(checkpoints_of_several_containers_at_once_succeed).fifo_only(),
        scenario!(a_checkpoint_leaves_the_network_usable).fifo_only(),
        scenario!(a_checkpoint_leaves_the_hosts_network_usable).fifo_only(),
        scenario!(a_checkpoint_with_exit_of_a_paused_task_alarms_nobody)
            .fifo_only()
            .cryo_only("the stock shim tries to resume a container that is gone"),
        scenario!(the_container_is_frozen_before_criu_begins)
            .fifo_only()
            .cryo_only("the stock shim lets CRIU freeze it, which takes a tenth of a second"),
        scenario!(a_checkpoint_is_told).cryo_only("the stock shim tells nobody"),
        scenario!(an_image_describes_itself).cryo_only("our own file"),
        scenario!(our_own_log_is_kept_outside_the_bundle).fifo_only().cryo_only("the stock shim deletes it"),
    ]
}

/// A first work folder of crun's own making fails, so the tests always name one.
fn into_folder(bench: &Bench, image: &Path) -> Outcome<Checkpoint> {
    Ok(Checkpoint::into_folder(image).work_folder(&bench.fresh_folder("criu")?))
}

fn end_by_checkpoint(bench: &Bench, task: &Task<'_>) -> Outcome {
    let image = bench.fresh_folder("image")?;
    task.checkpoint(&into_folder(bench, &image)?.exit())?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    ensure!(image.join("inventory.img").exists(), "the image has no inventory");
    Ok(())
}

fn a_checkpoint_with_exit_ends_the_task_with_137(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    let pid = task.pid()?;
    end_by_checkpoint(bench, &task)?;
    ensure_eq!(task.status()?, Status::Stopped, "after the checkpoint");
    let ended = Event::Exit { of: task.id.clone(), pid, status: 137 };
    task.wait_for_event("exit", |event| *event == ended)?;
    ensure!(cgroup::processes(task.cgroup()).is_empty(), "processes of it are alive");
    Ok(())
}

fn a_task_that_ended_by_a_checkpoint_can_be_deleted(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(2)?;
    end_by_checkpoint(bench, &task)?;
    ensure_eq!(task.delete()?.status, 137, "what Delete says");
    refused(task.state(), &[Code::NotFound])?;
    task.stdout().wait_for_end()?;
    task.stdout().counted()?;
    Ok(())
}

fn a_checkpoint_without_exit_goes_on(bench: &Bench) -> Outcome {
    let task = bench.run(&["count", "--interval-ms", "5"])?;
    task.stdout().wait_for_counting(3)?;
    let pid = task.pid()?;
    let image = bench.fresh_folder("image")?;
    task.checkpoint(&into_folder(bench, &image)?)?;
    ensure_eq!(task.status()?, Status::Running, "after the checkpoint");
    ensure_eq!(task.pid()?, pid, "the pid after the checkpoint");
    ensure!(!cgroup::is_frozen(task.cgroup()), "the cgroup is frozen");
    task.stdout().wait_for_counting(5)?;
    task.stdout().counted()?;
    an_exec_works_in(&task)?;
    ensure!(image.join("inventory.img").exists(), "the image has no inventory");
    task.end()
}

fn a_paused_task_stays_paused_over_a_checkpoint(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    task.pause()?;
    task.checkpoint(&into_folder(bench, &bench.fresh_folder("image")?)?)?;
    ensure_eq!(task.status()?, Status::Paused, "after the checkpoint");
    ensure!(cgroup::is_frozen(task.cgroup()), "the cgroup isn't frozen");
    task.resume()?;
    task.stdout().wait_for_counting(3)?;
    task.stdout().counted()?;
    task.end()
}

fn a_paused_task_ends_by_a_checkpoint_with_exit(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.pause()?;
    end_by_checkpoint(bench, &task)?;
    ensure_eq!(task.status()?, Status::Stopped, "after the checkpoint");
    Ok(())
}

fn only_a_task_that_runs_or_is_paused_has_something_to_checkpoint(bench: &Bench) -> Outcome {
    let task = bench.guest(&["signals"]).create()?;
    let image = bench.fresh_folder("image")?;
    refused(task.checkpoint(&into_folder(bench, &image)?), &[])?;
    ensure_eq!(task.status()?, Status::Created, "after the refusal");
    task.start()?;
    task.stdout().wait_for_line("ready")?;
    task.kill(TERM)?;
    ensure_eq!(task.wait()?, 42, "the exit status");
    refused(task.checkpoint(&into_folder(bench, &image)?), &[])?;
    ensure_eq!(task.delete()?.status, 42, "what Delete says");
    Ok(())
}

fn an_image_is_a_flat_folder_of_files(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    task.checkpoint(&into_folder(bench, &image)?)?;
    for entry in fs::read_dir(&image)? {
        let entry = entry?;
        ensure!(entry.file_type()?.is_file(), "{} is no plain file", entry.path().display());
    }
    for name in ["inventory.img", "pstree.img", "pages-1.img", "descriptors.json"] {
        ensure!(image.join(name).exists(), "there is no {name}");
    }
    let descriptors: Vec<String> = serde_json::from_slice(&fs::read(image.join("descriptors.json"))?)?;
    ensure_eq!(descriptors.len(), 3, "descriptors noted for the restore");
    task.end()
}

fn the_clients_work_folder_keeps_the_log_and_figures(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let (image, work) = (bench.fresh_folder("image")?, bench.fresh_folder("criu")?);
    task.checkpoint(&Checkpoint::into_folder(&image).work_folder(&work))?;
    ensure!(work.join("dump.log").exists(), "there is no dump.log");
    ensure!(work.join("stats-dump").exists(), "there is no stats-dump");
    task.end()
}

fn an_image_folder_that_does_not_exist_is_made(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("images")?.join("new");
    task.checkpoint(&into_folder(bench, &image)?)?;
    ensure!(image.join("inventory.img").exists(), "the image has no inventory");
    task.end()
}

fn execs_go_on_over_a_checkpoint(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let exec = task.exec(&["/bin/guest", "count"])?;
    exec.start()?;
    exec.stdout().wait_for_counting(3)?;
    task.checkpoint(&into_folder(bench, &bench.fresh_folder("image")?)?)?;
    exec.stdout().wait_for_counting(3)?;
    exec.stdout().counted()?;
    ensure_eq!(exec.state()?.status, Status::Running as i32, "the exec after the checkpoint");
    task.end()
}

fn execs_end_before_their_container_by_a_checkpoint_with_exit(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let exec = task.exec(&["/bin/guest", "idle"])?;
    exec.start()?;
    end_by_checkpoint(bench, &task)?;
    exec.wait()?;
    let exit_of = |id: &str| {
        let id = id.to_owned();
        task.wait_for_event("exit", move |event| matches!(event, Event::Exit { of, .. } if *of == id))
    };
    ensure!(exit_of(&exec.id)? < exit_of(&task.id)?, "the container's exit was told first");
    Ok(())
}

fn many_processes_go_on_over_a_checkpoint(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "20"])?;
    task.stdout().wait_for_line("ready")?;
    task.checkpoint(&into_folder(bench, &bench.fresh_folder("image")?)?)?;
    task.asks(1, "alive 20")?;
    task.end()
}

fn one_checkpoint_after_another_succeeds(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    for _ in 0..3 {
        let image = bench.fresh_folder("image")?;
        task.checkpoint(&into_folder(bench, &image)?)?;
        ensure!(image.join("inventory.img").exists(), "the image has no inventory");
        task.stdout().wait_for_counting(2)?;
    }
    task.stdout().counted()?;
    end_by_checkpoint(bench, &task)
}

fn output_that_never_rests_stays_whole(bench: &Bench) -> Outcome {
    // What passes through a terminal is handed over by the page.
    let more = if bench.has_terminal() { 1 << 20 } else { 10 << 20 };
    let task = bench.run(&["pour", "50"])?;
    for _ in 0..3 {
        task.stdout().wait_for_bytes(task.stdout().bytes().len() + more)?;
        task.checkpoint(&into_folder(bench, &bench.fresh_folder("image")?)?)?;
    }
    task.stdout().wait_for_bytes(task.stdout().bytes().len() + more)?;
    task.end()?;
    task.stdout().wait_for_end()?;
    super::execs::check_pattern(&task.stdout().bytes())
}

fn checkpoints_of_several_containers_at_once_succeed(bench: &Bench) -> Outcome {
    let first = bench.run(&["count"])?;
    // Two in one shim, and one in another.
    let tasks = [bench.guest(&["count"]).beside(&first).start()?, bench.run(&["count"])?, first];
    std::thread::scope(|scope| -> Outcome {
        let dump = |task: &Task<'_>| -> Outcome {
            task.checkpoint(&into_folder(bench, &bench.fresh_folder("image")?)?)?;
            task.stdout().wait_for_counting(3)
        };
        let all: Vec<_> = tasks.iter().map(|task| scope.spawn(move || dump(task))).collect();
        for thread in all {
            thread.join().map_err(|_| Failure::new("a thread panicked"))??;
        }
        Ok(())
    })?;
    tasks.iter().try_for_each(Task::end)
}

fn a_checkpoint_leaves_the_network_usable(bench: &Bench) -> Outcome {
    let task = bench.run(&["loopback"])?;
    task.stdout().wait_for_line("ready")?;
    task.asks(1, "up")?;
    task.checkpoint(&into_folder(bench, &bench.fresh_folder("image")?)?)?;
    task.asks(2, "up")?;
    task.end()
}

fn a_checkpoint_leaves_the_hosts_network_usable(bench: &Bench) -> Outcome {
    let task = bench.guest(&["loopback"]).host_network().start()?;
    task.stdout().wait_for_line("ready")?;
    task.checkpoint(&into_folder(bench, &bench.fresh_folder("image")?)?)?;
    task.asks(1, "up")?;
    task.end()
}

fn a_checkpoint_with_exit_of_a_paused_task_alarms_nobody(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.pause()?;
    let before = bench.slot.daemon().log_size();
    end_by_checkpoint(bench, &task)?;
    task.delete()?;
    let log = bench.slot.daemon().log_since(before);
    let alarming = log.lines().find(|line| line.contains("level=error") || line.contains("level=warn"));
    // containerd itself warns of each shim that ends.
    let alarming = alarming.filter(|line| !line.contains("cleaning up after shim disconnected"));
    ensure!(alarming.is_none(), "the log says {alarming:?}");
    Ok(())
}

fn the_container_is_frozen_before_criu_begins(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    let gate = Gate::before_criu(bench)?;
    std::thread::scope(|scope| -> Outcome {
        let dump = scope.spawn(|| task.checkpoint(&Checkpoint::into_folder(&image)));
        let arrived = gate.wait_for_arrival();
        let frozen = eventually("it is frozen", || cgroup::is_frozen(task.cgroup()).then_some(()));
        gate.open()?;
        arrived.and(frozen)?;
        dump.join().map_err(|_| Failure::new("the dump panicked"))??;
        Ok(())
    })?;
    ensure!(!cgroup::is_frozen(task.cgroup()), "the cgroup is still frozen");
    task.end()
}

fn a_checkpoint_is_told(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    task.checkpoint(&into_folder(bench, &image)?)?;
    let told = Event::Checkpointed { path: image.display().to_string() };
    task.wait_for_event("checkpointed", |event| *event == told)?;
    task.end()
}

fn an_image_describes_itself(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    task.checkpoint(&into_folder(bench, &image)?)?;
    let text = fs::read_to_string(image.join(cryo::DESCRIPTION)).during(|| cryo::DESCRIPTION.into())?;
    let description: serde_json::Value = serde_json::from_str(&text)?;
    ensure!(description.is_object() && description["version"].is_number(), "it is {text}");
    for known in [task.id.as_str(), bench.runtime().binary(), "4.2"] {
        ensure!(text.contains(known), "it doesn't mention {known}: {text}");
    }
    task.end()
}

fn our_own_log_is_kept_outside_the_bundle(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.checkpoint(&Checkpoint::into_folder(&bench.fresh_folder("image")?).exit())?;
    task.wait()?;
    task.delete()?;
    let found =
        bench.shell("find /run /tmp /var/lib/cryo /var/log -name dump.log 2>/dev/null || true", &[])?;
    ensure!(!found.is_empty(), "no dump.log is kept");
    Ok(())
}

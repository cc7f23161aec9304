//! Coming back: as oneself, as another, again and again, with all one had.

use super::execs::an_exec_works_in;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let dropped = "the stock shim doesn't tell CRIU to restore them, and they are silently gone";
    vec![
        scenario!(a_restored_task_counts_on),
        scenario!(a_restored_task_has_a_pid_and_a_cgroup_of_its_own),
        scenario!(a_restored_task_pauses_resumes_and_ends_like_any_other),
        scenario!(another_container_counts_on_beside_the_first),
        scenario!(five_generations_count_on),
        scenario!(memory_comes_back_as_it_was).fifo_only(),
        scenario!(all_processes_and_threads_come_back).fifo_only(),
        scenario!(stdin_goes_on_after_a_restore),
        scenario!(an_image_can_be_restored_more_than_once).fifo_only(),
        scenario!(a_task_that_ends_right_after_its_restore_loses_no_exit).fifo_only(),
        scenario!(a_paused_task_comes_back_running).fifo_only(),
        scenario!(an_open_file_without_a_name_comes_back).fifo_only(),
        scenario!(a_changed_root_filesystem_is_found_again).fifo_only(),
        scenario!(files_in_memory_come_back).fifo_only(),
        scenario!(a_folder_of_the_host_may_have_moved).fifo_only(),
        scenario!(a_missing_folder_of_the_host_is_named).fifo_only(),
        scenario!(file_locks_come_back).fifo_only().cryo_only(dropped),
        scenario!(restores_of_several_containers_at_once_succeed).fifo_only(),
        scenario!(a_container_in_a_group_comes_back_beside_the_others),
        scenario!(an_image_of_the_stock_shim_comes_back_under_ours)
            .cryo_only("it takes both shims")
            .impossible_if(stock_has_no_name, "containerd 1.7 takes image folders from named runtimes only"),
        scenario!(an_image_of_ours_comes_back_under_the_stock_shim)
            .cryo_only("it takes both shims")
            .impossible_if(stock_has_no_name, "containerd 1.7 takes image folders from named runtimes only")
            .impossible_if(
                |combination, _| combination.runtime == Runtime::Crun,
                "the stock shim can't restore with crun",
            ),
    ]
    .into_iter()
    .map(Scenario::restores)
    .collect()
}

fn a_restored_task_counts_on(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(5)?;
    let image = task.end_as_image()?;
    task.stdout().wait_for_end()?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(5)?;
    goes_on_from(&task, &again)?;
    again.end()
}

/// No number is missing between the two, and none came twice.
fn goes_on_from(before: &Task<'_>, after: &Task<'_>) -> Outcome {
    let (before, after) = (before.stdout().counted()?, after.stdout().counted()?);
    ensure_eq!(*after.start(), before.end() + 1, "the first number after the restore");
    Ok(())
}

fn a_restored_task_has_a_pid_and_a_cgroup_of_its_own(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "2"])?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    let again = task.clone_from(&image).create()?;
    ensure_eq!(again.status()?, Status::Created, "after Create");
    let pid = again.start()?;
    ensure_eq!(again.status()?, Status::Running, "after Start");
    ensure_eq!(again.pid()?, pid, "the pid");
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    ensure!(command.starts_with("/bin/guest\0tree"), "the pid is that of {command:?}");
    ensure_eq!(cgroup::processes(again.cgroup()).len(), 3, "processes in the new cgroup");
    ensure_eq!(again.pids()?.len(), 3, "processes listed");
    again.asks(1, "alive 2")?;
    again.end()
}

fn a_restored_task_pauses_resumes_and_ends_like_any_other(bench: &Bench) -> Outcome {
    let task = bench.run(&["signals"])?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    an_exec_works_in(&again)?;
    again.pause()?;
    ensure_eq!(again.status()?, Status::Paused, "after Pause");
    again.resume()?;
    again.kill(USR1)?;
    again.stdout().wait_for_line("SIGUSR1")?;
    again.kill(TERM)?;
    ensure_eq!(again.wait()?, 42, "the exit status");
    ensure_eq!(again.delete()?.status, 42, "what Delete says");
    Ok(())
}

fn another_container_counts_on_beside_the_first(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(5)?;
    let image = task.copy_image()?;
    let other = task.clone_from(&image).start()?;
    other.stdout().wait_for_counting(5)?;
    task.stdout().wait_for_counting(5)?;
    let first = task.stdout().counted()?;
    let second = other.stdout().counted()?;
    ensure!(first.contains(second.start()), "{} was not counted before", second.start());
    task.end()?;
    other.stdout().wait_for_counting(3)?;
    other.end()
}

fn five_generations_count_on(bench: &Bench) -> Outcome {
    let mut task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    for _ in 0..5 {
        let image = task.end_as_image()?;
        task.stdout().wait_for_end()?;
        let next = task.again_from(&image).start()?;
        next.stdout().wait_for_counting(3)?;
        goes_on_from(&task, &next)?;
        task = next;
    }
    an_exec_works_in(&task)?;
    task.end()
}

fn memory_comes_back_as_it_was(bench: &Bench) -> Outcome {
    let task = bench.run(&["heap", "64"])?;
    task.stdout().wait_for_line("ready")?;
    task.comes_back("same")
}

fn all_processes_and_threads_come_back(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "20"])?;
    task.stdout().wait_for_line("ready")?;
    task.comes_back("alive 20")
}

fn stdin_goes_on_after_a_restore(bench: &Bench) -> Outcome {
    let task = bench.run(&["echo"])?;
    task.stdout().wait_for_line("ready")?;
    task.pipes.write(b"before\n")?;
    task.stdout().wait_for_line("heard before")?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    again.pipes.write(b"after\n")?;
    again.stdout().wait_for_line("heard after")?;
    if bench.has_terminal() {
        again.pipes.write(b"\x04")?;
    } else {
        again.end_stdin()?;
    }
    ensure_eq!(again.wait()?, 0, "the exit status");
    again.stdout().wait_for_line("EOF")?;
    again.delete()?;
    Ok(())
}

fn an_image_can_be_restored_more_than_once(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    let image = task.end_as_image()?;
    task.stdout().wait_for_end()?;
    for _ in 0..2 {
        let again = task.clone_from(&image).start()?;
        again.stdout().wait_for_counting(3)?;
        goes_on_from(&task, &again)?;
        again.end()?;
    }
    Ok(())
}

fn a_task_that_ends_right_after_its_restore_loses_no_exit(bench: &Bench) -> Outcome {
    let task = bench.run(&["echo"])?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    // Without stdin it reads to the end at once.
    let again = task.again_from(&image).stdio(Kind::Null).start()?;
    ensure_eq!(again.wait()?, 0, "the exit status");
    again.delete()?;
    Ok(())
}

fn a_paused_task_comes_back_running(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.pause()?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    ensure_eq!(again.status()?, Status::Running, "after Start");
    again.stdout().wait_for_counting(3)?;
    again.end()
}

fn an_open_file_without_a_name_comes_back(bench: &Bench) -> Outcome {
    let task = bench.run(&["ghost", "/tmp/ghost", "100000"])?;
    task.stdout().wait_for_line("ready")?;
    task.comes_back("same")
}

fn a_changed_root_filesystem_is_found_again(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.output_of(&["/bin/sh", "-c", "echo changed >/etc/motd"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    ensure_eq!(again.output_of(&["/bin/cat", "/etc/motd"])?, "changed\n", "the file");
    again.end()
}

fn files_in_memory_come_back(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.output_of(&["/bin/sh", "-c", "echo kept >/run/here; echo kept >/dev/shm/here"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    ensure_eq!(again.output_of(&["/bin/cat", "/run/here", "/dev/shm/here"])?, "kept\nkept\n", "the files");
    again.end()
}

fn a_folder_of_the_host_may_have_moved(bench: &Bench) -> Outcome {
    let (first, second) = (bench.fresh_folder("volume")?, bench.fresh_folder("volume")?);
    let task = bench.guest(&["count"]).bind(&first, "/data").start()?;
    task.output_of(&["/bin/sh", "-c", "echo first >/data/which"])?;
    ensure_eq!(std::fs::read_to_string(first.join("which"))?, "first\n", "the file outside");
    let image = task.end_as_image()?;
    std::fs::write(second.join("which"), "second\n")?;
    let again = task.again_from(&image).bind(&second, "/data").start()?;
    again.stdout().wait_for_counting(3)?;
    ensure_eq!(again.output_of(&["/bin/cat", "/data/which"])?, "second\n", "the file inside");
    again.end()
}

fn a_missing_folder_of_the_host_is_named(bench: &Bench) -> Outcome {
    let folder = bench.fresh_folder("volume")?;
    let task = bench.guest(&["count"]).bind(&folder, "/data").start()?;
    let image = task.end_as_image()?;
    std::fs::remove_dir(&folder)?;
    let (again, answer) = task.again_from(&image).try_create()?;
    let text = match answer {
        Err(status) => status.message().to_owned(),
        Ok(_) => refused(again.start(), &[])?,
    };
    ensure!(text.contains(&folder.display().to_string()), "the folder isn't named: {text}");
    Ok(())
}

fn file_locks_come_back(bench: &Bench) -> Outcome {
    for kind in ["lock", "posix-lock"] {
        let task = bench.run(&[kind, "/tmp/locked"])?;
        task.stdout().wait_for_line("ready")?;
        task.asks(1, "held")?;
        let image = bench.fresh_folder("image")?;
        task.checkpoint(
            &Checkpoint::into_folder(&image).exit().options(|options| options.file_locks = true),
        )?;
        task.wait()?;
        task.delete()?;
        let again = task.again_from(&image).start()?;
        again.asks(1, "held")?;
        again.end()?;
    }
    Ok(())
}

fn restores_of_several_containers_at_once_succeed(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "3"])?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    std::thread::scope(|scope| -> Outcome {
        let restore = || -> Outcome {
            let again = task.clone_from(&image).start()?;
            again.asks(1, "alive 3")?;
            again.end()
        };
        let all: Vec<_> = (0..4).map(|_| scope.spawn(restore)).collect();
        for thread in all {
            thread.join().map_err(|_| Failure::new("a thread panicked"))??;
        }
        Ok(())
    })
}

fn a_container_in_a_group_comes_back_beside_the_others(bench: &Bench) -> Outcome {
    let first = bench.run(&["count"])?;
    let second = bench.guest(&["count"]).beside(&first).start()?;
    second.stdout().wait_for_counting(3)?;
    let image = second.end_as_image()?;
    second.stdout().wait_for_end()?;
    let again = second.again_from(&image).start()?;
    again.stdout().wait_for_counting(3)?;
    goes_on_from(&second, &again)?;
    first.stdout().wait_for_counting(3)?;
    again.end()?;
    first.end()
}

/// The stock shim's runtime name; its path, if our shim has taken its name.
fn stock() -> &'static str {
    if settings().shim == Shim::DropIn { "/usr/bin/containerd-shim-runc-v2" } else { "io.containerd.runc.v2" }
}

/// containerd 1.7 takes image folders from runtimes by that name only.
fn stock_has_no_name(_: &Combination, settings: &Settings) -> bool {
    settings.shim == Shim::DropIn && settings.containerd < Version(2, 0)
}

fn an_image_of_the_stock_shim_comes_back_under_ours(bench: &Bench) -> Outcome {
    let task = bench.guest(&["count"]).runtime_name(stock()).start()?;
    task.stdout().wait_for_counting(3)?;
    // A copy, because the stock shim can't delete what crun has deleted.
    let image = bench.fresh_folder("image")?;
    task.checkpoint(&Checkpoint::into_folder(&image).work_folder(&bench.fresh_folder("criu")?))?;
    ensure!(!image.join(cryo::DESCRIPTION).exists(), "this was not the stock shim");
    let again = task.clone_from(&image).runtime_name(settings().shim.runtime_name()).start()?;
    again.stdout().wait_for_counting(3)?;
    let (before, after) = (task.stdout().counted()?, again.stdout().counted()?);
    ensure!(before.contains(after.start()), "{} was not counted before", after.start());
    again.end()?;
    task.end()
}

fn an_image_of_ours_comes_back_under_the_stock_shim(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    let image = task.end_as_image()?;
    task.stdout().wait_for_end()?;
    ensure!(image.join(cryo::DESCRIPTION).exists(), "this was not our shim");
    let again = task.clone_from(&image).runtime_name(stock()).start()?;
    again.stdout().wait_for_counting(3)?;
    goes_on_from(&task, &again)?;
    again.end()
}

//! CRIU or the runtime fails, dies or hangs: the error says so, and the container is
//! as it was or gone, never between.

use std::fs;
use std::path::Path;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let hangs = "the stock shim waits for ever";
    let errs = "the stock shim's error names nothing";
    vec![
        scenario!(a_runtime_that_cannot_create_is_told_of),
        scenario!(a_runtime_that_dies_while_it_creates_is_told_of),
        scenario!(a_runtime_that_cannot_start_is_told_of),
        scenario!(a_runtime_that_cannot_exec_harms_nobody).fifo_only(),
        scenario!(a_runtime_that_gives_up_too_early_is_helped_to_pause)
            .fifo_only()
            .cryo_only("the stock shim gives up, too"),
        scenario!(a_runtime_that_cannot_pause_leaves_the_task_running).fifo_only(),
        scenario!(a_runtime_that_cannot_resume_leaves_the_task_paused).fifo_only(),
        scenario!(a_runtime_that_cannot_checkpoint_lets_the_task_go_on),
        scenario!(a_runtime_that_dies_at_a_checkpoint_lets_the_task_go_on),
        scenario!(a_runtime_that_cannot_restore_can_do_so_later).restores(),
        scenario!(a_criu_that_dies_at_a_dump_lets_the_task_go_on),
        scenario!(a_criu_that_cannot_be_run_is_named).fifo_only(),
        scenario!(a_machine_without_criu_is_told_so).fifo_only().restores(),
        scenario!(a_criu_that_dies_at_a_restore_leaves_nothing).fifo_only().restores(),
        scenario!(a_criu_killed_in_the_middle_of_a_dump_lets_the_task_go_on).fifo_only(),
        scenario!(a_criu_that_hangs_at_a_dump_is_given_up).fifo_only().cryo_only(hangs),
        scenario!(a_criu_that_hangs_at_a_restore_is_given_up).fifo_only().cryo_only(hangs),
        scenario!(a_runtime_that_hangs_at_a_checkpoint_is_given_up).fifo_only().cryo_only(hangs),
        scenario!(a_full_disk_lets_the_task_go_on).fifo_only(),
        scenario!(a_full_disk_is_named).fifo_only().cryo_only(errs),
        scenario!(a_read_only_folder_is_named_and_the_task_goes_on).fifo_only(),
    ]
}

fn runtime_fails(bench: &Bench, verb: &str, how: &str) -> Outcome<std::path::PathBuf> {
    fake(bench, bench.runtime().binary(), verb, how)
}

const COMPLAIN: &str = "echo 'the moon is full' >&2; exit 7";
const DIE: &str = "kill -9 $$";

fn goes_on(task: &Task<'_>) -> Outcome {
    ensure_eq!(task.status()?, Status::Running, "after the failure");
    ensure!(!cgroup::is_frozen(task.cgroup()), "the cgroup is frozen");
    task.stdout().wait_for_counting(3)?;
    task.stdout().counted()?;
    super::execs::an_exec_works_in(task)
}

/// Named work folders, because crun can't make two levels of them.
fn checkpoint(bench: &Bench, task: &Task<'_>, image: &Path) -> Outcome<Result<(), String>> {
    let checkpoint = Checkpoint::into_folder(image).work_folder(&bench.fresh_folder("criu")?);
    Ok(task.checkpoint(&checkpoint).map(drop).map_err(|status| status.message().to_owned()))
}

fn fails_to_checkpoint(bench: &Bench, task: &Task<'_>, image: &Path) -> Outcome<String> {
    match checkpoint(bench, task, image)? {
        Err(text) => Ok(text),
        Ok(()) => Err(Failure::new("the checkpoint was to fail")),
    }
}

fn a_runtime_that_cannot_create_is_told_of(bench: &Bench) -> Outcome {
    let failing = runtime_fails(bench, "create", COMPLAIN)?;
    let (task, answer) = bench.guest(&["idle"]).try_create()?;
    refused(answer, &[])?;
    refused(task.state(), &[Code::NotFound])?;
    fs::remove_file(failing)?;
    task.blueprint.clone().start()?.end()
}

fn a_runtime_that_dies_while_it_creates_is_told_of(bench: &Bench) -> Outcome {
    let failing = runtime_fails(bench, "create", DIE)?;
    let (task, answer) = bench.guest(&["idle"]).try_create()?;
    refused(answer, &[])?;
    fs::remove_file(failing)?;
    task.blueprint.clone().start()?.end()
}

fn a_runtime_that_cannot_start_is_told_of(bench: &Bench) -> Outcome {
    let task = bench.guest(&["idle"]).create()?;
    let failing = runtime_fails(bench, "start", COMPLAIN)?;
    refused(task.start(), &[])?;
    fs::remove_file(failing)?;
    // Whether it counts as created still or as stopped already: it can be got rid of.
    let _ = task.kill(KILL);
    task.wait()?;
    task.delete()?;
    Ok(())
}

fn a_runtime_that_cannot_exec_harms_nobody(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let failing = runtime_fails(bench, "exec", COMPLAIN)?;
    let exec = task.exec(&["/bin/guest", "idle"])?;
    refused(exec.start(), &[])?;
    exec.delete()?;
    fs::remove_file(failing)?;
    goes_on(&task)?;
    task.end()
}

fn a_runtime_that_cannot_pause_leaves_the_task_running(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let failing = runtime_fails(bench, "pause", COMPLAIN)?;
    refused(task.pause(), &[])?;
    fs::remove_file(failing)?;
    goes_on(&task)?;
    task.end()
}

fn a_runtime_that_cannot_resume_leaves_the_task_paused(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.pause()?;
    let failing = runtime_fails(bench, "resume", COMPLAIN)?;
    refused(task.resume(), &[])?;
    ensure_eq!(task.status()?, Status::Paused, "after the failure");
    ensure!(cgroup::is_frozen(task.cgroup()), "the cgroup isn't frozen");
    fs::remove_file(failing)?;
    task.resume()?;
    goes_on(&task)?;
    task.end()
}

fn a_runtime_that_gives_up_too_early_is_helped_to_pause(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let failing = runtime_fails(bench, "pause", "echo 'unable to freeze' >&2; exit 1")?;
    task.pause()?;
    ensure_eq!(task.status()?, Status::Paused, "after the pause");
    ensure!(cgroup::is_frozen(task.cgroup()), "the cgroup isn't frozen");
    fs::remove_file(failing)?;
    task.resume()?;
    goes_on(&task)?;
    task.end()
}

fn a_checkpoint_fails_and_the_next_succeeds(bench: &Bench, program: &str, verb: &str, how: &str) -> Outcome {
    let task = bench.run(&["count"])?;
    let failing = fake(bench, program, verb, how)?;
    fails_to_checkpoint(bench, &task, &bench.fresh_folder("image")?)?;
    fs::remove_file(failing)?;
    goes_on(&task)?;
    let image = bench.fresh_folder("image")?;
    checkpoint(bench, &task, &image)?.map_err(Failure::new)?;
    ensure!(image.join("inventory.img").exists(), "the image has no inventory");
    goes_on(&task)?;
    task.end()
}

fn a_runtime_that_cannot_checkpoint_lets_the_task_go_on(bench: &Bench) -> Outcome {
    a_checkpoint_fails_and_the_next_succeeds(bench, bench.runtime().binary(), "checkpoint", COMPLAIN)
}

fn a_runtime_that_dies_at_a_checkpoint_lets_the_task_go_on(bench: &Bench) -> Outcome {
    a_checkpoint_fails_and_the_next_succeeds(bench, bench.runtime().binary(), "checkpoint", DIE)
}

fn a_criu_that_dies_at_a_dump_lets_the_task_go_on(bench: &Bench) -> Outcome {
    a_checkpoint_fails_and_the_next_succeeds(bench, "criu", "*", DIE)
}

fn a_criu_that_cannot_be_run_is_named(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let criu = bench.shell("command -v criu", &[])?;
    let criu = Path::new(criu.trim());
    bench.shell("mount --bind /dev/null \"$1\"", &[criu])?;
    let text = fails_to_checkpoint(bench, &task, &bench.fresh_folder("image")?)?;
    bench.shell("umount \"$1\"", &[criu])?;
    let text = text.to_lowercase();
    let remedies = ["install", "executable", "permission", "not found"];
    ensure!(text.contains("criu") && remedies.iter().any(|word| text.contains(word)), "it says {text}");
    goes_on(&task)?;
    task.end()
}

fn a_restore_fails_and_the_next_succeeds(bench: &Bench, program: &str, verb: &str, how: &str) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(2)?;
    let image = task.end_as_image()?;
    let failing = fake(bench, program, verb, how)?;
    let (again, answer) = task.again_from(&image).try_create()?;
    if answer.is_ok() {
        refused(again.start(), &[])?;
        again.delete()?;
    }
    fs::remove_file(failing)?;
    let third = task.again_from(&image).start()?;
    third.stdout().wait_for_counting(3)?;
    third.end()
}

fn a_runtime_that_cannot_restore_can_do_so_later(bench: &Bench) -> Outcome {
    a_restore_fails_and_the_next_succeeds(bench, bench.runtime().binary(), "restore", COMPLAIN)
}

fn a_machine_without_criu_is_told_so(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    let kept = task.copy_image()?;
    let criu = bench.shell("command -v criu", &[])?;
    let folder = Path::new(criu.trim()).parent().unwrap_or(Path::new("/"));
    let aside = bench.fresh_folder("without-criu")?;
    let hide = "cp -a \"$1\"/. \"$2\"; rm \"$2/criu\"; mount --bind \"$2\" \"$1\"";
    bench.shell(hide, &[folder, &aside])?;
    let dump = fails_to_checkpoint(bench, &task, &bench.fresh_folder("image")?)?;
    let lives = goes_on(&task);
    let (copy, created) = task.clone_from(&kept).try_create()?;
    let restore = match created {
        Err(status) => status.message().to_owned(),
        Ok(_) => refused(copy.start(), &[])?,
    };
    bench.shell("umount \"$1\"", &[folder])?;
    lives?;
    for text in [dump, restore] {
        ensure!(text.contains("CRIU") && text.to_lowercase().contains("install"), "it says {text}");
    }
    let copy = task.clone_from(&kept).start()?;
    copy.stdout().wait_for_counting(3)?;
    copy.end()?;
    task.end()
}

fn a_criu_that_dies_at_a_restore_leaves_nothing(bench: &Bench) -> Outcome {
    a_restore_fails_and_the_next_succeeds(bench, "criu", "*", DIE)
}

fn a_criu_killed_in_the_middle_of_a_dump_lets_the_task_go_on(bench: &Bench) -> Outcome {
    let task = bench.run(&["heap", "256"])?;
    task.stdout().wait_for_line("ready")?;
    let image = bench.fresh_folder("image")?;
    let criu = Victim::expected(bench)?;
    let answer = criu.killed_during(
        || checkpoint(bench, &task, &image),
        || {
            // It writes for a tenth of a second.
            at_every_moment("CRIU writes", || {
                cgroup::tree(&image).iter().any(|folder| folder.join("pages-1.img").exists()).then_some(())
            })
        },
    )??;
    let text = answer.err().ok_or_else(|| Failure::new("the checkpoint was to fail"))?;
    ensure!(!text.is_empty(), "the error says nothing");
    ensure_eq!(task.status()?, Status::Running, "after the failure");
    ensure!(!cgroup::is_frozen(task.cgroup()), "the cgroup is frozen");
    task.asks(1, "same")?;
    task.end()
}

fn a_hanging_dump_is_given_up(bench: &Bench, program: &str, verb: &str) -> Outcome {
    let task = bench.guest(&["count"]).annotation(cryo::TIMEOUT_ANNOTATION, "2s").start()?;
    let image = bench.fresh_folder("image")?;
    // Never opened: it hangs until it is killed.
    let gate = if program == "criu" { Gate::before_criu(bench)? } else { Gate::before_runtime(bench, verb)? };
    let text = fails_to_checkpoint(bench, &task, &image)?;
    ensure!(text.contains("2s") || text.contains("2 s"), "the deadline isn't named: {text}");
    gate.open()?;
    goes_on(&task)?;
    task.end()
}

fn a_criu_that_hangs_at_a_dump_is_given_up(bench: &Bench) -> Outcome {
    a_hanging_dump_is_given_up(bench, "criu", "*")
}

fn a_runtime_that_hangs_at_a_checkpoint_is_given_up(bench: &Bench) -> Outcome {
    a_hanging_dump_is_given_up(bench, "runtime", "checkpoint")
}

fn a_criu_that_hangs_at_a_restore_is_given_up(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let gate = Gate::before_criu(bench)?;
    let again = task.again_from(&image).annotation(cryo::TIMEOUT_ANNOTATION, "2s").create()?;
    let text = refused(again.start(), &[])?;
    ensure!(text.contains("2s") || text.contains("2 s"), "the deadline isn't named: {text}");
    gate.open()?;
    ensure_eq!(again.status()?, Status::Stopped, "after the failure");
    again.delete()?;
    let third = task.again_from(&image).start()?;
    third.stdout().wait_for_counting(3)?;
    third.end()
}

/// A folder on a file system of its own, too small for the image of 16 MiB.
fn with_small_disk(bench: &Bench, options: &str, check: impl FnOnce(&str) -> Outcome) -> Outcome {
    let disk = bench.fresh_folder("disk")?;
    bench.shell(&format!("mount -t tmpfs -o {options} tmpfs \"$1\""), &[&disk])?;
    let task = bench.run(&["heap", "16"])?;
    task.stdout().wait_for_line("ready")?;
    let image = disk.join("image");
    let text = fails_to_checkpoint(bench, &task, &image)?;
    check(&text)?;
    ensure_eq!(task.status()?, Status::Running, "after the failure");
    ensure!(!cgroup::is_frozen(task.cgroup()), "the cgroup is frozen");
    task.asks(1, "same")?;
    task.end()?;
    bench.shell("umount \"$1\"", &[&disk])?;
    Ok(())
}

fn a_full_disk_lets_the_task_go_on(bench: &Bench) -> Outcome {
    with_small_disk(bench, "size=2m", |_| Ok(()))
}

fn a_full_disk_is_named(bench: &Bench) -> Outcome {
    with_small_disk(bench, "size=2m", |text| {
        let text = text.to_lowercase();
        ensure!(text.contains("no space") || text.contains(" full"), "the cause isn't named: {text}");
        Ok(())
    })
}

fn a_read_only_folder_is_named_and_the_task_goes_on(bench: &Bench) -> Outcome {
    with_small_disk(bench, "ro", |text| {
        ensure!(text.to_lowercase().contains("read-only"), "the cause isn't named: {text}");
        Ok(())
    })
}

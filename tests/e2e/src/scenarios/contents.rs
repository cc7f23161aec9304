//! Checkpoints in containerd's content store, and what users type to make them.

use std::path::Path;

use crate::harness::*;

const CRIU_IMAGE: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_task_goes_through_the_content_store_and_counts_on).restores(),
        scenario!(a_copy_goes_through_the_content_store_and_the_first_goes_on).restores(),
        scenario!(ctr_checkpoints_a_task_into_a_folder)
            .impossible_if(ctr_drops_flags, "ctr 1.7 drops its flags for runtimes it doesn't know; see the tests in the stock shim's place")
            .cryo_only_if(with_crun, CRUN_WORK),
        scenario!(ctr_checkpoints_a_task_into_an_image).cryo_only_if(with_crun, CRUN_WORK),
        scenario!(ctr_ends_a_task_with_a_checkpoint)
            .impossible_if(ctr_drops_flags, "ctr 1.7 drops its flags for runtimes it doesn't know; see the tests in the stock shim's place")
            .cryo_only_if(with_crun, CRUN_WORK),
        scenario!(ctr_moves_a_container_to_another).fifo_only().restores(),
        scenario!(ctr_copies_changed_files_with_a_container).fifo_only().restores(),
        scenario!(ctr_lists_and_runs_as_ever).fifo_only(),
    ]
}

const CRUN_WORK: &str = "the stock shim names a work folder in a folder that crun doesn't make";

fn with_crun(combination: &Combination, _: &Settings) -> bool {
    combination.runtime == Runtime::Crun
}

fn ctr_drops_flags(_: &Combination, settings: &Settings) -> bool {
    settings.shim == Shim::Cryo && settings.containerd < Version(2, 0)
}

/// Dumps into the content store and comes back from it as `id`.
fn through_the_store<'b>(bench: &'b Bench, task: &Task<'b>, exit: bool, id: String) -> Outcome<Task<'b>> {
    // Without it the store's garbage collection may be faster than the restore.
    let leased = bench.api().with_lease(&task.id)?;
    let checkpoint = Checkpoint::into_content();
    let checkpoint = if exit { checkpoint.exit() } else { checkpoint };
    let found = leased.checkpoint(&task.id, checkpoint.packed(), PATIENCE)?;
    let image = found.into_iter().find(|descriptor| descriptor.media_type == CRIU_IMAGE);
    let image = image.ok_or_else(|| Failure::new("no image of CRIU is among what was stored"))?;
    if exit {
        ensure_eq!(task.wait()?, 137, "the exit status");
        task.delete()?;
    }
    task.blueprint.clone().id(id).restoring_content(image).start()
}

fn a_task_goes_through_the_content_store_and_counts_on(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(5)?;
    let again = through_the_store(bench, &task, true, task.id.clone())?;
    task.stdout().wait_for_end()?;
    again.stdout().wait_for_counting(5)?;
    let (before, after) = (task.stdout().counted()?, again.stdout().counted()?);
    ensure_eq!(*after.start(), before.end() + 1, "the first number after the restore");
    again.end()
}

fn a_copy_goes_through_the_content_store_and_the_first_goes_on(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(5)?;
    let other = through_the_store(bench, &task, false, bench.next_id())?;
    other.stdout().wait_for_counting(5)?;
    task.stdout().wait_for_counting(5)?;
    task.stdout().counted()?;
    other.stdout().counted()?;
    other.end()?;
    task.end()
}

fn path(folder: &Path) -> String {
    folder.display().to_string()
}

fn ctr_checkpoints_a_task_into_a_folder(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = bench.fresh_folder("image")?;
    ctr(bench, &["tasks", "checkpoint", "--image-path", &path(&image), &task.id])?;
    ensure!(image.join("inventory.img").exists(), "the image has no inventory");
    task.stdout().wait_for_counting(5)?;
    task.stdout().counted()?;
    task.end()
}

fn ctr_checkpoints_a_task_into_an_image(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let before = bench.api().list_images()?.len();
    ctr(bench, &["tasks", "checkpoint", &task.id])?;
    ensure_eq!(bench.api().list_images()?.len(), before + 1, "images");
    task.stdout().wait_for_counting(5)?;
    task.stdout().counted()?;
    task.end()
}

fn ctr_ends_a_task_with_a_checkpoint(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let (image, work) = (bench.fresh_folder("image")?, bench.fresh_folder("criu")?);
    let options = ["--exit", "--image-path", &path(&image), "--work-path", &path(&work)];
    ctr(bench, &[&["tasks", "checkpoint"], &options[..], &[&task.id]].concat())?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    ensure_eq!(task.status()?, Status::Stopped, "after the checkpoint");
    ensure!(work.join("dump.log").exists(), "there is no dump.log");
    Ok(())
}

fn ctr_moves_a_container_to_another(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "3"])?;
    task.stdout().wait_for_line("ready")?;
    ctr(bench, &["containers", "checkpoint", "--task", "--image", &task.id, "cryo.test/moved:1"])?;
    ensure_eq!(task.status()?, Status::Running, "after the checkpoint");
    task.asks(1, "alive 3")?;
    // Its cgroup is named in the copy of its specification.
    task.end()?;
    let moved = bench.next_id();
    ctr(bench, &["containers", "restore", "--live", &moved, "cryo.test/moved:1"])?;
    let state = bench.api().state(&moved, "")?;
    ensure_eq!(state.status, Status::Running as i32, "after the restore");
    ensure_eq!(bench.api().pids(&moved)?.len(), 4, "processes that came back");
    ensure!(ctr(bench, &["tasks", "ls"])?.contains(&moved), "ctr doesn't list it");
    Ok(())
}

fn ctr_copies_changed_files_with_a_container(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    task.output_of(&["/bin/sh", "-c", "echo changed >/etc/motd"])?;
    ctr(bench, &["containers", "checkpoint", "--task", "--rw", "--image", &task.id, "cryo.test/copied:1"])?;
    task.end()?;
    let copied = bench.next_id();
    ctr(bench, &["containers", "restore", "--live", "--rw", &copied, "cryo.test/copied:1"])?;
    let read = ["tasks", "exec", "--exec-id", "read", &copied, "/bin/cat", "/etc/motd"];
    ensure_eq!(ctr(bench, &read)?, "changed\n", "the file");
    Ok(())
}

fn ctr_lists_and_runs_as_ever(bench: &Bench) -> Outcome {
    let runtime = settings().shim.runtime_name();
    let id = bench.next_id();
    let run = ["run", "--rm", "--runtime", runtime, "cryo.test/guest:1", &id, "/bin/guest", "burst", "1000"];
    ensure_eq!(ctr(bench, &run)?.len(), 1000, "bytes that ctr printed");
    let task = bench.run(&["idle"])?;
    let listed = ctr(bench, &["tasks", "ls"])?;
    let line = listed.lines().find(|line| line.starts_with(&task.id)).unwrap_or_default();
    ensure!(line.contains("RUNNING") && line.contains(&task.pid()?.to_string()), "ctr says {listed}");
    ensure!(ctr(bench, &["tasks", "ps", &task.id])?.contains(&task.pid()?.to_string()), "no pid is listed");
    ensure!(ctr(bench, &["tasks", "metrics", &task.id])?.contains("memory"), "no figures are shown");
    task.end()
}

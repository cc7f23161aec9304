//! Memory that travels by containerd's content store is compressed; what others read isn't.

use std::fs;
use std::path::Path;

use crate::harness::*;

const CRIU_IMAGE: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
const COMPRESSED: &str = "pages-1.img.zst";
const PLAIN: &str = "pages-1.img";

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ours = "the stock shim compresses nothing";
    let all = vec![
        scenario!(memory_in_containerds_store_is_compressed_and_comes_back),
        scenario!(kubernetes_gets_what_everybody_can_read),
        scenario!(a_folder_that_a_client_names_is_criu_s_own_unless_the_owner_says_otherwise),
        scenario!(a_container_with_users_of_its_own_comes_back_from_compressed_memory),
    ];
    all.into_iter().map(|scenario| scenario.fifo_only().restores().cryo_only(ours)).collect()
}

/// A task whose heap gets half as big.
fn holding<'b>(plan: Blueprint<'b>) -> Outcome<Task<'b>> {
    let task = plan.start()?;
    task.stdout().wait_for_line("ready")?;
    Ok(task)
}

fn is_same(task: &Task<'_>) -> Outcome {
    let before = task.stdout().lines().len();
    task.kill(USR1)?;
    let answer = eventually("the guest answers", || task.stdout().lines().get(before).cloned())?;
    ensure_eq!(answer, "same", "its memory");
    Ok(())
}

/// Checkpoints a task by the content store, and tells which files that got.
fn files_of(task: &Task<'_>) -> Outcome<(containerd_client::types::Descriptor, String)> {
    // Without a lease the store's garbage collection may be faster than we are.
    let leased = task.api().with_lease(&task.id)?;
    let stored = leased.checkpoint(&task.id, Checkpoint::into_content().packed(), PATIENCE)?;
    let image = stored.into_iter().find(|descriptor| descriptor.media_type == CRIU_IMAGE);
    let image = image.ok_or_else(|| Failure::new("no image of CRIU is among what was stored"))?;
    let script = "ctr --namespace $1 content get $2 | tar -t";
    let files = task.bench.shell(script, &[Path::new(&task.namespace), Path::new(&image.digest)])?;
    Ok((image, files))
}

fn memory_in_containerds_store_is_compressed_and_comes_back(bench: &Bench) -> Outcome {
    let task = holding(bench.guest(&["heap", "16", "half"]))?;
    let (image, files) = files_of(&task)?;
    ensure!(files.contains(COMPRESSED), "{files}");
    is_same(&task)?;
    task.end()?;
    for _ in 0..2 {
        let plan = task.blueprint.clone().id(bench.next_id()).restoring_content(image.clone());
        let again = plan.start()?;
        is_same(&again)?;
        again.end()?;
    }
    Ok(task.api().delete_leases()?)
}

/// Its archives are read by the stock shim and by checkpointctl.
fn kubernetes_gets_what_everybody_can_read(bench: &Bench) -> Outcome {
    let task = holding(bench.guest(&["heap", "4", "half"]).namespace("k8s.io"))?;
    let (_, files) = files_of(&task)?;
    ensure!(files.lines().any(|name| name.ends_with(PLAIN)) && !files.contains(COMPRESSED), "{files}");
    task.api().delete_leases()?;
    task.end()
}

fn names(folder: &Path) -> Outcome<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn a_folder_that_a_client_names_is_criu_s_own_unless_the_owner_says_otherwise(bench: &Bench) -> Outcome {
    let task = holding(bench.guest(&["heap", "16", "half"]))?;
    let (image, work) = (bench.fresh_folder("image")?, bench.fresh_folder("criu")?);
    let checkpoint =
        || Ok::<_, Failure>(task.checkpoint(&Checkpoint::into_folder(&image).work_folder(&work))?);
    for compress in ["auto", "always", "never"] {
        bench.set_node_file(&format!("[store]\ncompress = \"{compress}\"\n"))?;
        // Each takes the place of the one before.
        checkpoint()?;
        let names = names(&image)?;
        let has = |name: &str| names.iter().any(|found| found == name);
        ensure_eq!(
            (has(COMPRESSED), has(PLAIN)),
            (compress == "always", compress != "always"),
            "what is there"
        );
        let again = task.blueprint.clone().id(bench.next_id()).restoring_folder(&image).start()?;
        is_same(&again)?;
        again.end()?;
    }
    task.end()
}

fn a_container_with_users_of_its_own_comes_back_from_compressed_memory(bench: &Bench) -> Outcome {
    bench.set_node_file("[store]\ncompress = \"always\"\n")?;
    let task = holding(bench.guest(&["heap", "8", "half"]).user_namespace(100_000))?;
    let image = task.end_as_image()?;
    ensure!(names(&image)?.iter().any(|name| name == COMPRESSED), "{:?}", names(&image)?);
    let again = task.blueprint.clone().restoring_folder(&image).start()?;
    is_same(&again)?;
    again.end()
}

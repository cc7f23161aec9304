//! Which runtime runs a container whose client leaves that to the node.

use std::fs;

use nix::sys::signal::{Signal, kill};

use super::shim_gone::{is_gone, shim_of};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(the_node_chooses_for_clients_that_name_no_runtime)
            .fifo_only()
            .cryo_only("a setting of ours"),
        scenario!(a_crun_that_can_not_checkpoint_is_not_chosen).fifo_only().cryo_only("a setting of ours"),
        scenario!(a_checkpoint_comes_back_by_the_runtime_that_took_it)
            .fifo_only()
            .cryo_only("a setting of ours"),
        scenario!(what_the_node_chose_is_cleaned_up_after_a_dead_shim)
            .fifo_only()
            .cryo_only("a setting of ours"),
    ]
}

/// The runtime that knows the task, by what it keeps of it.
fn runtime_of(task: &Task<'_>) -> Outcome<Runtime> {
    let folder = format!("/run/containerd/runc/{}/{}", task.namespace, task.id);
    let files = task.bench.shell("ls \"$1\"", &[folder.as_ref()])?;
    let has = |name| files.lines().any(|file| file == name);
    match (has("state.json"), has("status")) {
        (true, false) => Ok(Runtime::Runc),
        (false, true) => Ok(Runtime::Crun),
        _ => Err(Failure::new(format!("no runtime of the two has these files in {folder}: {files}"))),
    }
}

/// As Docker and most other clients do.
fn unnamed<'b>(plan: Blueprint<'b>, name: &str) -> Blueprint<'b> {
    plan.options(|options| options.binary_name = name.into())
}

fn the_node_chooses_for_clients_that_name_no_runtime(bench: &Bench) -> Outcome {
    let chosen = bench.runtime();
    for (node_file, expected) in [
        (String::new(), Runtime::Runc),
        (format!("runtime = \"{}\"", chosen.binary()), chosen),
        ("runtime = \"auto\"".to_owned(), Runtime::Crun),
    ] {
        bench.set_node_file(&node_file)?;
        for name in ["", "runc"] {
            let task = unnamed(bench.guest(&["count"]), name).start()?;
            ensure_eq!(runtime_of(&task)?, expected, "with {node_file:?} and runtime {name:?}");
            task.stdout().wait_for_counting(3)?;
            task.end()?;
        }
    }
    // A client that names one is obeyed.
    let path = bench.shell("command -v runc", &[])?;
    let task = unnamed(bench.guest(&["count"]), path.trim()).start()?;
    ensure_eq!(runtime_of(&task)?, Runtime::Runc, "by its path");
    task.end()
}

fn a_crun_that_can_not_checkpoint_is_not_chosen(bench: &Bench) -> Outcome {
    bench.set_node_file("runtime = \"auto\"")?;
    let crun = fake(bench, "crun", "", "[ \"$1\" != --version ] || { echo crun version 1.28; exit 0; }")?;
    let task = unnamed(bench.guest(&["idle"]), "").start()?;
    ensure_eq!(runtime_of(&task)?, Runtime::Runc, "with a crun without CRIU");
    task.end()?;
    // It is asked anew when its file is another one.
    fs::remove_file(crun)?;
    let task = unnamed(bench.guest(&["idle"]), "").start()?;
    ensure_eq!(runtime_of(&task)?, Runtime::Crun, "with the real crun");
    task.end()
}

fn a_checkpoint_comes_back_by_the_runtime_that_took_it(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(5)?;
    let image = task.end_as_image()?;
    for wanted in ["auto", "crun"] {
        bench.set_node_file(&format!("runtime = \"{wanted}\""))?;
        let again = unnamed(task.again_from(&image), "").start()?;
        ensure_eq!(runtime_of(&again)?, bench.runtime(), "with {wanted}");
        again.stdout().wait_for_counting(3)?;
        again.end()?;
    }
    Ok(())
}

fn what_the_node_chose_is_cleaned_up_after_a_dead_shim(bench: &Bench) -> Outcome {
    bench.set_node_file("runtime = \"auto\"")?;
    let task = unnamed(bench.guest(&["count"]), "runc").start()?;
    ensure_eq!(runtime_of(&task)?, Runtime::Crun, "with auto");
    kill(shim_of(&task)?, Signal::SIGKILL)?;
    is_gone(&task)?;
    let again = task.blueprint.clone().start()?;
    again.end()
}

//! A cgroup that stands still, and nobody knows who has stopped it.

use std::fs;
use std::path::PathBuf;

use crate::harness::*;

pub(super) fn scenarios() -> Vec<Scenario> {
    let waits = "with the stock shim the runtime refuses or waits for ever";
    vec![
        scenario!(a_frozen_cgroup_that_was_left_is_no_trap)
            .cryo_only(waits)
            .impossible_if(|_, settings| settings.systemd, "systemd makes its cgroups anew"),
        scenario!(a_task_that_somebody_else_froze_can_be_ended).cryo_only(waits),
        scenario!(a_task_that_somebody_else_froze_comes_back_running).cryo_only(waits),
    ]
}

fn folder(cgroup: &str) -> PathBuf {
    cgroup::folder("freezer", cgroup)
}

fn freeze(cgroup: &str) -> Outcome {
    let (file, word) = if cgroup::is_v2() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    fs::write(folder(cgroup).join(file), word)?;
    eventually("it stands still", || is_still(cgroup).then_some(()))
}

fn is_still(cgroup: &str) -> bool {
    let read = |file| cgroup::read("freezer", cgroup, file).unwrap_or_default();
    if cgroup::is_v2() {
        read("cgroup.events").contains("frozen 1")
    } else {
        read("freezer.state") == "FROZEN"
    }
}

fn leave_frozen(cgroup: &str) -> Outcome {
    fs::create_dir_all(folder(cgroup).join("below"))?;
    freeze(cgroup)?;
    freeze(&format!("{cgroup}/below"))
}

fn a_frozen_cgroup_that_was_left_is_no_trap(bench: &Bench) -> Outcome {
    let plan = bench.guest(&["count"]);
    leave_frozen(&bench.slot.cgroup_of(&plan.id))?;
    let task = plan.start()?;
    task.stdout().wait_for_counting(3)?;
    let image = task.end_as_image()?;
    leave_frozen(task.cgroup())?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(3)?;
    ensure!(!cgroup::is_frozen(again.cgroup()), "the cgroup is frozen");
    again.end()
}

fn a_task_that_somebody_else_froze_can_be_ended(bench: &Bench) -> Outcome {
    let task = bench.run(&["tree", "2"])?;
    task.stdout().wait_for_line("ready")?;
    let image = task.copy_image()?;
    freeze(task.cgroup())?;
    task.end()?;
    let again = task.again_from(&image).start()?;
    freeze(again.cgroup())?;
    again.end()
}

fn a_task_that_somebody_else_froze_comes_back_running(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    freeze(task.cgroup())?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(3)?;
    again.end()
}

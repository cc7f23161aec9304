//! Who comes back: with the rights it had, and none that it isn't granted now.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::*;

const ROOT_OUTSIDE: u32 = 100_000;
const REMEMBERED: &str = "the stock shim compares nothing";
/// What /proc tells of a process's rights.
const RIGHTS: [&str; 11] = [
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(rights_come_back_as_they_were).fifo_only().restores(),
        scenario!(another_user_comes_back_as_itself).fifo_only().restores().with_other_users(),
        scenario!(a_filter_holds_for_whoever_is_added_after_a_restore).fifo_only().restores().cryo_only_if(
            |combination, _| combination.runtime == Runtime::Crun,
            "crun forgets the filter of a restored container",
        ),
        scenario!(a_copy_with_fewer_rights_is_refused).fifo_only().cryo_only(REMEMBERED),
        scenario!(a_copy_with_another_filter_is_refused_if_that_is_stricter)
            .fifo_only()
            .cryo_only(REMEMBERED),
        scenario!(a_copy_with_other_namespaces_is_refused).fifo_only().cryo_only(REMEMBERED),
        scenario!(a_copy_with_other_users_outside_is_refused).fifo_only().cryo_only(REMEMBERED),
        scenario!(a_copy_with_more_rights_has_those_it_had).fifo_only().cryo_only(REMEMBERED),
        scenario!(an_image_without_our_notes_is_judged_by_what_it_holds).fifo_only().cryo_only(REMEMBERED),
    ]
}

fn rights(task: &Task<'_>) -> Outcome<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", task.pid()?))?;
    let is_right = |line: &&str| line.split_once(':').is_some_and(|(name, _)| RIGHTS.contains(&name));
    Ok(status.lines().filter(is_right).collect::<Vec<_>>().join("\n"))
}

/// Nobody may make folders.
fn filter(forbidden: &[&str]) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": forbidden, "action": "SCMP_ACT_ERRNO" }],
    })
}

fn filtered<'b>(plan: Blueprint<'b>, forbidden: &[&str]) -> Blueprint<'b> {
    plan.change(|spec| spec["linux"]["seccomp"] = filter(forbidden))
}

fn is_the_same_as_before(bench: &Bench, user: &Value) -> Outcome {
    let plan = filtered(bench.guest(&["count"]), &["mkdir", "mkdirat"]);
    let plan = plan.change(|spec| {
        spec["process"]["user"] = user.clone();
        for set in ["inheritable", "ambient"] {
            spec["process"]["capabilities"][set] = json!(["CAP_KILL"]);
        }
    });
    let task = plan.start()?;
    task.stdout().wait_for_counting(2)?;
    let before = rights(&task)?;
    ensure!(before.contains("Seccomp:\t2") && before.contains("NoNewPrivs:\t1"), "it has {before}");
    let mut task = task;
    for generation in ["first", "second"] {
        let image = task.end_as_image()?;
        task = task.again_from(&image).start()?;
        ensure_eq!(rights(&task)?, before, "its rights after the {generation} restore");
    }
    task.end()
}

fn rights_come_back_as_they_were(bench: &Bench) -> Outcome {
    is_the_same_as_before(bench, &json!({ "uid": 0, "gid": 0, "additionalGids": [10, 20] }))
}

fn another_user_comes_back_as_itself(bench: &Bench) -> Outcome {
    is_the_same_as_before(bench, &json!({ "uid": 1000, "gid": 1001, "additionalGids": [1002] }))
}

fn a_filter_holds_for_whoever_is_added_after_a_restore(bench: &Bench) -> Outcome {
    let may_not = |task: &Task<'_>| -> Outcome {
        let said =
            task.output_of(&["/bin/sh", "-c", "mkdir /run/new 2>&1; grep Seccomp: /proc/self/status"])?;
        ensure!(said.contains("not permitted") && said.contains("Seccomp:\t2"), "it says {said}");
        Ok(())
    };
    let task = filtered(bench.guest(&["count"]), &["mkdir", "mkdirat"]).start()?;
    may_not(&task)?;
    let mut task = task;
    for _ in 0..2 {
        let image = task.end_as_image()?;
        task = task.again_from(&image).start()?;
        may_not(&task)?;
    }
    task.end()
}

/// Refused in these words, with nothing left of it, while the original counts on.
#[track_caller]
fn refuses(original: &Task<'_>, copy: Blueprint<'_>, words: &[&str]) -> Outcome {
    let (copy, answer) = copy.try_create()?;
    let text = refused(answer, &[Code::FailedPrecondition])?;
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in {text}");
    }
    ensure!(copy.state().is_err(), "the copy is there");
    original.stdout().wait_for_counting(1)
}

fn a_copy_with_fewer_rights_is_refused(bench: &Bench) -> Outcome {
    let task =
        bench.guest(&["count"]).change(|spec| spec["process"]["noNewPrivileges"] = false.into()).start()?;
    let image = task.copy_image()?;
    let copy = |change: &dyn Fn(&mut Value)| task.clone_from(&image).change(change);
    let without_kill = |spec: &mut Value| {
        for set in ["bounding", "effective", "permitted"] {
            let names = spec["process"]["capabilities"][set].as_array_mut();
            names.into_iter().for_each(|names| names.retain(|name| name != "CAP_KILL"));
        }
    };
    refuses(&task, copy(&without_kill), &["guest (pid 1 in the checkpoint) has CAP_KILL, which", "give it"])?;
    let strict = |spec: &mut Value| spec["process"]["noNewPrivileges"] = true.into();
    refuses(&task, copy(&strict), &["guest (pid 1 in the checkpoint)", "no_new_privs"])?;
    let user = |spec: &mut Value| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001 });
    refuses(&task, copy(&user), &["started as user 0:0", "this container's as 1000:1001"])?;
    let filtered = |spec: &mut Value| spec["linux"]["seccomp"] = filter(&["mkdir"]);
    refuses(&task, copy(&filtered), &["no seccomp filter"])?;
    let last = task.clone_from(&image).start()?;
    last.stdout().wait_for_counting(2)?;
    last.end()?;
    task.end()
}

fn a_copy_with_another_filter_is_refused_if_that_is_stricter(bench: &Bench) -> Outcome {
    let task = filtered(bench.guest(&["count"]), &["mkdir", "mkdirat"]).start()?;
    let image = task.copy_image()?;
    let stricter = filtered(task.clone_from(&image), &["mkdir", "mkdirat", "swapon"]);
    refuses(&task, stricter, &["the checkpoint's seccomp profile allows more"])?;
    let looser = filtered(task.clone_from(&image), &["mkdir"]).start()?;
    looser.stdout().wait_for_counting(2)?;
    looser.end()?;
    task.end()
}

fn a_copy_with_other_namespaces_is_refused(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.copy_image()?;
    refuses(&task, task.clone_from(&image).host_pids(), &["its own pid namespace", "the host's"])?;
    for kind in ["ipc", "uts"] {
        let shared = task.clone_from(&image).hosts(kind);
        refuses(&task, shared, &[&format!("its own {kind} namespace")])?;
    }
    refuses(&task, task.clone_from(&image).user_namespace(ROOT_OUTSIDE), &["the host's user namespace"])?;
    task.end()
}

fn a_copy_with_other_users_outside_is_refused(bench: &Bench) -> Outcome {
    let task = bench.guest(&["count"]).user_namespace(ROOT_OUTSIDE).start()?;
    task.stdout().wait_for_counting(1)?;
    let image = task.copy_image()?;
    let others = task.clone_from(&image).change(|spec| {
        spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 300_000, "size": 65536 }]);
    });
    refuses(&task, others, &["maps its users to others"])?;
    task.end()
}

fn a_copy_with_more_rights_has_those_it_had(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let before = rights(&task)?;
    let image = task.copy_image()?;
    let copy = task.clone_from(&image).change(|spec| {
        spec["process"]["noNewPrivileges"] = false.into();
        for set in ["bounding", "effective", "permitted"] {
            let names = spec["process"]["capabilities"][set].as_array_mut();
            names.into_iter().for_each(|names| names.push("CAP_SYS_ADMIN".into()));
        }
    });
    let copy = copy.start()?;
    ensure_eq!(rights(&copy)?, before, "the copy's rights");
    copy.end()?;
    task.end()
}

fn an_image_without_our_notes_is_judged_by_what_it_holds(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let image = task.copy_image()?;
    fs::remove_file(Path::new(&image).join("cryo.json"))?;
    let user = |spec: &mut Value| spec["process"]["user"] = json!({ "uid": 1000, "gid": 0 });
    refuses(&task, task.clone_from(&image).change(user), &["started as user 0", "1000:0"])?;
    let none = |spec: &mut Value| spec["process"]["capabilities"] = json!({});
    refuses(&task, task.clone_from(&image).change(none), &["has CAP_"])?;
    refuses(&task, task.clone_from(&image).user_namespace(ROOT_OUTSIDE), &["user namespace"])?;
    let copy = task.clone_from(&image).start()?;
    copy.stdout().wait_for_counting(2)?;
    copy.end()?;
    task.end()
}

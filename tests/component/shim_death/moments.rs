//! The runtime kills the shim at each point of each verb.

use std::fs;

use super::{in_budget, nothing_left};
use crate::harness::image::{is_complete, is_sealed, names, take};
use crate::harness::until;
use crate::harness::{Code, Container, Script, Test, World, process, skip};

pub(super) fn tests() -> Vec<Test> {
    [at_every_verb(), during_a_checkpoint(), during_a_restore()].into_iter().flatten().collect()
}

fn at_every_verb() -> Vec<Test> {
    type Act = fn(&Container);
    let started: Act = |container| {
        container.create().unwrap();
        container.start().unwrap();
    };
    let cases: [(&str, &[&str], Act, Act); 8] = [
        ("create", &["before", "made", "born", "after"], |_| {}, |c| drop(c.create())),
        ("start", &["before", "after"], |c| drop(c.create().unwrap()), |c| drop(c.start())),
        ("exec", &["before", "made", "born", "after"], started, |c| {
            c.exec("e1", ["sleep"]).unwrap();
            drop(c.start_exec("e1"));
        }),
        ("pause", &["before", "after"], started, |c| drop(c.pause())),
        (
            "resume",
            &["before", "after"],
            |c| {
                c.create().unwrap();
                c.start().unwrap();
                c.pause().unwrap();
            },
            |c| drop(c.resume()),
        ),
        ("update", &["before", "after"], started, |c| drop(c.update(b"{}"))),
        ("kill", &["before", "after"], started, |c| drop(c.kill(15))),
        ("delete", &["before", "killed", "after"], |c| drop(c.create().unwrap()), |c| drop(c.delete())),
    ];
    let mut tests = Vec::new();
    for (verb, points, prepare, act) in cases {
        for point in points {
            let name = format!("shim_death::a_shim_killed_in_{verb}_leaves_nothing::{point}");
            tests.push(Test::new(name, move |world| {
                let rootfs = world.folder("rootfs");
                let container = world.container("c1").rootfs(&rootfs).boot();
                prepare(&container);
                let pid = fs::read_to_string(container.path("init.pid")).map(|_| container.init_pid());
                container.script(|script| script.rule(Script::at(verb, point).nth(1), "kill-parent"));
                act(&container);
                let (told, status) = deleted_after_death(world, &container);
                // The shim may have had the time to note how the signal ended it.
                let is_told = verb == "kill" && point == &"after" && status == 143;
                assert!(status == 137 || is_told, "status {status}");
                if let Ok(pid) = pid {
                    assert_eq!(told, pid);
                }
            }));
        }
    }
    tests
}

fn during_a_checkpoint() -> Vec<Test> {
    let mut tests = Vec::new();
    for exit in [false, true] {
        for point in ["before", "written", "dumped", "sealed", "killed", "after"] {
            if point == "killed" && !exit {
                continue;
            }
            for older in [false, true] {
                let kind = if exit { "exit" } else { "leave_running" };
                let place = if older { "_over_an_older_one" } else { "" };
                let name = format!(
                    "shim_death::a_shim_killed_in_checkpoint_leaves_a_sealed_image_or_rubbish::{point}_{kind}{place}"
                );
                tests.push(Test::new(name, move |world| killed_in_checkpoint(world, point, exit, older)));
            }
        }
    }
    tests
}

fn killed_in_checkpoint(world: &World, point: &'static str, exit: bool, older: bool) {
    let image = world.path("image");
    if older {
        let origin = world.container("older").started();
        origin.checkpoint(&image, true).unwrap();
        origin.clean_up();
    }
    let container = world.container("c1").rule(Script::at("checkpoint", point), "kill-parent").started();
    let _ = container.checkpoint(&image, exit);
    let (_, status) = deleted_after_death(world, &container);
    assert_eq!(status, 137);
    // Once a container was stopped for it, its image is there.
    let stopped = exit && matches!(point, "killed" | "after");
    let restored = world.container("c2").from_checkpoint(&image).boot();
    let answer = restored.create();
    if older || stopped {
        answer.unwrap();
        assert!(is_complete(&image), "{:?}", names(&image));
        restored.start().unwrap();
        if stopped {
            let core = String::from_utf8_lossy(&fs::read(image.join("core-1.img")).unwrap()).into_owned();
            assert!(core.contains("c1"), "the older image was restored in place of the last one");
        }
    } else if is_sealed(&image) {
        // Nobody replaces an image that somebody is about to restore.
        answer.unwrap();
        restored.delete().unwrap();
    } else {
        let refusal = answer.unwrap_err();
        assert!(matches!(refusal.code, Code::FAILED_PRECONDITION | Code::NOT_FOUND), "{refusal}");
    }
    // Whatever it is, it isn't in the way of the next one.
    let next = world.container("c3").started();
    next.checkpoint(&image, false).unwrap();
    assert!(is_complete(&image));
    assert!(names(&image).iter().all(|name| !name.starts_with('.')), "{:?}", names(&image));
}

fn during_a_restore() -> Vec<Test> {
    let mut tests = Vec::new();
    for point in ["before", "read", "born", "after"] {
        for network in [false, true] {
            let kind = if network { "networked" } else { "plain" };
            let name = format!("shim_death::a_shim_killed_in_restore_leaves_nothing::{point}_{kind}");
            tests.push(Test::new(name, move |world| {
                if point == "born" && !world.has_cgroups() {
                    skip("without cgroups nothing tells whose process a killed restore has left");
                }
                let image = take(world, "image", network);
                let rootfs = world.folder("rootfs");
                let blueprint = world.container("c1").rootfs(&rootfs).from_checkpoint(&image);
                let blueprint = if network { blueprint.networked() } else { blueprint };
                let container = blueprint.rule(Script::at("restore", point), "kill-parent").created();
                let _ = container.start();
                let (_, status) = deleted_after_death(world, &container);
                assert_eq!(status, 137);
                until("no anchor is left", || process::anchors().is_empty());
                assert!(is_complete(&image), "the image is as it was");
            }));
        }
    }
    tests
}

/// Waits for the death that a script has set up, and does what containerd does then.
#[track_caller]
fn deleted_after_death(world: &World, container: &Container) -> (u32, u32) {
    process::wait_for_death(container.shim);
    container.script(|_| {});
    let said = container.bundle.call.delete();
    in_budget(&said);
    let answer = said.deleted();
    assert!(answer.exited_at.seconds > 0);
    nothing_left(world, container);
    container.forget();
    (answer.pid, answer.exit_status)
}

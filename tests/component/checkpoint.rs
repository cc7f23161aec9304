//! A checkpoint succeeds, or leaves the container and the image's place as they were.

mod clients;
mod failures;
mod images;
mod logs;
mod names;
mod options;
mod places;

use std::fs;

use cryo_protos::api::Status;
use serde_json::json;

use crate::harness::image::{is_complete, manifest, names};
use crate::harness::{Blueprint, Container, Gate, Script, Test, World, at_gate, process, skip, tests, until};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        the_image_is_sealed_before_the_container_is_stopped,
        the_container_stands_still_during_the_dump_and_not_after_it,
        a_container_is_checkpointed_again_and_again,
    ];
    for mode in Mode::ALL {
        tests.push(Test::new(format!("checkpoint::{mode}_makes_a_complete_image"), move |world| {
            succeeds(world, mode)
        }));
    }
    tests.extend(options::tests());
    tests.extend(images::tests());
    tests.extend(places::tests());
    tests.extend(logs::tests());
    tests.extend(names::tests());
    tests.extend(failures::tests());
    tests.extend(clients::tests());
    tests
}

/// How a checkpoint is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    exit: bool,
    paused: bool,
    crun: bool,
}

impl Mode {
    const ALL: [Mode; 8] = {
        let mut all = [Mode { exit: false, paused: false, crun: false }; 8];
        let mut number = 0;
        while number < 8 {
            all[number] = Mode { exit: number & 1 != 0, paused: number & 2 != 0, crun: number & 4 != 0 };
            number += 1;
        }
        all
    };

    #[track_caller]
    fn started(self, blueprint: Blueprint<'_>) -> Container {
        let container = if self.crun { blueprint.crun() } else { blueprint }.started();
        if self.paused {
            container.pause().unwrap();
        }
        container
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let exit = if self.exit { "exit" } else { "leave_running" };
        let paused = if self.paused { "_paused" } else { "" };
        write!(f, "{exit}{paused}_{}", if self.crun { "crun" } else { "runc" })
    }
}

fn succeeds(world: &World, mode: Mode) {
    let container = mode.started(world.container("c1").networked());
    let image = world.path("image");
    container.checkpoint(&image, mode.exit).unwrap();
    assert!(is_complete(&image), "{:?}", names(&image));
    let written = manifest(&image).unwrap();
    assert_eq!(written["left_running"], !mode.exit);
    assert_eq!(written["runtime"]["name"], if mode.crun { "crun" } else { "runc" });
    assert_eq!(written["container"], "c1");
    assert!(names(&image).iter().all(|name| image.join(name).is_file()), "clients carry flat folders only");
    assert_eq!(container.calls("checkpoint").len(), 1);
    assert_eq!(container.calls("checkpoint")[0].contains("--leave-running"), !mode.exit);
    let mut expected = vec!["create", "start"];
    expected.extend(mode.paused.then_some("paused"));
    expected.push("checkpointed");
    if mode.exit {
        // Stopped by the time the answer is there, without a resume of what is gone.
        assert_eq!(container.status(), Status::STOPPED);
        assert_eq!(container.wait().unwrap(), 137);
        assert!(container.calls("resume").is_empty());
        container.delete().unwrap();
        expected.extend(["exit 137", "delete 137"]);
    }
    until("all is told", || container.events().len() >= expected.len());
    assert_eq!(container.events(), expected);
    if !mode.exit {
        unharmed(world, &container, mode.paused);
    }
    assert!(!container.log().contains("level=error"), "{}", container.log());
}

/// As it was before: there, running or paused, not frozen, and able to do things.
#[track_caller]
fn unharmed(world: &World, container: &Container, paused: bool) {
    let (status, word) = if paused { (Status::PAUSED, "1") } else { (Status::RUNNING, "0") };
    assert_eq!(container.status(), status);
    assert!(process::is_alive(container.init_pid()));
    if world.has_cgroups() {
        let frozen = fs::read_to_string(world.cgroup(&container.id()).join("cgroup.freeze")).unwrap();
        assert_eq!(frozen.trim(), word, "cgroup.freeze");
    }
    if !paused {
        container.exec("probe", ["exit 42"]).unwrap();
        container.start_exec("probe").unwrap();
        assert_eq!(container.wait_exec("probe").unwrap(), 42);
        container.delete_exec("probe").unwrap();
    }
}

fn the_image_is_sealed_before_the_container_is_stopped(world: &World) {
    for crun in [false, true] {
        let (blueprint, image) =
            (world.container(&format!("c-{crun}")), world.path(&format!("image-{crun}")));
        let blueprint = if crun { blueprint.crun() } else { blueprint };
        let container =
            blueprint.rule(Script::at("checkpoint", "sealed"), json!({"wait": "sealed"})).started();
        let gate = Gate::new(&container.bundle.path, "sealed");
        let target = image.clone();
        let checkpoint = container.begin(move |container| container.checkpoint(&target, true));
        gate.wait_until_reached();
        assert!(process::is_alive(container.init_pid()), "nothing is killed yet");
        assert!(is_complete(&image), "{:?}", names(&image));
        gate.open();
        checkpoint.answer().unwrap();
        assert!(is_complete(&image));
    }
}

fn the_container_stands_still_during_the_dump_and_not_after_it(world: &World) {
    if !world.has_cgroups() {
        skip("there are no cgroups here to freeze: not root, or cgroup v2 isn't mounted");
    }
    let (container, gate) = at_gate(world.container("c1"), "checkpoint");
    container.create().unwrap();
    container.start().unwrap();
    let image = world.path("image");
    let checkpoint = container.begin(move |container| container.checkpoint(&image, false));
    gate.wait_until_reached();
    let events = fs::read_to_string(world.cgroup("c1").join("cgroup.events")).unwrap();
    assert!(events.contains("frozen 1"), "{events}");
    assert_eq!(container.status(), Status::RUNNING);
    gate.open();
    checkpoint.answer().unwrap();
    unharmed(world, &container, false);
}

fn a_container_is_checkpointed_again_and_again(world: &World) {
    let container = world.container("c1").started();
    let image = world.path("image");
    for _ in 0..5 {
        container.checkpoint(&image, false).unwrap();
        assert!(is_complete(&image));
    }
    unharmed(world, &container, false);
}

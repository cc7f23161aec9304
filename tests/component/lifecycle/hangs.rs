//! Whatever the runtime takes its time for, questions are answered at once.

use std::time::Instant;

use crate::harness::{AT_ONCE, Code, Container, Gate, Script, Test, World, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = tests![
        questions_are_answered_at_once_while_the_runtime_hangs_in_create,
        questions_are_answered_at_once_while_the_runtime_hangs_in_restore,
    ];
    tests.extend(hanging_operations());
    tests
}

fn hanging_operations() -> Vec<Test> {
    type Prepare = fn(&Container);
    type Operation = fn(&World, &Container);
    let started: Prepare = |container| {
        container.create().unwrap();
        container.start().unwrap();
    };
    let operations: [(&str, Prepare, Operation); 8] = [
        ("start", |c| drop(c.create().unwrap()), |_, c| drop(c.start())),
        ("exec", started, |_, c| {
            c.exec("e1", ["exit 0"]).unwrap();
            drop(c.start_exec("e1"));
        }),
        ("pause", started, |_, c| drop(c.pause())),
        ("update", started, |_, c| drop(c.update(b"{}"))),
        ("checkpoint", started, |w, c| drop(c.checkpoint(&w.path("image"), false))),
        ("kill", started, |_, c| drop(c.kill(15))),
        (
            "resume",
            |c| {
                c.create().unwrap();
                c.start().unwrap();
                c.pause().unwrap();
            },
            |_, c| drop(c.resume()),
        ),
        ("delete", |c| drop(c.create().unwrap()), |_, c| drop(c.delete())),
    ];
    let mut tests = Vec::new();
    for (verb, prepare, operation) in operations {
        let name = format!("lifecycle::questions_are_answered_at_once_while_the_runtime_hangs_in_{verb}");
        tests.push(Test::new(name, move |world| {
            let container = world.container("c1").boot();
            let gate = Gate::new(&container.bundle.path, "hang");
            prepare(&container);
            container.script(|script| {
                script.rule(Script::at(verb, "before").nth(1), serde_json::json!({"wait": "hang"}))
            });
            std::thread::scope(|scope| {
                let asker = container.reconnected();
                scope.spawn(move || operation(world, &asker));
                gate.wait_until_reached();
                questions_are_answered_at_once(&container);
                gate.open();
            });
        }));
    }
    tests
}

fn questions_are_answered_at_once_while_the_runtime_hangs_in_create(world: &World) {
    let container = world
        .container("c1")
        .rule(Script::at("create", "before"), serde_json::json!({"wait": "hang"}))
        .boot();
    let gate = Gate::new(&container.bundle.path, "hang");
    let creating = container.begin(Container::create);
    gate.wait_until_reached();
    let asked = Instant::now();
    refused(container.state(), Code::NOT_FOUND, &["container not created"]);
    refused(container.create(), Code::ALREADY_EXISTS, &["c1"]);
    assert_eq!(container.connect().unwrap().task_pid, 0);
    assert!(asked.elapsed() < AT_ONCE);
    gate.open();
    creating.answer().unwrap();
}

fn questions_are_answered_at_once_while_the_runtime_hangs_in_restore(world: &World) {
    let image = crate::harness::image::take(world, "image", false);
    let container = world
        .container("c1")
        .from_checkpoint(image)
        .rule(Script::at("restore", "before"), serde_json::json!({"wait": "hang"}))
        .created();
    let gate = Gate::new(&container.bundle.path, "hang");
    let starting = container.begin(Container::start);
    gate.wait_until_reached();
    questions_are_answered_at_once(&container);
    gate.open();
    starting.answer().unwrap();
}

#[track_caller]
fn questions_are_answered_at_once(container: &Container) {
    let asked = Instant::now();
    container.state().unwrap();
    assert!(!container.pids().unwrap().is_empty());
    assert_eq!(container.connect().unwrap().shim_pid, container.shim);
    // Not everybody has a cgroup to count in.
    let _ = container.stats();
    assert!(asked.elapsed() < AT_ONCE, "answered after {:?}", asked.elapsed());
}

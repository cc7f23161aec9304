//! Processes that are added to a container.

use cryo_protos::api::Status;

use crate::harness::{Code, Script, Test, World, refused, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        an_exec_exits_before_the_container_does,
        many_quick_execs_are_each_told_once_and_in_order,
        an_exec_that_was_never_started_holds_up_nothing,
        an_exec_that_fails_to_start_can_be_deleted,
    ]
}

fn an_exec_exits_before_the_container_does(world: &World) {
    let container = world.container("c1").started();
    container.exec("e1", ["sleep"]).unwrap();
    container.start_exec("e1").unwrap();
    container.kill(9).unwrap();
    assert_eq!(container.wait().unwrap(), 137);
    container.delete().unwrap();
    let expected =
        ["create", "start", "exec-added e1", "exec-started e1", "exit e1 137", "exit 137", "delete 137"];
    container.expect_events(expected);
}

fn many_quick_execs_are_each_told_once_and_in_order(world: &World) {
    let container = world.container("c1").started();
    let run = |number: usize| {
        let name = format!("e{number}");
        container.begin(move |container| {
            container.exec(&name, ["exit 0"])?;
            container.start_exec(&name)?;
            container.wait_exec(&name)
        })
    };
    let running: Vec<_> = (0..12).map(run).collect();
    running.into_iter().for_each(|exec| assert_eq!(exec.answer().unwrap(), 0));
    container.kill(9).unwrap();
    container.wait().unwrap();
    container.wait_for_event("exit 137");
    let told = container.events();
    for number in 0..12 {
        let expected =
            [format!("exec-added e{number}"), format!("exec-started e{number}"), format!("exit e{number} 0")];
        let name = format!(" e{number}");
        let of_it: Vec<_> = told
            .iter()
            .filter(|event| event.ends_with(&name) || event.contains(&format!("{name} ")))
            .collect();
        assert_eq!(of_it, expected.iter().collect::<Vec<_>>());
    }
    assert_eq!(told.len(), 2 + 3 * 12 + 1);
}

fn an_exec_that_was_never_started_holds_up_nothing(world: &World) {
    let container = world.container("c1").started();
    container.exec("e1", ["sleep"]).unwrap();
    container.exec("e2", ["sleep"]).unwrap();
    container.delete_exec("e2").unwrap();
    container.kill(9).unwrap();
    assert_eq!(container.wait().unwrap(), 137);
    container.delete().unwrap();
    container.expect_events(["create", "start", "exec-added e1", "exec-added e2", "exit 137", "delete 137"]);
}

fn an_exec_that_fails_to_start_can_be_deleted(world: &World) {
    let container = world.container("c1").started();
    let failures = [
        ("before", serde_json::json!({"fail": "no such program"})),
        ("made", serde_json::json!({"die": 9})),
        ("before", serde_json::json!({"exit": 3})),
        ("born", serde_json::json!({"pid-file": null})),
        ("born", serde_json::json!({"pid-file": "not a pid"})),
    ];
    for (number, (point, action)) in failures.into_iter().enumerate() {
        container.script(|script| script.rule(Script::at("exec", point), action));
        let name = format!("e{number}");
        container.exec(&name, ["exit 0"]).unwrap();
        container.start_exec(&name).unwrap_err();
        container.wait_exec(&name).unwrap();
        container.delete_exec(&name).unwrap();
        refused(container.start_exec(&name), Code::NOT_FOUND, &[&name]);
    }
    container.script(|_| {});
    container.exec("e0", ["exit 0"]).unwrap();
    container.start_exec("e0").unwrap();
    assert_eq!(container.wait_exec("e0").unwrap(), 0);
    assert_eq!(container.status(), Status::RUNNING);
}

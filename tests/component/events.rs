//! Events reach containerd in order and each of them, whatever containerd is doing.

use cryo_protos::events::task;
use cryo_protos::protobuf::Message;
use cryo_protos::ttrpc::Code;

use crate::harness::image::take;
use crate::harness::{Answer, Container, Test, World, tests, until};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        what_happens_while_containerd_is_away_is_told_later_and_in_order,
        a_containerd_that_comes_and_goes_misses_nothing,
        a_containerd_that_answers_nothing_holds_up_no_request,
        an_event_that_is_refused_for_good_is_given_up_and_the_rest_goes_on,
        a_containerd_that_says_it_is_unavailable_gets_the_event_later,
        events_of_containers_that_share_a_shim_keep_their_order,
        a_shim_that_ends_tells_its_last_events_first,
        an_event_says_who_when_and_how,
        a_checkpoint_names_its_image,
    ]
}

const LIFE: [&str; 7] =
    ["create", "start", "exec-added e1", "exec-started e1", "exit e1 0", "exit 137", "delete 137"];

fn live(container: &Container) {
    container.create().unwrap();
    container.start().unwrap();
    container.exec("e1", ["exit 0"]).unwrap();
    container.start_exec("e1").unwrap();
    container.wait_exec("e1").unwrap();
    container.kill(9).unwrap();
    container.wait().unwrap();
    container.delete().unwrap();
}

fn what_happens_while_containerd_is_away_is_told_later_and_in_order(world: &World) {
    let container = world.container("c1").boot();
    world.containerd.go_away();
    live(&container);
    assert!(container.events().is_empty());
    world.containerd.come_back();
    container.expect_events(LIFE);
}

fn a_containerd_that_comes_and_goes_misses_nothing(world: &World) {
    let container = world.container("c1").boot();
    container.create().unwrap();
    container.wait_for_event("create");
    world.containerd.go_away();
    container.start().unwrap();
    container.pause().unwrap();
    world.containerd.come_back();
    container.wait_for_event("paused");
    world.containerd.go_away();
    container.resume().unwrap();
    container.kill(9).unwrap();
    container.wait().unwrap();
    world.containerd.come_back();
    container.expect_events(["create", "start", "paused", "resumed", "exit 137"]);
}

fn a_containerd_that_answers_nothing_holds_up_no_request(world: &World) {
    let container = world.container("c1").boot();
    world.containerd.answer_with(Answer::Stall);
    live(&container);
    assert!(container.events().is_empty());
    world.containerd.answer_with(Answer::Accept);
    container.expect_events(LIFE);
}

fn an_event_that_is_refused_for_good_is_given_up_and_the_rest_goes_on(world: &World) {
    let container = world.container("c1").boot();
    world.containerd.answer_with(Answer::Refuse(Some("/tasks/start"), Code::INVALID_ARGUMENT));
    container.create().unwrap();
    container.start().unwrap();
    container.pause().unwrap();
    container.wait_for_event("paused");
    assert_eq!(container.events(), ["create", "paused"]);
    assert!(world.containerd.refusals() > 1, "one refusal alone isn't for good");
    until("the log tells which event", || container.log().contains("/tasks/start"));
}

fn a_containerd_that_says_it_is_unavailable_gets_the_event_later(world: &World) {
    let container = world.container("c1").boot();
    world.containerd.answer_with(Answer::Refuse(None, Code::UNAVAILABLE));
    container.create().unwrap();
    container.start().unwrap();
    // More often than any number of attempts that would suit a real refusal.
    until("eight attempts or a loss", || {
        world.containerd.refusals() >= 8 || container.log().contains("given up")
    });
    world.containerd.answer_with(Answer::Accept);
    container.expect_events(["create", "start"]);
}

fn events_of_containers_that_share_a_shim_keep_their_order(world: &World) {
    let of_group = |id| world.container(id).annotation("io.containerd.runc.v2.group", "pod").boot();
    let containers = ["c1", "c2", "c3"].map(of_group);
    world.containerd.go_away();
    let living: Vec<_> = containers
        .iter()
        .map(|container| {
            container.reconnected().begin(|container| {
                live(container);
                Ok(())
            })
        })
        .collect();
    living.into_iter().for_each(|life| life.answer().unwrap());
    world.containerd.come_back();
    containers.iter().for_each(|container| container.expect_events(LIFE));
}

fn a_shim_that_ends_tells_its_last_events_first(world: &World) {
    let container = world.container("c1").program(["exit 0"]).started();
    container.wait().unwrap();
    container.wait_for_event("exit 0");
    world.containerd.go_away();
    container.delete().unwrap();
    container.shutdown().unwrap();
    world.containerd.come_back();
    container.wait_for_event("delete 0");
    container.expect_shim_gone();
}

fn an_event_says_who_when_and_how(world: &World) {
    let rootfs = world.folder("rootfs");
    let container =
        world.container("c1").namespace("k8s.io").rootfs(&rootfs).fifos().program(["exit 9"]).boot();
    let pid = container.create().unwrap().pid;
    container.start().unwrap();
    container.wait().unwrap();
    let state = container.state().unwrap();
    container.delete().unwrap();
    container.expect_events(["create", "start", "exit 9", "delete 9"]);
    let envelopes = world.containerd.envelopes("c1");
    let times: Vec<_> = envelopes.iter().map(|e| (e.timestamp.seconds, e.timestamp.nanos)).collect();
    assert!(times.is_sorted() && times[0].0 > 0, "{times:?}");
    assert!(envelopes.iter().all(|envelope| envelope.namespace == "k8s.io"));
    let create = task::TaskCreate::parse_from_bytes(&envelopes[0].event.value).unwrap();
    assert_eq!((create.pid, create.bundle.as_str()), (pid, container.bundle.path.to_str().unwrap()));
    assert_eq!(create.rootfs[0].source, rootfs.to_str().unwrap());
    assert_eq!(create.io.stdout, container.bundle.request.stdout);
    assert_eq!(envelopes[0].event.type_url, "containerd.events.TaskCreate");
    let exit = task::TaskExit::parse_from_bytes(&envelopes[2].event.value).unwrap();
    assert_eq!((exit.id.as_str(), exit.pid, exit.exit_status), ("c1", pid, 9));
    assert_eq!(exit.exited_at, state.exited_at);
    let delete = task::TaskDelete::parse_from_bytes(&envelopes[3].event.value).unwrap();
    assert_eq!((delete.pid, delete.exited_at), (pid, state.exited_at));
}

fn a_checkpoint_names_its_image(world: &World) {
    let container = world.container("c1").started();
    let image = world.path("image");
    container.checkpoint(&image, false).unwrap();
    container.expect_events(["create", "start", "checkpointed"]);
    let envelope = &world.containerd.envelopes("c1")[2];
    let event = task::TaskCheckpointed::parse_from_bytes(&envelope.event.value).unwrap();
    assert_eq!(event.checkpoint, image.to_str().unwrap());
    let image = take(world, "other", false);
    let restored = world.container("c2").from_checkpoint(&image).created();
    restored.wait_for_event("create");
    let envelope = &world.containerd.envelopes("c2")[0];
    let event = task::TaskCreate::parse_from_bytes(&envelope.event.value).unwrap();
    assert_eq!(event.checkpoint, image.to_str().unwrap());
}

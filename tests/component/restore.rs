//! A restore brings the container back, or leaves nothing but a container that can be
//! deleted and a cause.

mod bad_images;
mod compressed;
mod copies;
mod damage;
mod failures;
mod files;
mod namespaces;
mod unstarted;

use std::fs;
use std::path::Path;
use std::time::Instant;

use cryo_protos::api::Status;
use cryo_protos::runc;

use crate::harness::image::{is_complete, manifest, take};
use crate::harness::{
    AT_ONCE, Code, Container, SOON, Streams, Test, World, pack, process, refused, skip, tests, until,
    until_within,
};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_container_comes_back_and_lives_on,
        a_container_comes_back_under_crun,
        what_was_in_force_at_the_dump_is_in_force_again,
        an_image_named_in_the_options_is_restored,
        five_generations_come_back_and_keep_their_output,
        a_terminal_comes_back_even_if_the_client_wants_none,
        a_container_beside_its_original_gets_a_cgroup_of_its_own,
    ];
    tests.extend(namespaces::tests());
    tests.extend(unstarted::tests());
    tests.extend(compressed::tests());
    tests.extend(copies::tests());
    tests.extend(bad_images::tests());
    tests.extend(damage::tests());
    tests.extend(failures::tests());
    tests.extend(files::tests());
    tests
}

fn a_container_comes_back_and_lives_on(world: &World) {
    let image = take(world, "image", false);
    let container = world
        .container("c1")
        .fifos()
        .program(["print back", "trap 15 7", "sleep"])
        .from_checkpoint(&image)
        .boot();
    let anchor = container.create().unwrap().pid;
    assert!(anchor > 0 && process::is_alive(anchor));
    assert_eq!(container.status(), Status::CREATED);
    assert!(container.calls("restore").is_empty(), "nothing is restored before the start");
    let pid = container.start().unwrap();
    assert_eq!((container.state().unwrap().pid, container.init_pid()), (pid, pid));
    until("the anchor has gone", || !process::is_alive(anchor));
    container.stdout().wait_for("back");
    container.exec("e1", ["exit 4"]).unwrap();
    container.start_exec("e1").unwrap();
    assert_eq!(container.wait_exec("e1").unwrap(), 4);
    container.pause().unwrap();
    container.resume().unwrap();
    container.checkpoint(&world.path("second"), false).unwrap();
    assert!(is_complete(&world.path("second")));
    container.kill(15).unwrap();
    assert_eq!(container.wait().unwrap(), 7);
    container.delete().unwrap();
    container.expect_events([
        "create",
        "start",
        "exec-added e1",
        "exec-started e1",
        "exit e1 4",
        "paused",
        "resumed",
        "checkpointed",
        "exit 7",
        "delete 7",
    ]);
    let call = &container.calls("restore")[0];
    assert!(
        call.contains("--detach") && call.contains("--no-subreaper") && call.contains("--file-locks"),
        "{call}"
    );
}

fn a_container_comes_back_under_crun(world: &World) {
    let image = world.path("image");
    let origin = world.container("c1").crun().networked().started();
    origin.checkpoint(&image, true).unwrap();
    origin.delete().unwrap();
    let container = world.container("c2").crun().networked().from_checkpoint(&image).created();
    container.start().unwrap();
    // An option it doesn't know would have ended it with status 64.
    assert_eq!(container.calls("restore").len(), 1);
    assert_eq!(container.status(), Status::RUNNING);
}

fn what_was_in_force_at_the_dump_is_in_force_again(world: &World) {
    let origin = world.container("origin").started();
    let options = runc::CheckpointOptions {
        exit: true,
        open_tcp: true,
        external_unix_sockets: true,
        ..Default::default()
    };
    let image = world.path("image");
    let mut request = origin.checkpoint_request(&image, true);
    request.options = Some(pack(&options)).into();
    origin.checkpoint_with(request).unwrap();
    let container = world.container("c1").from_checkpoint(&image).created();
    container.start().unwrap();
    let call = &container.calls("restore")[0];
    for word in ["--tcp-established", "--ext-unix-sk", "--file-locks"] {
        assert!(call.contains(word), "{word} in {call}");
    }
}

fn an_image_named_in_the_options_is_restored(world: &World) {
    let image = take(world, "image", false);
    let work = world.path("work");
    let container = world
        .container("c1")
        .options(|options| {
            options.criu_image_path = image.to_str().unwrap().into();
            options.criu_work_path = work.to_str().unwrap().into();
        })
        .created();
    container.start().unwrap();
    assert_eq!((container.calls("create").len(), container.calls("restore").len()), (0, 1));
    assert!(fs::read_to_string(work.join("restore.log")).unwrap().contains("finished successfully"));
}

fn five_generations_come_back_and_keep_their_output(world: &World) {
    let mut image = world.path("image-0");
    let origin = world.container("c0").fifos().program(["print generation 0", "sleep"]).started();
    origin.stdout().wait_for("generation 0");
    origin.checkpoint(&image, true).unwrap();
    for generation in 1..=5 {
        let line = format!("generation {generation}");
        let id = format!("c{generation}");
        let container = world
            .container(&id)
            .fifos()
            .program([&format!("print {line}"), "sleep"])
            .from_checkpoint(&image)
            .created();
        container.start().unwrap();
        container.stdout().wait_for(&line);
        image = world.path(&format!("image-{generation}"));
        container.checkpoint(&image, true).unwrap();
        assert_eq!(
            container.stdout().wait_for_end_after(|| drop(container.delete().unwrap())),
            format!("{line}\n")
        );
    }
}

fn a_terminal_comes_back_even_if_the_client_wants_none(world: &World) {
    let image = world.path("image");
    let origin = world.container("c0").streams(Streams::Terminal).started();
    origin.checkpoint(&image, true).unwrap();
    assert_eq!(manifest(&image).unwrap()["terminal"], true);
    let container = world
        .container("c1")
        .fifos()
        .program(["print on a terminal", "sleep"])
        .from_checkpoint(&image)
        .created();
    container.start().unwrap();
    assert!(container.calls("restore")[0].contains("--console-socket"));
    container.stdout().wait_for("on a terminal\r\n");
    // And the other way round.
    let plain = take(world, "plain", false);
    let container = world
        .container("c2")
        .streams(Streams::Terminal)
        .program(["print on pipes", "sleep"])
        .from_checkpoint(&plain)
        .created();
    container.start().unwrap();
    assert!(!container.calls("restore")[0].contains("--console-socket"));
    container.stdout().wait_for("on pipes\n");
}

fn a_container_beside_its_original_gets_a_cgroup_of_its_own(world: &World) {
    if !world.has_cgroups() {
        skip("there are no cgroups here: not root, or cgroup v2 isn't mounted");
    }
    let image = world.path("image");
    let origin = world.container("origin").started();
    origin.checkpoint(&image, false).unwrap();
    let bundle = world.container("clone").from_checkpoint(&image).lay_out();
    let config = fs::read_to_string(bundle.path.join("config.json")).unwrap();
    fs::write(bundle.path.join("config.json"), config.replace("/default/clone", "/default/origin")).unwrap();
    let clone = Container::boot(world, bundle);
    clone.create().unwrap();
    let pid = clone.start().unwrap();
    let procs = |id| fs::read_to_string(world.cgroup(id).join("cgroup.procs")).unwrap();
    assert_eq!(procs("clone").trim(), pid.to_string());
    assert_eq!(procs("origin").trim(), origin.init_pid().to_string());
    clone.kill(9).unwrap();
    clone.wait().unwrap();
    clone.delete().unwrap();
    assert_eq!(origin.status(), Status::RUNNING);
    assert!(!world.has_cgroup("clone") && world.has_cgroup("origin"));
}

/// What a failed restore leaves: a container that is stopped and can be deleted.
#[track_caller]
fn stopped_and_deletable(container: &Container) {
    let asked = Instant::now();
    assert_eq!(container.status(), Status::STOPPED);
    assert_eq!(container.state().unwrap().pid, 0);
    let status = container.wait().unwrap();
    assert!(status > 0 && asked.elapsed() < AT_ONCE, "{status} after {:?}", asked.elapsed());
    assert!(!container.pids().unwrap().is_empty());
    // Killed before the answer, dead a moment later.
    until_within(SOON, "the anchor is gone", || process::anchors().is_empty());
    until_within(SOON, "no process of the container is left", || {
        process::with_words(&["container", "be"]).is_empty()
    });
    refused(container.kill(9), Code::NOT_FOUND, &["finished"]);
    container.delete().unwrap();
    refused(container.state(), Code::NOT_FOUND, &[]);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("/rootfs "), "a mount is left");
    let runtime = Path::new("/run/containerd/runc/default").join(container.id());
    assert!(!runtime.exists(), "the runtime still knows it");
}

//! A checkpoint succeeds, or leaves the container and the image's place as they were.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cryo_protos::api::{CheckpointTaskRequest, Status};
use cryo_protos::{linux_runc, runc};
use serde_json::{Value, json};

use crate::harness::image::{contents, is_complete, is_sealed, manifest, names};
use crate::harness::{
    AT_ONCE, Blueprint, Code, Container, Gate, Refusal, Script, Test, World, any, pack, process, refused, skip, tests, until,
};
use crate::lifecycle::{Leaves, at_gate};

const JOURNAL: &str = "/var/log/cryo";

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        the_image_is_sealed_before_the_container_is_stopped,
        what_is_asked_for_reaches_the_runtime,
        options_of_every_generation_say_whether_to_exit,
        without_options_docker_means_to_exit_and_others_to_run_on,
        an_annotation_decides_where_no_option_does,
        the_container_stands_still_during_the_dump_and_not_after_it,
        an_older_image_is_replaced_by_a_complete_one,
        an_older_image_survives_every_failure,
        what_an_interrupted_checkpoint_left_is_removed,
        what_is_in_the_folder_besides_an_image_is_left_alone,
        an_image_in_an_open_folder_is_read_by_nobody_meanwhile,
        every_file_that_finds_no_inode_fails_the_checkpoint_and_nothing_else,
        every_file_that_finds_no_room_fails_the_checkpoint_and_nothing_else,
        every_file_that_finds_no_inode_beside_an_older_image_leaves_that_as_it_was,
        a_read_only_place_is_named,
        folders_made_for_a_failed_checkpoint_are_removed,
        a_place_that_is_no_folder_is_refused,
        a_path_that_leads_elsewhere_is_refused,
        a_missing_criu_is_named,
        logs_outlive_the_container,
        logs_go_where_the_client_wants_them,
        without_a_journal_logs_stay_in_the_bundle,
        with_nowhere_to_write_to_nothing_is_left,
        the_cause_in_criu_s_log_is_told_with_its_remedy,
        an_image_that_cannot_be_sealed_fails_with_the_cause,
        a_kill_ends_a_checkpoint_under_way,
        a_container_that_dies_during_its_checkpoint_is_stopped,
        a_second_checkpoint_waits_for_the_first,
        requests_that_wait_for_a_checkpoint_are_served_after_it,
        what_freezes_the_container_waits_for_an_exec_that_is_being_started,
        two_containers_never_mix_their_images_in_one_folder,
        a_container_is_checkpointed_again_and_again,
    ];
    for mode in Mode::ALL {
        tests.push(Test::new(format!("checkpoint::{mode}_makes_a_complete_image"), move |world| succeeds(world, mode)));
    }
    tests.extend(failures());
    tests.extend(late_failures());
    tests.extend(clients_that_leave());
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

/// The runtime, or CRIU in it, fails at each of its steps before anything is stopped.
fn failures() -> Vec<Test> {
    let tcp = "inet: Connected TCP socket, consider using --tcp-established option.";
    let failures: [(&'static str, &'static str, Value, Code, &'static [&'static str]); 13] = [
        ("--version", "before", json!({"exit": 1}), Code::UNKNOWN, &["runc or crun"]),
        ("--version", "before", json!({"die": 9}), Code::UNKNOWN, &["runc or crun"]),
        ("checkpoint", "before", json!({"fail": "no criu today"}), Code::UNKNOWN, &["checkpoint", "no criu today"]),
        ("checkpoint", "before", json!({"exit": 5}), Code::UNKNOWN, &["checkpoint", "exit status 5"]),
        ("checkpoint", "before", json!({"die": 9}), Code::UNKNOWN, &["checkpoint", "137"]),
        ("checkpoint", "written", json!({"criu-fail": tcp}), Code::FAILED_PRECONDITION, &["Connected TCP socket", "log: "]),
        ("checkpoint", "written", json!({"die": 15}), Code::UNKNOWN, &["143"]),
        ("checkpoint", "dumped", json!({"criu-fail": "strange"}), Code::FAILED_PRECONDITION, &["strange", "log: "]),
        ("checkpoint", "dumped", json!({"fail": "no reason"}), Code::UNKNOWN, &["no reason"]),
        ("checkpoint", "dumped", json!({"die": 9}), Code::UNKNOWN, &["137"]),
        ("checkpoint", "sealed", json!({"criu-fail": "network unlock"}), Code::FAILED_PRECONDITION, &["network unlock"]),
        ("checkpoint", "sealed", json!({"die": 9}), Code::UNKNOWN, &["137"]),
        ("checkpoint", "sealed", json!({"fail": "after all"}), Code::UNKNOWN, &["after all"]),
    ];
    let mut tests = Vec::new();
    for (number, (verb, point, action, code, words)) in failures.into_iter().enumerate() {
        let verb_name = verb.trim_start_matches('-');
        let name = format!("checkpoint::a_failure_leaves_all_as_it_was::{number:02}_{verb_name}_{point}");
        tests.push(Test::new(name, move |world| {
            for (number, mode) in Mode::ALL.into_iter().enumerate() {
                let container = mode.started(world.container(&format!("c{number}")));
                let image = world.path(&format!("image-{number}"));
                let events = container.events().len();
                container.script(|script| script.rule(Script::at(verb, point), action.clone()));
                refused(container.checkpoint(&image, mode.exit), code, words);
                unharmed(world, &container, mode.paused);
                assert!(!image.exists(), "{mode}: {:?} is left", names(&image));
                assert!(!container.events()[events..].iter().any(|event| event == "checkpointed"));
                container.script(|_| {});
                container.checkpoint(&image, mode.exit).unwrap();
                assert!(is_complete(&image), "{mode}");
                container.clean_up();
            }
        }));
    }
    tests
}

/// The runtime fails when the container is stopped already: its image isn't lost.
fn late_failures() -> Vec<Test> {
    let mut tests = Vec::new();
    for (point, action) in [
        ("killed", json!({"die": 9})),
        ("killed", json!({"fail": "cannot remove the cgroup"})),
        ("after", json!({"exit": 1})),
        ("after", json!({"die": 6})),
    ] {
        let what = action.as_object().unwrap().keys().next().unwrap();
        let name = format!("checkpoint::a_failure_after_the_stop_loses_nothing::{point}_{what}");
        tests.push(Test::new(name, move |world| {
            for older in [false, true] {
                let id = format!("c-{older}");
                let image = world.path(&format!("image-{older}"));
                let container = world.container(&id).started();
                if older {
                    container.checkpoint(&image, false).unwrap();
                }
                container.script(|script| script.rule(Script::at("checkpoint", point), action.clone()));
                // Said or not, the container is gone and what it was is here.
                let _ = container.checkpoint(&image, true);
                assert_eq!(container.wait().unwrap(), 137);
                container.delete().unwrap();
                let restored = world.container(&format!("r-{older}")).from_checkpoint(&image).created();
                assert_eq!(manifest(&image).unwrap()["left_running"], false, "the last image is in its place");
                assert!(is_complete(&image));
                restored.start().unwrap();
            }
        }));
    }
    tests
}

fn the_image_is_sealed_before_the_container_is_stopped(world: &World) {
    for crun in [false, true] {
        let (blueprint, image) = (world.container(&format!("c-{crun}")), world.path(&format!("image-{crun}")));
        let blueprint = if crun { blueprint.crun() } else { blueprint };
        let container = blueprint.rule(Script::at("checkpoint", "sealed"), json!({"wait": "sealed"})).started();
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

fn what_is_asked_for_reaches_the_runtime(world: &World) {
    let container = world.container("c1").started();
    let options = runc::CheckpointOptions {
        open_tcp: true,
        external_unix_sockets: true,
        file_locks: true,
        cgroups_mode: "soft".into(),
        ..Default::default()
    };
    let request = CheckpointTaskRequest {
        options: Some(pack(&options)).into(),
        ..container.checkpoint_request(&world.path("image"), false)
    };
    container.checkpoint_with(request).unwrap();
    let call = &container.calls("checkpoint")[0];
    for word in ["--tcp-established", "--ext-unix-sk", "--file-locks", "--manage-cgroups-mode soft", "--leave-running"] {
        assert!(call.contains(word), "{word} in {call}");
    }
    assert!(!call.contains("--shell-job"), "without a terminal there is no job of a shell");
    let written = manifest(&world.path("image")).unwrap();
    assert_eq!(written["options"]["tcp_established"], true);
}

fn options_of_every_generation_say_whether_to_exit(world: &World) {
    let new = |exit| pack(&runc::CheckpointOptions { exit, ..Default::default() });
    let old = |exit| pack(&linux_runc::CheckpointOptions { exit, ..Default::default() });
    for (number, (options, exits)) in [(new(true), true), (new(false), false), (old(true), true), (old(false), false)].into_iter().enumerate() {
        let container = world.container(&format!("c{number}")).started();
        let request = CheckpointTaskRequest {
            options: Some(options).into(),
            ..container.checkpoint_request(&world.path(&format!("image-{number}")), false)
        };
        container.checkpoint_with(request).unwrap();
        assert_eq!(container.status() == Status::STOPPED, exits, "options {number}");
    }
}

fn without_options_docker_means_to_exit_and_others_to_run_on(world: &World) {
    for (namespace, exits) in [("moby", true), ("default", false), ("k8s.io", false)] {
        for options in [None, Some(any("", b""))] {
            let id = format!("c-{}", options.is_some());
            let container = world.container(&id).namespace(namespace).started();
            let image = world.path(&format!("{namespace}-{id}"));
            let request =
                CheckpointTaskRequest { options: options.into(), ..container.checkpoint_request(&image, false) };
            container.checkpoint_with(request).unwrap();
            assert_eq!(container.status() == Status::STOPPED, exits, "{namespace}");
            container.clean_up();
            container.expect_shim_gone();
        }
    }
}

fn an_annotation_decides_where_no_option_does(world: &World) {
    for (value, exits) in [("true", true), ("false", false)] {
        let container =
            world.container(&format!("c-{value}")).annotation("cryo.checkpoint.exit", value).started();
        let request = CheckpointTaskRequest {
            options: None.into(),
            ..container.checkpoint_request(&world.path(value), false)
        };
        container.checkpoint_with(request).unwrap();
        assert_eq!(container.status() == Status::STOPPED, exits, "{value}");
    }
    let container = world.container("c1").annotation("cryo.checkpoint.exit", "maybe").started();
    let request =
        CheckpointTaskRequest { options: None.into(), ..container.checkpoint_request(&world.path("maybe"), false) };
    refused(container.checkpoint_with(request), Code::INVALID_ARGUMENT, &["cryo.checkpoint.exit", "maybe"]);
    // With options there is nothing to decide.
    container.checkpoint(&world.path("maybe"), false).unwrap();
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

fn an_older_image_is_replaced_by_a_complete_one(world: &World) {
    let image = world.path("image");
    let first = world.container("c1").started();
    first.checkpoint(&image, false).unwrap();
    fs::write(image.join("pages-9.img"), "of the older one").unwrap();
    let second = world.container("c2").started();
    second.checkpoint(&image, true).unwrap();
    assert!(is_complete(&image));
    assert_eq!(manifest(&image).unwrap()["container"], "c2");
    assert!(!image.join("pages-9.img").exists());
    assert!(names(&image).iter().all(|name| !name.starts_with('.')), "{:?}", names(&image));
}

fn an_older_image_survives_every_failure(world: &World) {
    let image = world.path("image");
    let container = world.container("c1").started();
    container.checkpoint(&image, false).unwrap();
    let before = contents(&image);
    for point in ["before", "written", "dumped", "sealed"] {
        for (action, exit) in [(json!({"fail": "no"}), true), (json!({"die": 9}), false)] {
            container.script(|script| script.rule(Script::at("checkpoint", point), action));
            container.checkpoint(&image, exit).unwrap_err();
            assert!(contents(&image) == before, "{point}: {:?}", names(&image));
        }
    }
    unharmed(world, &container, false);
}

fn what_an_interrupted_checkpoint_left_is_removed(world: &World) {
    let container = world.container("c1").started();
    // As a shim leaves it that was killed: no seal, or a folder beside an older image.
    let image = world.folder("unsealed");
    container.checkpoint(&image, false).unwrap();
    let mut unsealed = manifest(&image).unwrap();
    unsealed["sealed"] = false.into();
    fs::write(image.join("cryo.json"), unsealed.to_string()).unwrap();
    fs::write(image.join("pages-7.img"), "rubbish").unwrap();
    fs::create_dir(image.join(".cryo-12345")).unwrap();
    fs::write(image.join(".cryo-12345/pages-1.img"), "rubbish").unwrap();
    container.checkpoint(&image, false).unwrap();
    assert!(is_complete(&image));
    assert!(!image.join("pages-7.img").exists() && !image.join(".cryo-12345").exists());
}

fn what_is_in_the_folder_besides_an_image_is_left_alone(world: &World) {
    let image = world.folder("image");
    fs::write(image.join("notes.txt"), "mine").unwrap();
    let container = world.container("c1").started();
    container.checkpoint(&image, false).unwrap();
    assert!(is_complete(&image));
    assert_eq!(fs::read_to_string(image.join("notes.txt")).unwrap(), "mine");
    container.script(|script| script.rule(Script::at("checkpoint", "dumped"), json!({"fail": "no"})));
    container.checkpoint(&image, false).unwrap_err();
    assert_eq!(fs::read_to_string(image.join("notes.txt")).unwrap(), "mine");
}

fn an_image_in_an_open_folder_is_read_by_nobody_meanwhile(world: &World) {
    let image = world.folder("image");
    fs::set_permissions(&image, fs::Permissions::from_mode(0o755)).unwrap();
    let container =
        world.container("c1").rule(Script::at("checkpoint", "dumped"), json!({"wait": "dumped"})).started();
    let gate = Gate::new(&container.bundle.path, "dumped");
    let target = image.clone();
    let checkpoint = container.begin(move |container| container.checkpoint(&target, false));
    gate.wait_until_reached();
    // Memory of the container: either the file or the folder it is in is closed to others.
    let open = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077 != 0;
    for path in contents(&image).into_keys().filter(|path| path.is_file()) {
        assert!(!open(&path) || !open(path.parent().unwrap()), "{} is open", path.display());
    }
    gate.open();
    checkpoint.answer().unwrap();
    for name in names(&image) {
        assert!(!open(&image.join(&name)), "{name} is open");
    }
}

/// Takes checkpoints into file systems that are a little larger each time, until one
/// succeeds untouched.
#[track_caller]
fn until_it_fits(world: &World, older: bool, sizes: impl Iterator<Item = String>) {
    let container = world.container("c1").started();
    let exits = world.container("c2").started();
    let origin = world.path("origin");
    container.checkpoint(&origin, false).unwrap();
    let mut failures = 0;
    for size in sizes {
        let mut fitted = 0;
        for (container, exit) in [(&container, false), (&exits, true)] {
            let place = world.tmpfs("small", &size);
            let image = place.join("image");
            if older && copy(&origin, &image).is_err() {
                world.unmount(&place);
                continue;
            }
            let before = contents(&place);
            let events = container.events().len();
            match container.checkpoint(&image, exit) {
                Ok(()) => {
                    assert!(is_complete(&image), "{size}: {:?}", names(&image));
                    fitted += 1;
                    if exit {
                        assert_eq!(container.wait().unwrap(), 137);
                    }
                }
                Err(refusal) => {
                    no_room(&refusal, &size);
                    assert!(contents(&place) == before, "{size}: {:?} is left", contents(&place).keys());
                    unharmed(world, container, false);
                    let told = container.events();
                    assert!(!told[events..].iter().any(|event| event == "checkpointed"), "{told:?}");
                    failures += 1;
                }
            }
            world.unmount(&place);
        }
        if fitted == 2 {
            assert!(failures > 4, "only {failures} failures before {size} fitted");
            return;
        }
        // One that exits can't be used again.
        assert!(exits.status() == Status::RUNNING, "{size} is enough to exit and not to run on");
    }
    panic!("none was large enough");
}

#[track_caller]
fn no_room(refusal: &Refusal, size: &str) {
    let code = matches!(refusal.code, Code::RESOURCE_EXHAUSTED | Code::FAILED_PRECONDITION);
    assert!(code && refusal.message.contains("No space left"), "{size}: {refusal}");
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name))?;
    }
    Ok(())
}

fn every_file_that_finds_no_inode_fails_the_checkpoint_and_nothing_else(world: &World) {
    until_it_fits(world, false, (2..40).map(|inodes| format!("mode=700,nr_inodes={inodes}")));
}

fn every_file_that_finds_no_room_fails_the_checkpoint_and_nothing_else(world: &World) {
    until_it_fits(world, false, (1..60).map(|pages| format!("mode=700,size={}k", pages * 4)));
}

fn every_file_that_finds_no_inode_beside_an_older_image_leaves_that_as_it_was(world: &World) {
    until_it_fits(world, true, (12..60).map(|inodes| format!("mode=700,nr_inodes={inodes}")));
}

fn a_read_only_place_is_named(world: &World) {
    let place = world.tmpfs("fixed", "mode=700");
    let older = place.join("older");
    let container = world.container("c1").started();
    container.checkpoint(&older, false).unwrap();
    fs::create_dir(place.join("empty")).unwrap();
    fs::set_permissions(place.join("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    world.make_read_only(&place);
    for name in ["new", "empty", "older"] {
        let image = place.join(name);
        refused(container.checkpoint(&image, true), Code::FAILED_PRECONDITION, &["Read-only", image.to_str().unwrap()]);
        unharmed(world, &container, false);
    }
    world.unmount(&place);
}

fn folders_made_for_a_failed_checkpoint_are_removed(world: &World) {
    let container =
        world.container("c1").rule(Script::at("checkpoint", "before").nth(1), json!({"fail": "no"})).started();
    let image = world.path("a/b/c");
    container.checkpoint(&image, false).unwrap_err();
    assert!(!world.path("a").exists(), "{:?} is left", contents(&world.path("a")).keys());
    container.checkpoint(&image, false).unwrap();
    assert!(is_complete(&image));
}

fn a_place_that_is_no_folder_is_refused(world: &World) {
    let container = world.container("c1").started();
    fs::write(world.path("file"), "mine").unwrap();
    symlink("/nowhere", world.path("dangling")).unwrap();
    for name in ["file", "file/below", "dangling"] {
        let image = world.path(name);
        let refusal = container.checkpoint(&image, true).unwrap_err();
        assert!(refusal.message.contains(image.to_str().unwrap()), "{refusal}");
    }
    assert_eq!(fs::read_to_string(world.path("file")).unwrap(), "mine");
    unharmed(world, &container, false);
}

fn a_path_that_leads_elsewhere_is_refused(world: &World) {
    let container = world.container("c1").started();
    for path in ["relative/image", "/tmp/test/../test/image", ""] {
        refused(container.checkpoint(Path::new(path), false), Code::INVALID_ARGUMENT, &[]);
    }
    unharmed(world, &container, false);
}

fn a_missing_criu_is_named(world: &World) {
    let mut bundle = world.container("c1").lay_out();
    bundle.call.environment.push(("PATH", "/nowhere".into()));
    let container = Container::boot(world, bundle);
    container.create().unwrap();
    container.start().unwrap();
    let image = world.path("image");
    refused(container.checkpoint(&image, true), Code::FAILED_PRECONDITION, &["criu", "PATH"]);
    assert!(!image.exists());
    unharmed(world, &container, false);
}

fn logs_outlive_the_container(world: &World) {
    let container = world
        .container("c1")
        .rule(Script::at("checkpoint", "written").nth(1), json!({"criu-fail": "strange thing"}))
        .started();
    let refusal = container.checkpoint(&world.path("image"), false).unwrap_err();
    container.checkpoint(&world.path("image"), true).unwrap();
    container.delete().unwrap();
    container.clean_up();
    let log = refusal.message.split_once("log: ").unwrap().1.trim_end_matches(')');
    assert!(log.starts_with(JOURNAL));
    assert!(fs::read_to_string(log).unwrap().contains("strange thing"));
    assert_eq!(names(Path::new(JOURNAL)).len(), 2, "one folder for each checkpoint");
    for folder in names(Path::new(JOURNAL)) {
        assert!(Path::new(JOURNAL).join(folder).join("dump.log").exists());
    }
}

fn logs_go_where_the_client_wants_them(world: &World) {
    let container = world.container("c1").started();
    let work = world.path("work");
    let options = runc::CheckpointOptions { work_path: work.to_str().unwrap().into(), ..Default::default() };
    let request = CheckpointTaskRequest {
        options: Some(pack(&options)).into(),
        ..container.checkpoint_request(&world.path("image"), false)
    };
    container.script(|script| script.rule(Script::at("checkpoint", "dumped").nth(1), json!({"criu-fail": "strange"})));
    container.checkpoint_with(request.clone()).unwrap_err();
    assert!(fs::read_to_string(work.join("dump.log")).unwrap().contains("strange"));
    container.checkpoint_with(request).unwrap();
    assert_eq!(names(&work), ["dump.log", "stats-dump"]);
    assert!(!fs::read_to_string(work.join("dump.log")).unwrap().contains("strange"));
}

fn without_a_journal_logs_stay_in_the_bundle(world: &World) {
    fs::write(JOURNAL, "a file in its place").unwrap();
    let container = world.container("c1").started();
    container.checkpoint(&world.path("image"), false).unwrap();
    assert!(is_complete(&world.path("image")));
    container.script(|script| script.rule(Script::at("checkpoint", "written"), json!({"criu-fail": "strange"})));
    let refusal = container.checkpoint(&world.path("image"), false).unwrap_err();
    let log = refusal.message.split_once("log: ").unwrap().1.trim_end_matches(')');
    assert!(Path::new(log).starts_with(&container.bundle.path) && Path::new(log).exists(), "{log}");
    fs::remove_file(JOURNAL).unwrap();
}

fn with_nowhere_to_write_to_nothing_is_left(world: &World) {
    let container = world.container("c1").started();
    fs::write(JOURNAL, "a file in its place").unwrap();
    let bundle = container.bundle.path.clone();
    rustix::mount::mount_bind(&bundle, &bundle).unwrap();
    world.make_read_only(&bundle);
    let image = world.path("image");
    let refusal = container.checkpoint(&image, true);
    world.unmount(&bundle);
    fs::remove_file(JOURNAL).unwrap();
    refused(refusal, Code::FAILED_PRECONDITION, &["Read-only"]);
    assert!(!image.exists(), "the image's folder is left");
    unharmed(world, &container, false);
}

fn the_cause_in_criu_s_log_is_told_with_its_remedy(world: &World) {
    let cases = [
        ("inet: Connected TCP socket, consider using --tcp-established option.", "close the connection"),
        ("Can't dump ghost file /tmp/x of 3145728 size, increase limit", "smaller"),
        ("Some file locks are hold by dumping tasks!", "file locks"),
        ("something nobody has seen before", "something nobody has seen before"),
    ];
    let container = world.container("c1").started();
    for (line, remedy) in cases {
        container.script(|script| script.rule(Script::at("checkpoint", "written"), json!({ "criu-fail": line })));
        let first = line.split([',', '!']).next().unwrap();
        let message =
            refused(container.checkpoint(&world.path("image"), true), Code::FAILED_PRECONDITION, &[first, remedy, "log: "]);
        assert!(!message.contains("type NOTIFY errno 0"), "{message}");
    }
}

fn an_image_that_cannot_be_sealed_fails_with_the_cause(world: &World) {
    let place = world.tmpfs("full", "size=1m,mode=700");
    let image = place.join("image");
    let fill = format!("cat /dev/zero > {}/filling 2>/dev/null", place.display());
    let container =
        world.container("c1").rule(Script::at("checkpoint", "dumped"), json!({ "shell": fill })).started();
    let refusal = container.checkpoint(&image, true).unwrap_err();
    unharmed(world, &container, false);
    assert!(!image.exists(), "{:?} is left", names(&image));
    world.unmount(&place);
    no_room(&refusal, "with no room for the seal");
}

fn a_kill_ends_a_checkpoint_under_way(world: &World) {
    for exit in [false, true] {
        let id = format!("c-{exit}");
        let (container, gate) = at_gate(world.container(&id), "checkpoint");
        container.create().unwrap();
        container.start().unwrap();
        let image = world.path(&format!("image-{exit}"));
        let target = image.clone();
        let checkpoint = container.begin(move |container| container.checkpoint(&target, exit));
        gate.wait_until_reached();
        let asked = Instant::now();
        container.kill(9).unwrap();
        assert!(asked.elapsed() < AT_ONCE);
        refused(checkpoint.answer(), Code::ABORTED, &["killed"]);
        assert_eq!(container.wait().unwrap(), 137);
        container.delete().unwrap();
        container.expect_events(["create", "start", "exit 137", "delete 137"]);
        assert!(!image.exists(), "{:?} is left", names(&image));
    }
}

fn a_container_that_dies_during_its_checkpoint_is_stopped(world: &World) {
    for exit in [false, true] {
        let container = world
            .container(&format!("c-{exit}"))
            .rule(Script::at("checkpoint", "written"), json!({"shell": "kill -9 $(cat init.pid)"}))
            .rule(Script::at("checkpoint", "written"), "await-death")
            .rule(Script::at("checkpoint", "written"), json!({"criu-fail": "Task 1 is gone"}))
            .started();
        let image = world.path(&format!("image-{exit}"));
        refused(container.checkpoint(&image, exit), Code::FAILED_PRECONDITION, &["Task 1 is gone"]);
        assert_eq!(container.wait().unwrap(), 137);
        container.expect_events(["create", "start", "exit 137"]);
        assert!(!image.exists() || is_sealed(&image), "{:?} is left", names(&image));
        container.delete().unwrap();
    }
}

fn a_second_checkpoint_waits_for_the_first(world: &World) {
    let (container, gate) = at_gate(world.container("c1"), "checkpoint");
    container.create().unwrap();
    container.start().unwrap();
    let (first, second) = (world.path("first"), world.path("second"));
    let (to_first, to_second) = (first.clone(), second.clone());
    let one = container.begin(move |container| container.checkpoint(&to_first, false));
    gate.wait_until_reached();
    let other = container.reconnected().begin(move |container| container.checkpoint(&to_second, true));
    gate.open();
    one.answer().unwrap();
    other.answer().unwrap();
    assert!(is_complete(&first) && is_complete(&second));
    container.expect_events(["create", "start", "checkpointed", "checkpointed", "exit 137"]);
}

fn requests_that_wait_for_a_checkpoint_are_served_after_it(world: &World) {
    let (container, gate) = at_gate(world.container("c1"), "checkpoint");
    container.create().unwrap();
    container.start().unwrap();
    container.exec("e1", ["exit 3"]).unwrap();
    let image = world.path("image");
    let checkpoint = container.begin(move |container| container.checkpoint(&image, false));
    gate.wait_until_reached();
    let exec = container.reconnected().begin(|container| container.start_exec("e1"));
    let update = container.reconnected().begin(|container| container.update(b"{}"));
    gate.open();
    checkpoint.answer().unwrap();
    exec.answer().unwrap();
    update.answer().unwrap();
    assert_eq!(container.wait_exec("e1").unwrap(), 3);
    container.expect_events(["create", "start", "exec-added e1", "checkpointed", "exec-started e1", "exit e1 3"]);
}

/// A process that is half way into the container would be caught there by the freezer,
/// or by a dump that knows nothing of it.
fn what_freezes_the_container_waits_for_an_exec_that_is_being_started(world: &World) {
    for operation in ["pause", "checkpoint"] {
        let container = world
            .container(&format!("c-{operation}"))
            .rule(Script::at("exec", "made"), json!({"wait": "made"}))
            .started();
        let gate = Gate::new(&container.bundle.path, "made");
        container.exec("e1", ["sleep"]).unwrap();
        let exec = container.begin(|container| container.start_exec("e1"));
        gate.wait_until_reached();
        let image = world.path("image");
        let freezing = container.reconnected().begin(move |container| match operation {
            "pause" => container.pause(),
            _ => container.checkpoint(&image, false),
        });
        // Nothing tells that a request waits; what happens too early happens soon.
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            assert!(container.calls(operation).is_empty(), "{operation} doesn't wait");
            std::thread::sleep(Duration::from_millis(5));
        }
        gate.open();
        exec.answer().unwrap();
        freezing.answer().unwrap();
    }
}

fn two_containers_never_mix_their_images_in_one_folder(world: &World) {
    for (name, older, point) in
        [("a", false, "written"), ("b", true, "written"), ("c", false, "dumped"), ("d", true, "dumped")]
    {
        let image: PathBuf = world.path(name);
        if older {
            let container = world.container(&format!("older-{name}")).started();
            container.checkpoint(&image, true).unwrap();
        }
        let first = world
            .container(&format!("first-{name}"))
            .rule(Script::at("checkpoint", point), json!({"wait": "half"}))
            .started();
        let gate = Gate::new(&first.bundle.path, "half");
        let second = world.container(&format!("second-{name}")).started();
        let target = image.clone();
        let one = first.begin(move |container| container.checkpoint(&target, false));
        gate.wait_until_reached();
        let other = second.checkpoint(&image, false);
        gate.open();
        let one = one.answer();
        // Each was told the truth, and what lies there is one image and whole.
        assert!(one.is_ok() || other.is_ok(), "{one:?}, {other:?}");
        assert!(is_complete(&image), "{name}: {one:?}, {other:?}: {:?}", names(&image));
        let owner = manifest(&image).unwrap()["container"].as_str().unwrap().to_owned();
        let core = String::from_utf8_lossy(&fs::read(image.join("core-1.img")).unwrap()).into_owned();
        assert!(core.contains(&owner), "{name}: the manifest is {owner}'s, the memory isn't");
        let winner = if owner == first.id() { &one } else { &other };
        assert!(winner.is_ok(), "{name}: it holds {owner}, but {one:?}, {other:?}");
        unharmed(world, &first, false);
        unharmed(world, &second, false);
    }
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

/// The client goes while the dump lasts; it is finished, and the next caller learns so.
fn clients_that_leave() -> Vec<Test> {
    let mut tests = Vec::new();
    for leaves in [Leaves::HangsUp, Leaves::StopsWaiting] {
        for exit in [false, true] {
            let kind = if exit { "an_exit_checkpoint" } else { "a_checkpoint" };
            tests.push(Test::new(format!("checkpoint::a_client_that_{leaves}_during_{kind}_finds_it_done"), move |world| {
                let (container, gate) = at_gate(world.container("c1"), "checkpoint");
                container.create().unwrap();
                container.start().unwrap();
                let image = world.path("image");
                leaves.during(&container, "Checkpoint", &container.checkpoint_request(&image, exit), &gate);
                container.wait_for_event("checkpointed");
                until("the image is sealed", || is_complete(&image));
                if exit {
                    assert_eq!(container.wait().unwrap(), 137);
                } else {
                    unharmed(world, &container, false);
                }
            }));
            tests.push(Test::new(format!("checkpoint::a_client_that_{leaves}_during_{kind}_that_fails_finds_it_undone"), move |world| {
                let blueprint = world.container("c1").rule(Script::at("checkpoint", "dumped").nth(1), json!({"fail": "no"}));
                let (container, gate) = at_gate(blueprint, "checkpoint");
                container.create().unwrap();
                container.start().unwrap();
                let image = world.path("image");
                leaves.during(&container, "Checkpoint", &container.checkpoint_request(&image, exit), &gate);
                // The next one waits its turn, and gets what it asks for.
                container.checkpoint(&image, false).unwrap();
                assert_eq!(container.calls("checkpoint").len(), 2);
                assert!(is_complete(&image));
                unharmed(world, &container, false);
            }));
        }
    }
    tests
}

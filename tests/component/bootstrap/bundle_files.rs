//! What lies in a bundle: for containerd, for the stock shim, and for nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::daemon::started_in_shell;
use crate::harness::{Container, Dialect, Test, World, shim, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        a_bundle_holds_what_others_look_for,
        what_lies_in_a_bundle_is_for_root_only,
        nothing_else_is_left_in_a_bundle,
        the_options_are_kept_under_the_stock_shims_names,
        the_options_of_create_are_what_is_kept,
        the_address_is_written_in_every_language,
        the_configuration_is_never_touched,
    ]
}

fn text(container: &Container, name: &str) -> String {
    fs::read_to_string(container.path(name)).unwrap()
}

fn a_bundle_holds_what_others_look_for(world: &World) {
    let container = world.container("c1").boot();
    assert_eq!(text(&container, "address"), container.address);
    // From Create on, even if nothing comes after it.
    let pid = container.create().unwrap().pid;
    assert_eq!(text(&container, "init.pid").trim(), pid.to_string());
    assert_eq!(text(&container, "runtime"), "/run/bin/runc");
    assert_eq!(text(&container, "shim-binary-path"), shim().to_str().unwrap());
    let options: Value = serde_json::from_str(&text(&container, "options.json")).unwrap();
    assert_eq!(options, json!({ "binary_name": "/run/bin/runc" }));
}

/// The shim's own files; pid and log are made by others.
fn what_lies_in_a_bundle_is_for_root_only(world: &World) {
    let bundle = world.container("c1").program(["exit 0"]).lay_out();
    let container = started_in_shell(world, bundle, r#"umask 000; exec "$@""#);
    container.create().unwrap();
    container.start().unwrap();
    container.wait().unwrap();
    for name in ["address", "options.json", "runtime", "shim-binary-path", "exitstatus.json"] {
        let mode = fs::metadata(container.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
}

fn nothing_else_is_left_in_a_bundle(world: &World) {
    const OURS: [&str; 7] = [
        "address",
        "cryo-own-cgroup",
        "exitstatus.json",
        "init.pid",
        "options.json",
        "runtime",
        "shim-binary-path",
    ];
    let names = |container: &Container| {
        let entries = fs::read_dir(&container.bundle.path).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let container = world.container("c1").boot();
    let before = names(&container);
    container.create().unwrap();
    container.start().unwrap();
    container.kill(9).unwrap();
    container.wait().unwrap();
    container.delete().unwrap();
    let ours = |name: &String| OURS.contains(&&**name);
    let left = names(&container).into_iter().filter(|name| !before.contains(name) && !ours(name));
    // The runtime's list of its calls.
    assert_eq!(left.collect::<Vec<_>>(), ["calls"]);
}

fn the_options_are_kept_under_the_stock_shims_names(world: &World) {
    // Pipes can be given to users only that exist.
    let user = if world.can_be_others() { 7 } else { 0 };
    let container = world
        .container("c1")
        .crun()
        .options(|options| {
            options.no_pivot_root = true;
            options.root = "/run/elsewhere".into();
            (options.io_uid, options.io_gid) = (user, user);
        })
        .created();
    let options: Value = serde_json::from_str(&text(&container, "options.json")).unwrap();
    let mut expected =
        json!({ "no_pivot_root": true, "root": "/run/elsewhere", "binary_name": "/run/bin/crun" });
    if user != 0 {
        (expected["io_uid"], expected["io_gid"]) = (json!(user), json!(user));
    }
    assert_eq!(options, expected);
    assert_eq!(text(&container, "runtime"), "/run/bin/crun");
}

/// Those of `start` may be missing, or be the shim's alone.
fn the_options_of_create_are_what_is_kept(world: &World) {
    let mut bundle = world.container("c1").crun().lay_out();
    bundle.call.options = None;
    let container = Container::boot(world, bundle);
    assert!(!container.path("options.json").exists());
    container.create().unwrap();
    assert_eq!(text(&container, "runtime"), "/run/bin/crun");
}

fn the_address_is_written_in_every_language(world: &World) {
    for (id, dialect) in [("c1", Dialect::Plain), ("c2", Dialect::Json), ("c3", Dialect::Protobuf)] {
        let mut bundle = world.container(id).lay_out();
        bundle.call.dialect = dialect;
        let container = Container::boot(world, bundle);
        assert_eq!(text(&container, "address"), container.address);
    }
}

fn the_configuration_is_never_touched(world: &World) {
    let container = world.container("c1").networked().annotation("some.body", "else's").boot();
    let (path, image) = (container.path("config.json"), world.path("image"));
    let before = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    let untouched = |when: &str| {
        let now = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
        assert!(now == before, "changed by {when}");
    };
    container.create().unwrap();
    untouched("create");
    container.start().unwrap();
    untouched("start");
    container.update(b"{}").unwrap();
    untouched("update");
    container.checkpoint(&image, true).unwrap();
    untouched("checkpoint");
    container.delete().unwrap();
    untouched("delete");
}

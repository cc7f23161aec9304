//! Who may talk to a shim, and what the machine thinks of it: modes, OOM score, cgroup,
//! cores.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Pid, getpid};
use rustix::thread::{CoreSchedulingScope, core_scheduling_cookie};

use super::daemon::started_in_shell;
use super::{SOCKETS, nothing_started, refuses};
use crate::harness::process::{Knock, knock_as};
use crate::harness::{Bundle, Container, Dialect, Test, World, process, skip, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        the_socket_is_for_its_owner_only,
        a_stranger_is_not_heard,
        the_oom_score_is_one_above_containerds,
        the_shim_enters_the_cgroup_it_is_given,
        shims_share_no_core_if_containerd_says_so,
        a_kernel_that_can_not_keep_cores_apart_is_named,
    ]
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Whatever its caller leaves to others.
fn the_socket_is_for_its_owner_only(world: &World) {
    assert!(!Path::new(SOCKETS).exists());
    for (id, mask) in [("c1", "000"), ("c2", "022"), ("c3", "077")] {
        let bundle = world.container(id).lay_out();
        let container = started_in_shell(world, bundle, &format!(r#"umask {mask}; exec "$@""#));
        assert_eq!((mode(container.socket()), mode(SOCKETS)), (0o600, 0o700));
    }
    let mut bundle = world.container("c4").lay_out();
    bundle.call.dialect = Dialect::Protobuf;
    let folder = world.path("sockets");
    bundle.call.socket_folder = Some(folder.to_str().unwrap().to_owned());
    let container = started_in_shell(world, bundle, r#"umask 000; exec "$@""#);
    assert_eq!((mode(container.socket()), mode(folder)), (0o600, 0o700));
}

fn a_stranger_is_not_heard(world: &World) {
    if !world.can_be_others() {
        skip("there is only one user here");
    }
    let container = world.container("c1").boot();
    let socket = container.socket();
    assert_eq!(knock_as(0, 0, &socket), Knock::Answered);
    assert_eq!(knock_as(1000, 1000, &socket), Knock::KeptOut);
    // Even if somebody has opened the doors: both user and group have to be ours.
    fs::set_permissions(SOCKETS, Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
    for (user, group) in [(1000, 1000), (1000, 0), (0, 1000)] {
        assert_eq!(knock_as(user, group, &socket), Knock::Refused, "{user}:{group}");
    }
    assert_eq!(knock_as(0, 0, &socket), Knock::Answered);
    container.create().unwrap();
}

fn the_oom_score_is_one_above_containerds(world: &World) {
    let ours = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let ours: i32 = ours.trim().parse().unwrap();
    // Lower ones are root's to give; it is systemd that gives containerd -999.
    let low = fs::write("/proc/self/oom_score_adj", "-999").is_ok();
    fs::write("/proc/self/oom_score_adj", ours.to_string()).unwrap();
    let scores = [("c1", 1000, 1000), ("c2", 990, 991), ("c3", -999, -998)];
    for (id, containerds, expected) in scores.into_iter().filter(|(_, score, _)| low || *score > ours) {
        let bundle = world.container(id).lay_out();
        // That of the caller counts, whatever became of that of `start` itself.
        let script = format!(
            r#"echo {containerds} > /proc/$$/oom_score_adj
            (echo 995 > /proc/self/oom_score_adj; exec "$@")
            exit $?"#
        );
        let container = started_in_shell(world, bundle, &script);
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", container.shim)).unwrap();
        assert_eq!(score.trim(), expected.to_string());
    }
}

fn the_shim_enters_the_cgroup_it_is_given(world: &World) {
    if !world.has_cgroups() {
        skip("there are no cgroups for us here");
    }
    let folder = Path::new("/sys/fs/cgroup/shims");
    fs::create_dir(folder).unwrap();
    for (id, dialect) in [("c1", Dialect::Plain), ("c2", Dialect::Json), ("c3", Dialect::Protobuf)] {
        let mut bundle =
            world.container(id).options(|options| options.shim_cgroup = "/shims".into()).lay_out();
        bundle.call.dialect = dialect;
        let container = Container::boot(world, bundle);
        let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap();
        assert!(processes.lines().any(|pid| pid == container.shim.to_string()), "{processes}");
        // Its container has a cgroup of its own.
        container.create().unwrap();
        let containers = container.init_pid();
        let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap();
        assert!(processes.lines().all(|pid| pid != containers.to_string()), "{processes}");
    }
}

fn cookie(process: Pid) -> Option<u64> {
    core_scheduling_cookie(process, CoreSchedulingScope::Thread).ok()
}

fn told_to_keep_cores_apart(world: &World, id: &str, word: &str) -> Bundle {
    let mut bundle = world.container(id).lay_out();
    bundle.call.environment.push(("SCHED_CORE", word.into()));
    bundle
}

fn shims_share_no_core_if_containerd_says_so(world: &World) {
    let Some(ours) = cookie(getpid()) else { skip("this kernel or processor has no core scheduling") };
    let of = |container: &Container| cookie(Pid::from_raw(container.shim.cast_signed()).unwrap()).unwrap();
    let [first, second] =
        ["c1", "c2"].map(|id| of(&Container::boot(world, told_to_keep_cores_apart(world, id, "1"))));
    assert!(first != 0 && second != 0 && first != second && first != ours, "{first} {second} {ours}");
    assert_eq!(of(&Container::boot(world, told_to_keep_cores_apart(world, "c3", ""))), ours);
    assert_eq!(of(&world.container("c4").boot()), ours);
}

/// Going on without would break a promise.
fn a_kernel_that_can_not_keep_cores_apart_is_named(world: &World) {
    if cookie(getpid()).is_some() {
        skip("this kernel has core scheduling");
    }
    let bundle = told_to_keep_cores_apart(world, "c1", "1");
    refuses(&bundle.call.start(), &["core scheduling"]);
    nothing_started();
    // An empty word asks for nothing.
    let container = Container::boot(world, told_to_keep_cores_apart(world, "c2", ""));
    assert!(process::is_alive(container.shim));
}

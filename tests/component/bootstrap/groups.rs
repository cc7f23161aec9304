//! Which containers share a shim, and what a new one does about an old one's socket.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::{daemons, sockets};
use crate::harness::{Blueprint, Container, Dialect, Test, World, process, tests};

pub(super) fn tests() -> Vec<Test> {
    tests![
        a_second_start_for_a_group_starts_nothing,
        a_second_start_for_a_container_starts_nothing,
        groups_of_different_namespaces_have_nothing_in_common,
        containers_of_a_pod_have_shims_of_their_own,
        the_socket_of_a_dead_shim_is_replaced,
        a_file_in_the_place_of_the_socket_is_replaced,
    ]
}

fn of_group<'a>(world: &'a World, id: &str, group: &str) -> Blueprint<'a> {
    world.container(id).annotation("io.containerd.runc.v2.group", group)
}

fn a_second_start_for_a_group_starts_nothing(world: &World) {
    let first = of_group(world, "c1", "pod").boot();
    for (id, dialect) in [("c2", Dialect::Plain), ("c3", Dialect::Json), ("c4", Dialect::Protobuf)] {
        let mut bundle = of_group(world, id, "pod").lay_out();
        bundle.call.dialect = dialect;
        let address = bundle.call.start().address(dialect);
        assert_eq!(address, first.address);
        // containerd 1.6 and 1.7 look for it in each bundle.
        assert_eq!(fs::read_to_string(bundle.path.join("address")).unwrap(), address);
        let container = Container::at(world, bundle, address);
        assert_eq!(container.shim, first.shim);
        container.create().unwrap();
        assert_eq!(process::parent(container.init_pid()), first.shim);
    }
    assert_eq!(daemons(), [first.shim]);
    assert_eq!(sockets().len(), 1);
}

fn a_second_start_for_a_container_starts_nothing(world: &World) {
    let container = world.container("c1").started();
    let call = &container.bundle.call;
    assert_eq!(call.start().address(call.dialect), container.address);
    assert_eq!(daemons(), [container.shim]);
    assert!(process::is_alive(container.init_pid()));
}

fn groups_of_different_namespaces_have_nothing_in_common(world: &World) {
    let ours = of_group(world, "c1", "pod").boot();
    let theirs = of_group(world, "c1", "pod").namespace("other").boot();
    assert_ne!(ours.address, theirs.address);
    assert_ne!(ours.shim, theirs.shim);
    // A group that bears the name of a container is that container's shim.
    let guest = of_group(world, "c3", "pod").boot();
    let host = world.container("pod").boot();
    assert_eq!((guest.shim, host.shim), (ours.shim, ours.shim));
}

/// What the stock shim groups by is deliberately not enough (ARCHITECTURE.md).
fn containers_of_a_pod_have_shims_of_their_own(world: &World) {
    let of_pod = |id| world.container(id).annotation("io.kubernetes.cri.sandbox-id", "sandbox").boot();
    let (sandbox, container) = (of_pod("sandbox"), of_pod("c1"));
    assert_ne!(sandbox.address, container.address);
    assert_ne!(sandbox.shim, container.shim);
}

fn the_socket_of_a_dead_shim_is_replaced(world: &World) {
    let dead = of_group(world, "c1", "pod").started();
    dead.kill_shim();
    assert!(dead.socket().exists());
    let container = of_group(world, "c2", "pod").boot();
    assert_eq!(container.address, dead.address);
    assert_ne!(container.shim, dead.shim);
    container.create().unwrap();
    assert_eq!(daemons(), [container.shim]);
    // Before anybody looks for what the dead one has left at the same place.
    container.clean_up();
    container.expect_shim_gone();
}

/// One where nobody has ever listened, or something that isn't a socket at all.
fn a_file_in_the_place_of_the_socket_is_replaced(world: &World) {
    type Put = fn(&Path);
    let put: [Put; 2] =
        [|path| drop(UnixListener::bind(path).unwrap()), |path| fs::write(path, "no socket").unwrap()];
    for put in put {
        let place = world.container("c1").boot();
        place.kill_shim();
        fs::remove_file(place.socket()).unwrap();
        put(&place.socket());
        let call = &place.bundle.call;
        assert_eq!(call.start().address(call.dialect), place.address);
        let [daemon] = daemons()[..] else { panic!("not one shim runs") };
        assert_ne!(daemon, place.shim);
        process::kill(daemon, 15);
        process::wait_for_death(daemon);
        place.delete_after_death();
    }
}

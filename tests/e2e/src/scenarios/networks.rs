//! Restores in network namespaces of every kind.

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_server_in_the_hosts_network_answers_again).fifo_only(),
        scenario!(a_server_in_a_network_of_its_own_answers_again)
            .fifo_only()
            .cryo_only("with the stock shim the loopback device is down"),
        scenario!(the_loopback_device_is_up_after_a_restore)
            .fifo_only()
            .cryo_only("with the stock shim the loopback device is down"),
        scenario!(a_restore_gets_a_network_of_its_own).fifo_only(),
        scenario!(a_namespace_given_by_path_is_used_as_it_is),
        scenario!(another_namespace_may_be_given_at_the_restore).fifo_only(),
        scenario!(create_answers_with_a_pid_that_has_the_network)
            .cryo_only("the stock shim has nothing before Start"),
        scenario!(a_device_put_into_the_network_before_start_is_there_afterwards)
            .fifo_only()
            .cryo_only("the stock shim has nothing before Start"),
        scenario!(the_network_survives_a_second_generation)
            .fifo_only()
            .cryo_only("with the stock shim the loopback device is down"),
    ]
    .into_iter()
    .map(Scenario::restores)
    .collect()
}

/// What a server inside answers to a client beside it.
fn asks_server(task: &Task<'_>, port: &str) -> Outcome {
    let script = format!("echo hello | nc 127.0.0.1 {port}");
    ensure_eq!(task.output_of(&["/bin/sh", "-c", &script])?, "hello\n", "the server's answer");
    Ok(())
}

fn server_answers_again(plan: Blueprint<'_>, port: &str) -> Outcome {
    let task = plan.start()?;
    task.stdout().wait_for_line("ready")?;
    asks_server(&task, port)?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    asks_server(&again, port)?;
    again.end()
}

fn a_server_in_the_hosts_network_answers_again(bench: &Bench) -> Outcome {
    server_answers_again(bench.guest(&["listen", "7007"]).host_network(), "7007")
}

fn a_server_in_a_network_of_its_own_answers_again(bench: &Bench) -> Outcome {
    server_answers_again(bench.guest(&["listen", "80"]), "80")
}

fn the_loopback_device_is_up_after_a_restore(bench: &Bench) -> Outcome {
    let task = bench.run(&["loopback"])?;
    task.stdout().wait_for_line("ready")?;
    task.comes_back("up")
}

fn a_restore_gets_a_network_of_its_own(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let image = task.copy_image()?;
    let other = task.clone_from(&image).start()?;
    let hosts = network_namespace_of(bench.slot.daemon().pid().unwrap_or_default())?;
    ensure!(other.network_namespace()? != hosts, "it is in the host's network");
    ensure!(other.network_namespace()? != task.network_namespace()?, "it is in the first one's network");
    other.end()?;
    task.end()
}

fn a_namespace_given_by_path_is_used_as_it_is(bench: &Bench) -> Outcome {
    let namespace = bench.network_namespace()?;
    let task = bench.guest(&["loopback"]).network_namespace(&namespace).start()?;
    task.stdout().wait_for_text("ready")?;
    let before = task.network_namespace()?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    ensure_eq!(again.network_namespace()?, before, "its network namespace");
    again.asks(1, "up")?;
    again.end()?;
    bench.remove_network_namespace(&namespace)
}

fn another_namespace_may_be_given_at_the_restore(bench: &Bench) -> Outcome {
    let (first, second) = (bench.network_namespace()?, bench.network_namespace()?);
    let task = bench.guest(&["loopback"]).network_namespace(&first).start()?;
    task.stdout().wait_for_line("ready")?;
    let image = task.copy_image()?;
    let other = task.clone_from(&image).network_namespace(&second).start()?;
    ensure!(other.network_namespace()? != task.network_namespace()?, "it is in the first one's network");
    other.asks(1, "up")?;
    other.end()?;
    task.end()?;
    bench.remove_network_namespace(&first)?;
    bench.remove_network_namespace(&second)
}

fn create_answers_with_a_pid_that_has_the_network(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).create()?;
    let anchor = again.created_pid();
    ensure!(anchor != 0, "Create answered with no pid");
    ensure_eq!(again.pid()?, anchor, "the pid that the state tells");
    let network = network_namespace_of(anchor)?;
    let hosts = network_namespace_of(bench.slot.daemon().pid().unwrap_or_default())?;
    ensure!(network != hosts, "the pid is in the host's network");
    again.start()?;
    ensure!(again.pid()? != anchor, "the pid is still that of the anchor");
    ensure_eq!(again.network_namespace()?, network, "the network namespace after Start");
    again.end()
}

fn a_device_put_into_the_network_before_start_is_there_afterwards(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).create()?;
    // What Docker does between the two.
    let pid = again.created_pid().to_string();
    let script = "ip link add outer type veth peer name inner; ip link set inner netns \"$1\"; \
        nsenter --net=/proc/\"$1\"/ns/net sh -ec \
        'ip link set inner name eth0; ip addr add 10.9.8.7/24 dev eth0; ip link set eth0 up'";
    bench.shell(script, &[pid.as_ref()])?;
    again.start()?;
    let addresses = again.output_of(&["/bin/ip", "addr", "show", "eth0"])?;
    ensure!(addresses.contains("10.9.8.7/24"), "eth0 has {addresses:?}");
    again.end()
}

fn the_network_survives_a_second_generation(bench: &Bench) -> Outcome {
    let mut task = bench.run(&["loopback"])?;
    task.stdout().wait_for_line("ready")?;
    for _ in 0..3 {
        let image = task.end_as_image()?;
        task = task.again_from(&image).start()?;
        task.asks(1, "up")?;
    }
    task.end()
}

//! Docker's networks: a server that came back answers where it did before.

use std::path::Path;

use super::ready;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let no_ipv6 = |_: &Combination, _: &Settings| !Path::new("/proc/net/if_inet6").exists();
    vec![
        docker_scenario!(a_server_on_the_bridge_answers_again),
        docker_scenario!(its_address_is_what_docker_says),
        docker_scenario!(a_published_port_answers_again),
        docker_scenario!(without_a_network_loopback_is_up_again),
        docker_scenario!(a_server_in_the_hosts_network_answers_again),
        docker_scenario!(a_network_shared_with_another_container_is_found_again),
        docker_scenario!(others_find_it_by_name_again),
        docker_scenario!(it_finds_others_by_name_again),
        docker_scenario!(a_fixed_address_is_kept),
        docker_scenario!(a_fixed_address_of_version_6_is_kept).impossible_if(no_ipv6, "there is no IPv6"),
        docker_scenario!(two_networks_come_back),
        docker_scenario!(an_address_that_a_copy_lacks_is_named),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

/// What a server answers to a client outside of all containers.
#[track_caller]
fn answers(docker: &Docker<'_>, address: &str, port: &str) -> Outcome {
    let script = "echo hello | timeout 5 busybox nc \"$1\" \"$2\"";
    let answer = docker.bench.shell(script, &[address.as_ref(), port.as_ref()])?;
    ensure_eq!(answer, "hello\n", "the answer of {address}:{port}");
    Ok(())
}

const SERVER: [&str; 2] = ["listen", "80"];
const ADDRESS: &str = "range .NetworkSettings.Networks}}{{.IPAddress}}{{end";

fn a_server_on_the_bridge_answers_again(docker: &Docker<'_>) -> Outcome {
    let server = ready(docker, &[], &SERVER)?;
    answers(docker, &server.inspect(ADDRESS)?, "80")?;
    for generation in ["one", "two", "three"] {
        server.come_back(generation)?;
        answers(docker, &server.inspect(ADDRESS)?, "80")?;
    }
    server.rm()
}

fn its_address_is_what_docker_says(docker: &Docker<'_>) -> Outcome {
    let server = ready(docker, &[], &SERVER)?;
    server.checkpoint("one")?;
    // Takes the address that it had.
    let other = ready(docker, &[], &SERVER)?;
    server.start_from("one")?;
    let address = server.inspect(ADDRESS)?;
    let inside = server.exec(&["ip", "addr", "show", "eth0"])?;
    ensure!(inside.contains(&format!("inet {address}/")), "it is {address} and has {inside}");
    ensure_eq!(inside.matches("inet ").count(), 1, "addresses in {inside}");
    ensure!(other.inspect(ADDRESS)? != address, "two containers have {address}");
    let gateway = server.inspect("range .NetworkSettings.Networks}}{{.Gateway}}{{end")?;
    let routes = server.exec(&["ip", "route"])?;
    ensure!(routes.contains(&format!("default via {gateway}")), "it has the routes {routes}");
    server.exec(&["ping", "-c", "1", "-W", "5", &gateway])?;
    other.rm()?;
    server.rm()
}

fn a_published_port_answers_again(docker: &Docker<'_>) -> Outcome {
    let server = ready(docker, &["--publish", "8080:80"], &SERVER)?;
    let outside = || -> Outcome {
        // By dockerd's proxy, and by its firewall rules.
        answers(docker, "127.0.0.1", "8080")?;
        let gateway = server.inspect("range .NetworkSettings.Networks}}{{.Gateway}}{{end")?;
        answers(docker, &gateway, "8080")
    };
    outside()?;
    for generation in ["one", "two"] {
        server.come_back(generation)?;
        outside()?;
    }
    let ports = server.call(&["port"])?;
    ensure!(ports.contains("80/tcp -> 0.0.0.0:8080"), "docker port says {ports}");
    server.rm()
}

fn without_a_network_loopback_is_up_again(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &["--network", "none"], &["loopback"])?;
    container.come_back("one")?;
    container.asks(1, "up")?;
    let devices = container.exec(&["ip", "-o", "link"])?;
    ensure_eq!(devices.lines().count(), 1, "devices in {devices}");
    container.rm()
}

fn a_server_in_the_hosts_network_answers_again(docker: &Docker<'_>) -> Outcome {
    let server = ready(docker, &["--network", "host"], &["listen", "7008"])?;
    answers(docker, "127.0.0.1", "7008")?;
    server.come_back("one")?;
    answers(docker, "127.0.0.1", "7008")?;
    let here = std::fs::read_link(format!("/proc/{}/ns/net", server.pid()?))?;
    let hosts = network_namespace_of(docker.bench.slot.daemon().pid().unwrap_or_default())?;
    ensure_eq!(here, hosts, "its network namespace");
    server.rm()
}

fn a_network_shared_with_another_container_is_found_again(docker: &Docker<'_>) -> Outcome {
    let first = ready(docker, &[], &["listen", "81"])?;
    let shared = format!("container:{}", first.name);
    let second = ready(docker, &["--network", &shared], &SERVER)?;
    let address = first.inspect(ADDRESS)?;
    answers(docker, &address, "80")?;
    second.come_back("one")?;
    answers(docker, &address, "80")?;
    answers(docker, &address, "81")?;
    ensure_eq!(
        network_namespace_of(second.pid()?)?,
        network_namespace_of(first.pid()?)?,
        "the network namespace"
    );
    second.rm()?;
    answers(docker, &address, "81")?;
    first.rm()
}

fn hears(from: &Container<'_>, name: &str) -> Outcome {
    let answer = from.shell(&format!("echo hello | nc -w 5 {name} 80"))?;
    ensure_eq!(answer, "hello\n", "the answer of {name}");
    Ok(())
}

fn others_find_it_by_name_again(docker: &Docker<'_>) -> Outcome {
    let network = docker.network(&[])?;
    let server = ready(docker, &["--network", &network, "--network-alias", "alias"], &SERVER)?;
    let client = docker.run(&["--network", &network], &["guest", "idle"])?;
    hears(&client, "alias")?;
    server.come_back("one")?;
    for name in ["alias", &server.name] {
        hears(&client, name)?;
    }
    client.rm()?;
    server.rm()
}

fn it_finds_others_by_name_again(docker: &Docker<'_>) -> Outcome {
    let network = docker.network(&[])?;
    let server = ready(docker, &["--network", &network, "--network-alias", "alias"], &SERVER)?;
    let client = ready(docker, &["--network", &network], &["loopback"])?;
    hears(&client, "alias")?;
    for generation in ["one", "two"] {
        client.come_back(generation)?;
        hears(&client, "alias")?;
    }
    client.rm()?;
    server.rm()
}

fn a_fixed_address_is_kept(docker: &Docker<'_>) -> Outcome {
    let network = docker.network(&["--subnet", "10.77.0.0/24"])?;
    let server = ready(docker, &["--network", &network, "--ip", "10.77.0.99"], &SERVER)?;
    for generation in ["one", "two"] {
        server.come_back(generation)?;
        answers(docker, "10.77.0.99", "80")?;
    }
    server.rm()
}

fn a_fixed_address_of_version_6_is_kept(docker: &Docker<'_>) -> Outcome {
    let network = docker.network(&["--ipv6", "--subnet", "fd77::/64"])?;
    let options = ["--network", &network, "--ip6", "fd77::99"];
    let container = ready(docker, &options, &["loopback"])?;
    let addresses = || container.exec(&["ip", "-6", "addr", "show", "eth0"]);
    ensure!(addresses()?.contains("fd77::99/64"), "it had {}", addresses()?);
    container.come_back("one")?;
    ensure!(addresses()?.contains("fd77::99/64"), "it has {}", addresses()?);
    container.exec(&["ping", "-6", "-c", "1", "-W", "5", "fd77::1"])?;
    container.rm()
}

fn two_networks_come_back(docker: &Docker<'_>) -> Outcome {
    let (first, second) =
        (docker.network(&["--subnet", "10.77.0.0/24"])?, docker.network(&["--subnet", "10.78.0.0/24"])?);
    let server = docker.create(&["--network", &first, "--ip", "10.77.0.99"], &["guest", "listen", "80"])?;
    docker.call(&["network", "connect", "--ip", "10.78.0.99", &second, &server.name])?;
    server.start()?;
    server.wait_for_line("ready")?;
    server.come_back("one")?;
    answers(docker, "10.77.0.99", "80")?;
    answers(docker, "10.78.0.99", "80")?;
    server.rm()
}

fn an_address_that_a_copy_lacks_is_named(docker: &Docker<'_>) -> Outcome {
    let network = docker.network(&["--subnet", "10.77.0.0/24"])?;
    let command = ["httpd", "-f", "-p", "10.77.0.99:80"];
    let server = docker.run(&["--network", &network, "--ip", "10.77.0.99"], &command)?;
    let serves = || docker.bench.shell("busybox wget -qO- http://10.77.0.99/etc/passwd", &[]);
    eventually("it serves", || serves().ok())?;
    server.copy("one")?;
    let copy = docker.create(&["--network", &network, "--ip", "10.77.0.98"], &command)?;
    server.hand_over("one", &copy)?;
    let said = copy.start_refusal("one")?;
    super::names(&said, &["an address that a program listens on isn't there", "old IP address"])?;
    serves()?;
    copy.rm()?;
    server.come_back("two")?;
    serves()?;
    server.rm()
}

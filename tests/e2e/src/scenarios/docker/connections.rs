//! Open TCP connections: kept, closed or in the way, as the annotation says.

use super::{names, ready};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(a_connection_to_oneself_goes_on),
        docker_scenario!(a_connection_to_another_container_goes_on),
        docker_scenario!(a_connection_that_is_not_to_be_kept_is_closed),
        docker_scenario!(connections_are_closed_if_the_restore_says_so),
        docker_scenario!(an_open_connection_is_in_the_way_and_named),
        docker_scenario!(data_on_its_way_arrives),
    ]
}

const KEPT: &[&str] = &["--annotation", "cryo.tcp=established"];
const CLOSED: &[&str] = &["--annotation", "cryo.tcp=close"];

fn a_connection_to_oneself_goes_on(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, KEPT, &["connected"])?;
    container.asks(1, "passed")?;
    for (generation, times) in [("one", 2), ("two", 3)] {
        container.come_back(generation)?;
        container.asks(times, "passed")?;
    }
    container.rm()
}

fn a_connection_to_another_container_goes_on(docker: &Docker<'_>) -> Outcome {
    let network = docker.network(&["--subnet", "10.77.0.0/24"])?;
    let server = ready(docker, &["--network", &network, "--ip", "10.77.0.98"], &["listen", "80"])?;
    let options = [KEPT, &["--network", &network, "--ip", "10.77.0.99"]].concat();
    let client = ready(docker, &options, &["talk", "10.77.0.98", "80"])?;
    client.asks(1, "passed")?;
    for (generation, times) in [("one", 2), ("two", 3)] {
        client.come_back(generation)?;
        client.asks(times, "passed")?;
    }
    client.copy("three")?;
    client.asks(4, "passed")?;
    client.rm()?;
    server.rm()
}

fn a_connection_that_is_not_to_be_kept_is_closed(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, CLOSED, &["connected"])?;
    container.copy("one")?;
    container.asks(1, "passed")?;
    container.come_back("two")?;
    container.call(&["kill", "--signal", "USR1"])?;
    container.wait_for_lines(1, "broken: BrokenPipe")?;
    // No connection is left, so nothing is in the way of the next.
    container.come_back("three")?;
    container.rm()
}

fn connections_are_closed_if_the_restore_says_so(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, KEPT, &["connected"])?;
    container.checkpoint("one")?;
    let other = docker.create(CLOSED, &["guest", "connected"])?;
    container.hand_over("one", &other)?;
    other.start_from("one")?;
    other.call(&["kill", "--signal", "USR1"])?;
    other.wait_for_lines(1, "broken: BrokenPipe")?;
    other.rm()?;
    container.start_from("one")?;
    container.asks(1, "passed")?;
    container.rm()
}

fn an_open_connection_is_in_the_way_and_named(docker: &Docker<'_>) -> Outcome {
    for options in [&[][..], &["--annotation", "cryo.tcp=refuse"]] {
        let container = ready(docker, options, &["connected"])?;
        for _ in 0..2 {
            let said = container.checkpoint_refusal("one")?;
            names(&said, &["127.0.0.1:", "of guest (pid ", "cryo.tcp"])?;
        }
        container.asks(1, "passed")?;
        container.rm()?;
    }
    Ok(())
}

fn data_on_its_way_arrives(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, KEPT, &["stream"])?;
    container.asks(1, "flows")?;
    for times in 2..8 {
        container.come_back(&format!("round-{times}"))?;
        container.asks(times, "flows")?;
    }
    container.rm()
}

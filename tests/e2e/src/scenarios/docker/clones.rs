//! One checkpoint started in several containers.

use std::collections::BTreeSet;

use super::{counting, ready};
use crate::harness::*;

const ADDRESS: &str = "range .NetworkSettings.Networks}}{{.IPAddress}}{{end";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(copies_count_on_beside_the_first),
        docker_scenario!(a_copy_has_a_name_an_address_and_limits_of_its_own),
        docker_scenario!(a_copy_can_be_copied),
        docker_scenario!(a_copy_survives_the_first),
        docker_scenario!(twenty_copies_start_at_once).long(),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

/// Another container with a copy of the checkpoint, not started yet.
fn copy_of<'d>(first: &Container<'d>, options: &[&str]) -> Outcome<Container<'d>> {
    let other = first.docker.create(options, &["guest", "count"])?;
    first.hand_over("one", &other)?;
    Ok(other)
}

fn copies_count_on_beside_the_first(docker: &Docker<'_>) -> Outcome {
    let first = counting(docker, &[])?;
    first.copy("one")?;
    let (second, third) = (copy_of(&first, &[])?, copy_of(&first, &[])?);
    for copy in [&second, &third] {
        copy.start_from("one")?;
        copy.wait_for_counting(3)?;
        let counted = copy.counted()?;
        ensure!(first.counted()?.contains(counted.start()), "{} was not counted before", counted.start());
        ensure!(*counted.start() > 1, "it begins afresh");
        ensure_eq!(copy.exec(&["echo", "well"])?, "well\n", "what an exec prints");
    }
    for container in [first, second, third] {
        container.wait_for_counting(3)?;
        container.rm()?;
    }
    Ok(())
}

fn a_copy_has_a_name_an_address_and_limits_of_its_own(docker: &Docker<'_>) -> Outcome {
    let first = counting(docker, &["--memory", "64m", "--pids-limit", "50"])?;
    first.copy("one")?;
    let second = copy_of(&first, &["--memory", "48m", "--pids-limit", "40"])?;
    second.start_from("one")?;
    second.wait_for_counting(3)?;
    ensure_eq!(cgroup::processes(&second.cgroup()), [second.pid()?], "processes in its cgroup");
    ensure_eq!(cgroup::memory_limit(&second.cgroup())?, 48 << 20, "its memory limit");
    ensure_eq!(cgroup::pids_limit(&second.cgroup())?, 40, "its limit of processes");
    ensure_eq!(cgroup::memory_limit(&first.cgroup())?, 64 << 20, "the first one's memory limit");
    let own = second.inspect(ADDRESS)?;
    ensure!(own != first.inspect(ADDRESS)?, "both have {own}");
    let inside = second.exec(&["ip", "addr", "show", "eth0"])?;
    ensure!(inside.contains(&format!("inet {own}/")), "it is {own} and has {inside}");
    let name = &second.id[..12];
    ensure_eq!(second.exec(&["cat", "/etc/hostname"])?.trim(), name, "its name in the file");
    ensure_eq!(second.exec(&["hostname"])?.trim(), name, "its name");
    second.rm()?;
    first.is_well()?;
    first.rm()
}

fn a_copy_can_be_copied(docker: &Docker<'_>) -> Outcome {
    let first = counting(docker, &[])?;
    first.copy("one")?;
    let second = copy_of(&first, &[])?;
    second.start_from("one")?;
    second.wait_for_counting(3)?;
    docker.call(&["checkpoint", "rm", &second.name, "one"])?;
    second.copy("one")?;
    let third = copy_of(&second, &[])?;
    third.start_from("one")?;
    third.wait_for_counting(3)?;
    for container in [first, second, third] {
        container.rm()?;
    }
    Ok(())
}

fn a_copy_survives_the_first(docker: &Docker<'_>) -> Outcome {
    let first = counting(docker, &[])?;
    first.copy("one")?;
    let second = copy_of(&first, &[])?;
    second.start_from("one")?;
    first.rm()?;
    second.wait_for_counting(3)?;
    ensure_eq!(second.status()?, "running", "its status");
    second.come_back("two")?;
    second.wait_for_counting(3)?;
    second.rm()
}

fn twenty_copies_start_at_once(docker: &Docker<'_>) -> Outcome {
    let first = ready(docker, &[], &["tree", "2"])?;
    let image = super::policies::stored(docker, &first)?;
    super::policies::allow(docker, &image)?;
    let from = format!("cryo.restore-from={}", image.display());
    let copies = (0..20).map(|_| docker.create(&["--annotation", &from], &["true"]));
    let copies = copies.collect::<Outcome<Vec<_>>>()?;
    std::thread::scope(|scope| -> Outcome {
        let all: Vec<_> = copies.iter().map(|copy| scope.spawn(|| copy.start())).collect();
        all.into_iter().try_for_each(|start| start.join().map_err(|_| Failure::new("a thread panicked"))?)
    })?;
    let names: Vec<&str> = copies.iter().map(|copy| copy.name.as_str()).collect();
    docker.call(&[&["kill", "--signal", "USR1"], &names[..]].concat())?;
    let format = format!("{{{{{ADDRESS}}}}}");
    let told = docker.call(&[&["inspect", "--format", &format], &names[..]].concat())?;
    for (copy, address) in copies.iter().zip(told.lines()) {
        copy.wait_for_line("alive 2")?;
        let inside = copy.shell("hostname; ip -o -4 addr show eth0")?;
        let is_its_own = inside.starts_with(&copy.id[..12]) && inside.contains(&format!("inet {address}/"));
        ensure!(is_its_own, "it is {}, {address}, and has {inside}", copy.id);
    }
    let addresses: BTreeSet<&str> = told.lines().collect();
    ensure_eq!(addresses.len(), copies.len(), "different addresses");
    docker.call(&[&["rm", "--force"], &names[..]].concat())?;
    first.asks(1, "alive 2")?;
    first.rm()
}

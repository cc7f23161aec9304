//! Namespaces shared with another container: what can't be dumped is refused, and the
//! container goes on.

use super::counting;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(processes_of_another_container_are_no_obstacle_or_named),
        docker_scenario!(processes_of_the_host_are_no_obstacle_or_named),
        docker_scenario!(shared_memory_of_another_container_is_no_obstacle_or_named),
        docker_scenario!(who_shares_memory_comes_back_with_what_was_in_it),
        docker_scenario!(names_of_the_host_are_no_obstacle),
        docker_scenario!(shared_memory_of_the_host_is_no_obstacle_or_named),
        docker_scenario!(a_pid_that_is_taken_meanwhile_is_named),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

/// Either way it ends up running, and nobody else is touched.
fn comes_back_or_says_why(container: &Container<'_>, words: &[&str]) -> Outcome {
    let docker = container.docker;
    match docker.try_call(&["checkpoint", "create", &container.name, "one"])? {
        (0, _) => {
            container.wait_for_status("exited")?;
            container.start_from("one")?;
        }
        (_, said) => {
            let names_it = words.iter().any(|word| said.contains(word));
            ensure!(names_it && said.trim().lines().count() == 1, "the refusal is {said:?}");
            container.wait_for_status("running")?;
        }
    }
    container.is_well()
}

fn processes_of_another_container_are_no_obstacle_or_named(docker: &Docker<'_>) -> Outcome {
    let first = counting(docker, &[])?;
    let second = counting(docker, &["--pid", &format!("container:{}", first.name)])?;
    comes_back_or_says_why(&second, &["PID namespace", "pid namespace"])?;
    first.is_well()?;
    second.rm()?;
    first.is_well()?;
    first.rm()
}

fn processes_of_the_host_are_no_obstacle_or_named(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--pid", "host"])?;
    comes_back_or_says_why(&container, &["PID namespace", "pid namespace"])?;
    container.rm()
}

fn shared_memory_of_another_container_is_no_obstacle_or_named(docker: &Docker<'_>) -> Outcome {
    let first = counting(docker, &["--ipc", "shareable"])?;
    first.shell("echo shared >/dev/shm/file")?;
    let second = counting(docker, &["--ipc", &format!("container:{}", first.name)])?;
    comes_back_or_says_why(&second, &["IPC namespace", "ipc namespace"])?;
    ensure_eq!(second.exec(&["cat", "/dev/shm/file"])?, "shared\n", "the file");
    first.is_well()?;
    second.rm()?;
    first.rm()
}

fn who_shares_memory_comes_back_with_what_was_in_it(docker: &Docker<'_>) -> Outcome {
    // CRIU opens the file again, at the same place and of the same size.
    let script = "echo shared >/dev/shm/file; exec 7</dev/shm/file; exec guest count";
    let first = docker.run(&["--ipc", "shareable"], &["sh", "-c", script])?;
    // Docker unmounts it when the container stops, whatever shim it runs on.
    first.come_back("one")?;
    ensure_eq!(first.exec(&["cat", "/dev/shm/file"])?, "shared\n", "the file");
    first.is_well()?;
    first.rm()
}

fn names_of_the_host_are_no_obstacle(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--uts", "host"])?;
    comes_back_or_says_why(&container, &["UTS namespace", "uts namespace"])?;
    let here = docker.bench.shell("hostname", &[])?;
    ensure_eq!(container.exec(&["hostname"])?, here, "its name");
    container.rm()
}

fn shared_memory_of_the_host_is_no_obstacle_or_named(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--ipc", "host"])?;
    comes_back_or_says_why(&container, &["IPC namespace", "ipc namespace"])?;
    container.rm()
}

/// Whoever shares its processes has started one meanwhile that got its pid.
fn a_pid_that_is_taken_meanwhile_is_named(docker: &Docker<'_>) -> Outcome {
    // A shell asks for the status of whoever is left to it.
    let first = docker.run(&[], &["sh", "-c", "guest count; true"])?;
    let second = counting(docker, &["--pid", &format!("container:{}", first.name)])?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", second.pid()?))?;
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let pid = pids.split_whitespace().last().unwrap_or_default();
    second.checkpoint("one")?;
    let script = "echo $(($2 - 1)) >/proc/sys/kernel/ns_last_pid; sleep 1000 >/dev/null 2>&1 & echo $!";
    let enter = format!("nsenter --target $1 --pid sh -c '{script}' sh $1 $2");
    let taken = docker.bench.shell(&enter, &[first.pid()?.to_string().as_ref(), pid.as_ref()])?;
    ensure_eq!(taken.trim(), pid, "the pid of the other process");
    let said = second.start_refusal("one")?;
    super::names(&said, &["process ids of the checkpoint are taken", "pid namespace of its own"])?;
    docker
        .bench
        .shell("nsenter --target $1 --pid kill $2", &[first.pid()?.to_string().as_ref(), pid.as_ref()])?;
    second.start_from("one")?;
    second.is_well()?;
    second.rm()?;
    first.is_well()?;
    first.rm()
}

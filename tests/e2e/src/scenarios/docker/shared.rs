//! Namespaces shared with another container: what can't be dumped is refused, and the
//! container goes on.

use super::counting;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(processes_of_another_container_are_no_obstacle_or_named),
        docker_scenario!(processes_of_the_host_are_no_obstacle_or_named),
        docker_scenario!(shared_memory_of_another_container_is_no_obstacle_or_named),
        docker_scenario!(who_shares_memory_comes_back_with_an_empty_one),
        docker_scenario!(names_of_the_host_are_no_obstacle),
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

fn who_shares_memory_comes_back_with_an_empty_one(docker: &Docker<'_>) -> Outcome {
    let first = counting(docker, &["--ipc", "shareable"])?;
    first.shell("echo shared >/dev/shm/file")?;
    first.come_back("one")?;
    // Docker unmounts it when the container stops, whatever shim it runs on.
    ensure_eq!(first.exec(&["ls", "/dev/shm"])?, "", "what is left in it");
    first.shell("echo again >/dev/shm/file")?;
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

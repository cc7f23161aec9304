//! Terminals and stdin over a restore, by `docker attach`.

use std::fs::File;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{back, counting};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(without_stdin_it_has_none_afterwards),
        docker_scenario!(stdin_reaches_it_again),
        docker_scenario!(stdin_can_be_ended_after_a_restore),
        docker_scenario!(text_it_has_not_read_yet_is_not_lost),
        docker_scenario!(a_closed_stdin_stays_closed),
        docker_scenario!(its_terminal_is_one_again_and_can_be_resized),
        docker_scenario!(a_shell_remembers_what_it_was_told),
        docker_scenario!(detaching_by_keys_leaves_it_running),
        docker_scenario!(a_terminal_passes_control_c_again),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

fn without_stdin_it_has_none_afterwards(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    ensure_eq!(container.exec(&["readlink", "/proc/1/fd/0"])?, "/dev/null\n", "its stdin");
    container.is_well()?;
    container.rm()
}

fn echoing<'d>(docker: &'d Docker<'_>) -> Outcome<Container<'d>> {
    let container = docker.run(&["-i"], &["guest", "echo"])?;
    container.wait_for_line("ready")?;
    Ok(container)
}

fn stdin_reaches_it_again(docker: &Docker<'_>) -> Outcome {
    let container = echoing(docker)?;
    let attached = container.attach()?;
    attached.write(b"before\n")?;
    attached.output.wait_for_line("heard before")?;
    for generation in ["one", "two"] {
        container.come_back(generation)?;
        let attached = container.attach()?;
        attached.write(format!("{generation}\n").as_bytes())?;
        attached.output.wait_for_line(&format!("heard {generation}"))?;
    }
    container.rm()
}

/// Docker passes an end of stdin on if the container was made to be attached to once.
fn stdin_can_be_ended_after_a_restore(docker: &Docker<'_>) -> Outcome {
    let container = docker.create(&["-i"], &["guest", "echo"])?;
    container.start()?;
    container.wait_for_line("ready")?;
    container.come_back("one")?;
    let attached = container.attach()?;
    attached.write(b"after\n")?;
    attached.output.wait_for_line("heard after")?;
    attached.close_stdin();
    attached.output.wait_for_line("EOF")?;
    ensure_eq!(attached.wait()?, 0, "the status of attach");
    container.rm()
}

fn has_unread_input(container: &Container<'_>) -> Outcome<bool> {
    let stdin = File::open(format!("/proc/{}/fd/0", container.pid()?))?;
    let mut waited = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut waited, PollTimeout::ZERO)? == 1)
}

fn text_it_has_not_read_yet_is_not_lost(docker: &Docker<'_>) -> Outcome {
    let container = docker.run(&["-i"], &["guest", "deaf"])?;
    container.wait_for_line("deaf")?;
    let attached = container.attach()?;
    attached.write(b"kept\n")?;
    eventually("it could read", || has_unread_input(&container).ok().filter(|yes| *yes))?;
    container.come_back("one")?;
    container.asks(1, "heard kept")?;
    container.rm()
}

fn a_closed_stdin_stays_closed(docker: &Docker<'_>) -> Outcome {
    // A program in Rust would open something in its place.
    let script = "exec <&-; n=0; while true; do n=$((n + 1)); echo $n; sleep 0.02; done";
    let container = docker.run(&["-i"], &["sh", "-c", script])?;
    container.wait_for_counting(3)?;
    let has_stdin = || container.shell("test -e /proc/1/fd/0 && echo open || echo closed");
    ensure_eq!(has_stdin()?, "closed\n", "its stdin before");
    container.come_back("one")?;
    ensure_eq!(has_stdin()?, "closed\n", "its stdin afterwards");
    container.is_well()?;
    container.rm()
}

fn its_terminal_is_one_again_and_can_be_resized(docker: &Docker<'_>) -> Outcome {
    let container = docker.run(&["-t"], &["guest", "tty"])?;
    let first = || container.logs().ok().filter(|text| text.contains("stdout true")).map(drop);
    eventually("it has told", first)?;
    container.come_back("one")?;
    for (rows, columns) in [(33, 99), (44, 111)] {
        let attached = container.attach_terminal(rows, columns)?;
        let wanted = format!("stdin true stdout true size {rows}x{columns}");
        attached.output.wait_for_text(&wanted)?;
    }
    container.rm()
}

fn shell<'d>(docker: &'d Docker<'_>) -> Outcome<Container<'d>> {
    let container = docker.run(&["-it"], &["sh"])?;
    let attached = container.attach_terminal(40, 100)?;
    attached.write(b"remembered=$((6 * 7))\necho to-$remembered\n")?;
    attached.output.wait_for_text("to-42")?;
    Ok(container)
}

fn a_shell_remembers_what_it_was_told(docker: &Docker<'_>) -> Outcome {
    let container = shell(docker)?;
    for generation in ["one", "two"] {
        container.come_back(generation)?;
        let attached = container.attach_terminal(40, 100)?;
        attached.write(b"echo still-$remembered\n")?;
        attached.output.wait_for_text("still-42")?;
    }
    let attached = container.attach_terminal(40, 100)?;
    attached.write(b"exit 5\n")?;
    ensure_eq!(attached.wait()?, 5, "the status of attach");
    ensure_eq!(container.wait()?, 5, "the status of the shell");
    container.rm()
}

fn detaching_by_keys_leaves_it_running(docker: &Docker<'_>) -> Outcome {
    let container = shell(docker)?;
    container.come_back("one")?;
    let attached = container.attach_terminal(40, 100)?;
    attached.write(b"echo still-$remembered\n")?;
    attached.output.wait_for_text("still-42")?;
    attached.write(b"\x10\x11")?;
    attached.output.wait_for_text("read escape sequence")?;
    ensure_eq!(attached.wait()?, 1, "the status of attach");
    ensure_eq!(container.status()?, "running", "afterwards");
    container.come_back("two")?;
    ensure_eq!(container.status()?, "running", "after another restore");
    container.rm()
}

fn a_terminal_passes_control_c_again(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["-it"])?;
    container.come_back("one")?;
    let attached = container.attach_terminal(40, 100)?;
    attached.output.wait_for_counting(3)?;
    // The first process of a container is spared by signals that it doesn't handle.
    let exec = Attached::by_terminal(docker, &["exec", "-it", &container.name, "guest", "count"], 40, 100)?;
    exec.output.wait_for_counting(3)?;
    exec.write(b"\x03")?;
    ensure_eq!(exec.wait()?, 130, "the status of exec");
    container.is_well()?;
    container.rm()
}

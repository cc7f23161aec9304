//! A container that came back takes every command of Docker like any other.

use super::{back, names, ready};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(wait_gives_the_programs_own_status),
        docker_scenario!(stop_lets_it_end_by_itself),
        docker_scenario!(kill_ends_it),
        docker_scenario!(restart_begins_afresh),
        docker_scenario!(it_pauses_and_goes_on),
        docker_scenario!(an_exec_tells_its_status),
        docker_scenario!(an_exec_reads_stdin),
        docker_scenario!(an_exec_may_have_a_terminal),
        docker_scenario!(what_an_exec_left_behind_comes_back_or_is_named),
        docker_scenario!(who_starts_programs_all_the_time_comes_back),
        docker_scenario!(who_never_gets_to_its_program_is_named),
        docker_scenario!(execs_go_on_over_a_copy_and_end_with_a_checkpoint),
        docker_scenario!(top_and_stats_know_it),
        docker_scenario!(its_memory_limit_can_be_changed),
        docker_scenario!(files_are_copied_in_and_out),
        docker_scenario!(attach_hears_it),
        docker_scenario!(logs_follow_it),
        docker_scenario!(it_can_be_renamed_and_found),
        docker_scenario!(removing_it_while_it_runs_leaves_nothing),
        docker_scenario!(a_policy_restarts_it_when_it_fails),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

/// It names signals, and ends by TERM with 42.
fn reporting<'d>(docker: &'d Docker<'_>, options: &[&str]) -> Outcome<Container<'d>> {
    let container = ready(docker, options, &["signals"])?;
    container.come_back("one")?;
    Ok(container)
}

fn wait_gives_the_programs_own_status(docker: &Docker<'_>) -> Outcome {
    let container = reporting(docker, &[])?;
    let waiting = Attached::by_pipes(docker, &["wait", &container.name])?;
    container.call(&["kill", "--signal", "TERM"])?;
    ensure_eq!(waiting.wait()?, 0, "the status of docker wait");
    waiting.output.wait_for_line("42")?;
    container.wait_for_status("exited")?;
    ensure_eq!(container.inspect(".State.ExitCode")?, "42", "the exit code");
    container.rm()
}

fn stop_lets_it_end_by_itself(docker: &Docker<'_>) -> Outcome {
    let container = reporting(docker, &[])?;
    container.call(&["stop"])?;
    ensure_eq!(container.status()?, "exited", "after the stop");
    ensure_eq!(container.inspect(".State.ExitCode")?, "42", "the exit code");
    container.rm()
}

fn kill_ends_it(docker: &Docker<'_>) -> Outcome {
    let container = reporting(docker, &[])?;
    container.call(&["kill", "--signal", "HUP"])?;
    container.wait_for_line("SIGHUP")?;
    container.call(&["kill"])?;
    container.wait_for_status("exited")?;
    ensure_eq!(container.inspect(".State.ExitCode")?, "137", "the exit code");
    container.rm()
}

fn restart_begins_afresh(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    container.call(&["restart", "--time", "0"])?;
    container.wait_for_lines(2, "3")?;
    ensure_eq!(container.status()?, "running", "after the restart");
    container.rm()
}

fn it_pauses_and_goes_on(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    container.call(&["pause"])?;
    ensure_eq!(container.status()?, "paused", "after pause");
    container.call(&["unpause"])?;
    container.is_well()?;
    container.rm()
}

fn an_exec_tells_its_status(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    let (status, text) = docker.try_call(&["exec", &container.name, "guest", "exit", "7"])?;
    ensure_eq!(status, 7, "the status of exec, which says {text:?}");
    container.is_well()?;
    container.rm()
}

fn an_exec_reads_stdin(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    let exec = Attached::by_pipes(docker, &["exec", "-i", &container.name, "guest", "echo"])?;
    exec.output.wait_for_line("ready")?;
    exec.write(b"there\n")?;
    exec.output.wait_for_line("heard there")?;
    exec.close_stdin();
    exec.output.wait_for_line("EOF")?;
    ensure_eq!(exec.wait()?, 0, "its status");
    container.rm()
}

fn an_exec_may_have_a_terminal(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    let exec = Attached::by_terminal(docker, &["exec", "-it", &container.name, "guest", "tty"], 31, 97)?;
    exec.output.wait_for_text("stdin true stdout true size 31x97")?;
    exec.write(b"\x03")?;
    ensure_eq!(exec.wait()?, 130, "its status after control and C");
    container.is_well()?;
    container.rm()
}

/// The first process is in a time namespace that CRIU made for it, and runc 1.1 puts an exec
/// into that of the host, from where it can't be restored.
fn what_an_exec_left_behind_comes_back_or_is_named(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    container.shell("setsid guest idle </dev/null >/dev/null 2>&1 &")?;
    let left = || container.call(&["top"]).ok().filter(|text| text.contains("guest idle")).map(drop);
    eventually("it has started", left)?;
    let leaves_it_out = docker.bench.runtime() == Runtime::Runc && settings().containerd < Version(2, 0);
    if leaves_it_out {
        let refusal = container.checkpoint_refusal("two")?;
        ensure!(refusal.contains("guest (pid ") && refusal.contains("left behind by an exec"), "{refusal}");
    } else {
        container.come_back("two")?;
        ensure!(left().is_some(), "it is gone");
    }
    container.is_well()?;
    container.rm()
}

/// CRIU can't stop a parent between vfork and exec, where this one is most of the time.
fn who_starts_programs_all_the_time_comes_back(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &[], &["hold", "spawning"])?;
    for checkpoint in ["one", "two", "three"] {
        container.come_back(checkpoint)?;
    }
    container.asks(1, "same")?;
    container.rm()
}

fn who_never_gets_to_its_program_is_named(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &[], &["hold", "vfork"])?;
    names(&container.checkpoint_refusal("one")?, &["guest (pid ", "between vfork and exec"])?;
    container.asks(1, "same")?;
    container.rm()
}

fn execs_go_on_over_a_copy_and_end_with_a_checkpoint(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    let plain = Attached::by_pipes(docker, &["exec", "-i", &container.name, "guest", "echo"])?;
    let terminal = Attached::by_terminal(docker, &["exec", "-it", &container.name, "sh"], 40, 100)?;
    plain.output.wait_for_line("ready")?;
    terminal.write(b"remembered=$((6 * 7)); echo ready-$remembered\n")?;
    terminal.output.wait_for_text("ready-42")?;
    container.copy("two")?;
    plain.write(b"still\n")?;
    plain.output.wait_for_line("heard still")?;
    terminal.write(b"echo still-$remembered\n")?;
    terminal.output.wait_for_text("still-42")?;
    container.come_back("three")?;
    for exec in [plain, terminal] {
        ensure_eq!(exec.wait()?, 137, "the status of exec");
    }
    let sessions = container.inspect(".ExecIDs")?;
    ensure!(["[]", "<nil>"].contains(&sessions.as_str()), "it knows {sessions} still");
    container.is_well()?;
    container.rm()
}

fn top_and_stats_know_it(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &["--memory", "64m"])?;
    let top = container.call(&["top"])?;
    ensure!(top.contains("guest count"), "docker top says {top:?}");
    let stats = container.call(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}"])?;
    ensure!(stats.contains("/ 64MiB") && stats.trim_end().ends_with(" 1"), "docker stats says {stats:?}");
    container.rm()
}

fn its_memory_limit_can_be_changed(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &["--memory", "64m"])?;
    container.call(&["update", "--memory", "48m", "--memory-swap", "48m"])?;
    ensure_eq!(cgroup::memory_limit(&container.cgroup())?, 48 << 20, "the limit");
    container.is_well()?;
    container.rm()
}

fn files_are_copied_in_and_out(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    let folder = docker.bench.fresh_folder("copy")?;
    let (here, back_here) = (folder.join("here"), folder.join("back"));
    std::fs::write(&here, "copied")?;
    docker.call(&["cp", &here.display().to_string(), &format!("{}:/root/there", container.name)])?;
    ensure_eq!(container.exec(&["cat", "/root/there"])?, "copied", "the file inside");
    docker.call(&["cp", &format!("{}:/root/there", container.name), &back_here.display().to_string()])?;
    ensure_eq!(std::fs::read_to_string(back_here)?, "copied", "the file outside");
    container.rm()
}

fn attach_hears_it(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    let attached = container.attach()?;
    attached.output.wait_for_counting(5)?;
    container.call(&["kill"])?;
    ensure_eq!(attached.wait()?, 137, "the status of attach");
    attached.output.counted()?;
    container.rm()
}

fn logs_follow_it(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    let following = Attached::by_pipes(docker, &["logs", "--follow", &container.name])?;
    following.output.wait_for_counting(5)?;
    container.checkpoint("two")?;
    ensure_eq!(following.wait()?, 0, "the status of logs, which says {:?}", following.errors());
    ensure_eq!(following.output.counted()?, container.counted()?, "what was followed");
    container.rm()
}

fn it_can_be_renamed_and_found(docker: &Docker<'_>) -> Outcome {
    let mut container = back(docker, &["--label", "kept=yes"])?;
    let renamed = format!("{}-renamed", container.name);
    docker.call(&["rename", &container.name, &renamed])?;
    container.name = renamed;
    let found = docker.call(&["ps", "--filter", "label=kept=yes", "--format", "{{.Names}}"])?;
    ensure_eq!(found.trim(), container.name, "docker ps");
    container.come_back("two")?;
    container.is_well()?;
    container.rm()
}

fn removing_it_while_it_runs_leaves_nothing(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &[], &["tree", "5"])?;
    container.come_back("one")?;
    container.rm()?;
    ensure_eq!(cgroup::processes(&container.cgroup()), [0; 0], "its processes");
    ensure!(!container.folder().exists(), "its folder is still there");
    Ok(())
}

fn a_policy_restarts_it_when_it_fails(docker: &Docker<'_>) -> Outcome {
    let container = ready(docker, &["--restart", "on-failure:1"], &["signals"])?;
    // Docker takes the end by a checkpoint for a failure, and what was stopped for stopped.
    container.copy("one")?;
    container.call(&["stop"])?;
    container.start_from("one")?;
    let count = || container.inspect(".RestartCount").ok().filter(|count| count == "1").map(drop);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(container.pid()? as i32), TERMINATE)?;
    eventually("it is restarted", count)?;
    container.wait_for_lines(2, "ready")?;
    container.rm()
}

const TERMINATE: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGTERM;

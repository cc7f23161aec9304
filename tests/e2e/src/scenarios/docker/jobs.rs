//! What people do at a terminal, over a restore: bash with its jobs, an editor, tmux.

use super::names;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(a_stopped_job_comes_back_or_is_named),
        docker_scenario!(the_job_in_front_hears_of_sizes_and_control_c),
        docker_scenario!(an_editor_goes_on_in_the_middle_of_a_word),
        docker_scenario!(tmux_goes_on_with_its_shells),
    ]
    .into_iter()
    .map(|scenario| scenario.comes_back().with_workloads())
    .collect()
}

/// A shell at a terminal, which has answered.
fn bash<'d>(docker: &'d Docker<'_>) -> Outcome<(Container<'d>, Attached)> {
    let container = docker.run_workload(&["-it", "-e", "TERM=xterm"], &["bash", "--norc"])?;
    let attached = container.attach_terminal(40, 100)?;
    // Otherwise it marks where its answers begin.
    attached.write(b"bind 'set enable-bracketed-paste off'\n")?;
    attached.write(b"remembered=$((6 * 7)); echo ready-$remembered\n")?;
    attached.output.wait_for_text("ready-42")?;
    Ok((container, attached))
}

fn a_stopped_job_comes_back_or_is_named(docker: &Docker<'_>) -> Outcome {
    let (container, mut attached) = bash(docker)?;
    attached.write(b"sed -u s/^/got-/\nheard\n")?;
    attached.output.wait_for_line("got-heard")?;
    attached.write(b"\x1a")?;
    attached.output.wait_for_text("Stopped")?;
    if cgroup::is_v2() {
        container.come_back("one")?;
        attached = container.attach_terminal(40, 100)?;
        attached.write(b"jobs\n")?;
        attached.output.wait_for_text("Stopped")?;
    } else {
        let said = container.checkpoint_refusal("one")?;
        names(&said, &["sed (pid ", "is stopped", "SIGCONT"])?;
    }
    attached.write(b"fg\nagain\n")?;
    attached.output.wait_for_line("got-again")?;
    container.come_back("two")?;
    let attached = container.attach_terminal(40, 100)?;
    attached.write(b"still\n")?;
    attached.output.wait_for_line("got-still")?;
    attached.write(b"\x03")?;
    attached.output.wait_for_text("# ")?;
    attached.write(b"echo status-$?\n")?;
    attached.output.wait_for_line("status-130")?;
    container.rm()
}

fn the_job_in_front_hears_of_sizes_and_control_c(docker: &Docker<'_>) -> Outcome {
    let (container, attached) = bash(docker)?;
    // A signal that comes during its own trap may be lost; this tells of the last one, too.
    let job = "trap heard=1 WINCH; trap 'exit 7' INT; echo in-$remembered; while sleep 0.1; do \
        [ -z \\$heard ] || { heard=; stty size; }; done";
    attached.write(format!("export remembered; bash -c \"{job}\"; echo status-$?\n").as_bytes())?;
    attached.output.wait_for_line("in-42")?;
    for (generation, rows, columns) in [("one", 33, 99), ("two", 44, 111)] {
        container.come_back(generation)?;
        let attached = container.attach_terminal(rows, columns)?;
        attached.output.wait_for_line(&format!("{rows} {columns}"))?;
    }
    let attached = container.attach_terminal(45, 112)?;
    // Only then does the key go further than docker's own terminal.
    attached.output.wait_for_line("45 112")?;
    attached.write(b"\x03")?;
    attached.output.wait_for_text("status-7")?;
    attached.write(b"exit 5\n")?;
    ensure_eq!(container.wait()?, 5, "the status of the shell");
    container.rm()
}

fn an_editor_goes_on_in_the_middle_of_a_word(docker: &Docker<'_>) -> Outcome {
    let (container, attached) = bash(docker)?;
    attached.write(b"vim.tiny -u NONE /tmp/text\n")?;
    attached.output.wait_for_text("/tmp/text\" [New")?;
    attached.write(b"ihalf a wo")?;
    attached.output.wait_for_text("half a wo")?;
    container.come_back("one")?;
    let attached = container.attach_terminal(33, 99)?;
    // It draws everything again for the new size.
    attached.output.wait_for_text("half a wo")?;
    attached.write(b"rd\x1b:wq\r")?;
    attached.output.wait_for_text("# ")?;
    attached.write(b"echo still-$remembered\n")?;
    attached.output.wait_for_line("still-42")?;
    ensure_eq!(container.exec(&["cat", "/tmp/text"])?, "half a word\n", "the file");
    container.rm()
}

fn tmux_goes_on_with_its_shells(docker: &Docker<'_>) -> Outcome {
    let (container, attached) = bash(docker)?;
    // Otherwise it takes keys that come together for a text that is pasted.
    attached.write(b"tmux -f /dev/null new \\; set -g assume-paste-time 0\n")?;
    // The line of status.
    attached.output.wait_for_text("[0] 0:")?;
    attached.write(b"inner=$((7 * 8)); echo one-$inner\n")?;
    attached.output.wait_for_text("one-56")?;
    attached.write(b"\x02c")?;
    attached.output.wait_for_text("1:bash")?;
    attached.write(b"inner=$((7 * 9)); echo two-$inner\n")?;
    attached.output.wait_for_text("two-63")?;
    for generation in ["one", "two"] {
        container.come_back(generation)?;
        let attached = container.attach_terminal(33, 99)?;
        attached.write(format!("echo {generation}-back-$inner\n").as_bytes())?;
        attached.output.wait_for_text(&format!("{generation}-back-63"))?;
    }
    let attached = container.attach_terminal(40, 100)?;
    attached.write(b"\x020")?;
    attached.write(b"echo first-$inner\n")?;
    attached.output.wait_for_text("first-56")?;
    attached.write(b"\x02d")?;
    attached.output.wait_for_text("[detached")?;
    attached.write(b"echo outside-$remembered\n")?;
    attached.output.wait_for_text("outside-42")?;
    container.rm()
}

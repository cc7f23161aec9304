//! Programs added to containers, and streams.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::guests_in;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        kube_scenario!(a_probe_tells_status_and_both_streams),
        kube_scenario!(a_probe_that_takes_too_long_is_ended),
        kube_scenario!(a_probe_may_say_a_lot),
        kube_scenario!(a_probe_of_a_missing_program_is_refused),
        kube_scenario!(a_container_that_is_not_running_takes_no_probe),
        kube_scenario!(many_probes_at_once_are_answered),
        kube_scenario!(a_probe_leaves_nothing_in_the_container),
        kube_scenario!(an_added_program_has_streams),
        kube_scenario!(an_added_program_may_have_a_terminal),
        kube_scenario!(an_added_program_hears_that_its_client_went_away),
        kube_scenario!(an_added_program_ends_with_its_container),
        kube_scenario!(who_attaches_sees_what_comes_from_then_on),
        kube_scenario!(who_attaches_can_write),
        kube_scenario!(a_terminal_can_be_attached_to),
        kube_scenario!(input_ends_when_the_first_client_goes_if_that_was_asked_for),
    ]
}

fn a_probe_tells_status_and_both_streams(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    for code in [0, 1, 126, 255] {
        let command = format!("echo out; echo err >&2; exit {code}");
        let answer = kubelet.cri().exec_sync(&container.id, &["/bin/sh", "-c", &command], 10)?;
        ensure_eq!(answer.exit_code, code, "the exit code");
        ensure_eq!(answer.stdout, b"out\n", "stdout");
        ensure_eq!(answer.stderr, b"err\n", "stderr");
    }
    let killed = kubelet.cri().exec_sync(&container.id, &["/bin/sh", "-c", "kill -9 $$"], 10)?;
    ensure_eq!(killed.exit_code, 137, "of one that was killed");
    pod.end()
}

fn a_probe_that_takes_too_long_is_ended(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let begun = Instant::now();
    let answer = kubelet.cri().exec_sync(&container.id, &["/bin/guest", "idle"], 1);
    refused(answer, &[Code::DeadlineExceeded])?;
    ensure!(begun.elapsed() >= Duration::from_secs(1), "already after {:?}", begun.elapsed());
    eventually("the program is gone", || (guests_in(&container).ok()? == 1).then_some(()))?;
    ensure_eq!(container.state()?, cri::ContainerState::ContainerRunning, "the container's state");
    pod.end()
}

fn a_probe_may_say_a_lot(kubelet: Kubelet<'_>) -> Outcome {
    const SIZE: usize = 12 << 20;
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let answer = kubelet.cri().exec_sync(&container.id, &["/bin/guest", "burst", &SIZE.to_string()], 0)?;
    ensure_eq!(answer.stdout.len(), SIZE, "what it said");
    pod.end()
}

fn a_probe_of_a_missing_program_is_refused(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let said = refused(kubelet.cri().exec_sync(&container.id, &["/bin/no-such-program"], 5), &[])?;
    ensure!(said.contains("no-such-program") && said.to_lowercase().contains("no such file"), "{said}");
    ensure_eq!(container.output_of(&["echo", "well"])?, "well\n", "what the next one says");
    pod.end()
}

fn a_container_that_is_not_running_takes_no_probe(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "exit", "0"]).create()?;
    let said = refused(kubelet.cri().exec_sync(&container.id, &["true"], 5), &[])?;
    ensure!(said.contains("CONTAINER_CREATED"), "{said}");
    container.start()?;
    container.wait()?;
    let said = refused(kubelet.cri().exec_sync(&container.id, &["true"], 5), &[])?;
    ensure!(said.contains("CONTAINER_EXITED"), "{said}");
    pod.end()
}

fn many_probes_at_once_are_answered(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let (cri, id) = (kubelet.cri(), &container.id);
    std::thread::scope(|scope| {
        let probes: Vec<_> = (0..12)
            .map(|number: i32| {
                let cri = cri.clone();
                let command = format!("echo {number}; exit {number}");
                let probe = move || cri.exec_sync(id, &["/bin/sh", "-c", &command], 20);
                (number, scope.spawn(probe))
            })
            .collect();
        for (number, probe) in probes {
            let answer = probe.join().map_err(|_| Failure::new("a probe panicked"))??;
            ensure_eq!(answer.exit_code, number, "the exit code");
            ensure_eq!(answer.stdout, format!("{number}\n").into_bytes(), "stdout");
        }
        Ok(())
    })?;
    pod.end()
}

fn a_probe_leaves_nothing_in_the_container(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let seen = || container.shell("ls -R /dev /run /tmp 2>/dev/null | sort; ls /proc/1/fd | wc -l");
    let before = seen()?;
    for _ in 0..5 {
        container.output_of(&["true"])?;
    }
    ensure_eq!(seen()?, before, "what is in it");
    ensure_eq!(cgroup::processes(&container.cgroup()).len(), 1, "processes");
    pod.end()
}

fn an_added_program_has_streams(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let streams = container.exec(&["/bin/sh", "-c", "read line; echo $line; echo no >&2; exit 3"], false)?;
    streams.write(b"yes\n")?;
    ensure_eq!(streams.wait()?, 3, "its status");
    ensure_eq!(streams.stdout().text(), "yes\n", "its output");
    ensure_eq!(streams.stderr().text(), "no\n", "its errors");
    pod.end()
}

fn an_added_program_may_have_a_terminal(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let streams = container.exec(&["/bin/sh"], true)?;
    streams.resize(33, 77)?;
    // Its size comes by another way than what is typed.
    eventually("it has its size", || {
        streams.write(b"stty size\n").ok()?;
        streams.stdout().text().contains("33 77").then_some(())
    })?;
    streams.write(b"tty; exit 5\n")?;
    ensure_eq!(streams.wait()?, 5, "its status");
    ensure!(streams.stdout().text().contains("/dev/pts/"), "{:?}", streams.stdout().text());
    pod.end()
}

/// Which is the end of its input.
fn an_added_program_hears_that_its_client_went_away(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let streams =
        container.exec(&["/bin/sh", "-c", "echo ready; cat >/tmp/said; echo . >>/tmp/said"], false)?;
    streams.stdout().wait_for_line("ready")?;
    streams.write(b"words\n")?;
    eventually("they arrive", || (container.shell("cat /tmp/said").ok()? == "words\n").then_some(()))?;
    streams.close();
    eventually("the end arrives", || (container.shell("cat /tmp/said").ok()? == "words\n.\n").then_some(()))?;
    pod.end()
}

fn an_added_program_ends_with_its_container(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.run(&["idle"])?;
    let streams = container.exec(&["/bin/sh", "-c", "echo ready; exec guest idle"], false)?;
    streams.stdout().wait_for_line("ready")?;
    container.stop(0)?;
    ensure_eq!(streams.wait()?, 137, "its status");
    pod.end()
}

fn who_attaches_sees_what_comes_from_then_on(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = super::counting(&pod)?;
    let streams = container.attach()?;
    streams.stdout().wait_for_counting(3)?;
    ensure!(*streams.stdout().counted()?.start() > 1, "it saw the beginning");
    // Going away ends nothing, and others may come.
    streams.close();
    let others = [container.attach()?, container.attach()?];
    for other in &others {
        other.stdout().wait_for_counting(2)?;
    }
    container.wait_for_counting(2)?;
    ensure_eq!(*container.counted()?.start(), 1, "the first number in the log");
    pod.end()
}

fn who_attaches_can_write(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "echo"]).stdin(false).start()?;
    container.wait_for_line("ready")?;
    let streams = container.attach()?;
    streams.write(b"one\n")?;
    streams.stdout().wait_for_line("heard one")?;
    streams.close();
    let streams = container.attach()?;
    streams.write(b"two\n")?;
    container.wait_for_line("heard two")?;
    ensure_eq!(container.lines()?, ["ready", "heard one", "heard two"], "its log");
    pod.end()
}

fn a_terminal_can_be_attached_to(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/sh"]).stdin(false).terminal().start()?;
    let streams = container.attach()?;
    streams.resize(31, 79)?;
    eventually("it has its size", || {
        streams.write(b"stty size\n").ok()?;
        streams.stdout().text().contains("31 79").then_some(())
    })?;
    streams.write(b"exit 6\n")?;
    ensure_eq!(container.wait()?.exit_code, 6, "the exit code");
    pod.end()
}

fn input_ends_when_the_first_client_goes_if_that_was_asked_for(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = pod.container(&["/bin/guest", "echo"]).stdin(true).start()?;
    let streams = container.attach()?;
    let mut said = String::new();
    for number in 0..100 {
        writeln!(said, "line {number}")?;
    }
    streams.write(said.as_bytes())?;
    container.wait_for_line("heard line 99")?;
    streams.close();
    container.wait_for_line("EOF")?;
    ensure_eq!(container.wait()?.exit_code, 0, "the exit code");
    pod.end()
}

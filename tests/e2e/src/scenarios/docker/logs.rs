//! What a container writes is in its log once, whichever life it wrote it in.

use super::counting;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(five_generations_write_one_log_in_json),
        docker_scenario!(five_generations_write_one_log_of_the_local_kind),
        docker_scenario!(both_streams_are_kept_apart),
        docker_scenario!(a_line_begun_before_the_checkpoint_is_whole),
        docker_scenario!(a_log_that_is_rotated_goes_on),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

const FAST: [&str; 4] = ["guest", "count", "--interval-ms", "1"];

fn five_generations(docker: &Docker<'_>, driver: &str) -> Outcome {
    let container = docker.run(&["--log-driver", driver], &FAST)?;
    for generation in ["one", "two", "three", "four", "five"] {
        container.wait_for_counting(100)?;
        container.come_back(generation)?;
    }
    container.wait_for_counting(100)?;
    container.call(&["kill"])?;
    container.wait_for_status("exited")?;
    ensure_eq!(*container.counted()?.start(), 1, "the first number");
    container.rm()
}

fn five_generations_write_one_log_in_json(docker: &Docker<'_>) -> Outcome {
    five_generations(docker, "json-file")
}

fn five_generations_write_one_log_of_the_local_kind(docker: &Docker<'_>) -> Outcome {
    five_generations(docker, "local")
}

fn both_streams_are_kept_apart(docker: &Docker<'_>) -> Outcome {
    let container = docker.run(&[], &[&FAST[..], &["--stderr"]].concat())?;
    for generation in ["one", "two"] {
        container.wait_for_counting(50)?;
        container.come_back(generation)?;
    }
    container.wait_for_counting(50)?;
    container.call(&["kill"])?;
    container.wait_for_status("exited")?;
    let logs = Attached::by_pipes(docker, &["logs", &container.name])?;
    ensure_eq!(logs.wait()?, 0, "the status of logs");
    logs.output.wait_for_end()?;
    let (out, err) = (logs.output.counted()?, counted(&logs.errors())?);
    ensure!(*out.start() == 1 && *err.start() == 1, "they begin with {} and {}", out.start(), err.start());
    ensure!(out.end().abs_diff(*err.end()) <= 1, "they end with {} and {}", out.end(), err.end());
    container.rm()
}

/// It is in the pipe, in the shim or in dockerd: wherever, the rest must follow it.
fn a_line_begun_before_the_checkpoint_is_whole(docker: &Docker<'_>) -> Outcome {
    let script = "printf begun; guest signals; echo ended; exec guest idle";
    let container = docker.run(&[], &["sh", "-c", script])?;
    let shown = || container.logs().ok().filter(|text| text.contains("begunready")).map(drop);
    eventually("its first line", shown)?;
    container.come_back("one")?;
    container.shell("kill -TERM $(pidof guest)")?;
    container.wait_for_line("ended")?;
    ensure_eq!(container.call(&["logs"])?, "begunready\nSIGTERM\nended\n", "the log");
    container.rm()
}

fn a_log_that_is_rotated_goes_on(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--log-opt", "max-size=2k", "--log-opt", "max-file=2"])?;
    container.come_back("one")?;
    let last = || container.call(&["logs", "--tail", "1"]).ok()?.trim().parse::<u64>().ok();
    let before = eventually("a number", last)?;
    eventually("it counts on", || (last()? > before + 50).then_some(()))?;
    counted(&container.call(&["logs"])?)?;
    container.rm()
}

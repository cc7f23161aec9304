//! Standard input, output and error, through everything containerd can name.

use std::fs;
use std::time::Duration;

use super::execs::check_burst;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(stdin_arrives_and_eof_ends_it),
        scenario!(stderr_stays_apart).fifo_only(),
        scenario!(the_last_byte_is_never_lost),
        scenario!(a_slow_reader_gets_all_of_it_after_the_exit),
        scenario!(all_bytes_pass_unchanged).fifo_only(),
        scenario!(a_stuck_reader_blocks_its_own_container_only).fifo_only(),
        scenario!(a_reader_may_go_away_and_another_come),
        scenario!(without_stdio_it_runs_too).fifo_only(),
        scenario!(a_file_takes_both_streams).fifo_only(),
        scenario!(a_file_is_appended_to).fifo_only(),
        scenario!(a_logger_gets_both_streams).fifo_only(),
        scenario!(a_logger_gets_the_last_byte).fifo_only(),
        scenario!(a_logger_that_is_not_there_is_named).fifo_only(),
        scenario!(a_terminal_is_one_and_can_be_resized).terminal_only(),
        scenario!(resizing_without_a_terminal_does_nothing).fifo_only(),
        scenario!(a_terminal_passes_control_c).terminal_only(),
    ]
}

fn stdin_arrives_and_eof_ends_it(bench: &Bench) -> Outcome {
    let task = bench.run(&["echo"])?;
    task.stdout().wait_for_line("ready")?;
    task.pipes.write(b"one\n")?;
    task.stdout().wait_for_line("heard one")?;
    task.pipes.write(b"two\n")?;
    task.stdout().wait_for_line("heard two")?;
    if bench.has_terminal() {
        task.pipes.write(b"\x04")?;
    } else {
        task.end_stdin()?;
    }
    ensure_eq!(task.wait()?, 0, "the exit status");
    task.stdout().wait_for_line("EOF")?;
    task.delete()?;
    Ok(())
}

fn stderr_stays_apart(bench: &Bench) -> Outcome {
    let script = "echo out; echo err >&2; echo out; echo err >&2";
    let task = bench.guest(&[]).program(&["/bin/sh", "-c", script]).start()?;
    task.wait()?;
    task.delete()?;
    task.stdout().wait_for_end()?;
    task.stderr().wait_for_end()?;
    ensure_eq!(task.stdout().text(), "out\nout\n", "stdout");
    ensure_eq!(task.stderr().text(), "err\nerr\n", "stderr");
    Ok(())
}

fn the_last_byte_is_never_lost(bench: &Bench) -> Outcome {
    for bytes in [1, 65_536, 65_537, 1_000_000, 5_000_000] {
        let task = bench.run(&["burst", &bytes.to_string()])?;
        ensure_eq!(task.wait()?, 0, "the exit status");
        task.delete()?;
        task.stdout().wait_for_end()?;
        check_burst(task.stdout(), bytes)?;
    }
    Ok(())
}

/// What fits into the pipes on the way is there when the reader comes at last.
fn a_slow_reader_gets_all_of_it_after_the_exit(bench: &Bench) -> Outcome {
    let kind = if bench.has_terminal() { Kind::StuckTerminal } else { Kind::StuckFifo };
    // Less than a pipe holds, and less than a terminal does.
    let task = bench.guest(&["burst", "3000"]).stdio(kind).start()?;
    ensure_eq!(task.wait()?, 0, "the exit status");
    task.stdout().go_on();
    task.stdout().wait_for_bytes(3000)?;
    task.delete()?;
    task.stdout().wait_for_end()?;
    check_burst(task.stdout(), 3000)
}

fn all_bytes_pass_unchanged(bench: &Bench) -> Outcome {
    let task = bench.run(&["bytes"])?;
    task.wait()?;
    task.delete()?;
    task.stdout().wait_for_end()?;
    let all: Vec<u8> = (0..=255).collect();
    ensure!(task.stdout().bytes() == all.repeat(1000), "the bytes have changed");
    Ok(())
}

fn a_stuck_reader_blocks_its_own_container_only(bench: &Bench) -> Outcome {
    const BYTES: usize = 3_000_000;
    let first = bench.guest(&["idle"]).start()?;
    let stuck = bench.guest(&["burst", &BYTES.to_string()]).beside(&first).stdio(Kind::StuckFifo).start()?;
    let counting = bench.guest(&["count"]).beside(&first).start()?;
    holds_for(Duration::from_millis(300), "the writer waits for its reader", || {
        Ok(stuck.status()? == Status::Running)
    })?;
    counting.stdout().wait_for_counting(10)?;
    super::execs::an_exec_works_in(&stuck)?;
    ensure!(stuck.stdout().bytes().is_empty(), "the stuck reader has read");
    stuck.stdout().go_on();
    ensure_eq!(stuck.wait()?, 0, "the exit status of the writer");
    stuck.delete()?;
    stuck.stdout().wait_for_end()?;
    check_burst(stuck.stdout(), BYTES)?;
    counting.end()?;
    first.end()
}

fn a_reader_may_go_away_and_another_come(bench: &Bench) -> Outcome {
    let task = bench.run(&["count", "--interval-ms", "5"])?;
    task.stdout().wait_for_counting(5)?;
    task.stdout().close();
    let last = *task.stdout().counted()?.end();
    holds_for(Duration::from_millis(300), "the writer survives its reader", || {
        Ok(task.status()? == Status::Running)
    })?;
    let second = Output::read(task.pipes.stdio.stdout.as_ref(), false)?;
    second.wait_for_counting(10)?;
    // A line that the first reader took half of makes a shorter number at most.
    let numbers: Vec<u64> = second.lines().iter().skip(1).filter_map(|line| line.parse().ok()).collect();
    ensure!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "there is a gap in {numbers:?}");
    ensure!(numbers.iter().all(|number| *number > last), "{numbers:?} were read before {last}");
    task.end()
}

fn without_stdio_it_runs_too(bench: &Bench) -> Outcome {
    let task = bench.guest(&["copy"]).stdio(Kind::Null).start()?;
    ensure_eq!(task.wait()?, 0, "the exit status of one that reads to the end of nothing");
    task.delete()?;
    let task = bench.guest(&["burst", "1000000"]).stdio(Kind::Null).start()?;
    ensure_eq!(task.wait()?, 0, "the exit status of one that writes to nobody");
    task.delete()?;
    Ok(())
}

fn a_file_takes_both_streams(bench: &Bench) -> Outcome {
    // A folder that doesn't exist is made.
    let file = bench.fresh_folder("logs")?.join("new/output");
    let script = "echo out; echo err >&2";
    let task =
        bench.guest(&[]).program(&["/bin/sh", "-c", script]).stdio(Kind::File(file.clone())).start()?;
    ensure_eq!(task.wait()?, 0, "the exit status");
    task.delete()?;
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains("out\n") && text.contains("err\n"), "the file says {text:?}");
    Ok(())
}

fn a_file_is_appended_to(bench: &Bench) -> Outcome {
    let file = bench.fresh_folder("logs")?.join("output");
    fs::write(&file, "before\n")?;
    let task = bench.guest(&["burst", "300000"]).stdio(Kind::File(file.clone())).start()?;
    ensure_eq!(task.wait()?, 0, "the exit status");
    task.delete()?;
    ensure_eq!(fs::metadata(&file)?.len(), 300_007, "bytes in the file");
    Ok(())
}

fn a_logger_gets_both_streams(bench: &Bench) -> Outcome {
    let file = bench.fresh_folder("logs")?.join("output");
    let script = "echo out; echo err >&2";
    let task =
        bench.guest(&[]).program(&["/bin/sh", "-c", script]).stdio(Kind::Logger(file.clone())).start()?;
    ensure_eq!(task.wait()?, 0, "the exit status");
    task.delete()?;
    let read = |suffix: &str| fs::read_to_string(format!("{}{suffix}", file.display()));
    ensure_eq!(read(".env")?, format!("{} {}\n", task.namespace, task.id), "whose output it is");
    eventually("the logger has stored stdout", || (read("").ok()? == "out\n").then_some(()))?;
    eventually("the logger has stored stderr", || (read(".err").ok()? == "err\n").then_some(()))
}

fn a_logger_gets_the_last_byte(bench: &Bench) -> Outcome {
    let file = bench.fresh_folder("logs")?.join("output");
    let task = bench.guest(&["burst", "3000000"]).stdio(Kind::Logger(file.clone())).start()?;
    ensure_eq!(task.wait()?, 0, "the exit status");
    task.delete()?;
    eventually("the logger has stored all", || (fs::metadata(&file).ok()?.len() == 3_000_000).then_some(()))
}

fn a_logger_that_is_not_there_is_named(bench: &Bench) -> Outcome {
    let (_, answer) = bench.guest(&["idle"]).stdio(Kind::MissingLogger).try_create()?;
    let text = refused(answer, &[])?;
    ensure!(text.contains("no-such-logger"), "the error doesn't name the logger: {text}");
    Ok(())
}

fn a_terminal_is_one_and_can_be_resized(bench: &Bench) -> Outcome {
    let task = bench.run(&["tty"])?;
    task.stdout().wait_for_text("stdin true stdout true")?;
    bench.api().resize(&task.id, "", 31, 101)?;
    task.stdout().wait_for_line("stdin true stdout true size 31x101")?;
    task.end()
}

fn resizing_without_a_terminal_does_nothing(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    bench.api().resize(&task.id, "", 31, 101)?;
    task.stdout().wait_for_counting(2)?;
    task.end()
}

fn a_terminal_passes_control_c(bench: &Bench) -> Outcome {
    let task = bench.run(&["signals"])?;
    task.stdout().wait_for_line("ready")?;
    task.pipes.write(b"\x03")?;
    task.stdout().wait_for_text("SIGINT")?;
    task.end()
}

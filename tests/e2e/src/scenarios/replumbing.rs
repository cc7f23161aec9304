//! A container comes back with other stdio than it had.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let lost = "the stock shim re-plumbs pipes only";
    vec![
        scenario!(output_moves_from_a_pipe_to_a_file).fifo_only(),
        scenario!(output_moves_from_a_pipe_to_a_logger).fifo_only(),
        scenario!(output_moves_from_a_pipe_to_nothing).fifo_only(),
        scenario!(output_moves_from_a_file_to_a_pipe).fifo_only(),
        scenario!(output_moves_from_a_logger_to_a_pipe).fifo_only(),
        scenario!(output_moves_from_nothing_to_a_pipe).fifo_only().cryo_only(lost),
        scenario!(stderr_stays_apart_after_a_restore).fifo_only(),
        scenario!(a_terminal_comes_back_though_none_is_asked_for).terminal_only().cryo_only(lost),
        scenario!(a_terminal_that_comes_back_can_be_resized).terminal_only(),
        scenario!(a_terminal_that_comes_back_passes_control_c).terminal_only(),
        scenario!(what_nobody_has_read_yet_is_neither_lost_nor_doubled).fifo_only(),
        scenario!(a_big_burst_survives_a_restore).fifo_only(),
        scenario!(a_restore_does_not_wait_for_a_reader).fifo_only(),
    ]
    .into_iter()
    .map(Scenario::restores)
    .collect()
}

/// A container that has counted, and its image.
fn counted_image<'b>(plan: Blueprint<'b>) -> Outcome<(Task<'b>, PathBuf)> {
    let task = plan.start()?;
    task.stdout().wait_for_counting(5)?;
    let image = task.end_as_image()?;
    task.stdout().wait_for_end()?;
    Ok((task, image))
}

fn numbers_in(file: &Path) -> Outcome<std::ops::RangeInclusive<u64>> {
    let enough = || {
        let text = fs::read_to_string(file).ok()?;
        (text.lines().count() > 5).then_some(text)
    };
    counted(&eventually("numbers come into the file", enough)?)
}

fn output_moves_from_a_pipe_to_a_file(bench: &Bench) -> Outcome {
    output_moves_from_a_pipe_into(bench, Kind::File)
}

fn output_moves_from_a_pipe_to_a_logger(bench: &Bench) -> Outcome {
    output_moves_from_a_pipe_into(bench, Kind::Logger)
}

fn output_moves_from_a_pipe_into(bench: &Bench, kind: fn(PathBuf) -> Kind) -> Outcome {
    let (task, image) = counted_image(bench.guest(&["count"]))?;
    let file = bench.fresh_folder("logs")?.join("output");
    let again = task.again_from(&image).stdio(kind(file.clone())).start()?;
    let first = *numbers_in(&file)?.start();
    ensure_eq!(first, task.stdout().counted()?.end() + 1, "the first number after the restore");
    again.end()
}

fn output_moves_from_a_pipe_to_nothing(bench: &Bench) -> Outcome {
    let task = bench.run(&["signals"])?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).stdio(Kind::Null).start()?;
    // Written to nobody, and not in anybody's way.
    again.kill(USR1)?;
    again.kill(TERM)?;
    ensure_eq!(again.wait()?, 42, "the exit status");
    again.delete()?;
    Ok(())
}

fn output_moves_from_a_file_to_a_pipe(bench: &Bench) -> Outcome {
    let file = bench.fresh_folder("logs")?.join("output");
    let task = bench.guest(&["count"]).stdio(Kind::File(file.clone())).start()?;
    numbers_in(&file)?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).stdio(Kind::Fifo).start()?;
    again.stdout().wait_for_counting(5)?;
    let last = *numbers_in(&file)?.end();
    ensure_eq!(*again.stdout().counted()?.start(), last + 1, "the first number after the restore");
    again.end()
}

fn output_moves_from_a_logger_to_a_pipe(bench: &Bench) -> Outcome {
    let file = bench.fresh_folder("logs")?.join("output");
    let task = bench.guest(&["count"]).stdio(Kind::Logger(file.clone())).start()?;
    numbers_in(&file)?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).stdio(Kind::Fifo).start()?;
    again.stdout().wait_for_counting(5)?;
    let first = *again.stdout().counted()?.start();
    // The logger may still be storing what it has read.
    let joins = || (*numbers_in(&file).ok()?.end() + 1 == first).then_some(());
    eventually("the logger's last number is the one before", joins)?;
    again.end()
}

fn output_moves_from_nothing_to_a_pipe(bench: &Bench) -> Outcome {
    let task = bench.guest(&["count"]).stdio(Kind::Null).start()?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).stdio(Kind::Fifo).start()?;
    again.stdout().wait_for_counting(5)?;
    again.stdout().counted()?;
    again.end()
}

fn stderr_stays_apart_after_a_restore(bench: &Bench) -> Outcome {
    let (task, image) = counted_image(bench.guest(&["count", "--stderr"]))?;
    let again = task.again_from(&image).start()?;
    again.stdout().wait_for_counting(5)?;
    again.stderr().wait_for_counting(5)?;
    for (before, after) in [(task.stdout(), again.stdout()), (task.stderr(), again.stderr())] {
        before.wait_for_end()?;
        ensure_eq!(*after.counted()?.start(), before.counted()?.end() + 1, "the first number afterwards");
    }
    again.end()
}

fn a_terminal_comes_back_though_none_is_asked_for(bench: &Bench) -> Outcome {
    let (task, image) = counted_image(bench.guest(&["count"]))?;
    for kind in [Kind::Null, Kind::Fifo] {
        let again = task.clone_from(&image).stdio(kind.clone()).start()?;
        super::execs::an_exec_works_in(&again)?;
        if kind == Kind::Fifo {
            again.stdout().wait_for_counting(5)?;
            again.stdout().counted()?;
        }
        again.end()?;
    }
    Ok(())
}

fn a_terminal_that_comes_back_can_be_resized(bench: &Bench) -> Outcome {
    let task = bench.run(&["tty"])?;
    task.stdout().wait_for_text("stdin true stdout true")?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    bench.api().resize(&again.id, "", 41, 121)?;
    again.stdout().wait_for_line("stdin true stdout true size 41x121")?;
    again.end()
}

fn a_terminal_that_comes_back_passes_control_c(bench: &Bench) -> Outcome {
    let task = bench.run(&["signals"])?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    let again = task.again_from(&image).start()?;
    again.pipes.write(b"\x03")?;
    again.stdout().wait_for_text("SIGINT")?;
    again.end()
}

fn what_nobody_has_read_yet_is_neither_lost_nor_doubled(bench: &Bench) -> Outcome {
    let task = bench.guest(&["count", "--interval-ms", "1"]).stdio(Kind::StuckFifo).start()?;
    let written = || {
        let text = fs::read_to_string(format!("/proc/{}/io", task.pid().ok()?)).ok()?;
        let line = text.lines().find(|line| line.starts_with("syscw: "))?;
        (line.trim_start_matches("syscw: ").parse::<u64>().ok()? > 20).then_some(())
    };
    eventually("it has written", written)?;
    let image = bench.fresh_folder("image")?;
    task.checkpoint(&Checkpoint::into_folder(&image).exit())?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    task.stdout().go_on();
    task.delete()?;
    task.stdout().wait_for_end()?;
    let again = task.again_from(&image).stdio(Kind::Fifo).start()?;
    again.stdout().wait_for_counting(5)?;
    let (before, after) = (task.stdout().counted()?, again.stdout().counted()?);
    ensure_eq!(*after.start(), before.end() + 1, "the first number after the restore");
    again.end()
}

/// More than all pipes on the way can hold.
const BURST: usize = 8_000_000;

/// The writer is blocked in the middle of a write when the dump comes.
fn end_in_a_write(task: &Task<'_>) -> Outcome<PathBuf> {
    let blocked = || {
        let name = fs::read_to_string(format!("/proc/{}/wchan", task.pid().ok()?)).ok()?;
        name.contains("pipe").then_some(())
    };
    eventually("the writer waits for its reader", blocked)?;
    let image = task.bench.fresh_folder("image")?;
    task.checkpoint(&Checkpoint::into_folder(&image).exit())?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    task.stdout().go_on();
    task.delete()?;
    task.stdout().wait_for_end()?;
    Ok(image)
}

/// All lives together wrote the burst.
fn is_whole(lives: &[&Task<'_>]) -> Outcome {
    let all: Vec<u8> = lives.iter().flat_map(|task| task.stdout().bytes()).collect();
    ensure_eq!(all.len(), BURST, "bytes in all lives together");
    super::execs::check_pattern(&all)
}

fn a_big_burst_survives_a_restore(bench: &Bench) -> Outcome {
    let task = bench.guest(&["burst", &BURST.to_string()]).stdio(Kind::StuckFifo).start()?;
    let image = end_in_a_write(&task)?;
    let again = task.again_from(&image).stdio(Kind::Fifo).start()?;
    ensure_eq!(again.wait()?, 0, "the exit status");
    again.delete()?;
    again.stdout().wait_for_end()?;
    is_whole(&[&task, &again])
}

fn a_restore_does_not_wait_for_a_reader(bench: &Bench) -> Outcome {
    let first = bench.guest(&["burst", &BURST.to_string()]).stdio(Kind::StuckFifo).start()?;
    let image = end_in_a_write(&first)?;
    let second = first.again_from(&image).stdio(Kind::StuckFifo).start()?;
    super::execs::an_exec_works_in(&second)?;
    ensure!(second.stdout().bytes().is_empty(), "somebody has read");
    let image = end_in_a_write(&second)?;
    let third = second.again_from(&image).stdio(Kind::StuckFifo).start()?;
    ensure_eq!(third.status()?, Status::Running, "while nobody reads");
    third.stdout().go_on();
    ensure_eq!(third.wait()?, 0, "the exit status");
    third.delete()?;
    third.stdout().wait_for_end()?;
    is_whole(&[&first, &second, &third])
}

//! What a stranger sees first: a container is frozen to disk, is gone, and comes back.
//!
//! Nothing is printed that wasn't checked before. What isn't as it should be ends the
//! demo with a sentence about it.

mod screen;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::harness::*;
use crate::versions::versions;
use screen::Screen;

/// Slow enough to be watched, and never waited for.
const INTERVAL_MS: &str = "250";
const BEFORE: u64 = 4;
const AFTER: u64 = 3;
const MARK: &str = "frozen\n";

pub(crate) fn main() -> ExitCode {
    match show() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nThis demo has failed: {}", failure.text());
            ExitCode::FAILURE
        }
    }
}

fn show() -> Outcome {
    let begun = Instant::now();
    read_settings(&mut vec!["--shim".into(), "cryo".into()])?;
    let screen = Screen::new();
    screen.heading("A counter is frozen to disk, is gone, and goes on counting where it was.");
    let names: Vec<String> = versions()?.iter().map(|(name, version)| format!("{name} {version}")).collect();
    screen.say("with", &names.join(", "));
    screen.say("", &format!("and the runtime {}", settings().shim.runtime_name()));
    slot::set_up()?;
    let shown = slot::borrow(slot::Daemons::Containerd).and_then(|slot| {
        let bench = Bench::new(slot, Combination { runtime: Runtime::Runc, stream: Stream::Fifo }, 0);
        let shown = show_at(&bench, &screen);
        let Bench { slot, .. } = bench;
        slot.destroy();
        shown
    });
    slot::tear_down();
    shown?;
    let took = begun.elapsed().as_secs_f64();
    screen.heading(&format!("Every line was checked, and nothing is left of it all. It took {took:.0} s."));
    Ok(())
}

fn show_at(bench: &Bench, screen: &Screen) -> Outcome {
    let silence = Screen::silent();
    screen.heading("runc");
    tell(bench, Runtime::Runc, screen).during(|| "with runc".into())?;
    screen.heading("crun");
    let story = tell(bench, Runtime::Crun, &silence).during(|| "with crun".into())?;
    screen.say("the same", &story);
    let left = leaks::left_in(&bench.slot);
    ensure!(left.is_empty(), "this was left behind: {}", left.join(", "));
    Ok(())
}

/// What happens to one container; returns it in a sentence.
fn tell(bench: &Bench, runtime: Runtime, screen: &Screen) -> Outcome<String> {
    let plan =
        bench.guest(&["count", "--interval-ms", INTERVAL_MS]).id(format!("counter-{}", runtime.binary()));
    let plan = plan.options(|options| options.binary_name = runtime.binary().into());
    let pipes = plan.pipes()?;
    // One reader sees all: without this it would end with the first task.
    let mut ours = File::options().read(true).write(true).open(&pipes.stdio.stdout)?;
    let pipes_again = pipes.again();

    let task = plan.prepare(pipes)?.create()?;
    let pid = task.start()?;
    expect(&task, Status::Running, pid)?;
    screen.say("start", &format!("RUNNING, pid {pid}"));
    show_numbers(&task, 1..=BEFORE, screen)?;

    let (image, dump) = freeze(&task, pid, screen)?;
    task.delete()?;
    refused(task.state(), &[Code::NotFound])?;
    // What comes before this was written before the checkpoint, however late it is read.
    ours.write_all(MARK.as_bytes())?;
    task.stdout().wait_for_line(MARK.trim_end())?;
    let last = *counted(&task.stdout().text().replace(MARK, ""))?.end();
    show_numbers(&task, BEFORE + 1..=last, screen)?;
    screen.say("delete", "containerd knows no such task any more; what is left is the folder");

    let begun = Instant::now();
    let task = task.again_from(&image).prepare(pipes_again)?.create()?;
    let network = check_place_holder(&task)?;
    let anchor = task.created_pid();
    screen.say("create", &format!("CREATED from the folder; pid {anchor} holds its network namespace"));
    let pid = task.start()?;
    let restore = begun.elapsed();
    expect(&task, Status::Running, pid)?;
    ensure!(command_of(pid).starts_with("/bin/guest\0count"), "pid {pid} isn't the counter");
    ensure_eq!(network_namespace_of(pid)?, network, "the network namespace after the restore");
    screen.say("start", &format!("RUNNING, pid {pid}, after {}", seconds(restore)));
    show_numbers(&task, last + 1..=last + AFTER, screen)?;
    let text = task.stdout().text();
    let first = text.split(MARK).nth(1).and_then(|after| after.lines().next()).unwrap_or_default();
    ensure_eq!(first, (last + 1).to_string(), "the first number after the restore");
    let end = *counted(&text.replace(MARK, ""))?.end();
    screen.say(
        "right",
        &format!("{last} was the last before, {first} the first after; none missing, none twice"),
    );
    task.end()?;
    bench.tidy()?;
    Ok(format!(
        "counted to {last}, frozen in {}, gone, back in {}, counted on to {end}",
        seconds(dump),
        seconds(restore)
    ))
}

/// A checkpoint with exit. Returns the folder of the image and the time it took.
fn freeze(task: &Task<'_>, pid: u32, screen: &Screen) -> Outcome<(PathBuf, Duration)> {
    let image = Path::new(slot::BASE).join("images").join(&task.id);
    let begun = Instant::now();
    task.checkpoint(&Checkpoint::into_folder(&image).exit())?;
    let took = begun.elapsed();
    expect(task, Status::Stopped, pid)?;
    ensure_eq!(task.wait()?, 137, "the exit status");
    ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} still exists");
    ensure!(image.join("inventory.img").exists(), "{} has no inventory", image.display());
    let mut bytes = 0;
    let mut files = 0;
    for entry in fs::read_dir(&image)? {
        bytes += entry?.metadata()?.len();
        files += 1;
    }
    screen.say(
        "checkpoint",
        &format!("{}: {files} files, {} KiB in {}", seconds(took), bytes / 1024, image.display()),
    );
    screen.say("", &format!("STOPPED; process {pid} doesn't exist any more"));
    Ok((image, took))
}

fn expect(task: &Task<'_>, status: Status, pid: u32) -> Outcome {
    let state = task.state()?;
    ensure_eq!(Status::try_from(state.status).unwrap_or(Status::Unknown), status, "the task's status");
    ensure_eq!(state.pid, pid, "the task's pid");
    Ok(())
}

/// Before its start a task that comes back has a stand-in, which is our own shim's.
/// Returns the network namespace it holds.
fn check_place_holder(task: &Task<'_>) -> Outcome<PathBuf> {
    let pid = task.created_pid();
    expect(task, Status::Created, pid)?;
    let command = command_of(pid);
    ensure!(command.split('\0').any(|word| word == "anchor"), "pid {pid} is no anchor but {command:?}");
    network_namespace_of(pid)
}

fn show_numbers(task: &Task<'_>, numbers: std::ops::RangeInclusive<u64>, screen: &Screen) -> Outcome {
    for number in numbers {
        task.stdout().wait_for_line(&number.to_string())?;
        screen.output(&number.to_string());
    }
    Ok(())
}

fn command_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}

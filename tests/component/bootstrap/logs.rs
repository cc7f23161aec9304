//! The shim's lines in containerd's log: in the form of its own, and never in the way.

mod line;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use line::Line;

use crate::harness::{
    AT_ONCE, Blueprint, Bundle, Code, Container, Script, Test, World, mkfifo, process, refused, tests, until,
};

pub(super) fn tests() -> Vec<Test> {
    tests![
        lines_have_the_form_of_containerds_own,
        small_things_are_logged_for_who_debugs,
        small_things_are_not_logged_for_others,
        words_of_others_stay_on_one_line,
        what_a_terminal_would_obey_is_written_as_go_does,
        a_signal_asks_for_the_containers,
        a_log_that_nobody_reads_holds_up_nothing,
        a_log_whose_reader_goes_away_ends_nothing,
        a_bundle_without_a_log_is_fine,
    ]
}

/// How the runtime fails to remove what it couldn't create: a thing worth a line, which
/// is written before Create is answered.
const COMPLAINT: &str = "a container that couldn't be made can't be removed";

fn complaining<'a>(world: &'a World, words: &str) -> Blueprint<'a> {
    world
        .container("c1")
        .rule(Script::at("create", "before"), serde_json::json!({ "fail": "no luck" }))
        .rule(Script::at("delete", "before"), serde_json::json!({ "fail": words }))
}

#[track_caller]
fn complain(container: &Container) {
    refused(container.create(), Code::UNKNOWN, &["no luck"]);
}

/// The lines, once there is one with these words.
#[track_caller]
fn lines(container: &Container, words: &str) -> Vec<Line> {
    let complete = |log: String| log.ends_with('\n') && log.contains(words);
    until(&format!("{words:?} is logged, so far {}", container.log()), || complete(container.log()));
    container.log().lines().map(Line::read).collect()
}

fn lines_have_the_form_of_containerds_own(world: &World) {
    let container = complaining(world, "not me").debug().boot();
    complain(&container);
    let lines = lines(&container, COMPLAINT);
    for line in &lines {
        assert_eq!(line.names()[..3], ["time", "level", "msg"]);
        let time = line.value("time");
        // As Go's RFC3339NanoFixed: 2006-01-02T15:04:05.000000000Z
        assert!(time.len() == 30 && time.as_bytes()[10] == b'T' && time.ends_with('Z'), "{time}");
        assert!(["debug", "info", "warning", "error"].contains(&line.value("level")), "{line:?}");
    }
    let line = lines.iter().find(|line| line.value("msg") == COMPLAINT).unwrap();
    assert_eq!(line.value("level"), "warning");
    assert!(line.value("error").contains("not me"), "{line:?}");
}

fn small_things_are_logged_for_who_debugs(world: &World) {
    let container = world.container("c1").debug().boot();
    let lines = lines(&container, "shim is up");
    let line = lines.iter().find(|line| line.value("msg") == "shim is up").unwrap();
    assert_eq!((line.value("level"), line.value("id")), ("debug", "c1"));
    assert_eq!(line.value("namespace"), "default");
}

fn small_things_are_not_logged_for_others(world: &World) {
    let container = complaining(world, "not me").boot();
    complain(&container);
    let lines = lines(&container, COMPLAINT);
    assert!(lines.iter().all(|line| line.value("level") != "debug"), "{lines:?}");
}

fn words_of_others_stay_on_one_line(world: &World) {
    let words = "it \"failed\",\nwith C:\\path=1 and\ttabs";
    let container = complaining(world, words).boot();
    complain(&container);
    let lines = lines(&container, COMPLAINT);
    let line = lines.iter().find(|line| line.value("msg") == COMPLAINT).unwrap();
    assert!(line.value("error").contains(words), "{line:?}");
}

/// logrus quotes with `%q`.
fn what_a_terminal_would_obey_is_written_as_go_does(world: &World) {
    let words = "red \u{1b}[31malert\u{7f}";
    let container = complaining(world, words).boot();
    complain(&container);
    let lines = lines(&container, COMPLAINT);
    let line = lines.iter().find(|line| line.value("msg") == COMPLAINT).unwrap();
    assert!(line.value("error").contains(words), "{line:?}");
}

fn a_signal_asks_for_the_containers(world: &World) {
    let container = world.container("c1").started();
    process::kill(container.shim, 10);
    let lines = lines(&container, " status=");
    let line = lines.iter().find(|line| line.value("msg") == "container").unwrap();
    assert_eq!((line.value("level"), line.value("id")), ("info", "c1"));
    assert_eq!(line.value("pid"), container.init_pid().to_string());
}

/// In place of the fifo that containerd, which is the harness, reads.
fn own_log(bundle: &Bundle) -> File {
    let path = bundle.path.join("log");
    fs::remove_file(&path).unwrap();
    mkfifo(&path);
    open_log(&path)
}

fn open_log(path: &Path) -> File {
    let non_blocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).write(true).custom_flags(non_blocking).open(path).unwrap()
}

/// To its last byte.
fn fill(mut log: &File) {
    for size in [4096, 1] {
        let full = loop {
            if let Err(error) = log.write(&vec![b'\n'; size]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }
}

fn drain(mut log: &File) -> String {
    let mut text = Vec::new();
    assert_eq!(log.read_to_end(&mut text).unwrap_err().kind(), ErrorKind::WouldBlock);
    String::from_utf8(text).unwrap().trim().to_owned()
}

fn a_log_that_nobody_reads_holds_up_nothing(world: &World) {
    let bundle = complaining(world, "not me").lay_out();
    let log = own_log(&bundle);
    let container = Container::boot(world, bundle);
    fill(&log);
    let begun = std::time::Instant::now();
    complain(&container);
    complain(&container);
    assert!(begun.elapsed() < 2 * AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(drain(&log), "");
    // The next line that finds room says how many didn't.
    complain(&container);
    let text = drain(&log);
    let lines: Vec<Line> = text.lines().map(Line::read).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].value("msg").contains("2 log lines"), "{text}");
    assert_eq!(lines[1].value("msg"), COMPLAINT);
}

/// containerd has died, and another one comes.
fn a_log_whose_reader_goes_away_ends_nothing(world: &World) {
    let bundle = complaining(world, "not me").lay_out();
    let log = own_log(&bundle);
    let container = Container::boot(world, bundle);
    drop(log);
    complain(&container);
    process::kill(container.shim, 13);
    complain(&container);
    let log = open_log(&container.path("log"));
    complain(&container);
    // The next one reads what was written meanwhile, too.
    let text = drain(&log);
    let complaints = text.lines().map(Line::read).filter(|line| line.value("msg") == COMPLAINT).count();
    assert_eq!(complaints, 3, "{text}");
}

fn a_bundle_without_a_log_is_fine(world: &World) {
    let bundle = complaining(world, "not me").debug().lay_out();
    fs::remove_file(bundle.path.join("log")).unwrap();
    let container = Container::boot(world, bundle);
    complain(&container);
    assert!(!container.path("log").exists());
}

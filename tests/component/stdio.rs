//! Every byte a process writes arrives, whoever takes it and whatever becomes of them.

mod loggers;

use std::fs;
use std::io::Write;
use std::time::Instant;

use cryo_protos::api::{Empty, ExecProcessRequest, Status};
use serde_json::json;

use crate::harness::{AT_ONCE, Code, Pipe, Streams, Test, World, refused, tests};

/// More than all pipes on the way can hold.
const MUCH: usize = 8 << 20;

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        both_streams_arrive_and_end_with_the_container,
        the_last_bytes_before_the_end_are_not_lost,
        a_slow_reader_holds_up_its_writer_and_nothing_else,
        a_reader_that_goes_and_comes_back_misses_nothing,
        a_client_that_comes_late_misses_nothing,
        a_container_without_a_reader_goes_on,
        stdin_arrives_and_ends_when_it_is_closed,
        stdin_stays_open_while_clients_come_and_go,
        an_exec_has_streams_of_its_own,
        an_exec_with_a_terminal_has_one_stream,
        a_terminal_is_resized_and_read_from,
        a_terminal_that_never_arrives_fails_the_creation,
        both_streams_go_to_one_file_whose_folder_is_made,
        no_streams_at_all_are_fine,
        a_full_disk_costs_output_and_nothing_else,
        a_process_that_keeps_the_output_open_delays_the_deletion_only_so_long,
    ];
    tests.extend(loggers::tests());
    tests
}

fn both_streams_arrive_and_end_with_the_container(world: &World) {
    let container = world.container("c1").fifos().program(["print out", "error err", "exit 0"]).started();
    container.wait().unwrap();
    container.delete().unwrap();
    assert_eq!(container.stdout().wait_for_end(), "out\n");
    assert_eq!(container.stderr().wait_for_end(), "err\n");
}

fn the_last_bytes_before_the_end_are_not_lost(world: &World) {
    let fill = format!("fill {MUCH}");
    let container = world.container("c1").fifos().program([&fill, "print last", "exit 0"]).started();
    container.wait().unwrap();
    container.delete().unwrap();
    let text = container.stdout().wait_for_end();
    assert_eq!(text.len(), MUCH + "last\n".len());
    assert!(text.ends_with("xlast\n"));
}

fn a_slow_reader_holds_up_its_writer_and_nothing_else(world: &World) {
    let fill = format!("fill {MUCH}");
    let container = world.container("c1").streams(Streams::UnreadFifos).program([&fill, "exit 0"]).started();
    let pipe = Pipe::read(world.path("exec-stdout"));
    let request = ExecProcessRequest {
        stdout: pipe.path().to_str().unwrap().into(),
        ..container.exec_request("e1", &json!({"args": ["print from an exec", "exit 0"]}))
    };
    container.exec_with(request).unwrap();
    let asked = Instant::now();
    container.start_exec("e1").unwrap();
    assert_eq!(container.wait_exec("e1").unwrap(), 0);
    container.delete_exec("e1").unwrap();
    assert_eq!(pipe.wait_for_end(), "from an exec\n");
    assert_eq!(container.status(), Status::RUNNING);
    assert!(asked.elapsed() < AT_ONCE * 2);
    container.stdout().start_reading();
    container.stderr().start_reading();
    assert_eq!(container.wait().unwrap(), 0);
    container.delete().unwrap();
    assert_eq!(container.stdout().wait_for_end().len(), MUCH);
}

/// As containerd does when it is restarted.
fn a_reader_that_goes_and_comes_back_misses_nothing(world: &World) {
    let container = world
        .container("c1")
        .streams(Streams::UnreadFifos)
        .program(["print one", "echo", "exit 0"])
        .started();
    let read_line = |expected: &str| {
        let mut line = String::new();
        let fifo = fs::File::open(container.stdout().path()).unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::with_capacity(1, fifo), &mut line).unwrap();
        assert_eq!(line, expected);
    };
    read_line("one\n");
    // Nobody reads now.
    let mut stdin = container.stdin().writer();
    stdin.write_all(b"two\nthree\n").unwrap();
    read_line("two\n");
    read_line("three\n");
    assert_eq!(container.status(), Status::RUNNING, "nobody was killed by SIGPIPE");
    drop(stdin);
    container.close_stdin().unwrap();
    assert_eq!(container.wait().unwrap(), 0);
}

/// containerd's clients open their end in the background, whenever that comes to run.
fn a_client_that_comes_late_misses_nothing(world: &World) {
    let container = world.container("c1").started();
    let pipe = Pipe::unread(world.path("exec-stdout"));
    let request = ExecProcessRequest {
        stdout: pipe.path().to_str().unwrap().into(),
        ..container.exec_request("e1", &json!({"args": ["print all", "exit 0"]}))
    };
    container.exec_with(request).unwrap();
    container.start_exec("e1").unwrap();
    assert_eq!(container.wait_exec("e1").unwrap(), 0);
    container.delete_exec("e1").unwrap();
    pipe.start_reading();
    assert_eq!(pipe.wait_for_end(), "all\n");
}

fn a_container_without_a_reader_goes_on(world: &World) {
    let container = world
        .container("c1")
        .streams(Streams::UnreadFifos)
        .program(["print unheard", "error unheard", "exit 3"])
        .started();
    assert_eq!(container.wait().unwrap(), 3);
    let asked = Instant::now();
    container.delete().unwrap();
    assert!(asked.elapsed() < AT_ONCE, "what fits into a pipe holds up nobody");
}

fn stdin_arrives_and_ends_when_it_is_closed(world: &World) {
    let container = world.container("c1").fifos().program(["echo", "print end of input", "exit 0"]).started();
    let stdin = container.stdin().writer();
    (&stdin).write_all(b"hello\n").unwrap();
    container.stdout().wait_for("hello\n");
    // The shim keeps an end of its own, or a client that detaches would end the input.
    drop(stdin);
    container.stdin().write("again\n");
    container.stdout().wait_for("again\n");
    assert!(!container.stdout().text().contains("end of input"));
    container.close_stdin().unwrap();
    container.stdout().wait_for("end of input\n");
    assert_eq!(container.wait().unwrap(), 0);
    // Closed is closed.
    container.close_stdin().unwrap();
}

fn stdin_stays_open_while_clients_come_and_go(world: &World) {
    let container = world.container("c1").fifos().program(["echo", "exit 0"]).started();
    for number in 0..5 {
        container.stdin().write(&format!("line {number}\n"));
        container.stdout().wait_for(&format!("line {number}\n"));
    }
    container.kill(9).unwrap();
    assert_eq!(container.wait().unwrap(), 137);
}

fn an_exec_has_streams_of_its_own(world: &World) {
    let container = world.container("c1").fifos().started();
    let (stdin, stdout, stderr) =
        (Pipe::unread(world.path("in")), Pipe::read(world.path("out")), Pipe::read(world.path("err")));
    let path = |pipe: &Pipe| pipe.path().to_str().unwrap().to_owned();
    let request = ExecProcessRequest {
        stdin: path(&stdin),
        stdout: path(&stdout),
        stderr: path(&stderr),
        ..container.exec_request("e1", &json!({"args": ["echo", "error done", "exit 2"]}))
    };
    container.exec_with(request).unwrap();
    container.start_exec("e1").unwrap();
    let state = container.state_of("e1").unwrap();
    assert_eq!((state.stdout, state.exec_id.as_str()), (path(&stdout), "e1"));
    stdin.write("to an exec\n");
    stdout.wait_for("to an exec\n");
    let close = cryo_protos::api::CloseIORequest {
        id: "c1".into(),
        exec_id: "e1".into(),
        stdin: true,
        ..Default::default()
    };
    container.client().call::<_, Empty>("CloseIO", &close).unwrap();
    assert_eq!(container.wait_exec("e1").unwrap(), 2);
    container.delete_exec("e1").unwrap();
    assert_eq!(stdout.wait_for_end(), "to an exec\n");
    assert_eq!(stderr.wait_for_end(), "done\n");
    assert_eq!(container.stdout().text(), "");
}

fn an_exec_with_a_terminal_has_one_stream(world: &World) {
    let container = world.container("c1").started();
    let stdout = Pipe::read(world.path("out"));
    let request = ExecProcessRequest {
        terminal: true,
        stdout: stdout.path().to_str().unwrap().into(),
        ..container.exec_request("e1", &json!({"args": ["print out", "error err", "exit 0"]}))
    };
    container.exec_with(request).unwrap();
    container.start_exec("e1").unwrap();
    assert_eq!(container.wait_exec("e1").unwrap(), 0);
    container.delete_exec("e1").unwrap();
    assert_eq!(stdout.wait_for_end(), "out\r\nerr\r\n");
}

fn a_terminal_is_resized_and_read_from(world: &World) {
    // Once it says that it is ready no SIGWINCH is lost, however busy the machine is.
    let program = ["ignore 28", "print ready", "resized"];
    let container = world.container("c1").streams(Streams::Terminal).program(program).started();
    container.stdout().wait_for("ready\r\n");
    container.resize(132, 43).unwrap();
    container.stdout().wait_for("size 132 43\r\n");
    container.resize(70000, 1).unwrap();
    container.stdout().wait_for("size 65535 1\r\n");
    // What is typed is echoed by the terminal itself.
    container.stdin().write("typed\n");
    container.stdout().wait_for("typed\r\n");
    container.kill(9).unwrap();
    container.wait().unwrap();
    container.delete().unwrap();
    assert!(container.stdout().wait_for_end().starts_with("ready\r\n"));
}

/// Half a minute is what the runtime is given; one that has ended sends nothing more.
fn a_terminal_that_never_arrives_fails_the_creation(world: &World) {
    let container = world
        .container("c1")
        .streams(Streams::Terminal)
        .rule(crate::harness::Script::at("create", "made"), json!({"fail": "no terminals left"}))
        .boot();
    let asked = Instant::now();
    refused(container.create(), Code::UNKNOWN, &["no terminals left"]);
    assert!(asked.elapsed() < AT_ONCE);
    assert!(
        crate::harness::image::names(&container.bundle.path).iter().all(|name| !name.starts_with("console"))
    );
}

fn both_streams_go_to_one_file_whose_folder_is_made(world: &World) {
    let file = world.path("logs/of it/all.log");
    let uri = format!("file://{}", file.to_str().unwrap().replace(' ', "%20"));
    for _ in 0..2 {
        let container = world
            .container("c1")
            .streams(Streams::Uri(uri.clone()))
            .program(["print out", "error err", "exit 0"])
            .started();
        container.wait().unwrap();
        container.delete().unwrap();
        container.clean_up();
        container.expect_shim_gone();
    }
    let mut lines: Vec<_> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "err", "out", "out"]);
}

fn no_streams_at_all_are_fine(world: &World) {
    let fill = format!("fill {MUCH}");
    let container = world.container("c1").program(["echo", &fill, "error more", "exit 6"]).started();
    assert_eq!(container.wait().unwrap(), 6, "stdin is at its end, output goes nowhere");
    container.close_stdin().unwrap();
}

fn a_full_disk_costs_output_and_nothing_else(world: &World) {
    let place = world.tmpfs("full", "size=64k");
    let uri = format!("file://{}/log", place.display());
    let fill = format!("fill {MUCH}");
    let container = world.container("c1").streams(Streams::Uri(uri)).program([&fill, "exit 5"]).started();
    assert_eq!(container.wait().unwrap(), 5);
    container.delete().unwrap();
    container.clean_up();
    container.expect_shim_gone();
    world.unmount(&place);
}

/// A process that left the container keeps its pipes, and may do so for ever.
fn a_process_that_keeps_the_output_open_delays_the_deletion_only_so_long(world: &World) {
    let container = world.container("c1").fifos().program(["print out", "exit 0"]).created();
    let writer = container.init_pid();
    let held = fs::File::options().write(true).open(format!("/proc/{writer}/fd/1")).unwrap();
    container.start().unwrap();
    container.wait().unwrap();
    let asked = Instant::now();
    container.delete().unwrap();
    // Ten seconds are what the stock shim gives it.
    assert!(asked.elapsed().as_secs() < 15, "{:?}", asked.elapsed());
    assert!(container.stdout().wait_for_end().contains("out\n"));
    drop(held);
}

//! The shim's own socket: what containerd never shows but relies on.

use std::os::unix::fs::PermissionsExt;

use cryo_protos::api as wire;
use cryo_protos::ttrpc::Code as TtrpcCode;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(the_shim_tells_its_pid_and_the_tasks).fifo_only(),
        scenario!(the_second_task_version_is_spoken).fifo_only().cryo_only_if(
            |_, settings| settings.containerd >= Version(2, 0),
            "containerd 2's own shim speaks version 3 only",
        ),
        scenario!(the_third_task_version_is_spoken).fifo_only().cryo_only_if(
            |_, settings| settings.containerd < Version(2, 0),
            "containerd 1.7's own shim speaks version 2 only",
        ),
        scenario!(the_socket_is_for_its_owner_only).fifo_only(),
        scenario!(a_shim_with_containers_does_not_shut_down).fifo_only(),
        scenario!(one_shim_serves_a_group_of_containers),
        scenario!(what_is_unknown_to_a_shim_is_not_found).fifo_only(),
        scenario!(a_connection_may_break_in_the_middle).fifo_only(),
        scenario!(the_shim_keeps_no_descriptors).fifo_only(),
        scenario!(the_shim_is_less_likely_than_containerd_to_be_spared).fifo_only(),
    ]
}

fn connect(socket: &ShimSocket, id: &str) -> Outcome<wire::ConnectResponse> {
    let request = wire::ConnectRequest { id: id.into(), ..Default::default() };
    Ok(socket.call(TaskVersion::usual(), "Connect", &request)?)
}

fn the_shim_tells_its_pid_and_the_tasks(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let answer = connect(&ShimSocket::of(&task)?, &task.id)?;
    ensure_eq!(answer.task_pid, task.pid()?, "the task's pid");
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", answer.shim_pid))?;
    ensure!(command.contains("containerd-shim-"), "the shim's pid is that of {command:?}");
    task.end()
}

fn speaks(bench: &Bench, version: TaskVersion) -> Outcome {
    let task = bench.run(&["idle"])?;
    let socket = ShimSocket::of(&task)?;
    let request = wire::StateRequest { id: task.id.clone(), ..Default::default() };
    let state: wire::StateResponse = socket.call(version, "State", &request)?;
    ensure_eq!(state.id, task.id, "whose state it is");
    ensure_eq!(state.pid, task.pid()?, "the pid");
    let request = wire::KillRequest { id: task.id.clone(), signal: KILL, ..Default::default() };
    let _: wire::Empty = socket.call(version, "Kill", &request)?;
    let request = wire::WaitRequest { id: task.id.clone(), ..Default::default() };
    let exit: wire::WaitResponse = socket.call(version, "Wait", &request)?;
    ensure_eq!(exit.exit_status, 137, "the exit status");
    task.delete()?;
    Ok(())
}

fn the_second_task_version_is_spoken(bench: &Bench) -> Outcome {
    speaks(bench, TaskVersion::V2)
}

fn the_third_task_version_is_spoken(bench: &Bench) -> Outcome {
    speaks(bench, TaskVersion::V3)
}

fn the_socket_is_for_its_owner_only(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let socket = ShimSocket::of(&task)?;
    let mode = std::fs::metadata(&socket.path)?.permissions().mode();
    ensure_eq!(mode & 0o777, 0o600, "the socket's mode");
    let folder = socket.path.parent().ok_or_else(|| Failure::new("a socket without a folder"))?;
    let mode = std::fs::metadata(folder)?.permissions().mode();
    ensure_eq!(mode & 0o007, 0, "what others may do in the socket's folder");
    task.end()
}

fn a_shim_with_containers_does_not_shut_down(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let socket = ShimSocket::of(&task)?;
    for now in [false, true] {
        let request = wire::ShutdownRequest { id: task.id.clone(), now, ..Default::default() };
        let _: wire::Empty = socket.call(TaskVersion::usual(), "Shutdown", &request)?;
        ensure_eq!(task.status()?, Status::Running, "after Shutdown with now={now}");
    }
    task.end()
}

fn one_shim_serves_a_group_of_containers(bench: &Bench) -> Outcome {
    let first = bench.guest(&["count"]).start()?;
    let second = bench.guest(&["count"]).beside(&first).start()?;
    let shim = connect(&ShimSocket::of(&first)?, &first.id)?.shim_pid;
    ensure_eq!(connect(&ShimSocket::of(&second)?, &second.id)?.shim_pid, shim, "the second one's shim");
    // The one that started the shim may leave first.
    first.end()?;
    second.stdout().wait_for_counting(5)?;
    let third = bench.guest(&["exit", "6"]).beside(&first).start()?;
    ensure_eq!(third.wait()?, 6, "the exit status of one that comes later");
    third.delete()?;
    second.end()
}

fn what_is_unknown_to_a_shim_is_not_found(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let socket = ShimSocket::of(&task)?;
    let request = wire::KillRequest { id: "nobody".into(), ..Default::default() };
    let refused = |method| match socket.call::<wire::Empty>(TaskVersion::usual(), method, &request) {
        Ok(_) => Err(Failure::new(format!("{method} was not refused"))),
        Err(refusal) => Ok(refusal),
    };
    let refusal = refused("Kill")?;
    ensure_eq!(refusal.code, TtrpcCode::NOT_FOUND, "the code of {:?}", refusal.text);
    // containerd asks so after its restart, to learn whether the shim is alive.
    ensure_eq!(connect(&socket, "nobody")?.task_pid, 0, "the pid of an unknown task");
    let refusal = refused("NoSuchCall")?;
    let codes = [TtrpcCode::UNIMPLEMENTED, TtrpcCode::NOT_FOUND, TtrpcCode::INVALID_ARGUMENT];
    ensure!(codes.contains(&refusal.code), "an unknown call is refused with {refusal}");
    task.end()
}

fn a_connection_may_break_in_the_middle(bench: &Bench) -> Outcome {
    use std::io::Write;
    let task = bench.run(&["idle"])?;
    let socket = ShimSocket::of(&task)?;
    for half in [&b""[..], b"\0\0", b"\0\0\x10\0\0\0\0\x01\x01\0partial", &[0xff; 64]] {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket.path)?;
        stream.write_all(half)?;
    }
    ensure_eq!(connect(&socket, &task.id)?.task_pid, task.pid()?, "the task's pid");
    task.end()
}

fn the_shim_keeps_no_descriptors(bench: &Bench) -> Outcome {
    let task = bench.run(&["count"])?;
    let socket = ShimSocket::of(&task)?;
    let shim = connect(&socket, &task.id)?.shim_pid;
    let open = || -> Outcome<Vec<String>> {
        let entries = std::fs::read_dir(format!("/proc/{shim}/fd"))?.flatten();
        let names = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        // Go closes those of ended processes whenever it collects garbage.
        let counts = |name: &String| settings().shim.is_cryo() || !name.contains("pidfd");
        Ok(names.map(|name| name.display().to_string()).filter(counts).collect())
    };
    let work = || {
        super::execs::an_exec_works_in(&task)?;
        task.pause()?;
        task.resume()?;
        task.copy_image()
    };
    // Some are opened once, by the first use of each kind.
    work()?;
    let before = open()?;
    for _ in 0..3 {
        work()?;
    }
    let closed = eventually("closed", || (open().ok()?.len() <= before.len()).then_some(()));
    ensure!(closed.is_ok(), "there were {before:?}, now there are {:?}", open()?);
    task.end()
}

fn the_shim_is_less_likely_than_containerd_to_be_spared(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let shim = connect(&ShimSocket::of(&task)?, &task.id)?.shim_pid;
    let daemon = bench.slot.daemon().pid().unwrap_or_default();
    let score = |pid: u32| -> Outcome<i64> {
        Ok(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?.trim().parse()?)
    };
    ensure_eq!(score(shim)?, score(daemon)? + 1, "the shim's oom_score_adj");
    task.end()
}

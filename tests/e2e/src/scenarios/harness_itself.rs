//! Checks of the checks: what the other scenarios rely on must be able to fail.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(whatever_is_left_behind_is_found).fifo_only(),
        scenario!(a_gap_in_what_was_counted_is_found).fifo_only(),
        scenario!(only_what_a_daemon_took_with_it_may_be_missing).fifo_only(),
        scenario!(a_gate_holds_the_runtime_until_it_is_opened).fifo_only(),
    ]
}

fn whatever_is_left_behind_is_found(bench: &Bench) -> Outcome {
    let found = |what: &str| {
        let all = leaks::found_in(&bench.slot);
        ensure!(all.iter().any(|trace| trace.contains(what)), "{what} isn't among {all:?}");
        Ok(())
    };
    ensure!(leaks::found_in(&bench.slot).is_empty(), "something was left by an earlier trial");

    let task = bench.run(&["idle"])?;
    for trace in
        [&format!("process {}", task.pid()?), "/bin/guest idle", "containerd-shim-", "rootfs", "cgroup "]
    {
        found(trace)?;
    }
    task.pause()?;
    found("frozen")?;
    task.resume()?;
    task.end()?;

    let namespace = bench.network_namespace()?;
    found("nsfs")?;
    bench.remove_network_namespace(&namespace)?;

    let tmp = bench.slot.outside("/tmp/ctrd-checkpoint7/pages-1.img");
    fs::create_dir(bench.slot.outside("/tmp/ctrd-checkpoint7"))?;
    fs::write(&tmp, "left")?;
    found("/tmp/ctrd-checkpoint7/pages-1.img")?;
    fs::remove_dir_all(bench.slot.outside("/tmp/ctrd-checkpoint7"))?;

    let socket = bench.slot.outside("/run/containerd/s/left");
    let _listener = UnixListener::bind(&socket)?;
    found("/run/containerd/s/left")?;
    fs::remove_file(socket)?;

    bench.shell("nft add table inet CRIU-7; nft add chain inet CRIU-7 input", &[])?;
    found("CRIU-7")?;
    bench.shell("nft delete table inet CRIU-7", &[])?;
    Ok(())
}

fn a_gap_in_what_was_counted_is_found(_: &Bench) -> Outcome {
    ensure_eq!(counted("3\n4\n5\n6")?, 3..=5, "whole numbers");
    for wrong in ["1\n3\n", "1\n1\n", "2\n1\n", "1\nx\n", ""] {
        ensure!(counted(wrong).is_err(), "{wrong:?} passed");
    }
    Ok(())
}

fn only_what_a_daemon_took_with_it_may_be_missing(bench: &Bench) -> Outcome {
    let fifo = bench.fresh_folder("fifo")?.join("stdout");
    mkfifo(&fifo, Mode::S_IRWXU)?;
    let mut shim = File::options().read(true).write(true).open(&fifo)?;
    shim.write_all(b"6\n7\n")?;
    let lost = Lost::default();
    lost.note("3", &fifo)?;
    ensure_eq!(lost.counted("1\n2\n3\n6\n7\n")?, 1..=7, "4 and 5 are missing");
    for wrong in ["1\n3\n6\n7\n", "1\n2\n3\n7\n", "3\n6\n8\n", "3\n3\n6\n", "6\n3\n"] {
        ensure!(lost.counted(wrong).is_err(), "{wrong:?} passed");
    }
    let mut waiting = [0; 4];
    shim.read_exact(&mut waiting)?;
    ensure_eq!(&waiting, b"6\n7\n", "what waits for the next daemon");
    Ok(())
}

fn a_gate_holds_the_runtime_until_it_is_opened(bench: &Bench) -> Outcome {
    let task = bench.run(&["idle"])?;
    let gate = Gate::before_runtime(bench, "pause")?;
    std::thread::scope(|scope| -> Outcome {
        let pausing = scope.spawn(|| task.pause());
        let arrived = gate.wait_for_arrival();
        let held = !pausing.is_finished() && !cgroup::is_frozen(task.cgroup());
        gate.open()?;
        arrived?;
        ensure!(held, "the gate let it through");
        pausing.join().map_err(|_| Failure::new("the pause panicked"))??;
        Ok(())
    })?;
    ensure_eq!(task.status()?, Status::Paused, "after the gate was opened");
    task.resume()?;
    task.end()
}

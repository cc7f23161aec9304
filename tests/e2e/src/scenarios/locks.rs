//! CRIU locks the network of a container whose connections are kept. Nothing of that may
//! stay: not in the host's network, not in one that others share.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};

use super::shim_gone::{is_gone, shim_of};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let locks = "with the stock shim CRIU's locks stay";
    let all = vec![
        scenario!(a_killed_criu_leaves_no_lock),
        scenario!(a_killed_criu_leaves_no_lock_on_the_hosts_network),
        scenario!(a_killed_criu_leaves_no_lock_on_a_shared_network),
        scenario!(a_stopped_task_leaves_no_lock_on_the_hosts_network),
        scenario!(a_stopped_task_leaves_no_lock_on_a_shared_network),
        scenario!(a_failed_restore_leaves_a_shared_network_alone),
        scenario!(a_dead_shim_leaves_no_lock_on_the_hosts_network),
        scenario!(a_dead_shim_leaves_no_lock_on_a_shared_network),
    ];
    all.into_iter().map(|scenario| scenario.fifo_only().cryo_only(locks)).collect()
}

const LOCKS: [&str; 2] = ["iptables", "nftables"];

enum Network<'a> {
    Own,
    Host,
    Shared(&'a Path),
}

impl Network<'_> {
    fn run<'b>(&self, bench: &'b Bench, guest: &str, lock: &str) -> Outcome<Task<'b>> {
        let plan = bench.guest(&[guest]).annotation("cryo.tcp", "established");
        let plan = plan.annotation("cryo.network-lock", lock).annotation("cryo.hooks", "hold");
        let task = match self {
            Network::Own => plan,
            Network::Host => plan.host_network(),
            Network::Shared(path) => plan.network_namespace(path),
        };
        let task = task.start()?;
        task.stdout().wait_for_line("ready")?;
        Ok(task)
    }

    /// Rules of a firewall that keep anything out.
    fn locks(&self, bench: &Bench, task: &Task<'_>) -> Outcome<Vec<String>> {
        let list = "enter=${1:+nsenter --net=$1}; for list in 'nft list ruleset' iptables-save ip6tables-save; do \
                    $enter $list 2>/dev/null; done";
        let rules = match self {
            Network::Own => bench.shell(list, &[&PathBuf::from(format!("/proc/{}/ns/net", task.pid()?))])?,
            Network::Host => bench.shell(list, &[])?,
            Network::Shared(path) => bench.shell(list, &[path])?,
        };
        let is_lock = |line: &&str| ["CRIU", "drop", "DROP"].iter().any(|word| line.contains(word));
        Ok(rules.lines().filter(is_lock).map(str::to_owned).collect())
    }

    fn is_open(&self, bench: &Bench, task: &Task<'_>) -> Outcome {
        let locks = self.locks(bench, task)?;
        ensure!(locks.is_empty(), "these are left: {locks:#?}");
        Ok(())
    }
}

/// A hook that does nothing.
fn hold_nowhere(bench: &Bench) -> Outcome {
    bench.set_node_file("[hooks.hold]\npath = \"/bin/true\"\nstages = [\"post-resume\"]\n")
}

/// Holds CRIU when all is written and nothing unlocked yet.
fn hold_at(bench: &Bench, stage: &str) -> Outcome<PathBuf> {
    let here = bench.fresh_folder("hold")?.join("here");
    bench.set_node_file(&format!(
        "[hooks.hold]\npath = \"/bin/sh\"\nargs = [\"-c\", \"touch {}; exec sleep 1000\"]\nstages = [{stage:?}]\n",
        here.display()
    ))?;
    Ok(here)
}

/// CRIU is killed in the middle of a checkpoint; the connection can be used as before.
fn criu_is_killed(bench: &Bench, network: &Network<'_>) -> Outcome {
    for lock in LOCKS {
        let here = hold_at(bench, "post-dump")?;
        let task = network.run(bench, "connected", lock)?;
        let victim = Victim::expected(bench)?;
        let checkpoint = Checkpoint::into_folder(&bench.fresh_folder("image")?)
            .work_folder(&bench.fresh_folder("criu")?)
            .exit();
        let mut locks = Vec::new();
        let answer = victim.killed_during(
            || task.checkpoint(&checkpoint).map(drop),
            || {
                eventually("all is written", || here.exists().then_some(()))?;
                locks = network.locks(bench, &task)?;
                Ok(())
            },
        )?;
        refused(answer, &[])?;
        ensure!(!locks.is_empty(), "{lock}: there was no lock");
        network.is_open(bench, &task).during(|| lock.to_owned())?;
        task.asks(1, "passed").during(|| lock.to_owned())?;
        task.end()?;
    }
    Ok(())
}

fn a_killed_criu_leaves_no_lock(bench: &Bench) -> Outcome {
    criu_is_killed(bench, &Network::Own)
}

fn a_killed_criu_leaves_no_lock_on_the_hosts_network(bench: &Bench) -> Outcome {
    criu_is_killed(bench, &Network::Host)
}

fn a_killed_criu_leaves_no_lock_on_a_shared_network(bench: &Bench) -> Outcome {
    let path = bench.network_namespace()?;
    criu_is_killed(bench, &Network::Shared(&path))?;
    bench.remove_network_namespace(&path)
}

/// Nobody knows when it comes back, if ever; meanwhile the network is others'.
fn a_task_is_stopped(bench: &Bench, network: &Network<'_>) -> Outcome {
    hold_nowhere(bench)?;
    for lock in LOCKS {
        let task = network.run(bench, "stream", lock)?;
        let image = task.end_as_image()?;
        network.is_open(bench, &task).during(|| lock.to_owned())?;
        let again = task.again_from(&image).start()?;
        network.is_open(bench, &again).during(|| lock.to_owned())?;
        again.asks(1, "flows").during(|| lock.to_owned())?;
        again.end()?;
    }
    Ok(())
}

fn a_stopped_task_leaves_no_lock_on_the_hosts_network(bench: &Bench) -> Outcome {
    a_task_is_stopped(bench, &Network::Host)
}

fn a_stopped_task_leaves_no_lock_on_a_shared_network(bench: &Bench) -> Outcome {
    let path = bench.network_namespace()?;
    a_task_is_stopped(bench, &Network::Shared(&path))?;
    bench.remove_network_namespace(&path)
}

fn a_failed_restore_leaves_a_shared_network_alone(bench: &Bench) -> Outcome {
    let path = bench.network_namespace()?;
    let network = Network::Shared(&path);
    for lock in LOCKS {
        hold_nowhere(bench)?;
        let task = network.run(bench, "stream", lock)?;
        let image = task.end_as_image()?;
        let neighbour = network.run(bench, "stream", lock)?;
        for stage in ["setup-namespaces", "post-restore"] {
            let here = hold_at(bench, stage)?;
            let again = task.again_from(&image).create()?;
            let victim = Victim::expected(bench)?;
            let answer = victim.killed_during(
                || again.start().map(drop),
                || eventually("it has come that far", || here.exists().then_some(())),
            )?;
            refused(answer, &[])?;
            again.delete()?;
            network.is_open(bench, &neighbour).during(|| format!("{lock} at {stage}"))?;
        }
        neighbour.asks(1, "flows")?;
        neighbour.end()?;
    }
    bench.remove_network_namespace(&path)
}

/// The shim and CRIU are killed together, while connections are locked.
fn all_are_killed(
    bench: &Bench,
    network: &Network<'_>,
    task: &Task<'_>,
    here: &Path,
    operation: impl FnOnce() + Send,
) -> Outcome {
    let (victim, shim) = (Victim::expected(bench)?.that_may_be_gone(), shim_of(task)?);
    let mut locks = Vec::new();
    victim.killed_during(operation, || {
        eventually("it has come that far", || here.exists().then_some(()))?;
        locks = network.locks(bench, task)?;
        Ok(kill(shim, Signal::SIGKILL)?)
    })?;
    ensure!(!locks.is_empty(), "there was no lock");
    is_gone(task)?;
    network.is_open(bench, task)
}

fn a_shim_dies(bench: &Bench, network: &Network<'_>) -> Outcome {
    for lock in LOCKS {
        let here = hold_at(bench, "post-dump")?;
        let task = network.run(bench, "stream", lock)?;
        let checkpoint = Checkpoint::into_folder(&bench.fresh_folder("image")?)
            .work_folder(&bench.fresh_folder("criu")?)
            .exit();
        let dump = || drop(task.checkpoint(&checkpoint));
        all_are_killed(bench, network, &task, &here, dump).during(|| format!("{lock}, dump"))?;

        hold_nowhere(bench)?;
        let task = network.run(bench, "stream", lock)?;
        let image = task.end_as_image()?;
        let here = hold_at(bench, "post-restore")?;
        let again = task.again_from(&image).create()?;
        let restore = || drop(again.start());
        all_are_killed(bench, network, &again, &here, restore).during(|| format!("{lock}, restore"))?;
    }
    Ok(())
}

fn a_dead_shim_leaves_no_lock_on_the_hosts_network(bench: &Bench) -> Outcome {
    a_shim_dies(bench, &Network::Host)
}

fn a_dead_shim_leaves_no_lock_on_a_shared_network(bench: &Bench) -> Outcome {
    let path = bench.network_namespace()?;
    a_shim_dies(bench, &Network::Shared(&path))?;
    bench.remove_network_namespace(&path)
}

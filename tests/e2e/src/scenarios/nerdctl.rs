//! What a user of nerdctl may rely on, through the unmodified client.

use std::fs::File;

use crate::harness::cryo::{cryo_prints, cryo_refuses};
use crate::harness::*;

const IMAGE: &str = "docker.io/library/guest:latest";

pub(crate) fn scenarios() -> Vec<Scenario> {
    let all = [
        scenario!(nerdctl_checkpoints_are_listed_until_they_are_removed),
        scenario!(a_container_of_nerdctl_may_go_on_after_a_checkpoint),
        scenario!(a_container_of_nerdctl_counts_on_from_a_checkpoint).restores(),
        scenario!(a_container_of_nerdctl_comes_back_to_its_network).restores(),
        scenario!(a_container_of_nerdctl_goes_on_by_cryos_own_verbs)
            .restores()
            .cryo_only("the stock shim has no store"),
        scenario!(memory_that_nerdctl_carries_is_compressed)
            .restores()
            .cryo_only("the stock shim compresses nothing"),
    ];
    all.into_iter()
        .map(|scenario| {
            scenario
                .fifo_only()
                .impossible_if(
                    |_, _| !std::path::Path::new("/usr/local/bin/nerdctl").exists(),
                    "there is no nerdctl",
                )
                // nerdctl asks for the container's end only of the runtime that it knows.
                .impossible_if(
                    |_, settings| settings.shim == Shim::Cryo,
                    "nerdctl knows checkpoints of runc.v2 only",
                )
        })
        .collect()
}

struct Nerdctl<'b> {
    bench: &'b Bench,
    name: String,
}

impl<'b> Nerdctl<'b> {
    /// A container that counts.
    fn run(bench: &'b Bench, network: &str) -> Outcome<Self> {
        let nerdctl = Nerdctl { bench, name: bench.next_id() };
        nerdctl.import()?;
        let name = &nerdctl.name;
        let mut args = vec!["run", "-d", "--name", name, "--net", network];
        if bench.runtime() == Runtime::Crun {
            args.extend(["--runtime", "/usr/bin/crun"]);
        }
        args.extend([IMAGE, "/bin/guest", "count"]);
        nerdctl.call(&args)?;
        nerdctl.counts_on(3)?;
        Ok(nerdctl)
    }

    fn import(&self) -> Outcome {
        let root = File::open(format!("{}/root.tar", slot::BASE))?;
        self.command(&["import", "-", IMAGE], Some(root))?;
        Ok(())
    }

    #[track_caller]
    fn call(&self, args: &[&str]) -> Outcome<String> {
        self.command(args, None)
    }

    /// Each slot has networks and checkpoints of its own.
    #[track_caller]
    fn command(&self, args: &[&str], stdin: Option<File>) -> Outcome<String> {
        let slot = &self.bench.slot;
        let mut command = slot.command("timeout");
        command.args(["--foreground", "60", "nerdctl", "--namespace", &slot.containerd_namespace()]);
        command.arg("--data-root").arg(slot.folder.join("nerdctl"));
        command.arg("--cni-netconfpath").arg(slot.folder.join("cni"));
        command.args(args);
        if let Some(stdin) = stdin {
            command.stdin(stdin);
        }
        let output = command.output().during(|| "nerdctl".into())?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!("nerdctl {}: {}", args.join(" "), errors.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// nerdctl keeps the checkpoints of all containers in one folder.
    fn checkpoint_name(&self, checkpoint: &str) -> String {
        format!("{}-{checkpoint}", self.name)
    }

    fn checkpoint(&self, options: &[&str], checkpoint: &str) -> Outcome {
        let checkpoint = self.checkpoint_name(checkpoint);
        self.call(&[&["checkpoint", "create"], options, &[&self.name, &checkpoint]].concat())?;
        Ok(())
    }

    fn come_back(&self, checkpoint: &str) -> Outcome {
        self.checkpoint(&[], checkpoint)?;
        let status = self.call(&[
            "ps",
            "--all",
            "--filter",
            &format!("name={}", self.name),
            "--format",
            "{{.Status}}",
        ])?;
        ensure!(status.starts_with("Exited (137)"), "after the checkpoint its status is {status:?}");
        self.call(&["start", "--checkpoint", &self.checkpoint_name(checkpoint), &self.name])?;
        Ok(())
    }

    /// Its log gets longer, and has each number once.
    #[track_caller]
    fn counts_on(&self, more: usize) -> Outcome {
        let lines = || Some(self.call(&["logs", &self.name]).ok()?.lines().count());
        let before = lines().unwrap_or_default();
        eventually("it counts on", || (lines()? >= before + more).then_some(()))?;
        ensure_eq!(*counted(&self.call(&["logs", &self.name])?)?.start(), 1, "the first number");
        Ok(())
    }

    fn end(self) -> Outcome {
        self.call(&["stop", "--time", "2", &self.name])?;
        self.call(&["rm", &self.name])?;
        self.call(&["rmi", "--force", IMAGE])?;
        // CNI's plugins keep their bridge and chains, and crun what it made of nerdctl's seccomp profile.
        let script = "nft flush ruleset; ip link delete nerdctl0 2>/dev/null || true; rm -rf \"$1\"";
        let cache = format!("/run/containerd/runc/{}/.cache", self.bench.slot.containerd_namespace());
        self.bench.shell(script, &[cache.as_ref()])?;
        Ok(())
    }
}

fn nerdctl_checkpoints_are_listed_until_they_are_removed(bench: &Bench) -> Outcome {
    let container = Nerdctl::run(bench, "none")?;
    let one = container.checkpoint_name("one");
    container.checkpoint(&["--leave-running"], "one")?;
    ensure!(container.call(&["checkpoint", "ls", &container.name])?.contains(&one), "it isn't listed");
    container.call(&["checkpoint", "rm", &container.name, &one])?;
    ensure!(!container.call(&["checkpoint", "ls", &container.name])?.contains(&one), "it is still listed");
    container.end()
}

fn a_container_of_nerdctl_may_go_on_after_a_checkpoint(bench: &Bench) -> Outcome {
    let container = Nerdctl::run(bench, "host")?;
    container.checkpoint(&["--leave-running"], "one")?;
    container.counts_on(3)?;
    ensure_eq!(container.call(&["exec", &container.name, "echo", "well"])?, "well\n", "what an exec prints");
    container.end()
}

fn a_container_of_nerdctl_counts_on_from_a_checkpoint(bench: &Bench) -> Outcome {
    let container = Nerdctl::run(bench, "host")?;
    for checkpoint in ["one", "two"] {
        container.come_back(checkpoint)?;
        container.counts_on(3)?;
    }
    container.end()
}

/// With the address that the network gives it anew.
fn a_container_of_nerdctl_comes_back_to_its_network(bench: &Bench) -> Outcome {
    let container = Nerdctl::run(bench, "bridge")?;
    container.come_back("one")?;
    container.counts_on(3)?;
    let addresses = container.call(&["exec", &container.name, "ip", "-4", "addr", "show", "eth0"])?;
    ensure!(addresses.contains("inet 10.4.0."), "eth0 has {addresses:?}");
    container.end()
}

/// With the logger and the network that nerdctl gave it.
fn a_container_of_nerdctl_goes_on_by_cryos_own_verbs(bench: &Bench) -> Outcome {
    let container = Nerdctl::run(bench, "bridge")?;
    let checkpoint = container.checkpoint_name("one");
    for _ in 0..2 {
        cryo_prints(bench, &["checkpoint", "--exit", &container.name, &checkpoint])?;
        let filter = format!("name={}", container.name);
        let status = container.call(&["ps", "--all", "--filter", &filter, "--format", "{{.Status}}"])?;
        ensure!(status.starts_with("Exited (137)"), "after the checkpoint its status is {status:?}");
        let said = cryo_refuses(bench, &["restore", &checkpoint, "--id", "other"])?;
        ensure!(said.contains("nerdctl run --annotation"), "{said}");
        cryo_prints(bench, &["restore", &checkpoint])?;
        container.counts_on(3)?;
        let addresses = container.call(&["exec", &container.name, "ip", "-4", "addr", "show", "eth0"])?;
        ensure!(addresses.contains("inet 10.4.0."), "eth0 has {addresses:?}");
        cryo_prints(bench, &["rm", &checkpoint])?;
    }
    container.end()
}

fn memory_that_nerdctl_carries_is_compressed(bench: &Bench) -> Outcome {
    let container = Nerdctl::run(bench, "none")?;
    container.checkpoint(&[], "one")?;
    let script = "find \"$1\" -path \"*/$2/pages-1.img*\" -printf '%f\\n'";
    let all = bench.slot.folder.join("nerdctl");
    let memory = bench.shell(script, &[&all, container.checkpoint_name("one").as_ref()])?;
    ensure_eq!(memory, "pages-1.img.zst\n", "what nerdctl has");
    container.call(&["start", "--checkpoint", &container.checkpoint_name("one"), &container.name])?;
    container.counts_on(3)?;
    container.end()
}

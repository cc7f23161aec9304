//! Keeping the other ends of connections quiet until all sockets are there, in a network
//! that others share. One that sends before would get an answer that ends the connection.
//! In a network of the container's own CRIU locks all of it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::Attempt;
use crate::bundle::Sharing;
use crate::criu::connections::{self, MARK, Rule};
use crate::operation::aside;
use crate::policy::NetworkLock;
use crate::reaper::Reaper;
use crate::runtime::hook;

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Lock {
    rules: Vec<Rule>,
    by: NetworkLock,
    /// Of nftables.
    table: String,
    /// None is the host's.
    network: Option<PathBuf>,
    reaper: Reaper,
}

/// None if there is nothing to lock, or nothing to lock it with.
pub(super) async fn close(attempt: &Attempt) -> Option<Lock> {
    let Attempt { subject, image, policy, anchor, .. } = attempt;
    let network = match subject.spec.sharing("network") {
        Sharing::Private => return None,
        Sharing::Host => None,
        Sharing::With(path) => Some(path),
    };
    let by = policy.network_lock().unwrap_or(NetworkLock::Iptables);
    if !attempt.options().tcp_established || by == NetworkLock::Skip {
        return None;
    }
    let folder = image.path.clone();
    // One that can't be read is CRIU's to complain about.
    let rules = aside(move || connections::rules(&folder)).await.unwrap_or_default();
    if rules.is_empty() {
        return None;
    }
    let lock = Lock { rules, by, table: format!("cryo-{anchor}"), network, reaper: subject.runtime.reaper };
    match lock.set().await {
        Ok(()) => Some(lock),
        Err(problem) => {
            tracing::warn!(problem, "nobody keeps the other ends of connections quiet");
            lock.open().await;
            None
        }
    }
}

/// With runc CRIU locks all of a shared network, and if it is killed leaves it so.
pub(super) async fn open_all(attempt: &Attempt) {
    let Sharing::With(path) = attempt.subject.spec.sharing("network") else { return };
    if attempt.options().tcp_established {
        let opening = connections::opening(&path.display().to_string());
        note(hook::run(attempt.subject.runtime.reaper, opening, b"", PATIENCE).await);
    }
}

impl Lock {
    async fn set(&self) -> Result<(), String> {
        if self.by == NetworkLock::Nftables {
            return self.run("nft", &["-f", "-"], &self.chains()).await;
        }
        for (restore, rules) in self.families() {
            self.run(restore, &["--noflush", "-w"], &transaction("-I", &rules)).await?;
        }
        Ok(())
    }

    /// Whoever it was that kept them quiet, they may speak.
    pub(super) async fn open(self) {
        if self.by == NetworkLock::Nftables {
            let removed = self.run("nft", &["delete", "table", "inet", &self.table], "").await;
            return note(removed);
        }
        for (restore, rules) in self.families() {
            if self.run(restore, &["--noflush", "-w"], &transaction("-D", &rules)).await.is_ok() {
                continue;
            }
            // In the host's network CRIU has removed some of them itself.
            for rule in rules {
                note(self.run(restore, &["--noflush", "-w"], &transaction("-D", &[rule])).await);
            }
        }
    }

    fn families(&self) -> Vec<(&'static str, Vec<&Rule>)> {
        let of = |v4: bool| self.rules.iter().filter(|rule| rule.is_v4() == v4).collect::<Vec<_>>();
        let families = [("iptables-restore", of(true)), ("ip6tables-restore", of(false))];
        families.into_iter().filter(|(_, rules)| !rules.is_empty()).collect()
    }

    fn chains(&self) -> String {
        let chain = |name: &str, hook: &str| {
            let rules = self.rules.iter().filter(|rule| rule.chain == name).map(Rule::nft);
            let rules: String = rules.map(|rule| format!("    {rule}\n")).collect();
            format!(
                "  chain {hook} {{ type filter hook {hook} priority 0;\n    meta mark {MARK} accept\n{rules}  }}\n"
            )
        };
        format!("table inet {} {{\n{}{}}}\n", self.table, chain("INPUT", "input"), chain("OUTPUT", "output"))
    }

    async fn run(&self, program: &str, args: &[&str], input: &str) -> Result<(), String> {
        let mut command = match &self.network {
            None => Command::new(program),
            Some(path) => {
                let mut enter = Command::new("nsenter");
                enter.arg(format!("--net={}", path.display())).arg(program);
                enter
            }
        };
        command.args(args);
        hook::run(self.reaper, command, input.as_bytes(), PATIENCE).await
    }
}

fn transaction(how: &str, rules: &[&Rule]) -> String {
    let lines: String = rules.iter().map(|rule| format!("{how} {}\n", rule.words())).collect();
    format!("*filter\n{lines}COMMIT\n")
}

fn note(removed: Result<(), String>) {
    if let Err(problem) = removed {
        tracing::debug!(problem, "a lock of the network isn't removed");
    }
}

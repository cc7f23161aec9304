//! Rules of a firewall that keep the other ends of connections quiet: ours, and those that
//! CRIU leaves behind.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reaper::Reaper;
use crate::runtime::hook;

const PATIENCE: Duration = Duration::from_secs(10);
/// On packets of CRIU's own, from its include/soccr.h.
const MARK: &str = "0xC114";

/// What CRIU locks a whole namespace with. An empty chain is open, and where there is none
/// nothing leads to it: there is little time.
const OPEN_ALL: &str = "for tables in iptables ip6tables; do
    command -v $tables >/dev/null && $tables -w -F CRIU || continue
    for chain in INPUT OUTPUT; do while $tables -w -D $chain -j CRIU; do :; done; done
    $tables -w -X CRIU
done 2>/dev/null
! command -v nft >/dev/null || nft list tables | while read -r word family name; do
    case $name in CRIU-*) nft delete table $family $name;; esac
done";

pub type End = (IpAddr, u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Chain {
    Input,
    Output,
}

/// One of iptables: it drops what isn't CRIU's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub chain: Chain,
    pub source: End,
    pub destination: End,
}

/// That of one network.
pub struct Firewall {
    /// A file of its namespace; none is the host's.
    pub namespace: Option<PathBuf>,
    pub reaper: Reaper,
}

impl Firewall {
    /// By iptables.
    pub async fn add(&self, rules: &[Rule]) -> Result<(), String> {
        for (program, rules) in families(rules) {
            self.change(program, "-I", &rules).await?;
        }
        Ok(())
    }

    /// Those that are there: CRIU may have removed some itself, or never have added them.
    pub async fn remove(&self, rules: &[Rule]) {
        for (program, rules) in families(rules) {
            if self.change(program, "-D", &rules).await.is_ok() {
                continue;
            }
            for rule in rules {
                note(self.change(program, "-D", &[rule]).await);
            }
        }
    }

    /// By nftables.
    pub async fn add_table(&self, name: &str, rules: &[Rule]) -> Result<(), String> {
        let chain = |chain: Chain, hook: &str| {
            let rules = rules.iter().filter(|rule| rule.chain == chain).map(Rule::nft);
            let rules: String = rules.map(|rule| format!("    {rule}\n")).collect();
            format!(
                "  chain {hook} {{ type filter hook {hook} priority 0;\n    meta mark {MARK} accept\n{rules}  }}\n"
            )
        };
        let chains = chain(Chain::Input, "input") + &chain(Chain::Output, "output");
        self.run("nft", &["-f", "-"], &format!("table inet {name} {{\n{chains}}}\n")).await
    }

    pub async fn remove_table(&self, name: &str) {
        note(self.run("nft", &["delete", "table", "inet", name], "").await);
    }

    /// Removes CRIU's lock of all of a namespace in which nobody else uses CRIU now.
    pub async fn open_all(&self) {
        note(self.run("sh", &["-c", OPEN_ALL], "").await);
    }

    async fn change(&self, program: &str, how: &str, rules: &[&Rule]) -> Result<(), String> {
        let lines: String = rules.iter().map(|rule| format!("{how} {}\n", rule.words())).collect();
        self.run(program, &["--noflush", "-w"], &format!("*filter\n{lines}COMMIT\n")).await
    }

    async fn run(&self, program: &str, args: &[&str], input: &str) -> Result<(), String> {
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(file) => {
                let mut enter = Command::new("nsenter");
                enter.arg(format!("--net={}", file.display())).arg(program);
                enter
            }
        };
        command.args(args);
        hook::run(self.reaper, command, input.as_bytes(), PATIENCE).await
    }
}

/// Each with the program that knows its kind of address.
fn families(rules: &[Rule]) -> Vec<(&'static str, Vec<&Rule>)> {
    let of = |v4: bool| rules.iter().filter(|rule| rule.is_v4() == v4).collect::<Vec<_>>();
    let families = [("iptables-restore", of(true)), ("ip6tables-restore", of(false))];
    families.into_iter().filter(|(_, rules)| !rules.is_empty()).collect()
}

fn note(removed: Result<(), String>) {
    if let Err(problem) = removed {
        tracing::debug!(problem, "a lock of the network isn't removed");
    }
}

impl Chain {
    /// As iptables calls it.
    pub fn name(self) -> &'static str {
        match self {
            Chain::Input => "INPUT",
            Chain::Output => "OUTPUT",
        }
    }
}

impl Rule {
    fn is_v4(&self) -> bool {
        self.source.0.is_ipv4()
    }

    /// As iptables wants it, without what is to be done with it.
    fn words(&self) -> String {
        let Rule { chain, source, destination } = self;
        let chain = chain.name();
        format!(
            "{chain} --protocol tcp -m mark ! --mark {MARK} --source {} --sport {} --destination {} --dport {} -j DROP",
            source.0, source.1, destination.0, destination.1
        )
    }

    /// The same for a chain of nftables that is called like that of iptables.
    pub(super) fn nft(&self) -> String {
        let Rule { source, destination, .. } = self;
        let ip = if self.is_v4() { "ip" } else { "ip6" };
        format!(
            "{ip} saddr {} tcp sport {} {ip} daddr {} tcp dport {} drop",
            source.0, source.1, destination.0, destination.1
        )
    }
}

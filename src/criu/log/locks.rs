//! Which connections a dump has locked one by one, as it does in the host's network.

use std::io::BufRead;

use super::line::next;
use crate::criu::firewall::{Chain, Rule};

/// What has to be undone if CRIU can't do it any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Locks {
    pub rules: Vec<Rule>,
    /// Of nftables.
    pub table: Option<String>,
}

/// Containers choose names that are in the log, too: only what has exactly the form that
/// CRIU gives it counts, and only its addresses are used.
pub(super) fn of_log(mut log: impl BufRead) -> Locks {
    let mut locks = Locks::default();
    while let Ok(Some(line)) = next(&mut log) {
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if let Some(command) = between(line, "\tRunning iptables [", "]") {
            locks.rules.extend(rule(command));
        } else if let Some(command) = between(line, "\tRunning nftables [", "]") {
            locks.table = table(command).or(locks.table);
        }
    }
    locks
}

fn between<'a>(line: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    line.split_once(begin)?.1.strip_suffix(end)
}

fn rule(command: &str) -> Option<Rule> {
    let (_, locks) = command.split_once(" -I ")?;
    let words: Vec<&str> = locks.split_whitespace().collect();
    let after = |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
    let end = |address: &str, port: &str| Some((after(address)?.parse().ok()?, after(port)?.parse().ok()?));
    let chain =
        [Chain::Input, Chain::Output].into_iter().find(|chain| words.first() == Some(&chain.name()))?;
    Some(Rule { chain, source: end("--source", "--sport")?, destination: end("--destination", "--dport")? })
}

fn table(command: &str) -> Option<String> {
    let name = command.strip_prefix("add element inet ")?.split(' ').next()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (name.starts_with("CRIU-") && name.bytes().all(plain)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_found_and_nothing_else() {
        let log = b"(00.010472) \tRunning iptables [iptables -w -t filter -I INPUT --protocol tcp -m mark ! --mark 0xC114 \
--source 127.0.0.1 --sport 45192 --destination 127.0.0.1 --dport 41071 -j DROP]\n\
(00.011) \tRunning iptables [ip6tables  -t filter -I OUTPUT --protocol tcp -m mark ! --mark 0xC114 \
--source ::1 --sport 1 --destination fe80::1 --dport 2 -j DROP]\n\
(00.012) \tRunning nftables [add element inet CRIU-0a1b-2c conns4 { 127.0.0.1 . 1 . 127.0.0.1 . 2 }]\n";
        let locks = of_log(&log[..]);
        assert_eq!(locks.table.as_deref(), Some("CRIU-0a1b-2c"));
        let ends: Vec<_> =
            locks.rules.iter().map(|rule| (rule.chain.name(), rule.source.1, rule.destination.1)).collect();
        assert_eq!(ends, [("INPUT", 45192, 41071), ("OUTPUT", 1, 2)]);
        for bad in [
            "x \tRunning iptables [iptables -I INPUT --source $(reboot) --sport 1 --destination ::1 --dport 2]",
            "x \tRunning iptables [iptables -I FORWARD --source ::1 --sport 1 --destination ::1 --dport 2]",
            "x \tRunning iptables [iptables -D INPUT --source ::1 --sport 1 --destination ::1 --dport 2]",
            "x \tRunning nftables [add element inet filter conns4 { }]",
            "x \tRunning nftables [add element inet CRIU-;reboot conns4 { }]",
            "x \tRunning iptables [iptables -I INPUT --source",
            "\u{0}",
        ] {
            assert_eq!(of_log(bad.as_bytes()), Locks::default(), "{bad}");
        }
    }
}

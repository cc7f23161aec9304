//! What can be asked for, by an annotation or by the node file's defaults, in the same words.

use std::time::Duration;

use super::hooks;

/// What becomes of open TCP connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tcp {
    /// A container that has some isn't checkpointed.
    Refuse,
    /// They go on after a restore, if their other ends are still there.
    Established,
    /// They are closed at a restore.
    Close,
}

/// What keeps peers of kept connections quiet meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkLock {
    Iptables,
    Nftables,
    Skip,
}

impl NetworkLock {
    /// As CRIU calls it.
    pub fn name(self) -> &'static str {
        match self {
            NetworkLock::Iptables => "iptables",
            NetworkLock::Nftables => "nftables",
            NetworkLock::Skip => "skip",
        }
    }
}

/// Nothing where nobody said anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) exit: Option<bool>,
    pub(super) timeout: Option<Duration>,
    pub(super) tcp: Option<Tcp>,
    pub(super) refuses_execs: Option<bool>,
    pub(super) skips_in_flight: Option<bool>,
    pub(super) keeps_shm: Option<bool>,
    pub(super) keeps_rootfs: Option<bool>,
    pub(super) file_locks: Option<bool>,
    pub(super) link_remap: Option<bool>,
    pub(super) ghost_limit: Option<u64>,
    pub(super) external_unix_sockets: Option<bool>,
    pub(super) cgroups: Option<String>,
    pub(super) network_lock: Option<NetworkLock>,
    pub(super) lsm_profile: Option<String>,
    pub(super) hooks: Option<Vec<String>>,
}

/// What is wrong with a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Nobody knows it.
    Unknown,
    /// Its value isn't one of these.
    Value(&'static str),
}

/// All of them, as they are called after `cryo.` and in the node file.
pub(super) const NAMES: [&str; 15] = [
    "checkpoint.exit",
    "timeout",
    "tcp",
    "exec",
    "in-flight",
    "shm",
    "rootfs",
    "file-locks",
    "link-remap",
    "ghost-limit",
    "external-unix-sockets",
    "cgroups",
    "network-lock",
    "lsm-profile",
    "hooks",
];

const BOOL: Problem = Problem::Value("give true or false");
const CGROUPS: [&str; 3] = ["soft", "full", "ignore"];
const LONGEST_PROFILE: usize = 256;

impl Wishes {
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let switch = || value.parse().map(Some).map_err(|_| BOOL);
        match name {
            "checkpoint.exit" => self.exit = switch()?,
            "file-locks" => self.file_locks = switch()?,
            "link-remap" => self.link_remap = switch()?,
            "external-unix-sockets" => self.external_unix_sockets = switch()?,
            "timeout" => {
                let time = duration(value).filter(|time| !time.is_zero());
                self.timeout =
                    Some(time.ok_or(Problem::Value("give a time above zero, like 90s, 15m or 1h"))?);
            }
            "tcp" => self.tcp = Some(tcp(value)?),
            "exec" => {
                self.refuses_execs = Some(match value {
                    "terminate" => false,
                    "refuse" => true,
                    _ => return Err(Problem::Value("give terminate or refuse")),
                });
            }
            "in-flight" => {
                self.skips_in_flight = Some(match value {
                    "skip" => true,
                    "refuse" => false,
                    _ => return Err(Problem::Value("give skip or refuse")),
                });
            }
            "shm" => self.keeps_shm = Some(keeps(value)?),
            "rootfs" => self.keeps_rootfs = Some(keeps(value)?),
            "ghost-limit" => {
                let bytes = bytes(value).ok_or(Problem::Value("give a size, like 64M or 1G"))?;
                self.ghost_limit = Some(bytes);
            }
            "cgroups" => {
                let known = CGROUPS.contains(&value).then(|| value.to_owned());
                self.cgroups = Some(known.ok_or(Problem::Value("give soft, full or ignore"))?);
            }
            "network-lock" => {
                self.network_lock = Some(match value {
                    "iptables" => NetworkLock::Iptables,
                    "nftables" => NetworkLock::Nftables,
                    "skip" => NetworkLock::Skip,
                    _ => return Err(Problem::Value("give iptables, nftables or skip")),
                });
            }
            "lsm-profile" => self.lsm_profile = Some(lsm_profile(value)?),
            "hooks" => {
                let names = hooks::chosen(value);
                self.hooks =
                    Some(names.ok_or(Problem::Value("give different names of hooks, like a,b, or none"))?);
            }
            _ => return Err(Problem::Unknown),
        }
        Ok(())
    }

    /// These, and of the others what these don't say.
    pub(super) fn or(self, others: Wishes) -> Wishes {
        Wishes {
            exit: self.exit.or(others.exit),
            timeout: self.timeout.or(others.timeout),
            tcp: self.tcp.or(others.tcp),
            refuses_execs: self.refuses_execs.or(others.refuses_execs),
            skips_in_flight: self.skips_in_flight.or(others.skips_in_flight),
            keeps_shm: self.keeps_shm.or(others.keeps_shm),
            keeps_rootfs: self.keeps_rootfs.or(others.keeps_rootfs),
            file_locks: self.file_locks.or(others.file_locks),
            link_remap: self.link_remap.or(others.link_remap),
            ghost_limit: self.ghost_limit.or(others.ghost_limit),
            external_unix_sockets: self.external_unix_sockets.or(others.external_unix_sockets),
            cgroups: self.cgroups.or(others.cgroups),
            network_lock: self.network_lock.or(others.network_lock),
            lsm_profile: self.lsm_profile.or(others.lsm_profile),
            hooks: self.hooks.or(others.hooks),
        }
    }
}

fn keeps(value: &str) -> Result<bool, Problem> {
    match value {
        "keep" => Ok(true),
        "leave" => Ok(false),
        _ => Err(Problem::Value("give keep or leave")),
    }
}

fn tcp(value: &str) -> Result<Tcp, Problem> {
    match value {
        "refuse" => Ok(Tcp::Refuse),
        "established" => Ok(Tcp::Established),
        "close" => Ok(Tcp::Close),
        _ => Err(Problem::Value("give established, close or refuse")),
    }
}

/// CRIU takes it apart itself; it has to be one word, because it goes through a command line.
fn lsm_profile(value: &str) -> Result<String, Problem> {
    let (kind, name) = value.split_once(':').unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    let fits = matches!(kind, "apparmor" | "selinux") && !name.is_empty() && value.len() <= LONGEST_PROFILE;
    if fits && name.chars().all(is_plain) {
        Ok(value.to_owned())
    } else {
        Err(Problem::Value("give apparmor:PROFILE or selinux:LABEL"))
    }
}

/// A bare number is one of seconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number(text)?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// A bare number is one of bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = number(text)?;
    let shift = match unit.trim_end_matches("iB") {
        "" | "B" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn number(text: &str) -> Option<(u64, &str)> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    Some((digits.parse().ok()?, &text[digits.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(name: &str, value: &str) -> Result<Wishes, Problem> {
        let mut wishes = Wishes::default();
        wishes.take(name, value).map(|()| wishes)
    }

    #[test]
    fn every_name_is_known_and_refuses_what_it_can_not_mean() {
        for name in NAMES {
            for value in ["", " ", "may be", "-1", &"9".repeat(400)] {
                let problem = taken(name, value).unwrap_err();
                assert!(
                    matches!(problem, Problem::Value(expected) if expected.starts_with("give ")),
                    "{name}={value}"
                );
            }
        }
        assert_eq!(taken("tpc", "close"), Err(Problem::Unknown));
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        for (name, value) in [
            ("checkpoint.exit", "true"),
            ("tcp", "established"),
            ("exec", "refuse"),
            ("in-flight", "refuse"),
            ("shm", "leave"),
            ("rootfs", "keep"),
            ("cgroups", "full"),
            ("network-lock", "nftables"),
            ("lsm-profile", "apparmor:docker-default"),
        ] {
            assert!(taken(name, value).is_ok(), "{name}={value}");
        }
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600)] {
            assert_eq!(taken("timeout", text).unwrap().timeout, Some(Duration::from_secs(seconds)));
        }
        for text in ["0", "0s", "s", "1.5", "1d", "9999999999999999999h"] {
            assert!(taken("timeout", text).is_err(), "{text}");
        }
        for (text, size) in [("0", 0), ("7", 7), ("64M", 64 << 20), ("64MiB", 64 << 20), ("1G", 1 << 30)] {
            assert_eq!(taken("ghost-limit", text).unwrap().ghost_limit, Some(size));
        }
        assert!(taken("ghost-limit", "1T").is_err());
        for text in ["apparmor:", "smack:x", "apparmor:a b", "apparmor:a\"b", ":x"] {
            assert!(taken("lsm-profile", text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_said_goes_before_what_is_usual() {
        let usual = Wishes { ghost_limit: Some(1), file_locks: Some(false), ..Wishes::default() };
        let said = Wishes { ghost_limit: Some(4), ..Wishes::default() };
        let both = said.or(usual);
        assert_eq!((both.ghost_limit, both.file_locks), (Some(4), Some(false)));
    }
}

//! Settings of the kernel that belong to the container's network namespace. A runtime makes
//! them when it creates a container and not when it restores one, and CRIU isn't asked for
//! a network namespace at all.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// One that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kernel doesn't take {name}={value} from the container's sysctls: {source}; change it there or leave it out"
)]
pub struct Refused {
    name: String,
    value: String,
    source: io::Error,
}

/// Makes the settings of a network namespace.
pub(super) fn apply(settings: &BTreeMap<String, String>, network: OwnedFd) -> Result<(), Refused> {
    let ours: Vec<_> = of_networks(settings);
    if ours.is_empty() {
        return Ok(());
    }
    let failed = |source| Refused { name: "net".into(), value: "…".into(), source };
    // A thread of its own, which ends with this: only it goes over there.
    std::thread::scope(|scope| {
        let over_there = scope.spawn(|| {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| failed(error.into()))?;
            ours.into_iter().try_for_each(|(name, value)| write(name, value))
        });
        over_there.join().unwrap_or_else(|_| Err(failed(io::Error::other("the thread has panicked"))))
    })
}

/// The same for whoever is there already.
pub(super) fn apply_here(settings: &BTreeMap<String, String>) -> Result<(), Refused> {
    of_networks(settings).into_iter().try_for_each(|(name, value)| write(name, value))
}

fn of_networks(settings: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    let all = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    all.filter(|(name, _)| name.starts_with("net.") || name.starts_with("net/")).collect()
}

fn write(name: &str, value: &str) -> Result<(), Refused> {
    match fs::write(path(name), value) {
        // It belongs to an interface that the client will bring.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(name, value, "is a sysctl that the new network doesn't have, and left out");
            Ok(())
        }
        written => {
            written.map_err(|source| Refused { name: name.to_owned(), value: value.to_owned(), source })
        }
    }
}

/// Names have dots between their parts, or slashes if a part has a dot.
fn path(name: &str) -> String {
    let separator = name.find(['.', '/']).map(|at| &name[at..=at]);
    let parts = if separator == Some("/") { name.to_owned() } else { name.replace('.', "/") };
    format!("/proc/sys/{parts}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_written_in_two_ways() {
        assert_eq!(path("net.ipv4.ping_group_range"), "/proc/sys/net/ipv4/ping_group_range");
        assert_eq!(path("net/ipv4/conf/eth0.7/forwarding"), "/proc/sys/net/ipv4/conf/eth0.7/forwarding");
    }

    #[test]
    fn only_those_of_networks_are_ours() {
        let named = |name: &str| (name.to_owned(), "1".to_owned());
        let settings = BTreeMap::from(["kernel.msgmax", "net.a", "net/b", "nets.c"].map(named));
        assert_eq!(of_networks(&settings), [("net.a", "1"), ("net/b", "1")]);
    }

    #[test]
    fn one_that_is_not_there_is_left_out() {
        assert!(write("net.no.such.thing", "1").is_ok());
        let refused = write("net.ipv4", "1").unwrap_err().to_string();
        assert!(refused.contains("net.ipv4=1"), "{refused}");
    }
}

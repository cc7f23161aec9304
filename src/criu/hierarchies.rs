//! Which cgroup hierarchies belong into an image.

use std::fs;

use super::config::Config;

/// On a machine with version 1 of cgroups there often is a hierarchy of version 2 beside
/// it, in which nobody gave the container a place of its own. CRIU would dump all that
/// lies there below the daemon, other containers included, and make a copy of it at each
/// restore.
pub fn of_container(config: Config, pid: u32) -> Config {
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    own(&memberships).iter().fold(config, |config, names| config.set("cgroup-dump-controller", names))
}

/// None if CRIU needn't be told. A hierarchy is known to CRIU by its controllers, as
/// /proc/PID/cgroup lists them.
fn own(memberships: &str) -> Vec<&str> {
    let lines = memberships.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let (unified, mut legacy): (Vec<_>, Vec<_>) = lines.partition(|(names, _)| names.is_empty());
    let Some((_, path)) = unified.first() else { return Vec::new() };
    legacy.retain(|(names, _)| !names.is_empty());
    if legacy.is_empty() || legacy.iter().any(|(_, own)| own == path && *path != "/") {
        return Vec::new();
    }
    legacy.into_iter().map(|(names, _)| names).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_without_a_place_of_the_containers_own_is_left_out() {
        let daemons = "4:cpu,cpuacct:/docker/c1\n3:name=systemd:/docker/c1\n0::/system.slice/docker.service";
        assert_eq!(own(daemons), ["cpu,cpuacct", "name=systemd"]);
        assert_eq!(own("1:pids:/\n0::/"), ["pids"]);
    }

    #[test]
    fn all_are_dumped_if_they_are_the_containers() {
        assert!(own("4:pids:/docker/c1\n0::/docker/c1").is_empty());
        assert!(own("0::/docker/c1").is_empty());
        assert!(own("4:pids:/docker/c1").is_empty());
        assert!(own("").is_empty());
    }
}

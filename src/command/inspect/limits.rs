//! What the container's cgroups let it have, in either version's words.

use crate::command::table::{count, size};
use crate::contents::Cgroup;

/// As far as pages reach: version 1 has no word for "no limit".
const NO_LIMIT: u64 = i64::MAX as u64 / 4096 * 4096;

/// Nothing if there are none.
pub(super) fn text(cgroups: &[Cgroup]) -> String {
    let parts = [memory(cgroups), processors(cgroups), tasks(cgroups)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Cgroups that the container made come after its own.
fn setting<'a>(cgroups: &'a [Cgroup], name: &str) -> Option<&'a str> {
    cgroups.iter().find_map(|cgroup| cgroup.settings.get(name)).map(|value| value.trim())
}

fn number(cgroups: &[Cgroup], names: [&str; 2]) -> Option<u64> {
    names.into_iter().find_map(|name| setting(cgroups, name))?.parse().ok()
}

fn memory(cgroups: &[Cgroup]) -> Option<String> {
    let most = number(cgroups, ["memory.max", "memory.limit_in_bytes"])?;
    (most < NO_LIMIT).then(|| format!("{} of memory", size(most)))
}

fn tasks(cgroups: &[Cgroup]) -> Option<String> {
    let most = number(cgroups, ["pids.max", "pids.max"])?;
    Some(count(usize::try_from(most).ok()?, "task", "tasks"))
}

fn processors(cgroups: &[Cgroup]) -> Option<String> {
    let (quota, period) = match setting(cgroups, "cpu.max") {
        Some(both) => both.split_once(' ')?,
        None => (setting(cgroups, "cpu.cfs_quota_us")?, setting(cgroups, "cpu.cfs_period_us")?),
    };
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.trim().parse().ok()?);
    let hundredths = quota.checked_mul(100)?.checked_div(period)?;
    Some(format!("{}.{:02} CPUs", hundredths / 100, hundredths % 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(settings: &[(&str, &str)]) -> Cgroup {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Cgroup { controllers: Vec::new(), path: "/c".to_owned(), settings: settings.collect() }
    }

    #[test]
    fn both_versions_are_told_in_the_same_words() {
        let second =
            cgroup(&[("memory.max", "536870912"), ("cpu.max", "150000 100000"), ("pids.max", "100")]);
        let first = [
            cgroup(&[("memory.limit_in_bytes", "536870912\n"), ("pids.max", "100")]),
            cgroup(&[("cpu.cfs_quota_us", "150000"), ("cpu.cfs_period_us", "100000")]),
        ];
        for cgroups in [&[second][..], &first] {
            assert_eq!(text(cgroups), "512 MiB of memory, 1.50 CPUs, 100 tasks");
        }
    }

    #[test]
    fn what_has_no_limit_isnt_told() {
        let second = cgroup(&[("memory.max", "max"), ("cpu.max", "max 100000"), ("pids.max", "max")]);
        let first = cgroup(&[
            ("memory.limit_in_bytes", "9223372036854771712"),
            ("cpu.cfs_quota_us", "-1"),
            ("cpu.cfs_period_us", "0"),
        ]);
        assert_eq!((text(&[second]), text(&[first]), text(&[])), Default::default());
    }
}

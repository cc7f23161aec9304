//! Mounts of the host's that a container has without its configuration listing them: what
//! is mounted below the source of a bind mount, and what hooks have put there.
//!
//! CRIU has to be told that they come from outside. Otherwise it refuses a part of a file
//! system that isn't in the container as a whole, and takes a whole one that it can save,
//! like a tmpfs, for the container's own, so that a copy of it comes back. At a restore
//! they are listed, as if the configuration had always done so.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bundle::Spec;
use crate::mount::table::{self, Entry};

/// Of these the kernel has one for all or one for each namespace, and CRIU makes them anew.
const OWN_KINDS: [&str; 14] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "debugfs",
    "devpts",
    "fusectl",
    "mqueue",
    "pstore",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];
/// What a restore has to set again.
const LIMITS: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Injected {
    pub destination: PathBuf,
    pub source: PathBuf,
    pub options: Vec<String>,
}

/// Those of the container whose first process is `pid`.
pub fn of_container(pid: u32, spec: &Spec) -> Vec<Injected> {
    let inside = table::of_container(pid);
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let outside = if has_hooks(&spec.hooks) { table::of("self") } else { Vec::new() };
    let is_same = |point: &Path, source: &Path| is_same(&root, point, source).unwrap_or(false);
    let mut listed = spec.listed();
    // The kernel tells where links in the container have led to.
    listed.extend(spec.listed().iter().filter_map(|point| resolved(&root, point).ok()));
    find(&inside, &outside, &listed, &spec.mounts, is_same)
}

fn resolved(root: &Path, point: &Path) -> io::Result<PathBuf> {
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place = openat2(&root, point, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    let path = fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    // Its source has lost its name, the mount point has not.
    let kept = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(kept.unwrap_or(path))
}

/// Where mounts show something of the host, listed or not.
pub fn points(spec: &Spec, injected: &[Injected]) -> Vec<PathBuf> {
    spec.bound().into_iter().chain(injected.iter().map(|mount| mount.destination.clone())).collect()
}

/// Whether somebody may have mounted what no configuration tells of.
pub fn has_hooks(hooks: &Value) -> bool {
    let kinds = ["prestart", "createRuntime", "createContainer", "startContainer"];
    kinds.iter().any(|kind| hooks[kind].as_array().is_some_and(|hooks| !hooks.is_empty()))
}

fn find(
    inside: &[Entry],
    outside: &[Entry],
    listed: &[PathBuf],
    mounts: &Value,
    is_same: impl Fn(&Path, &Path) -> bool,
) -> Vec<Injected> {
    let own = inside.iter().find(|entry| entry.point == Path::new("/"));
    // Bound from the container's own root file system.
    let is_own = |entry: &Entry| {
        own.is_some_and(|own| own.device == entry.device && entry.root.starts_with(&own.root))
    };
    let strange = inside.iter().filter(|entry| {
        !listed.contains(&entry.point) && !is_own(entry) && !OWN_KINDS.contains(&entry.kind.as_str())
    });
    let found = strange.filter_map(|entry| {
        let below = below_source(mounts, &entry.point).into_iter();
        let source = below.chain(sources(entry, outside)).find(|source| is_same(&entry.point, source))?;
        Some(Injected { destination: entry.point.clone(), source, options: options(entry) })
    });
    found.collect()
}

/// What a bind mount that takes what is below along shows at this point.
pub fn below_source(mounts: &Value, point: &Path) -> Option<PathBuf> {
    let mounts = mounts.as_array().into_iter().flatten();
    let shown = mounts.filter_map(|mount| {
        let mut options = mount["options"].as_array().into_iter().flatten();
        let source = Path::new(mount["source"].as_str().filter(|_| options.any(|option| option == "rbind"))?);
        let destination = Path::new(mount["destination"].as_str()?);
        let rest = point.strip_prefix(destination).ok().filter(|rest| !rest.as_os_str().is_empty())?;
        Some((destination.components().count(), source.join(rest)))
    });
    // A later one at the same place covers the one before.
    shown.max_by_key(|(depth, _)| *depth).map(|(_, source)| source)
}

/// Where the host has the same part of the same file system.
fn sources<'a>(entry: &'a Entry, outside: &'a [Entry]) -> impl Iterator<Item = PathBuf> + 'a {
    let same = outside.iter().filter(|other| other.device == entry.device);
    same.filter_map(|other| {
        let rest = entry.root.strip_prefix(&other.root).ok()?;
        Some(if rest.as_os_str().is_empty() { other.point.clone() } else { other.point.join(rest) })
    })
}

/// What the container sees at a place may by now be something else than the host does.
fn is_same(root: &Path, point: &Path, source: &Path) -> io::Result<bool> {
    let inside = root.join(point.strip_prefix("/").unwrap_or(point));
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    Ok(identity(fs::symlink_metadata(inside)?) == identity(fs::metadata(source)?))
}

fn options(entry: &Entry) -> Vec<String> {
    let limits = entry.options.split(',').filter(|option| LIMITS.contains(option));
    ["bind"].into_iter().chain(limits).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const INSIDE: &str = "\
        500 400 0:50 / / rw,relatime - overlay overlay rw\n\
        501 500 0:51 / /proc rw,nosuid - proc proc rw\n\
        502 500 0:52 / /run rw - tmpfs tmpfs rw\n\
        503 500 8:1 /srv /data rw - ext4 /dev/sda1 rw\n\
        504 503 0:60 / /data/cache rw,nodev,relatime master:3 - tmpfs cache rw\n\
        505 500 8:1 /opt/driver /usr/lib/driver ro,nosuid - ext4 /dev/sda1 rw\n\
        506 500 0:50 /var /mnt rw - overlay overlay rw\n\
        507 500 0:5 /null /proc/keys rw - devtmpfs udev rw\n\
        508 500 0:30 /c1 /sys/fs/cgroup/pids rw - cgroup cgroup rw\n\
        509 500 0:99 / /own rw - tmpfs tmpfs rw\n";
    const OUTSIDE: &str = "\
        20 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        21 20 0:60 / /srv/cache rw shared:3 - tmpfs cache rw\n\
        22 20 0:5 / /dev rw - devtmpfs udev rw\n\
        23 20 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw\n\
        24 20 0:50 / /run/bundle/rootfs rw - overlay overlay rw\n";

    fn spec() -> Spec {
        serde_json::from_value(json!({
            "mounts": [
                { "destination": "/proc", "type": "proc" },
                { "destination": "/run", "type": "tmpfs" },
                { "destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind"] },
            ],
            "linux": { "maskedPaths": ["/proc/keys"] },
        }))
        .unwrap()
    }

    fn found(outside: &str) -> Vec<(String, String, String)> {
        let (inside, outside, spec) = (table::parse(INSIDE), table::parse(outside), spec());
        let found = find(&inside, &outside, &spec.listed(), &spec.mounts, |_, _| true);
        let text = |path: &Path| path.display().to_string();
        found
            .into_iter()
            .map(|mount| (text(&mount.destination), text(&mount.source), mount.options.join(",")))
            .collect()
    }

    #[test]
    fn what_is_below_a_source_and_what_hooks_mounted_is_found() {
        let below = ("/data/cache".to_owned(), "/srv/cache".to_owned(), "bind,nodev".to_owned());
        assert_eq!(found(""), std::slice::from_ref(&below));
        let hooked = ("/usr/lib/driver".to_owned(), "/opt/driver".to_owned(), "bind,ro,nosuid".to_owned());
        assert_eq!(found(OUTSIDE), [below, hooked]);
    }

    #[test]
    fn what_is_another_thing_on_the_host_is_left_to_criu() {
        let (inside, outside, spec) = (table::parse(INSIDE), table::parse(OUTSIDE), spec());
        assert_eq!(find(&inside, &outside, &spec.listed(), &spec.mounts, |_, _| false), []);
        assert!(!is_same(Path::new("/"), Path::new("/proc"), Path::new("/")).unwrap());
        assert!(is_same(Path::new("/"), Path::new("/proc"), Path::new("/proc/")).unwrap());
    }

    #[test]
    fn links_on_the_way_to_a_mount_point_are_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/secrets")).unwrap();
        fs::create_dir(root.path().join("var")).unwrap();
        std::os::unix::fs::symlink("/run", root.path().join("var/run")).unwrap();
        let found = resolved(root.path(), Path::new("/var/run/secrets")).unwrap();
        assert_eq!(found, root.path().canonicalize().unwrap().join("run/secrets"));
        assert!(resolved(root.path(), Path::new("/var/lib")).is_err());
    }

    #[test]
    fn the_deepest_bind_mount_tells_what_is_below_it() {
        let mounts = json!([
            { "destination": "/a", "source": "/one", "options": ["rbind"] },
            { "destination": "/a/b", "source": "/two", "options": ["rbind"] },
            { "destination": "/a/b/c", "source": "/three", "options": ["bind"] },
        ]);
        let below = |point: &str| below_source(&mounts, Path::new(point));
        assert_eq!(below("/a/b/c/d"), Some("/two/c/d".into()));
        assert_eq!(below("/a/x"), Some("/one/x".into()));
        assert_eq!((below("/a"), below("/ab")), (None, None));
    }

    #[test]
    fn only_hooks_that_run_before_the_program_mount_for_it() {
        assert!(has_hooks(&json!({ "createContainer": [{}] })));
        assert!(!has_hooks(&json!({ "poststop": [{}], "prestart": [] })));
        assert!(!has_hooks(&Value::Null));
    }
}

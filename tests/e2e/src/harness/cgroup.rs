//! The machine's cgroups, version 1 or 2: who is in them and what limits hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::failure::{During, Failure, Outcome};
use super::slot::BASE;

const MOUNT: &str = "/sys/fs/cgroup";

pub(crate) fn is_v2() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// With version 1 there is a version 2 hierarchy beside it that a test host doesn't
/// show. CRIU finds it nevertheless: it dumps all that lies below the cgroup of the
/// container there and makes a copy of it at each restore, so that what restores leave
/// doubles from one to the next, unless somebody removes it.
pub(crate) fn hidden_hierarchy() -> PathBuf {
    Path::new(BASE).join("hidden-cgroups")
}

/// Shows the hidden hierarchy to this process, to be able to clean it.
pub(crate) fn show_hidden_hierarchy() -> Outcome {
    fs::create_dir_all(hidden_hierarchy())?;
    if !is_v2() {
        // A machine without that hierarchy has nothing hidden in it.
        Command::new("mount").args(["-t", "cgroup2", "none"]).arg(hidden_hierarchy()).status()?;
    }
    Ok(())
}

/// Removes what restores left in the hidden hierarchy.
pub(crate) fn clean_hidden_hierarchy(below: &str) {
    let top = hidden_hierarchy().join(below.trim_start_matches('/'));
    let mut folders = tree(&top);
    folders.reverse();
    for folder in folders.into_iter().filter(|folder| *folder != top) {
        // A dying process holds it for a moment; it is removed at another trial's end.
        let _ = fs::remove_dir(folder);
    }
}

/// Puts a process, and all it will start, into a cgroup of its own.
pub(crate) fn put(pid: u32, cgroup: &str) -> Outcome {
    let all = [folder("pids", "/"), hidden_hierarchy()];
    for root in all.iter().filter(|root| root.join("cgroup.procs").exists()) {
        let folder = below(root, cgroup);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("cgroup.procs"), pid.to_string()).during(|| folder.display().to_string())?;
    }
    Ok(())
}

/// The root of every hierarchy; of the only one with version 2.
pub(crate) fn roots() -> Vec<PathBuf> {
    if is_v2() {
        return vec![MOUNT.into()];
    }
    let mut roots: Vec<PathBuf> = subfolders(Path::new(MOUNT));
    roots.retain(|root| root.join("cgroup.procs").exists() && !root.join("cgroup.controllers").exists());
    roots
}

/// The folder of `cgroup` in the hierarchy of `controller`.
pub(crate) fn folder(controller: &str, cgroup: &str) -> PathBuf {
    let root = if is_v2() { MOUNT.into() } else { Path::new(MOUNT).join(controller) };
    below(&root, cgroup)
}

/// Where a hierarchy has a cgroup that is named by its path, or as systemd's unit.
fn below(root: &Path, cgroup: &str) -> PathBuf {
    match cgroup.split(':').collect::<Vec<_>>()[..] {
        [slice, prefix, name] => root.join(slice).join(format!("{prefix}-{name}.scope")),
        _ => root.join(cgroup.trim_start_matches('/')),
    }
}

pub(crate) fn read(controller: &str, cgroup: &str, file: &str) -> Outcome<String> {
    let path = folder(controller, cgroup).join(file);
    let text = fs::read_to_string(&path).during(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// The processes of `cgroup` and of all below it, in any hierarchy.
pub(crate) fn processes(cgroup: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for root in roots() {
        for folder in tree(&below(&root, cgroup)) {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

pub(crate) fn memory_limit(cgroup: &str) -> Outcome<u64> {
    let file = if is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    number(&read("memory", cgroup, file)?)
}

pub(crate) fn pids_limit(cgroup: &str) -> Outcome<u64> {
    number(&read("pids", cgroup, "pids.max")?)
}

/// Processor time per period, in thousandths of one processor.
pub(crate) fn cpu_limit(cgroup: &str) -> Outcome<u64> {
    let (quota, period) = if is_v2() {
        let text = read("cpu", cgroup, "cpu.max")?;
        let (quota, period) = text.split_once(' ').ok_or_else(|| Failure::new(format!("cpu.max: {text}")))?;
        (number(quota)?, number(period)?)
    } else {
        (
            number(&read("cpu", cgroup, "cpu.cfs_quota_us")?)?,
            number(&read("cpu", cgroup, "cpu.cfs_period_us")?)?,
        )
    };
    Ok(quota * 1000 / period)
}

/// Or crun's own below it, under systemd.
pub(crate) fn is_frozen(cgroup: &str) -> bool {
    if !is_v2() {
        return read("freezer", cgroup, "freezer.state").is_ok_and(|state| state.starts_with("FR"));
    }
    let own = folder("freezer", cgroup);
    let is_on =
        |folder: &Path| fs::read_to_string(folder.join("cgroup.freeze")).is_ok_and(|on| on.trim() == "1");
    is_on(&own) || is_on(&own.join("container"))
}

/// By hand, past whoever froze it.
pub(crate) fn thaw(cgroup: &str) -> Outcome {
    let own = folder("freezer", cgroup);
    if !is_v2() {
        return Ok(fs::write(own.join("freezer.state"), "THAWED")?);
    }
    [own.join("container"), own]
        .iter()
        .filter(|folder| folder.exists())
        .try_for_each(|folder| Ok(fs::write(folder.join("cgroup.freeze"), "0")?))
}

/// Lets processes into a new cgroup: version 1 wants its processors named first.
pub(crate) fn inherit_cpuset(root: &Path, cgroup: &str) -> Outcome {
    if is_v2() || !root.ends_with("cpuset") {
        return Ok(());
    }
    let mut folder = root.to_owned();
    for part in Path::new(cgroup.trim_start_matches('/')) {
        let parent = folder.clone();
        folder.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            fs::write(folder.join(file), fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}

/// Ends every process below `cgroup`, frozen or not, and removes the cgroups.
pub(crate) fn destroy(cgroup: &str) {
    for root in roots() {
        let mut folders = tree(&below(&root, cgroup));
        for folder in &folders {
            // A frozen process can't die; the files exist in one version each.
            let _ = fs::write(folder.join("freezer.state"), "THAWED");
            if folder.join("cgroup.freeze").exists() {
                let _ = fs::write(folder.join("cgroup.freeze"), "0");
            }
        }
        folders.reverse();
        for folder in folders {
            kill_all_in(&folder);
            // Busy until the last process is gone; the caller looks again.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn kill_all_in(folder: &Path) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse().ok()) {
        // Gone meanwhile is as good.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

/// A folder and all below it, parents first; nothing if there is no such folder.
pub(crate) fn tree(top: &Path) -> Vec<PathBuf> {
    if !top.is_dir() {
        return Vec::new();
    }
    let mut all = vec![top.to_owned()];
    for folder in subfolders(top) {
        all.extend(tree(&folder));
    }
    all
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    folders
}

fn number(text: &str) -> Outcome<u64> {
    text.parse().map_err(|_| Failure::new(format!("'{text}' is no number")))
}

//! What an install or an uninstall will do: decided before anything is changed, so that a
//! refusal leaves the machine as it was, and a dry run says exactly what a real one does.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::disk::{self, Content};
use super::programs::Programs;
use super::record::{self, Entry, Record};
use super::{Error, config_toml, daemon_json};
use crate::command::Daemon;
use crate::command::root::{BIN, Root, SHIM, STOCK_SHIM};
use crate::command::unit::{self, DROP_INS, Unit};

/// One line of what is said, and what is done about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) path: PathBuf,
    pub(super) does: Does,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Does {
    Nothing,
    /// Leaves it, and says why.
    Keep(String),
    Put(Content),
    Restore(Content),
    Remove,
}

/// What lets a daemon find Cryo first under the stock shim's name.
pub(super) fn in_path(
    root: &Root,
    daemon: Daemon,
    shim: &Path,
    flagged: bool,
) -> Result<Vec<(PathBuf, Content)>, Error> {
    let mut wanted = Vec::new();
    for name in [STOCK_SHIM, SHIM] {
        wanted.push((Path::new(BIN).join(name), Content::Link(shim.to_owned())));
    }
    if root.has_systemd() {
        for daemon_of_unit in serving(root, daemon) {
            let (path, text) = drop_in(root, daemon_of_unit);
            wanted.push((path, Content::Text(text)));
        }
    }
    if daemon == Daemon::Docker {
        let path = Path::new(daemon_json::PATH);
        let text = daemon_json::add(text(root, path)?.as_deref(), flagged)?;
        wanted.push((path.to_owned(), Content::Text(text)));
    }
    Ok(wanted)
}

pub(super) fn install(
    root: &Root,
    record: &mut Record,
    daemon: Daemon,
    wanted: Vec<(PathBuf, Content)>,
) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    let paths: BTreeSet<_> = wanted.iter().map(|(path, _)| path.clone()).collect();
    for (path, content) in wanted {
        steps.push(place(root, record, daemon, &path, content)?);
    }
    // A drop-in that has to have another name now, for instance; not what came with an image.
    let stale = |(path, entry): &(&PathBuf, &Entry)| !paths.contains(*path) && !entry.is_program();
    let stale: Vec<_> = record.files.iter().filter(stale).map(|(path, _)| path.clone()).collect();
    for path in stale.iter().rev() {
        steps.extend(release(root, record, daemon, path)?);
    }
    for step in steps.iter().filter(|step| matches!(step.does, Does::Put(_))) {
        record.note_folders(root, &step.path);
    }
    if !record.files.is_empty() {
        record.note_folders(root, record::PATH.as_ref());
    }
    Ok(steps)
}

/// Backwards, as containerd's main file imports a file that comes before it; programs last.
pub(super) fn uninstall(root: &Root, record: &mut Record, daemon: Daemon) -> Result<Vec<Step>, Error> {
    let mut paths: Vec<_> = record.files.keys().rev().cloned().collect();
    paths.sort_by_key(|path| record.files.get(path).is_some_and(Entry::is_program));
    let other = record.daemons().into_iter().find(|other| *other != daemon);
    let mut steps = Vec::new();
    for path in paths {
        let entry = record.files.get(&path);
        // Nobody knows which links of others lead to them.
        match other
            .filter(|_| entry.is_some_and(|entry| entry.is_program() && entry.daemons.contains(&daemon)))
        {
            Some(other) => {
                let does = Does::Keep(format!("{} was installed with it", other.name()));
                steps.push(Step { path, does });
            }
            None => steps.extend(release(root, record, daemon, &path)?),
        }
    }
    Ok(steps)
}

/// The daemons whose units decide which shim serves this one's containers. Docker's are
/// started by the system's containerd where there is one.
pub(super) fn serving(root: &Root, daemon: Daemon) -> Vec<Daemon> {
    if daemon == Daemon::Docker && unit::exists(root, Daemon::Containerd.unit()) {
        vec![Daemon::Containerd, Daemon::Docker]
    } else {
        vec![daemon]
    }
}

fn drop_in(root: &Root, daemon: Daemon) -> (PathBuf, String) {
    let shipped = match daemon {
        Daemon::Docker => include_str!("../../../deploy/docker/docker.service.d/cryo.conf"),
        Daemon::Containerd | Daemon::Kubernetes => {
            include_str!("../../../deploy/containerd/containerd.service.d/cryo.conf")
        }
    };
    let unit = Unit::without_ours(root, daemon.unit());
    let own = unit::environment(&unit.path_with_ours());
    let lines = shipped.lines().map(|line| if line.starts_with("Environment=") { &own } else { line });
    let text = lines.map(|line| format!("{line}\n")).collect();
    let folder = format!("/etc/systemd/system/{}.d", daemon.unit());
    (Path::new(&folder).join(unit.drop_in()), text)
}

/// Has a path hold what it should, and the record know what it held before.
fn place(
    root: &Root,
    record: &mut Record,
    daemon: Daemon,
    path: &Path,
    wanted: Content,
) -> Result<Step, Error> {
    let step = |does| Ok(Step { path: path.to_owned(), does });
    let now = look(root, path)?;
    let known = record.files.get_mut(path);
    if now.as_ref() == Some(&wanted) {
        // What was right already, without us, isn't ours to remove.
        if let Some(entry) = known {
            entry.daemons.insert(daemon);
        }
        return step(Does::Nothing);
    }
    let mut entry = match known {
        Some(entry) if now == entry.before || entry.is_ours(now.as_ref()) => {
            let replaced = now.filter(|now| entry.before.as_ref() != Some(now));
            Entry { replaced, ..entry.clone() }
        }
        Some(entry) if is_drop_in(path) && still_ours(now.as_ref()) => {
            entry.daemons.insert(daemon);
            return step(Does::Keep("it was changed since, and has Cryo in PATH still".to_owned()));
        }
        Some(entry) => {
            let before = without_ours(path, now, entry)?;
            Entry { before, replaced: None, ..entry.clone() }
        }
        None => Entry { daemons: BTreeSet::new(), before: now, wrote: wanted.clone(), replaced: None },
    };
    let foreign = match &entry.before {
        Some(Content::Text(_)) => !is_shared(path),
        Some(Content::Program(_)) => true,
        // A program in a link's place is, too.
        Some(Content::Link(_)) => matches!(wanted, Content::Program(_)),
        None => false,
    };
    if foreign {
        return Err(Error::Foreign(path.to_owned()));
    }
    entry.daemons.insert(daemon);
    entry.wrote = wanted.clone();
    record.files.insert(path.to_owned(), entry);
    step(Does::Put(wanted))
}

/// Undoes what was done to a path, unless another daemon needs it or the user changed it.
fn release(root: &Root, record: &mut Record, daemon: Daemon, path: &Path) -> Result<Option<Step>, Error> {
    let Some(entry) = record.files.get_mut(path) else { return Ok(None) };
    if !entry.daemons.remove(&daemon) {
        return Ok(None);
    }
    let step = |does| Ok(Some(Step { path: path.to_owned(), does }));
    if let Some(other) = entry.daemons.first() {
        return step(Does::Keep(format!("{} uses it", other.name())));
    }
    let entry = entry.clone();
    record.files.remove(path);
    let now = look(root, path)?;
    if now == entry.before {
        return step(Does::Nothing);
    }
    let before = if entry.is_ours(now.as_ref()) {
        entry.before
    } else if is_shared(path) {
        without_ours(path, now.clone(), &entry)?
    } else {
        return step(Does::Keep("it was changed since".to_owned()));
    };
    match before {
        before if before == now => step(Does::Nothing),
        Some(before) => step(Does::Restore(before)),
        None => step(Does::Remove),
    }
}

/// What would be there if we had never been, now that the user has changed it.
fn without_ours(path: &Path, now: Option<Content>, entry: &Entry) -> Result<Option<Content>, Error> {
    let before = match &entry.before {
        Some(Content::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    match &now {
        Some(Content::Text(text)) if path == Path::new(daemon_json::PATH) => {
            Ok(daemon_json::take_out(text, before)?.map(Content::Text))
        }
        Some(Content::Text(text)) if is_shared(path) => {
            Ok(config_toml::take_out(path, text, before)?.map(Content::Text))
        }
        _ => Ok(now),
    }
}

/// What a text would be without us; nothing if there would be no such file.
pub(super) fn text_without_ours(root: &Root, record: &Record, path: &Path) -> Result<Option<String>, Error> {
    let now = look(root, path)?;
    let before = match record.files.get(path) {
        Some(entry) if entry.is_ours(now.as_ref()) => entry.before.clone(),
        Some(entry) => without_ours(path, now, entry)?,
        None => now,
    };
    Ok(before.and_then(Content::into_text))
}

/// A file of others to which something of ours was added.
fn is_shared(path: &Path) -> bool {
    let toml = path.extension().is_some_and(|extension| extension == "toml");
    path == Path::new(daemon_json::PATH) || (toml && !config_toml::is_drop_in(path))
}

fn is_drop_in(path: &Path) -> bool {
    path.file_name().is_some_and(|name| DROP_INS.iter().any(|ours| name == *ours))
}

fn still_ours(now: Option<&Content>) -> bool {
    matches!(now, Some(Content::Text(text)) if text.lines().any(|line| line.contains("PATH=") && line.contains(BIN)))
}

fn look(root: &Root, path: &Path) -> Result<Option<Content>, Error> {
    disk::look(root, path).map_err(Error::at("read", path))
}

pub(super) fn text(root: &Root, path: &Path) -> Result<Option<String>, Error> {
    Ok(look(root, path)?.and_then(Content::into_text))
}

impl Step {
    pub(super) fn changes(&self) -> bool {
        matches!(self.does, Does::Put(_) | Does::Restore(_) | Does::Remove)
    }

    pub(super) fn carry_out(&self, root: &Root, programs: &Programs) -> std::io::Result<()> {
        match &self.does {
            Does::Nothing | Does::Keep(_) => Ok(()),
            Does::Put(Content::Text(text)) | Does::Restore(Content::Text(text)) => {
                disk::write(root, &self.path, text.as_bytes(), 0o644)
            }
            Does::Put(Content::Link(target)) | Does::Restore(Content::Link(target)) => {
                disk::link(root, &self.path, target)
            }
            Does::Put(Content::Program(digest)) | Does::Restore(Content::Program(digest)) => {
                disk::write(root, &self.path, programs.bytes(digest)?, 0o755)
            }
            Does::Remove => disk::remove(root, &self.path),
        }
    }

    /// The line about it, as done or as it would be.
    pub(super) fn told(&self, dry_run: bool) -> String {
        let (done, would, rest): (_, _, &dyn fmt::Display) = match &self.does {
            Does::Nothing => ("unchanged", "unchanged", &""),
            Does::Keep(why) => ("kept", "would keep", &format!(" ({why})")),
            Does::Put(Content::Text(_)) => ("wrote", "would write", &""),
            Does::Put(Content::Program(_)) => ("copied", "would copy", &""),
            Does::Put(Content::Link(target)) => {
                ("linked", "would link", &format!(" -> {}", target.display()))
            }
            Does::Restore(_) => ("restored", "would restore", &""),
            Does::Remove => ("removed", "would remove", &""),
        };
        format!("{} {}{rest}", if dry_run { would } else { done }, self.path.display())
    }
}

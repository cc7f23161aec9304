//! What containerd makes of its configuration. It is asked before anything is changed: of the
//! file as it is, and of a copy with Cryo in it, because what an imported file takes the place
//! of differs from version to version.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::config_toml::{HANDLER, Version};
use crate::command::doctor::described;
use crate::command::root::USUAL_PATH;
use crate::command::run::{Said, run_now};

/// It only reads some files, but on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{program} can't read {file} ({why}): mend that and run this again")]
    Unreadable { program: PathBuf, file: PathBuf, why: String },
    #[error(
        "{0} switches the CRI off, which Kubernetes needs: take it out of disabled_plugins and run this again"
    )]
    Off(PathBuf),
    #[error("{0} has no version that this cryo knows: add the handler by hand, see deploy/containerd")]
    OtherVersion(PathBuf),
}

#[derive(Debug)]
pub(super) struct Dump {
    pub(super) version: Version,
    all: Table,
}

/// About a file, or about what it makes of there being none.
pub(super) fn ask(program: &Path, file: Option<&Path>) -> Result<Dump, Error> {
    let named = file.map(|file| file.display().to_string());
    let unreadable = |why: &str| Error::Unreadable {
        program: program.to_owned(),
        file: file.map_or_else(|| "its configuration".into(), Path::to_owned),
        why: why.to_owned(),
    };
    let mut arguments: Vec<&str> = named.iter().flat_map(|file| ["--config", file]).collect();
    arguments.extend(["config", "dump"]);
    let said = run_now(&program.display().to_string(), &arguments, USUAL_PATH, PATIENCE);
    let text = match said.map_err(|error| unreadable(&error.to_string()))? {
        Said::Done { status: 0, output, .. } => output,
        Said::Done { errors, .. } => return Err(unreadable(reason(&errors))),
        Said::NotThere => return Err(unreadable("there is no such program")),
        Said::Silent(patience) => {
            return Err(unreadable(&format!("no answer within {} s", patience.as_secs())));
        }
    };
    described(&text).ok_or_else(|| Error::Off(file.unwrap_or(program).to_owned()))?;
    let all: Table = toml::from_str(&text).map_err(|error| unreadable(error.message()))?;
    let version = match all.get("version").and_then(Value::as_integer) {
        Some(2) => Version::Two,
        Some(3) => Version::Three,
        _ => return Err(Error::OtherVersion(program.to_owned())),
    };
    Ok(Dump { version, all })
}

/// The last line is the reason, others are warnings.
fn reason(errors: &str) -> &str {
    let line = errors.trim().lines().last().unwrap_or("it doesn't say why");
    line.strip_prefix("containerd: ").unwrap_or(line)
}

impl Dump {
    /// What the handler starts, if there is one.
    pub(super) fn shim(&self) -> Option<&str> {
        get(&self.all, &self.version.handlers())?.get(HANDLER)?.get("runtime_path")?.as_str()
    }

    pub(super) fn has_handler(&self) -> bool {
        get(&self.all, &self.version.handlers()).is_some_and(|handlers| handlers.get(HANDLER).is_some())
    }

    /// Whether pods that name no handler have cgroups that systemd makes.
    pub(super) fn systemd_cgroups(&self) -> bool {
        systemd_cgroups(&self.all, self.version)
    }

    /// The same but for the handler, and for containerd's own one, which may be described now.
    pub(super) fn is_like(&self, other: &Dump) -> bool {
        self.rest() == other.rest()
    }

    fn rest(&self) -> Table {
        let mut rest = self.all.clone();
        rest.remove("imports");
        let mut inner = Some(&mut rest);
        for key in self.version.handlers() {
            inner = inner.and_then(|table| table.get_mut(key)).and_then(Value::as_table_mut);
        }
        if let Some(handlers) = inner {
            handlers.remove(HANDLER);
            // containerd 1 shows its own description with values that mean the same.
            if let Some(Value::Table(built_in)) = handlers.get_mut("runc") {
                built_in.remove("sandbox_mode");
                let options = built_in.get("options").and_then(Value::as_table);
                if options.is_none_or(|options| options.values().all(is_nothing)) {
                    built_in.remove("options");
                }
            }
        }
        rest
    }
}

/// As far as a file says it by itself.
pub(super) fn file_says_systemd(text: &str) -> bool {
    let all: Table = toml::from_str(text).unwrap_or_default();
    [Version::Two, Version::Three].into_iter().any(|version| systemd_cgroups(&all, version))
}

/// In whatever order, and with whatever comments.
pub(super) fn say_the_same(one: &str, other: &str) -> bool {
    let parsed = |text: &str| toml::from_str::<Table>(text).ok();
    parsed(one).is_some_and(|one| Some(one) == parsed(other))
}

fn systemd_cgroups(all: &Table, version: Version) -> bool {
    let [plugins, cri, containerd, runtimes] = version.handlers();
    let containerd = get(all, &[plugins, cri, containerd]);
    let name = containerd.and_then(|section| section.get("default_runtime_name")).and_then(Value::as_str);
    let options =
        containerd.and_then(|section| section.get(runtimes)?.get(name.unwrap_or("runc"))?.get("options"));
    options.and_then(|options| options.get("SystemdCgroup")).and_then(Value::as_bool) == Some(true)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Integer(number) => *number == 0,
        Value::Boolean(yes) => !yes,
        _ => false,
    }
}

fn get<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))
}

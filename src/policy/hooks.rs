//! Programs of the node's owner that run at stages of a checkpoint or restore.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::wishes::duration;

const LONGEST_NAME: usize = 64;
/// For one that the node file sets no time for. A container may stand still meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Before a checkpoint looks at the container, which runs.
    PreDump,
    /// The image is written, the container stands still.
    PostDump,
    /// Before anything is made for a restore.
    PreRestore,
    /// The namespaces are there, and the network if the client sets it up.
    SetupNamespaces,
    /// Everything is restored and stands still.
    PostRestore,
    /// The same, with the network open.
    PreResume,
    /// The container runs: restored, or after a checkpoint that doesn't end it.
    PostResume,
}

impl Stage {
    /// As CRIU calls it, and the node file.
    pub fn name(self) -> &'static str {
        match self {
            Stage::PreDump => "pre-dump",
            Stage::PostDump => "post-dump",
            Stage::PreRestore => "pre-restore",
            Stage::SetupNamespaces => "setup-namespaces",
            Stage::PostRestore => "post-restore",
            Stage::PreResume => "pre-resume",
            Stage::PostResume => "post-resume",
        }
    }
}

/// One that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub name: String,
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub stages: Vec<Stage>,
    pub timeout: Duration,
}

/// As it is written in the node file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    stages: Vec<Stage>,
    timeout: Option<String>,
}

pub(super) fn understood(hooks: BTreeMap<String, Written>) -> Result<BTreeMap<String, Hook>, String> {
    hooks
        .into_iter()
        .map(|(name, written)| {
            let hook = hook(&name, written).map_err(|problem| format!("hooks.{name}{problem}"))?;
            Ok((name, hook))
        })
        .collect()
}

fn hook(name: &str, written: Written) -> Result<Hook, &'static str> {
    let Written { path, args, env, stages, timeout } = written;
    if !is_name(name) {
        return Err(
            ": a name begins with a letter or digit, goes on with these, '.', '_' and '-', and isn't none",
        );
    }
    if !path.is_absolute() {
        return Err(".path: give an absolute path");
    }
    if stages.is_empty() {
        return Err(".stages: name one at least");
    }
    if env.iter().any(|variable| variable.find('=').is_none_or(|at| at == 0)) {
        return Err(".env: give NAME=VALUE");
    }
    if args.iter().chain(&env).any(|word| word.contains('\0')) {
        return Err(": a program can't be given a zero byte");
    }
    let timeout = match timeout {
        Some(time) => duration(&time)
            .filter(|time| !time.is_zero())
            .ok_or(".timeout: give a time above zero, like 10s or 2m")?,
        None => PATIENCE,
    };
    Ok(Hook { name: name.to_owned(), path, args, env, stages, timeout })
}

/// What an annotation says: names in the order they run in, or that there are none.
pub(super) fn chosen(value: &str) -> Option<Vec<String>> {
    if value == NONE {
        return Some(Vec::new());
    }
    let names: Vec<String> = value.split(',').map(|name| name.trim().to_owned()).collect();
    let is_twice = |(at, name)| names[..at].contains(name);
    let good = names.iter().all(|name| is_name(name)) && !names.iter().enumerate().any(is_twice);
    good.then_some(names)
}

const NONE: &str = "none";

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let begins = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    begins && name.len() <= LONGEST_NAME && name != NONE && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Hook, String> {
        let written: BTreeMap<String, Written> = toml::from_str(text).map_err(|error| error.to_string())?;
        Ok(understood(written)?.into_values().next().unwrap())
    }

    #[test]
    fn a_hook_is_read_with_all_it_says() {
        let hook = parse("[calm]\npath = \"/bin/calm\"\nargs = [\"-x\"]\nenv = [\"A=b\"]\nstages = [\"pre-dump\", \"post-resume\"]\ntimeout = \"2m\"").unwrap();
        assert_eq!((hook.name.as_str(), hook.timeout), ("calm", Duration::from_secs(120)));
        assert_eq!(hook.stages, [Stage::PreDump, Stage::PostResume]);
        let short = parse("[x]\npath = \"/x\"\nstages = [\"post-restore\"]").unwrap();
        assert_eq!((short.timeout, short.args.len()), (PATIENCE, 0));
    }

    #[test]
    fn a_hook_that_makes_no_sense_is_named() {
        let stages = "stages = [\"pre-dump\"]";
        for (text, named) in [
            (format!("[x]\npath = \"x\"\n{stages}"), "hooks.x.path"),
            ("[x]\npath = \"/x\"\nstages = []".to_owned(), "hooks.x.stages"),
            ("[x]\npath = \"/x\"\nstages = [\"pre-lunch\"]".to_owned(), "pre-lunch"),
            (format!("[x]\n{stages}"), "path"),
            (format!("[x]\npath = \"/x\"\nenv = [\"=b\"]\n{stages}"), "hooks.x.env"),
            (format!("[x]\npath = \"/x\"\ntimeout = \"0s\"\n{stages}"), "hooks.x.timeout"),
            (format!("[x]\npath = \"/x\"\nwhen = 1\n{stages}"), "when"),
            (format!("[none]\npath = \"/x\"\n{stages}"), "hooks.none"),
            (format!("[\"a b\"]\npath = \"/x\"\n{stages}"), "hooks.a b"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_chosen_in_order_and_once() {
        assert_eq!(chosen("b, a").unwrap(), ["b", "a"]);
        assert_eq!(chosen("none").unwrap(), [""; 0]);
        for value in ["", ",", "a,,b", "a,a", "a b", "none,a", "-a", &"a".repeat(65)] {
            assert_eq!(chosen(value), None, "{value:?}");
        }
    }
}

//! The command line, as strict as the real ones are about flags they don't know.

use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Runc,
    Crun,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) flavour: Flavour,
    pub(crate) root: PathBuf,
    pub(crate) log: Option<PathBuf>,
    pub(crate) verb: String,
    options: BTreeMap<String, String>,
    flags: Vec<String>,
    /// What is neither: the id, a signal.
    pub(crate) words: Vec<String>,
}

const GLOBAL_OPTIONS: &[&str] = &["--root", "--log", "--log-format"];

impl Call {
    pub(crate) fn parse(words: &[String]) -> Result<Call, String> {
        let name = words.first().map_or("runc", String::as_str);
        let flavour = if name.contains("crun") { Flavour::Crun } else { Flavour::Runc };
        let mut call = Call {
            flavour,
            root: "/run/runc".into(),
            log: None,
            verb: String::new(),
            options: BTreeMap::new(),
            flags: Vec::new(),
            words: Vec::new(),
        };
        let mut words = words[1..].iter();
        while let Some(word) = words.next() {
            if word == "--version" || !word.starts_with('-') {
                call.verb.clone_from(word);
                break;
            }
            if GLOBAL_OPTIONS.contains(&word.as_str()) {
                call.set(word, words.next())?;
            } else if word == "--systemd-cgroup" {
                call.flags.push(word.clone());
            } else {
                return Err(format!("unknown global option {word}"));
            }
        }
        if let Some(root) = call.option("--root") {
            call.root = root.into();
        }
        call.log = call.option("--log").map(PathBuf::from);
        let known = known(&call.verb, flavour);
        while let Some(word) = words.next() {
            if !word.starts_with('-') || word == "-" {
                call.words.push(word.clone());
            } else if known.options.contains(&word.as_str()) {
                call.set(word, words.next())?;
            } else if known.flags.contains(&word.as_str()) {
                call.flags.push(word.clone());
            } else {
                return Err(format!("{}: unrecognized option '{word}'", call.verb));
            }
        }
        Ok(call)
    }

    fn set(&mut self, name: &str, value: Option<&String>) -> Result<(), String> {
        let value = value.ok_or_else(|| format!("option {name} needs a value"))?;
        self.options.insert(name.to_owned(), value.clone());
        Ok(())
    }

    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    pub(crate) fn id(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }
}

struct Known {
    options: &'static [&'static str],
    flags: &'static [&'static str],
}

/// What each verb takes. Where runc and crun differ, only what both of them know and
/// what this one knows alone.
fn known(verb: &str, flavour: Flavour) -> Known {
    let runc = flavour == Flavour::Runc;
    let (options, flags): (&[_], &[_]) = match verb {
        "create" => (&["--bundle", "--pid-file", "--console-socket"], &["--no-pivot", "--no-new-keyring"]),
        "exec" => (&["--process", "--pid-file", "--console-socket"], &["--detach"]),
        "kill" => (&[], &["--all"]),
        "delete" => (&[], &["--force"]),
        "update" => (&["--resources"], &[]),
        "checkpoint" if runc => (
            &["--image-path", "--work-path", "--parent-path", "--manage-cgroups-mode", "--empty-ns"],
            &[
                "--leave-running",
                "--tcp-established",
                "--ext-unix-sk",
                "--shell-job",
                "--file-locks",
                "--pre-dump",
                "--link-remap",
                "--tcp-skip-in-flight",
            ],
        ),
        "checkpoint" => (
            &["--image-path", "--work-path", "--parent-path", "--manage-cgroups-mode", "--network-lock"],
            &[
                "--leave-running",
                "--tcp-established",
                "--ext-unix-sk",
                "--shell-job",
                "--file-locks",
                "--pre-dump",
            ],
        ),
        "restore" if runc => (
            &[
                "--image-path",
                "--work-path",
                "--bundle",
                "--pid-file",
                "--console-socket",
                "--manage-cgroups-mode",
                "--empty-ns",
            ],
            &[
                "--detach",
                "--no-subreaper",
                "--no-pivot",
                "--tcp-established",
                "--ext-unix-sk",
                "--shell-job",
                "--file-locks",
            ],
        ),
        "restore" => (
            &[
                "--image-path",
                "--work-path",
                "--bundle",
                "--pid-file",
                "--console-socket",
                "--manage-cgroups-mode",
                "--network-lock",
            ],
            &["--detach", "--tcp-established", "--tcp-close", "--ext-unix-sk", "--shell-job", "--file-locks"],
        ),
        _ => (&[], &[]),
    };
    Known { options, flags }
}

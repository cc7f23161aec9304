//! Kubernetes' runtime handlers in containerd's configuration: which of them start Cryo, and
//! whether pods can tell it anything by annotations.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cryo::reaper::Reaper;

use super::daemons::{Configured, Shim, Starts};
use super::judge::{Finding, Part, State, finding};
use super::words::{self, Handler};
use crate::command::run::run;
use crate::command::search::{self, OWN_NAME};

/// One that a pod has to be able to set, and our others begin alike.
const ANNOTATION: &str = "cryo.restore-from";

/// What containerd makes of its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Handlers {
    pub(super) file: PathBuf,
    /// Those that start Cryo, with the program that they start.
    pub(super) cryo: Vec<(Handler, PathBuf)>,
    /// The default handler, if nothing describes it.
    pub(super) missing: Option<String>,
    /// The containerd that runs doesn't know it yet.
    pub(super) outdated: bool,
}

/// Asked of each containerd that Kubernetes may use: it reads its own files best.
pub(super) async fn gather(
    reaper: Reaper,
    starts: &[Starts],
    path: &str,
    patience: Duration,
) -> Vec<Handlers> {
    let mut found = Vec::new();
    for one in starts {
        let Some(Configured { program, file, outdated }) = &one.config else { continue };
        let (program, named) = (program.display().to_string(), file.display().to_string());
        let said = run(reaper, &program, &["--config", &named, "config", "dump"], path, patience).await;
        let Some(described) = said.output().and_then(words::handlers) else { continue };
        let missing = Some(described.default.clone());
        let missing = missing.filter(|name| described.handlers.iter().all(|handler| handler.name != *name));
        let cryo = described.handlers.into_iter().filter_map(|handler| {
            let program = program_of(&handler, one)?;
            Some((handler, program))
        });
        found.push(Handlers { file: file.clone(), cryo: cryo.collect(), missing, outdated: *outdated });
    }
    found
}

/// The program of ours that a handler starts.
fn program_of(handler: &Handler, starts: &Starts) -> Option<PathBuf> {
    if !handler.path.is_empty() {
        let path = Path::new(&handler.path);
        let file = search::executable(path, Path::new("/"))?;
        return search::is_cryo(&file).then(|| path.to_owned());
    }
    let by_name = if handler.kind == OWN_NAME { &starts.own_name } else { &starts.stock_name };
    match by_name {
        Shim::Cryo(path) if handler.kind == OWN_NAME || handler.kind == words::STOCK_NAME => {
            Some(path.clone())
        }
        _ => None,
    }
}

pub(super) fn judge(handlers: &Handlers) -> Vec<Finding> {
    let file = handlers.file.display();
    let missing = handlers.missing.iter().map(|name| {
        let remedy = format!(
            "Describe it in {file}, too, or the CRI doesn't start: containerd 1 forgets its own description as \
             soon as another handler has one (deploy/containerd/runtime-v2.toml)."
        );
        finding(format!("handler {name}"), Part::Other, State::Missing, "isn't described, but the default", &remedy)
    });
    let described = handlers.cryo.iter().map(|(handler, program)| match handlers.outdated {
        true => of_next_start(handler, &file.to_string()),
        false => of_handler(handler, program, &file.to_string()),
    });
    missing.chain(described).collect()
}

fn of_next_start(handler: &Handler, file: &str) -> Finding {
    let what = format!("handler {}", handler.name);
    let found = format!("in {file}, which containerd hasn't read since it changed");
    finding(what, Part::Other, State::Warn, found, "Restart containerd: pods that run don't mind.")
}

fn of_handler(handler: &Handler, program: &Path, file: &str) -> Finding {
    let what = format!("handler {}", handler.name);
    let starts = format!("cryo: {}", program.display());
    let of_pods = handler.pod_annotations.iter().any(|pattern| matches(pattern, ANNOTATION));
    if of_pods {
        return finding(what, Part::Start, State::Ok, format!("{starts}, pods' annotations reach it"), "");
    }
    let remedy = format!(
        "Add pod_annotations = [\"cryo.*\"] to the handler in {file} and restart containerd, if pods may choose \
         how they are checkpointed and start from checkpoints."
    );
    finding(what, Part::Start, State::Warn, format!("{starts}, pods' annotations don't reach it"), &remedy)
}

/// As Go's path.Match, without its classes of characters.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let ends = rest.find('/').unwrap_or(rest.len());
            (0..=ends).any(|end| rest.is_char_boundary(end) && matches(after, &rest[end..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gos() {
        for pattern in ["*", "cryo.*", "cryo.restore-from*", "*.restore-from", "c*.*-from", ANNOTATION] {
            assert!(matches(pattern, ANNOTATION), "{pattern}");
        }
        for pattern in ["", "cryo", "cryo.*.x", "io.kubernetes.*", "*/*"] {
            assert!(!matches(pattern, ANNOTATION), "{pattern}");
        }
        assert!(!matches("*", "a/b") && matches("*/*", "a/b"));
    }

    #[test]
    fn a_handler_that_pods_cannot_tell_anything_is_named() {
        let handler = |name: &str, annotations: &[&str]| Handler {
            name: name.into(),
            kind: words::STOCK_NAME.into(),
            path: "/usr/local/bin/containerd-shim-cryo-v2".into(),
            pod_annotations: annotations.iter().map(|&text| text.into()).collect(),
        };
        let program = PathBuf::from("/usr/local/bin/containerd-shim-cryo-v2");
        let handlers = Handlers {
            file: "/etc/containerd/config.toml".into(),
            cryo: vec![
                (handler("deaf", &["org.criu.config"]), program.clone()),
                (handler("cryo", &["cryo.*"]), program),
            ],
            missing: Some("runc".into()),
            outdated: false,
        };
        let states: Vec<_> = judge(&handlers).into_iter().map(|found| (found.what, found.state)).collect();
        let wanted = [("runc", State::Missing), ("deaf", State::Warn), ("cryo", State::Ok)];
        assert_eq!(states, wanted.map(|(name, state)| (format!("handler {name}"), state)));
        let next_time = judge(&Handlers { outdated: true, ..handlers });
        let is_next = |found: &Finding| found.state == State::Warn && found.found.contains("hasn't read");
        assert!(next_time.iter().skip(1).all(is_next), "{next_time:?}");
    }
}

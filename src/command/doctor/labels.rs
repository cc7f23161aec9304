//! What a node of Kubernetes is told by labels, so that pods find one that suits them.

use serde_json::{Map, Value, json};

use super::facts::Facts;
use super::words;
use crate::command::run::Said;

/// Of a label's value.
const LENGTH: usize = 63;

/// A merge patch for the node. What can't be told is taken away, if it was told before.
pub(super) fn patch(facts: &Facts, ready: bool) -> String {
    let handled = facts.handlers.iter().any(|handlers| !handlers.cryo.is_empty());
    let yes = |yes: bool| Some(yes.to_string());
    let runtime = |said: &Said, features: &Said, annotation: &str| {
        let able = features.output().and_then(|text| words::checkpoints(text, annotation));
        said.output().and_then(words::runtime).filter(|_| able == Some(true)).and_then(value)
    };
    let crun = facts
        .libcriu
        .as_ref()
        .and_then(|_| runtime(&facts.crun, &facts.crun_features, "run.oci.crun.checkpoint.enabled"));
    let labels = [
        ("checkpoint", yes(ready && handled)),
        ("version", value(env!("CARGO_PKG_VERSION"))),
        ("criu", facts.criu.output().and_then(words::criu).and_then(value)),
        ("runc", runtime(&facts.runc, &facts.runc_features, "org.opencontainers.runc.checkpoint.enabled")),
        ("crun", crun),
        ("kernel", value(&facts.kernel.release)),
        ("cgroups", Some(if facts.kernel.cgroup2 { "2" } else { "1" }.to_owned())),
        ("soft-dirty", yes(facts.soft_dirty.output().is_some())),
    ];
    let labels: Map<String, Value> =
        labels.into_iter().map(|(name, value)| (format!("cryo/{name}"), json!(value))).collect();
    format!("{}\n", json!({ "metadata": { "labels": labels } }))
}

/// What may be a label's value: letters, digits, and others between them.
fn value(text: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let text: String = text.chars().map(plain).take(LENGTH).collect();
    let text = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_such_that_kubernetes_takes_them() {
        assert_eq!(value("1.1.15+ds1").as_deref(), Some("1.1.15-ds1"));
        assert_eq!(value("1.7.24~ds1").as_deref(), Some("1.7.24-ds1"));
        assert_eq!(value("+git+").as_deref(), Some("git"));
        assert_eq!(value("~"), None);
        assert_eq!(value(&"9".repeat(100)).map(|text| text.len()), Some(LENGTH));
    }
}

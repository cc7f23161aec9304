//! Two descriptions of the same thing, compared member by member, whatever members they have.

use std::collections::{BTreeMap, BTreeSet};

use cryo::checkpoint::manifest::Manifest;
use serde::Serialize;
use serde_json::Value;

/// No two checkpoints have these in common, or they say nothing of the container.
const OF_ONE_CHECKPOINT: [&str; 8] =
    ["sealed", "taken_at", "left_running", "stdio", "files", "digests", "took", "figures"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// A member's name, with a dot before that of a member in it.
    pub(super) what: String,
    /// Null if there was none.
    pub(super) before: Value,
    pub(super) after: Value,
}

pub(super) fn of_manifests(old: Option<&Manifest>, new: Option<&Manifest>) -> Vec<Change> {
    changes(&description(&old, &OF_ONE_CHECKPOINT), &description(&new, &OF_ONE_CHECKPOINT))
}

/// What JSON says of something, without some of its members.
pub(super) fn description(thing: &impl Serialize, without: &[&str]) -> Value {
    // Plain numbers and texts.
    let mut value = serde_json::to_value(thing).unwrap_or_default();
    if let Value::Object(members) = &mut value {
        members.retain(|name, _| !without.contains(&name.as_str()));
    }
    value
}

pub(super) fn changes(old: &Value, new: &Value) -> Vec<Change> {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten("", old, &mut before);
    flatten("", new, &mut after);
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let change = |name: &String| {
        let value = |of: &BTreeMap<String, Value>| of.get(name).cloned().unwrap_or_default();
        let (before, after) = (value(&before), value(&after));
        (before != after).then(|| Change { what: name.clone(), before, after })
    };
    names.into_iter().filter_map(change).collect()
}

fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                flatten(&name, value, into);
            }
        }
        _ => drop(into.insert(name.to_owned(), value.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_compared_by_their_names() {
        let old = json!({"same": 1, "in": {"a": [1], "b": true}, "gone": "x"});
        let new = json!({"same": 1, "in": {"a": [1, 2], "b": true}, "new": null});
        let change = |what: &str, before, after| Change { what: what.to_owned(), before, after };
        let expected = [change("gone", json!("x"), json!(null)), change("in.a", json!([1]), json!([1, 2]))];
        assert_eq!(changes(&old, &new), expected);
        assert!(changes(&old, &old).is_empty());
    }

    #[test]
    fn when_a_checkpoint_was_taken_is_no_difference() {
        let described = description(
            &json!({"taken_at": 1, "figures": {"frozen_us": 1}, "kernel": "6"}),
            &OF_ONE_CHECKPOINT,
        );
        assert_eq!(described, json!({"kernel": "6"}));
    }
}

//! Filters of system calls (seccomp), as configurations describe them.

use std::collections::HashSet;

use serde_json::Value;

/// Runtimes take one without a default for none.
fn is_set(filter: &Value) -> bool {
    filter["defaultAction"].as_str().is_some_and(|action| !action.is_empty())
}

/// Whether the first lets through nothing that the second doesn't. What can't be compared
/// has to be the same.
pub fn is_as_strict(one: &Value, other: &Value) -> bool {
    if !is_set(other) || one == other {
        return true;
    }
    let default = &one["defaultAction"];
    let is_alike =
        default == &other["defaultAction"] && is_within(&one["architectures"], &other["architectures"]);
    if !is_set(one) || !is_alike {
        return false;
    }
    let (ours, theirs) = (rules(one), rules(other));
    let by_default = default.as_str().is_some_and(lets_through);
    let (ours_let, theirs_let) = (let_by(&ours), let_by(&theirs));
    let is_let = |call: &str| ours_let.iter().any(|(ours, _)| *ours == call);
    let forbidden: Vec<&Rule> = theirs.iter().filter(|rule| !lets_through(&rule.action)).collect();
    // Where nothing is forbidden but what is named, it has to be named; elsewhere it mustn't be let.
    let is_kept = |rule: &&Rule| ours.contains(*rule) || (!by_default && !is_let(&rule.call));
    let is_granted = |one: &(&str, &str)| {
        theirs_let.contains(one) || (by_default && !forbidden.iter().any(|rule| rule.call == one.0))
    };
    forbidden.iter().all(is_kept) && ours_let.iter().all(is_granted)
}

/// System calls that rules let through, and when.
fn let_by(rules: &HashSet<Rule>) -> HashSet<(&str, &str)> {
    let letting = rules.iter().filter(|rule| lets_through(&rule.action));
    letting.map(|rule| (rule.call.as_str(), rule.when.as_str())).collect()
}

/// Whether a call is made, at once or after somebody has been asked or told.
fn lets_through(action: &str) -> bool {
    matches!(action, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE" | "SCMP_ACT_NOTIFY")
}

/// What becomes of a system call.
#[derive(PartialEq, Eq, Hash)]
struct Rule {
    call: String,
    action: String,
    /// Its arguments and everything else that matters, as it is written.
    when: String,
}

fn rules(filter: &Value) -> HashSet<Rule> {
    let mut rules = HashSet::new();
    for entry in filter["syscalls"].as_array().into_iter().flatten() {
        let action = entry["action"].as_str().unwrap_or_default();
        let arguments = entry.get("args").filter(|args| args.as_array().is_some_and(|args| !args.is_empty()));
        let when = format!("{} {}", arguments.unwrap_or(&Value::Null), entry["errnoRet"]);
        let calls = entry["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        rules.extend(calls.map(|call| Rule {
            call: call.to_owned(),
            action: action.to_owned(),
            when: when.clone(),
        }));
    }
    rules
}

/// For other architectures than the listed ones nothing is let through.
fn is_within(few: &Value, many: &Value) -> bool {
    let list = |value: &Value| -> HashSet<String> {
        let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    };
    list(few).is_subset(&list(many))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALLOW: &str = "SCMP_ACT_ALLOW";

    fn listing(default: &str, rules: &[(&[&str], &str)]) -> Value {
        let rule = |(names, action): &(&[&str], &str)| json!({ "names": names, "action": action });
        let rules: Vec<Value> = rules.iter().map(rule).collect();
        json!({ "defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules })
    }

    fn lets(calls: &[&str]) -> Value {
        listing("SCMP_ACT_ERRNO", &[(calls, ALLOW)])
    }

    #[test]
    fn who_lets_less_through_is_as_strict() {
        assert!(is_as_strict(&lets(&["read"]), &lets(&["write", "read"])));
        assert!(!is_as_strict(&lets(&["read", "mount"]), &lets(&["read"])));
        let split = listing("SCMP_ACT_ERRNO", &[(&["read"], ALLOW), (&["write"], ALLOW)]);
        assert!(
            is_as_strict(&split, &lets(&["read", "write"]))
                && is_as_strict(&lets(&["write", "read"]), &split)
        );
    }

    #[test]
    fn any_filter_is_stricter_than_none() {
        assert!(is_as_strict(&lets(&["read"]), &Value::Null));
        assert!(is_as_strict(&Value::Null, &Value::Null));
        assert!(!is_as_strict(&Value::Null, &lets(&["read"])));
        assert!(!is_as_strict(&json!({ "defaultAction": "" }), &lets(&["read"])));
    }

    #[test]
    fn a_list_of_what_is_forbidden_counts_the_other_way() {
        let forbids = |calls: &[&str]| listing(ALLOW, &[(calls, "SCMP_ACT_ERRNO")]);
        assert!(is_as_strict(&forbids(&["mount", "bpf"]), &forbids(&["bpf"])));
        assert!(!is_as_strict(&forbids(&["bpf"]), &forbids(&["mount", "bpf"])));
        assert!(!is_as_strict(&lets(&["read"]), &forbids(&["bpf"])), "not comparable");
    }

    #[test]
    fn arguments_and_architectures_count() {
        let mut narrow = lets(&["clone"]);
        narrow["syscalls"][0]["args"] = json!([{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }]);
        assert!(!is_as_strict(&lets(&["clone"]), &narrow));
        let killed = listing("SCMP_ACT_ERRNO", &[(&["read"], ALLOW), (&["read"], "SCMP_ACT_KILL")]);
        assert!(!is_as_strict(&lets(&["read"]), &killed));
        let mut more = lets(&["read"]);
        more["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
        assert!(is_as_strict(&lets(&["read"]), &more) && !is_as_strict(&more, &lets(&["read"])));
        let mut empty = lets(&["read"]);
        empty["syscalls"][0]["args"] = json!([]);
        assert!(is_as_strict(&empty, &lets(&["read"])) && is_as_strict(&lets(&["read"]), &empty));
    }

    #[test]
    fn to_log_a_call_is_to_let_it_through() {
        let logs = listing("SCMP_ACT_ERRNO", &[(&["read"], ALLOW), (&["mount"], "SCMP_ACT_LOG")]);
        assert!(!is_as_strict(&logs, &lets(&["read"])));
        assert!(is_as_strict(&logs, &lets(&["read", "mount"])));
        let all = listing("SCMP_ACT_LOG", &[]);
        let but_mount = listing("SCMP_ACT_LOG", &[(&["mount"], "SCMP_ACT_ERRNO")]);
        assert!(!is_as_strict(&all, &but_mount) && is_as_strict(&but_mount, &all));
    }
}

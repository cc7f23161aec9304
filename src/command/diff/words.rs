//! The differences for people: what is gone, what is new, what changed from what to what.

use std::fmt::Write;

use serde_json::Value;

use super::Difference;
use super::memory::{Amount, MemoryChange};
use super::things::Changes;
use super::values::Change;
use crate::command::table::{Table, plain, size};
use crate::contents::PAGE;

/// A longer value is cut: the whole is in JSON.
const LONGEST: usize = 60;
const RED: u8 = 31;
const GREEN: u8 = 32;
const BOLD: u8 = 1;

pub(super) fn text(difference: &Difference, colours: bool) -> String {
    if difference.same {
        return "Both are the same.\n".to_owned();
    }
    let things = [
        ("Processes", &difference.processes),
        ("Open files", &difference.files),
        ("Sockets", &difference.sockets),
        ("Mounts", &difference.mounts),
        ("Cgroups", &difference.cgroups),
    ];
    let mut parts = vec![("Taken", changes(&difference.manifest, 2))];
    parts.extend(things.map(|(title, things)| (title, described(things, colours))));
    parts.push(("Memory", memory(&difference.memory)));
    let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
    let parts = parts.map(|(title, text)| format!("{}\n{text}", painted(title, BOLD, colours)));
    parts.collect::<Vec<_>>().join("\n")
}

fn described(things: &Changes, colours: bool) -> String {
    let mut text = String::new();
    let marked = [("-", &things.gone, RED), ("+", &things.new, GREEN)];
    for (mark, names, colour) in marked {
        for name in names {
            // Writing to a string can't fail.
            let _ = writeln!(text, "  {}", painted(&format!("{mark} {}", plain(name)), colour, colours));
        }
    }
    for thing in &things.changed {
        let _ = writeln!(text, "  ~ {}", plain(&thing.name));
        text.push_str(&changes(&thing.changes, 6));
    }
    text
}

fn changes(changes: &[Change], indent: usize) -> String {
    let width = changes.iter().map(|change| change.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Change { what, before, after } in changes {
        let what = plain(what);
        let _ = writeln!(text, "{:indent$}{what:width$}  {} → {}", "", value(before), value(after));
    }
    text
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let short: String = text.chars().take(LONGEST).collect();
    plain(&if short.len() < text.len() { short + "…" } else { text })
}

fn memory(change: &MemoryChange) -> String {
    if change.is_same() {
        return String::new();
    }
    let mut table = Table::new(&["CHANGED", "NEW", "GONE", "WHERE"], &[0, 1, 2]);
    table.row(row(&change.total, "all of it".to_owned()));
    for process in &change.processes {
        table.row(row(&process.total, process.name.clone()));
        for mapping in &process.mappings {
            table.row(row(&mapping.amount, format!("  {} {}", mapping.place, mapping.what)));
        }
    }
    let mut text = table.text();
    let pages = change.total.changed / PAGE;
    let _ = writeln!(text, "  {pages} pages of {PAGE} bytes have another content.");
    if change.total.unknown > 0 {
        let unknown = size(change.total.unknown);
        let _ = writeln!(text, "  {unknown} can't be compared: the image doesn't hold their content.");
    }
    text
}

fn row(amount: &Amount, place: String) -> [String; 4] {
    let [changed, new, gone] = [amount.changed, amount.new, amount.gone]
        .map(|bytes| if bytes == 0 { "-".to_owned() } else { size(bytes) });
    [changed, new, gone, place]
}

fn painted(text: &str, colour: u8, colours: bool) -> String {
    if colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

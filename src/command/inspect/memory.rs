//! Memory: by mapping, or how much of each kind.

use std::collections::BTreeMap;

use crate::command::table::{Table, plain, size};
use crate::contents::Contents;

pub(super) fn table(contents: &Contents) -> String {
    let mut parts = Vec::new();
    for process in &contents.processes {
        let Some(memory) = &process.memory else { continue };
        let (dumped, mapped) = (size(memory.dumped), size(memory.mapped));
        let head = format!("{}  {}  {dumped} of {mapped} mapped\n", process.pid, plain(&process.name));
        let mut table = Table::new(&["ADDRESSES", "ACCESS", "SIZE", "IN IMAGE", "WHAT"], &[2, 3]);
        for mapping in &memory.mappings {
            table.row([
                format!("{:x}-{:x}", mapping.start, mapping.end),
                mapping.permissions.clone(),
                size(mapping.size),
                if mapping.dumped == 0 { "-".to_owned() } else { size(mapping.dumped) },
                mapping.what(),
            ]);
        }
        parts.push(head + &table.text());
    }
    parts.join("\n")
}

/// What takes most comes first.
pub(super) fn summary(contents: &Contents) -> String {
    let mut kinds: BTreeMap<&str, (u64, u64, usize)> = BTreeMap::new();
    let memories = contents.processes.iter().filter_map(|process| process.memory.as_ref());
    for mapping in memories.flat_map(|memory| &memory.mappings) {
        let (bytes, dumped, count) = kinds.entry(mapping.kind.name()).or_default();
        *bytes = bytes.saturating_add(mapping.size);
        *dumped = dumped.saturating_add(mapping.dumped);
        *count += 1;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (bytes, dumped, _))| std::cmp::Reverse((*dumped, *bytes)));
    if kinds.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["KIND", "MAPPINGS", "SIZE", "IN IMAGE"], &[1, 2, 3]);
    for (kind, (bytes, dumped, count)) in kinds {
        table.row([kind.to_owned(), count.to_string(), size(bytes), size(dumped)]);
    }
    table.text()
}

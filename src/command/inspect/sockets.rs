//! The sockets, each once, with who holds it.

use std::collections::HashMap;

use crate::command::table::Table;
use crate::contents::{Contents, Holder};

pub(super) fn table(contents: &Contents) -> String {
    let sockets: Vec<_> = contents.sockets().collect();
    if sockets.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["PROTOCOL", "TYPE", "STATE", "LOCAL", "REMOTE", "HELD BY"], &[]);
    // Of a socket without a name only its holder tells where it leads.
    let places: HashMap<u32, String> = sockets
        .iter()
        .filter_map(|(socket, holders)| holders.first().map(|holder| (socket.inode, place(*holder))))
        .collect();
    for (socket, holders) in &sockets {
        let peer = places.get(&socket.peer).filter(|_| socket.peer != 0);
        let peer = peer.map(|place| format!("(to {place})")).unwrap_or_default();
        table.row([
            socket.protocol.clone(),
            socket.kind.to_owned(),
            socket.state.to_owned(),
            socket.local.clone().unwrap_or_default(),
            socket.remote.clone().unwrap_or_default(),
            format!("{} {peer}", held_by(holders)),
        ]);
    }
    table.text()
}

/// As many as can be read at one look.
const SHOWN: usize = 6;

pub(super) fn held_by(holders: &[Holder<'_>]) -> String {
    let shown: Vec<_> = holders.iter().take(SHOWN).map(|holder| place(*holder)).collect();
    match holders.len().saturating_sub(SHOWN) {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}

/// A process and its descriptor.
fn place((process, fd): Holder<'_>) -> String {
    format!("{}:{fd}", process.pid)
}

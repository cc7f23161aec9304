//! The open files: each once, or process by process. Sockets have a section of their own.

use super::sockets::held_by;
use crate::command::table::{Table, size};
use crate::contents::{Contents, File};

pub(super) fn summary(contents: &Contents) -> String {
    let mut table = Table::new(&["KIND", "ACCESS", "POSITION", "FILE", "HELD BY"], &[2]);
    let open = contents.open();
    let files: Vec<_> = open.iter().filter(|(file, _)| file.socket.is_none()).collect();
    for (file, holders) in &files {
        let [kind, access, position, file] = cells(file);
        table.row([kind, access, position, file, held_by(holders)]);
    }
    if files.is_empty() { String::new() } else { table.text() }
}

pub(super) fn table(contents: &Contents) -> String {
    let mut table = Table::new(&["PID", "FD", "KIND", "ACCESS", "POSITION", "FILE"], &[0, 1, 4]);
    for process in &contents.processes {
        for open in process.files.iter().filter(|open| open.file.socket.is_none()) {
            let [kind, access, position, file] = cells(&open.file);
            table.row([process.pid.to_string(), open.fd.to_string(), kind, access, position, file]);
        }
    }
    table.text()
}

fn cells(file: &File) -> [String; 4] {
    let position = file.position.map(|position| position.to_string()).unwrap_or_default();
    [file.kind.name().to_owned(), access(file), position, described(file)]
}

fn access(file: &File) -> String {
    let words = file.flags.iter().map(|word| match *word {
        "read" => "r",
        "write" => "w",
        "read_write" => "rw",
        other => other,
    });
    words.collect::<Vec<_>>().join(",")
}

/// Which file, and what is special about it.
fn described(file: &File) -> String {
    let size = file.size.filter(|_| file.deleted).map(size);
    let deleted = file.deleted.then(|| match size {
        Some(size) => format!("deleted, {size} in the image"),
        None => "deleted".to_owned(),
    });
    let external = file.external.then(|| "from outside".to_owned());
    let remarks: Vec<_> = [deleted, external, file.detail.clone()].into_iter().flatten().collect();
    if remarks.is_empty() { file.what() } else { format!("{} ({})", file.what(), remarks.join(", ")) }
}

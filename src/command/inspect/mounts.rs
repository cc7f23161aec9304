//! The mounts in the order of their places.

use crate::command::table::Table;
use crate::contents::{Contents, Mount};

pub(super) fn table(contents: &Contents) -> String {
    if contents.mounts.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["MOUNT POINT", "TYPE", "ACCESS", "ROOT", "FROM OUTSIDE AS", "OPTIONS"], &[]);
    for mount in &contents.mounts {
        let access = if mount.read_only { "ro" } else { "rw" };
        let propagation = if mount.propagation == "private" { "" } else { mount.propagation };
        let access = [access, propagation].into_iter().filter(|word| !word.is_empty());
        table.row([
            mount.mount_point.clone(),
            mount.kind.clone(),
            access.collect::<Vec<_>>().join(","),
            mount.root.clone(),
            mount.external.clone().unwrap_or_default(),
            options(mount),
        ]);
    }
    table.text()
}

/// Layers of an overlay are the host's paths, hundreds of letters long.
fn options(mount: &Mount) -> String {
    let short = mount.options.split(',').filter(|option| option.chars().count() <= 40);
    short.collect::<Vec<_>>().join(",")
}

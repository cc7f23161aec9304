//! A program that a client has put in the place of its fifos.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::world::World;

/// A program of the client's that gets stdout as descriptor 3 and stderr as 4.
pub(crate) fn logger(world: &World, script: &str) -> PathBuf {
    let path = world.path("logger");
    // Closing 5 says that it is ready.
    fs::write(&path, format!("#!/bin/sh\n{script}\n").replace("READY", "exec 5>&-")).unwrap();
    if !script.contains("READY") {
        fs::write(&path, format!("#!/bin/sh\nexec 5>&-\n{script}\n")).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

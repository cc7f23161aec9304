//! crun filters the system calls of processes that are added later by a file that it writes
//! when it creates a container. Of a restored one it has none, and would let them call all.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use crate::container::Subject;

const FILE: &str = "seccomp.bpf";

pub(super) fn keep(subject: &Subject, program: &[u8]) -> io::Result<()> {
    let path = subject.runtime.root.join(&subject.id).join(FILE);
    match File::options().write(true).create_new(true).mode(0o700).open(path) {
        // One that remembers by itself.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        file => file?.write_all(program),
    }
}

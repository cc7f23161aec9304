//! Mounts that take more than system calls: mount(8) finds a loop device for a file, and
//! mount.fuse starts the program behind a file system in user space.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Mount;
use crate::reaper::Reaper;
use crate::runtime::capture;

/// Checking a journal takes a while; what takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn is_needed(request: &Mount) -> bool {
    in_user_space(request).is_some() || request.options.iter().any(|word| word == "loop")
}

/// Which mount.fuse is to start which program.
fn in_user_space(request: &Mount) -> Option<(&str, &str)> {
    request.kind.split_once('.').filter(|(family, _)| ["fuse", "fuse3"].contains(family))
}

pub(super) async fn mount(reaper: Reaper, request: &Mount, on: &Path) -> io::Result<()> {
    let (program, kind) = match in_user_space(request) {
        Some((family, program)) => (format!("mount.{family}"), program),
        None => ("mount".to_owned(), request.kind.as_str()),
    };
    // It may be a descriptor of ours, which is another one there.
    let on = on.canonicalize()?;
    let mut command = Command::new(&program);
    command.arg(&request.source).arg(on).args(["-t", kind]).stdin(Stdio::null());
    // Other owners are seen to by whoever called.
    let options: Vec<_> =
        request.options.iter().filter(|word| !is_for_owners(word)).map(String::as_str).collect();
    if !options.is_empty() {
        command.args(["-o", &options.join(",")]);
    }
    let of_program = |error: io::Error| io::Error::new(error.kind(), format!("{program}: {error}"));
    let answer = capture(reaper, &mut command, DEADLINE).await.map_err(of_program)?;
    let answer = answer.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, format!("{program} hangs")))?;
    if answer.status == 0 {
        return Ok(());
    }
    let said = answer.errors.trim().lines().next_back().unwrap_or("it doesn't say why").to_owned();
    Err(io::Error::other(format!("{program} ended with {}: {said}", answer.status)))
}

fn is_for_owners(word: &str) -> bool {
    word.starts_with("uidmap=") || word.starts_with("gidmap=")
}

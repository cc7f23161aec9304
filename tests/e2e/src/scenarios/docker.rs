//! What a user of Docker may rely on, through the unmodified client and daemon.
//!
//! Docker's journald driver wants systemd, and is not tried.

mod basics;
mod clones;
mod confinement;
mod connections;
mod daemons;
mod files;
mod images;
mod jobs;
mod kept;
mod limits;
mod logs;
mod mounts;
mod networks;
mod operations;
mod packed;
mod policies;
mod portable;
mod rounds;
mod servers;
mod shared;
mod stdio;
mod verbs;
mod verdicts;
mod zoo;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let areas = [
        basics::scenarios(),
        operations::scenarios(),
        logs::scenarios(),
        stdio::scenarios(),
        jobs::scenarios(),
        kept::scenarios(),
        portable::scenarios(),
        packed::scenarios(),
        files::scenarios(),
        networks::scenarios(),
        connections::scenarios(),
        servers::scenarios(),
        mounts::scenarios(),
        confinement::scenarios(),
        limits::scenarios(),
        shared::scenarios(),
        daemons::scenarios(),
        clones::scenarios(),
        policies::scenarios(),
        verbs::scenarios(),
        verdicts::scenarios(),
        images::scenarios(),
        rounds::scenarios(),
        zoo::scenarios(),
    ];
    areas.into_iter().flatten().collect()
}

/// A refusal says all this in one line; the command has its own about what it did.
fn names(said: &str, words: &[&str]) -> Outcome {
    let line = said.lines().find(|line| line.contains("Error response")).unwrap_or_default();
    for word in words {
        ensure!(line.contains(word), "{word:?} is not in {line:?}");
    }
    Ok(())
}

/// A container that has begun to count.
#[track_caller]
fn counting<'d>(docker: &'d Docker<'_>, options: &[&str]) -> Outcome<Container<'d>> {
    let container = docker.run(options, &["guest", "count"])?;
    container.wait_for_counting(3)?;
    Ok(container)
}

/// A container whose guest says that it is ready.
#[track_caller]
fn ready<'d>(docker: &'d Docker<'_>, options: &[&str], guest: &[&str]) -> Outcome<Container<'d>> {
    let container = docker.run(options, &[&["guest"], guest].concat())?;
    container.wait_for_line("ready")?;
    Ok(container)
}

/// A counting container that has been away.
#[track_caller]
fn back<'d>(docker: &'d Docker<'_>, options: &[&str]) -> Outcome<Container<'d>> {
    let container = counting(docker, options)?;
    container.come_back("one")?;
    Ok(container)
}

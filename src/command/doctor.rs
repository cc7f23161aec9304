//! `cryo doctor`: whether checkpoint and restore will work here, and what to do if not.

mod daemons;
mod facts;
mod handlers;
mod judge;
mod labels;
mod table;
mod words;

use std::io;
use std::process::ExitCode;

use cryo::reaper::Reaper;

use super::answer::{complain, has_colours, say};

pub(crate) use daemons::{docker_runs_with, for_pods};
pub(crate) use handlers::matches;
pub(crate) use words::handlers as described;

pub(crate) fn run(json: bool, node_labels: bool) -> ExitCode {
    let facts = match facts() {
        Ok(facts) => facts,
        Err(error) => {
            complain(&format!("can't look at this machine: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let findings = judge::judge(&facts);
    let ready = judge::ready(&findings);
    let text = match (json, node_labels) {
        (_, true) => labels::patch(&facts, ready),
        (true, _) => table::json(&findings, ready),
        _ => table::table(&findings, ready, facts.root, has_colours()),
    };
    say(&text);
    // It tells the same to those who don't read.
    if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a node of Kubernetes can be told about this machine.
pub(crate) fn node_labels() -> io::Result<String> {
    let facts = facts()?;
    let ready = judge::ready(&judge::judge(&facts));
    Ok(labels::patch(&facts, ready))
}

fn facts() -> io::Result<facts::Facts> {
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    event_loop.block_on(async { Ok(facts::gather(Reaper::start()?).await) })
}

//! `cryo doctor`: whether checkpoint and restore will work here, and what to do if not.

mod daemons;
mod facts;
mod handlers;
mod judge;
mod table;
mod words;

use std::io;
use std::process::ExitCode;

use cryo::reaper::Reaper;

use super::answer::{complain, has_colours, say};

pub(crate) use daemons::docker_runs_with;

pub(crate) fn run(json: bool) -> ExitCode {
    let facts = match facts() {
        Ok(facts) => facts,
        Err(error) => {
            complain(&format!("can't look at this machine: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let findings = judge::judge(&facts);
    let ready = judge::ready(&findings);
    let text = match json {
        true => table::json(&findings, ready),
        false => table::table(&findings, ready, facts.root, has_colours()),
    };
    say(&text);
    // It tells the same to those who don't read.
    if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn facts() -> io::Result<facts::Facts> {
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    event_loop.block_on(async { Ok(facts::gather(Reaper::start()?).await) })
}

//! `cryo doctor`: whether checkpoint and restore will work here, and what to do if not.

mod daemons;
mod facts;
mod judge;
mod table;
mod words;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use cryo::reaper::Reaper;

pub(crate) use daemons::docker_runs_with;

pub(crate) fn run(json: bool) -> ExitCode {
    let facts = match facts() {
        Ok(facts) => facts,
        Err(error) => {
            // Nobody is left to tell if even this can't be written.
            let _ = writeln!(io::stderr(), "cryo: can't look at this machine: {error}");
            return ExitCode::FAILURE;
        }
    };
    let findings = judge::judge(&facts);
    let ready = judge::ready(&findings);
    let mut out = io::stdout();
    let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = match json {
        true => table::json(&findings, ready),
        false => table::table(&findings, ready, facts.root, colours),
    };
    // The exit status tells the same to those who don't read.
    let _ = out.write_all(text.as_bytes());
    if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn facts() -> io::Result<facts::Facts> {
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    event_loop.block_on(async { Ok(facts::gather(Reaper::start()?).await) })
}

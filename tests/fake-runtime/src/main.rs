//! An OCI runtime that runs no containers: it speaks the command line of runc or crun,
//! by the name it is called, and instead of a container it starts a process of its own
//! that does what the container's arguments say (see `container`).
//!
//! `script.json` in the bundle, which is the working directory, says at which point of
//! which call what goes wrong (see `script`). Every call is noted in `calls`.

mod call;
mod checkpoint;
mod container;
mod failure;
mod process;
mod restore;
mod script;
mod state;
mod terminal;
mod verbs;

use std::process::ExitCode;

use call::Call;
use script::Script;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == container::ARGUMENT) {
        return container::main(&words[2..]);
    }
    let call = match Call::parse(&words) {
        Ok(call) => call,
        Err(mistake) => {
            eprintln!("{mistake}");
            // As crun does; runc prints its usage and says 1.
            return ExitCode::from(64);
        }
    };
    let script = Script::of(&call);
    match verbs::run(&call, &script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&call),
    }
}

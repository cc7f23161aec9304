//! containerd's side of Cryo: what a shim is asked by containerd, put to the core.
//!
//! A library only so that what reads foreign bytes can be fuzzed; the program is
//! [`run`].

mod args;
mod ask;
pub mod bootstrap;
mod bundle_files;
mod content;
pub mod convert;
mod delete;
mod error;
mod grpc;
mod info;
mod log;
mod messages;
mod publish;
mod rest;
mod serve;
mod start;
mod stats;
mod status;
mod task;

use std::process::ExitCode;

use args::Action;
pub use args::Args;
use ask::outside;
use cryo::hooks::Question;
use cryo::restore::{guard, held};
use cryo::rootfs::helper;
use error::Error;

/// Set by CRIU for the scripts it runs; ours is this binary.
const CRIU_ACTION: &str = "CRTOOLS_SCRIPT_ACTION";
const CRIU_IMAGE: &str = "CRTOOLS_IMAGE_DIR";

/// What the program does with its arguments and its environment.
pub fn run() -> ExitCode {
    let mut words = std::env::args();
    let name = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    if let Ok(action) = std::env::var(CRIU_ACTION) {
        return run_by_criu(&action);
    }
    let result = match words.first().map(String::as_str) {
        Some(cryo::helper::ARGUMENT) => return cryo::helper::run(&words[1..]),
        Some(cryo::anchor::ARGUMENT) => match cryo::anchor::hold(&words[1..]) {
            Err(error) => Err(Error::other(error)),
        },
        Some(helper::ARGUMENT) => return helper::run(&words[1..]),
        Some(outside::ARGUMENT) => match outside::run(&words[1..]) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        _ => Args::parse(words).map_err(Error::usage).and_then(|args| dispatch(&name, &args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            error.exit_code()
        }
    }
}

/// What we print goes into CRIU's log, so an error has the form of CRIU's own.
fn run_by_criu(action: &str) -> ExitCode {
    match act_for_criu(action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error (cryo): {error}");
            ExitCode::FAILURE
        }
    }
}

fn act_for_criu(action: &str) -> Result<(), Error> {
    let hooks = Question::open(action).map_err(Error::io("ask for hooks"))?;
    let run_hooks = || hooks.map_or(Ok(()), Question::ask).map_err(Error::io("go on"));
    let Some(bundle) = std::env::var_os(guard::BUNDLE_VARIABLE) else {
        run_hooks()?;
        let folder = std::env::var_os(CRIU_IMAGE).unwrap_or_default();
        return cryo::checkpoint::seal::from_criu(action, folder.as_ref())
            .map_err(Error::io("seal the checkpoint"));
    };
    if let Some(socket) = std::env::var_os(held::SOCKET_VARIABLE) {
        held::stand_still(action, socket.as_ref()).map_err(Error::io("hold the restore"))?;
    }
    guard::adjust(action, bundle.as_ref()).map_err(Error::io("set the container right"))?;
    run_hooks()
}

fn dispatch(name: &str, args: &Args) -> Result<(), Error> {
    match args.action {
        Action::Serve => serve::run(args),
        Action::Start => start::run(args),
        Action::Delete => delete::run(args),
        Action::Checkpoint => ask::checkpoint(args),
        Action::Restore => ask::restore(args),
        Action::Info => info::run(),
        Action::Version => {
            info::print_version(name.rsplit('/').next().unwrap_or(name));
            Ok(())
        }
        Action::Help => {
            print!("{}", args::USAGE);
            Ok(())
        }
    }
}

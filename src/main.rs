//! The command `cryo`: sets Cryo up on this machine, and looks after checkpoints.

mod command;
mod contents;

fn main() -> std::process::ExitCode {
    command::run()
}

//! The command `cryo`: sets Cryo up on this machine and says whether it will work.

mod command;
mod contents;

fn main() -> std::process::ExitCode {
    command::run()
}

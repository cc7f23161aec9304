//! The program inside the containers of the end-to-end tests: one behaviour per
//! subcommand, each telling on stdout, a line at a time, how it fares.
//!
//! Those that say "ready" check themselves once more on every SIGUSR1, which is how
//! a test asks after a restore whether anything was lost.

mod files;
mod hold;
mod logger;
mod memory;
mod network;
mod processes;
mod signals;
mod streams;
mod terminal;

use std::io;
use std::process::ExitCode;

const USAGE: &str = "\
count [--interval-ms N] [--stderr]  1, 2, 3, … a line each
echo                                repeat each line of stdin, then say EOF
deaf                                the same, but not before SIGUSR1
copy                                stdin to stdout, byte by byte the same
burst BYTES                         a known pattern, as fast as it goes
pour MIB                            the same without end, at least MIB a second
flood BYTES                         dots, faster than that
bytes                               every value a byte can have, 1000 times
exit N                              end with that status
idle                                do nothing
pause                               the same, and reap: the first process of a pod
signals                             name each signal; TERM ends it with 42
tty                                 say what the terminal is like, also when it changes
heap MIB [half]                     hold random memory, or half of it zeros
churn MIB half                      the same, and change a hundredth of it on SIGUSR1
pulse MIB [half]                    the same, and tell the longest pause, in microseconds
oom                                 take memory until killed, from SIGUSR1 on
tree N                              N children of two threads each
orphans N                           N processes whose parent is gone; end on SIGUSR1
lock FILE | posix-lock FILE         hold a lock on it
ghost FILE BYTES                    hold an open file whose name is gone
listen PORT                         a TCP server that repeats what it hears
connected                           hold a TCP connection to oneself
talk HOST PORT                      hold a TCP connection to a server that repeats what it hears
stream                              send to oneself as fast as it goes
loopback                            talk to oneself over 127.0.0.1
hold KIND [PATH]                    hold something else that the kernel knows; see hold/
logger FILE                         store a container's output, as a binary:// logger";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("guest {}: {error}", args.join(" "));
            ExitCode::from(99)
        }
    }
}

fn run(words: &[&str]) -> io::Result<u8> {
    match *words {
        ["count", ref options @ ..] => streams::count(options),
        ["echo"] => streams::echo(),
        ["deaf"] => streams::deaf(),
        ["copy"] => streams::copy(),
        ["burst", bytes] => streams::burst(number(bytes)?),
        ["pour", mib] => streams::pour(number(mib)?),
        ["flood", bytes] => streams::flood(number(bytes)?),
        ["bytes"] => streams::bytes(),
        ["exit", status] => Ok(number(status)? as u8),
        ["idle"] => signals::idle(),
        ["pause"] => signals::pause(),
        ["signals"] => signals::report(),
        ["tty"] => terminal::describe(),
        ["heap", mib] => memory::heap(number(mib)?, false),
        ["heap", mib, "half"] => memory::heap(number(mib)?, true),
        ["churn", mib, "half"] => memory::churn(number(mib)?),
        ["pulse", mib] => memory::pulse(number(mib)?, false),
        ["pulse", mib, "half"] => memory::pulse(number(mib)?, true),
        ["oom"] => memory::oom(),
        ["tree", children] => processes::tree(number(children)?),
        ["leaf"] => processes::leaf(),
        ["orphans", count] => processes::orphans(number(count)?),
        ["parent-of-an-orphan"] => processes::parent_of_an_orphan(),
        ["lock", file] => files::hold_lock(file, files::Kind::Flock),
        ["posix-lock", file] => files::hold_lock(file, files::Kind::Posix),
        ["try-lock", file] => files::try_lock(file, files::Kind::Flock),
        ["try-posix-lock", file] => files::try_lock(file, files::Kind::Posix),
        ["ghost", file, bytes] => files::ghost(file, number(bytes)?),
        ["listen", port] => network::listen(number(port)? as u16),
        ["connected"] => network::connected(),
        ["talk", host, port] => network::talk(host, number(port)? as u16),
        ["stream"] => network::stream(),
        ["loopback"] => network::loopback(),
        ["hold", kind] => hold::hold(kind, ""),
        ["hold", kind, argument] => hold::hold(kind, argument),
        // The shim hands over a key and a value from the query of the URI.
        ["logger", file] => logger::store(file),
        _ => {
            eprintln!("usage: guest …\n{USAGE}");
            Ok(64)
        }
    }
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(|_| io::Error::other(format!("'{text}' is no number")))
}

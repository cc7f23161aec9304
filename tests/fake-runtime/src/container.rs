//! A process of a container. Its program is the list of arguments that the OCI
//! specification gives it, one step per argument, done in order:
//!
//! `print TEXT`, `error TEXT`: a line on stdout, on stderr · `echo`: copies stdin to
//! stdout to its end · `fill N`: N bytes on stdout · `flood`: as many as get through ·
//! `wait GATE`: see `script` · `ignore N`: the signal is ignored from now on ·
//! `trap N CODE`: the signal ends it with this code, once it sleeps · `resized`: prints
//! the size of its terminal when that changes · `fork`: leaves a child that sleeps ·
//! `sleep`: until it is killed · `exit CODE` · `die N`: by this signal.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, ioctl_tiocsctty, pidfd_open, setsid};
use serde::{Deserialize, Serialize};

use crate::failure::Outcome;
use crate::process;
use crate::script::{die, hang_hard, wait_at_gate};
use crate::state::{self, State};
use crate::terminal::Terminal;

/// As the first argument of this binary: be a process of a container.
pub(crate) const ARGUMENT: &str = "be";
/// Be one that hangs and can't be terminated.
pub(crate) const HANG: &str = "hang";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    state: PathBuf,
    cgroup: PathBuf,
    program: Vec<String>,
    terminal: bool,
    /// The first process waits to be started.
    waits: bool,
    /// Its end is the end of this process, as in a pid namespace.
    follows: Option<u32>,
    /// It has been started, and executed what it was made for.
    #[serde(default)]
    started: bool,
}

/// What is to be started, and where it gets its streams.
pub(crate) struct Birth<'a> {
    pub(crate) state: &'a State,
    pub(crate) program: Vec<String>,
    pub(crate) console: Option<&'a str>,
    pub(crate) waits: bool,
    pub(crate) follows: Option<u32>,
}

impl Birth<'_> {
    /// Starts it as our child; it is left to the shim when we end.
    pub(crate) fn give(self) -> Outcome<u32> {
        let order = Order {
            state: self.state.folder.clone(),
            cgroup: self.state.cgroup.clone(),
            program: self.program,
            terminal: self.console.is_some(),
            waits: self.waits,
            follows: self.follows,
            started: false,
        };
        let mut command = order.command()?;
        if let Some(socket) = self.console {
            let terminal = Terminal::make()?;
            terminal.send(socket)?;
            command.stdin(terminal.slave.try_clone()?);
            command.stdout(terminal.slave.try_clone()?).stderr(terminal.slave);
        }
        let pid = command.spawn()?.id();
        let ready = ready_mark(&order.state, pid);
        process::until(|| ready.exists() || !process::is_alive(pid));
        Ok(pid)
    }
}

impl Order {
    fn command(&self) -> serde_json::Result<Command> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("container").args([ARGUMENT, &serde_json::to_string(self)?]);
        Ok(command)
    }
}

fn ready_mark(state: &Path, pid: u32) -> PathBuf {
    state.join(format!("ready-{pid}"))
}

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let order = arguments.first().map_or("", String::as_str);
    if order == HANG {
        hang_hard();
    }
    match serde_json::from_str::<Order>(order).map_err(io::Error::from).and_then(live) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("container: {error}");
            ExitCode::from(125)
        }
    }
}

fn live(order: Order) -> io::Result<u8> {
    if !order.started {
        begin(&order)?;
    }
    if order.waits && !order.started {
        fs::File::open(order.state.join("start"))?;
        return Err(Order { started: true, ..order }.command()?.exec());
    }
    let mut trapped = Vec::new();
    for step in &order.program {
        if let Some(code) = perform(step, &order, &mut trapped)? {
            return Ok(code);
        }
    }
    Ok(0)
}

fn begin(order: &Order) -> io::Result<()> {
    setsid()?;
    if order.terminal {
        ioctl_tiocsctty(io::stdin())?;
    }
    state::enter(&order.state, &order.cgroup)?;
    if let Some(leader) = order.follows {
        follow(leader)?;
    }
    fs::write(ready_mark(&order.state, std::process::id()), "")
}

/// Dies with the first process, and as everything in its pid namespace would.
fn follow(leader: u32) -> io::Result<()> {
    let pid = Pid::from_raw(leader.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    let leader = pidfd_open(pid, PidfdFlags::empty())?;
    std::thread::spawn(move || {
        // Readable when it has ended.
        let _ = poll(&mut [PollFd::new(&leader, PollFlags::IN)], None);
        die(9)
    });
    Ok(())
}

fn perform(step: &str, order: &Order, trapped: &mut Vec<(Signal, u8)>) -> io::Result<Option<u8>> {
    let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
    let number = || rest.parse::<usize>().unwrap_or_default();
    match verb {
        "print" => writeln!(io::stdout(), "{rest}")?,
        "error" => writeln!(io::stderr(), "{rest}")?,
        "echo" => drop(io::copy(&mut io::stdin(), &mut io::stdout())?),
        "fill" => io::stdout().write_all(&vec![b'x'; number()])?,
        "flood" => loop {
            io::stdout().write_all(&[b'x'; 4096])?;
        },
        "wait" => drop(wait_at_gate(rest)),
        "ignore" => block(number())?,
        "trap" => {
            let (signal, code) = rest.split_once(' ').unwrap_or((rest, "0"));
            let signal = signal.parse::<i32>().unwrap_or_default();
            block(signal.unsigned_abs() as usize)?;
            trapped.push((Signal::try_from(signal)?, code.parse().unwrap_or_default()));
        }
        "resized" => loop {
            block(Signal::SIGWINCH as usize)?;
            wait_for(&[Signal::SIGWINCH])?;
            let size = rustix::termios::tcgetwinsize(io::stdin())?;
            writeln!(io::stdout(), "size {} {}", size.ws_col, size.ws_row)?;
        },
        "fork" => fork(order)?,
        "sleep" => return sleep(trapped),
        "exit" => return Ok(Some(u8::try_from(number()).unwrap_or(u8::MAX))),
        "die" => drop(die(i32::try_from(number()).unwrap_or(9))),
        _ => return Err(io::Error::other(format!("unknown step {step:?}"))),
    }
    Ok(None)
}

fn block(signal: usize) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::try_from(i32::try_from(signal).unwrap_or_default())?);
    Ok(signals.thread_block()?)
}

fn wait_for(signals: &[Signal]) -> io::Result<Signal> {
    let mut set = SigSet::empty();
    signals.iter().for_each(|signal| set.add(*signal));
    Ok(set.wait()?)
}

fn sleep(trapped: &[(Signal, u8)]) -> io::Result<Option<u8>> {
    if trapped.is_empty() {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    let signals: Vec<Signal> = trapped.iter().map(|(signal, _)| *signal).collect();
    let caught = wait_for(&signals)?;
    Ok(trapped.iter().find(|(signal, _)| *signal == caught).map(|(_, code)| *code))
}

/// A child in the same container, with the same streams.
fn fork(order: &Order) -> io::Result<()> {
    let child = Order {
        state: order.state.clone(),
        cgroup: order.cgroup.clone(),
        program: vec!["sleep".to_owned()],
        terminal: false,
        waits: false,
        follows: order.follows,
        started: false,
    };
    let child = child.command()?.stdin(Stdio::null()).spawn()?.id();
    let ready = ready_mark(&order.state, child);
    process::until(|| ready.exists() || !process::is_alive(child));
    Ok(())
}

//! What shall go wrong, where and when. A list of rules in `script.json`:
//!
//! `{"verb": "create", "call": 2, "point": "before", "do": {"fail": "no luck"}}`
//!
//! The second call of `create` fails before it has done anything. Without `call` the
//! rule holds for each. Points every verb has are `before` and `after`; the others are
//! named where they are reached.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{getpid, getppid, kill_process};
use serde::Deserialize;

use crate::call::Call;
use crate::container;
use crate::failure::{Failure, Outcome};
use crate::process;

const SCRIPT: &str = "script.json";
/// One line per call, so that tests see what was asked and scripts can count.
const CALLS: &str = "calls";

#[derive(Debug, Deserialize)]
struct Rule {
    verb: String,
    #[serde(default)]
    call: usize,
    point: String,
    #[serde(rename = "do")]
    action: Action,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    /// Fails with this message.
    Fail(String),
    /// Fails as CRIU does: the message is in its log, the runtime only says that it failed.
    CriuFail(String),
    /// Ends with this code and without a word.
    Exit(u8),
    /// Is killed by this signal.
    Die(i32),
    /// Never goes on; SIGTERM ends it.
    Hang,
    /// Never goes on, and SIGTERM doesn't end it.
    HangHard,
    /// Leaves a child in its process group that ignores SIGTERM, then hangs.
    HangWithChild,
    /// Kills whoever called it, with SIGKILL.
    KillParent,
    /// Says that it is there, and goes on when the test lets it (see [`wait_at_gate`]).
    Wait(String),
    /// Runs a command of the shell, whatever comes of it.
    Shell(String),
    /// Waits until the container's process has ended.
    AwaitDeath,
    /// Doesn't do what it was asked, but doesn't fail either.
    Skip,
    /// Writes this in place of the pid; nothing writes no file at all.
    PidFile(Option<String>),
}

/// The rules for one call.
#[derive(Debug)]
pub(crate) struct Script(Vec<Rule>);

impl Script {
    /// Notes the call, and finds out the how many-th of its verb it is.
    pub(crate) fn of(call: &Call) -> Script {
        let rules = fs::read(SCRIPT).ok().map(|bytes| serde_json::from_slice::<Vec<Rule>>(&bytes));
        let rules = match rules {
            Some(Ok(rules)) => rules,
            Some(Err(error)) => {
                eprintln!("{SCRIPT}: {error}");
                std::process::exit(70);
            }
            None => Vec::new(),
        };
        let count = note(&call.verb);
        let holds = |rule: &Rule| rule.verb == call.verb && (rule.call == 0 || rule.call == count);
        Script(rules.into_iter().filter(holds).collect())
    }

    /// Does what is to be done at this point.
    pub(crate) fn reach(&self, point: &str) -> Outcome {
        self.reach_with(point, None, None)
    }

    /// The same, for points where there is a container process or a log of CRIU's.
    pub(crate) fn reach_with(&self, point: &str, container: Option<u32>, log: Option<&Path>) -> Outcome {
        self.at(point).try_for_each(|action| perform(action, container, log))
    }

    pub(crate) fn skips(&self, point: &str) -> bool {
        self.at(point).any(|action| matches!(action, Action::Skip))
    }

    /// What to write as pid file, if that is to be something else than the pid.
    pub(crate) fn pid_file(&self, pid: u32) -> Option<String> {
        let told = self.0.iter().find_map(|rule| match &rule.action {
            Action::PidFile(text) => Some(text.clone()),
            _ => None,
        });
        told.unwrap_or_else(|| Some(pid.to_string()))
    }

    fn at(&self, point: &str) -> impl Iterator<Item = &Action> {
        self.0.iter().filter(move |rule| rule.point == point).map(|rule| &rule.action)
    }
}

fn note(verb: &str) -> usize {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // A bundle that can't be written to is something tests make on purpose.
    if let Ok(mut calls) = OpenOptions::new().create(true).append(true).open(CALLS) {
        let _ = writeln!(calls, "{verb}\t{}", words.join(" "));
    }
    let calls = fs::read_to_string(CALLS).unwrap_or_default();
    calls.lines().filter(|line| line.split('\t').next() == Some(verb)).count()
}

fn perform(action: &Action, container: Option<u32>, log: Option<&Path>) -> Outcome {
    match action {
        Action::Fail(message) => Err(Failure::new(message)),
        Action::CriuFail(message) => {
            if let Some(log) = log {
                criu_error(log, message)?;
            }
            Err(Failure::new("criu failed: type NOTIFY errno 0"))
        }
        Action::Exit(code) => Err(Failure::silent(*code)),
        Action::Die(signal) => die(*signal),
        Action::Hang => hang(),
        Action::HangHard => hang_hard(),
        Action::HangWithChild => {
            let child =
                Command::new("/proc/self/exe").args([container::ARGUMENT, container::HANG]).spawn()?;
            fs::write("hanging-child", child.id().to_string())?;
            hang()
        }
        Action::KillParent => {
            if let Some(parent) = getppid() {
                kill_process(parent, rustix::process::Signal::KILL)?;
            }
            // The parent's death is about to end this process too.
            hang()
        }
        Action::Wait(gate) => wait_at_gate(gate),
        Action::Shell(command) => {
            Command::new("sh").args(["-c", command]).status()?;
            Ok(())
        }
        Action::AwaitDeath => {
            container.into_iter().for_each(process::wait_for_death);
            Ok(())
        }
        Action::Skip | Action::PidFile(_) => Ok(()),
    }
}

/// A line of CRIU's log as CRIU writes it.
pub(crate) fn criu_error(log: &Path, message: &str) -> Outcome {
    let mut log = OpenOptions::new().append(true).create(true).open(log)?;
    writeln!(log, "(00.071402) Error (criu/fake.c:99): {message}")?;
    Ok(())
}

pub(crate) fn die(signal: i32) -> Outcome {
    let signal = rustix::process::Signal::from_named_raw(signal);
    kill_process(getpid(), signal.ok_or_else(|| Failure::new("no such signal"))?)?;
    hang()
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

pub(crate) fn hang_hard() -> ! {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    // If this fails SIGTERM ends it, and the test that wanted otherwise tells.
    let _ = signals.thread_block();
    hang()
}

/// `gate-NAME.reached` appears, and it goes on when somebody opens the fifo `gate-NAME`.
pub(crate) fn wait_at_gate(name: &str) -> Outcome {
    fs::write(format!("gate-{name}.reached"), getpid().as_raw_pid().to_string())?;
    fs::File::open(format!("gate-{name}"))?;
    Ok(())
}

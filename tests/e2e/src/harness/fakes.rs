//! Programs that stand in for criu or the runtime and misbehave on demand. They lie
//! in the slot's own folder, which comes first in PATH.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::bench::Bench;
use super::failure::{During, Failure, Outcome, ensure};
use super::settings::settings;
use super::slot::BASE;
use super::wait::eventually;

/// Stops every caller of a program at its door until it is opened.
pub(crate) struct Gate {
    program: PathBuf,
    door: PathBuf,
    arrivals: PathBuf,
    opened: OnceLock<File>,
}

impl Gate {
    /// In front of every start of CRIU, which is how each dump and restore begins.
    pub(crate) fn before_criu(bench: &Bench) -> Outcome<Self> {
        Gate::new(bench, "criu", "*")
    }

    /// In front of one verb of the runtime.
    pub(crate) fn before_runtime(bench: &Bench, verb: &str) -> Outcome<Self> {
        Gate::new(bench, bench.runtime().binary(), verb)
    }

    fn new(bench: &Bench, program: &str, verb: &str) -> Outcome<Self> {
        let folder = bench.fresh_folder("gate")?;
        let (door, arrivals) = (folder.join("door"), folder.join("arrivals"));
        nix::unistd::mkfifo(&door, Mode::from_bits_truncate(0o600))?;
        // Opening a fifo to read lasts until somebody opens it to write.
        let body = format!("echo $$ >>{}; : <{}", arrivals.display(), door.display());
        let program = fake(bench, program, verb, &body)?;
        Ok(Gate { program, door, arrivals, opened: OnceLock::new() })
    }

    #[track_caller]
    pub(crate) fn wait_for_arrival(&self) -> Outcome<i32> {
        eventually("somebody stands before the gate", || {
            fs::read_to_string(&self.arrivals).ok()?.lines().next()?.parse().ok()
        })
    }

    /// Lets all in, and takes the gate away. An open one stays open.
    pub(crate) fn open(&self) -> Outcome {
        if !self.program.exists() {
            return Ok(());
        }
        fs::remove_file(&self.program)?;
        // Held open: somebody may have said that he is there and not have got to the door.
        // With both ends in one hand this waits for nobody.
        let door = OpenOptions::new().read(true).write(true).open(&self.door)?;
        self.opened.set(door).map_err(|_| Failure::new("the gate was opened twice"))
    }
}

/// The real CRIU, which can be found to be killed. It gives way to whoever waits for it.
pub(crate) struct Victim {
    noting: PathBuf,
    noted: PathBuf,
    may_be_gone: bool,
}

impl Victim {
    pub(crate) fn expected(bench: &Bench) -> Outcome<Self> {
        let noted = bench.fresh_folder("criu")?.join("pid");
        let script = format!("renice -n 19 $$ >/dev/null; echo $$ >{}", noted.display());
        Ok(Victim { noting: fake(bench, "criu", "*", &script)?, noted, may_be_gone: false })
    }

    /// Whoever cleans up may have been faster.
    pub(crate) fn that_may_be_gone(self) -> Self {
        Victim { may_be_gone: true, ..self }
    }

    /// Kills it in the middle of an operation, when `until` has seen what it waits for; says
    /// what the operation answers.
    pub(crate) fn killed_during<T: Send>(
        self,
        operation: impl FnOnce() -> T + Send,
        until: impl FnOnce() -> Outcome,
    ) -> Outcome<T> {
        std::thread::scope(|scope| {
            let operation = scope.spawn(operation);
            let seen = until();
            let killed = self.kill();
            seen?;
            killed?;
            operation.join().map_err(|_| Failure::new("the operation panicked"))
        })
    }

    /// The last one that was started, with its child, which does the work. The next one is
    /// not to be killed.
    fn kill(self) -> Outcome {
        let criu: i32 = fs::read_to_string(&self.noted)?.trim().parse()?;
        let children = fs::read_to_string(format!("/proc/{criu}/task/{criu}/children"));
        let children = if self.may_be_gone { children.unwrap_or_default() } else { children? };
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([criu]) {
            // It may have ended with its child.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        Ok(fs::remove_file(self.noting)?)
    }
}

/// Puts `body` before the real program for one verb, or for all if that is `*`.
pub(crate) fn fake(bench: &Bench, program: &str, verb: &str, body: &str) -> Outcome<PathBuf> {
    let real = real_path(program)?;
    let script = format!(
        "#!/bin/sh\n\
         for word in \"$@\"; do case $word in\n\
         create|start|exec|pause|resume|checkpoint|restore|kill|delete|update|ps|state|features|swrk)\n\
         verb=$word; break;; esac; done\n\
         case $verb in\n{verb}) {body} ;;\nesac\n\
         exec {} \"$@\"\n",
        real.display()
    );
    install(bench, program, &script)
}

/// Runs a command of the shell before the shim that is tested.
pub(crate) fn wrap_shim(bench: &Bench, command: &str) -> Outcome<PathBuf> {
    let name = settings().shim.binary_name();
    let ours = Path::new(BASE).join("bin").join(name);
    let real = if ours.exists() { ours } else { real_path(name)? };
    install(bench, name, &format!("#!/bin/sh\n{command}\nexec {} \"$@\"\n", real.display()))
}

fn install(bench: &Bench, program: &str, script: &str) -> Outcome<PathBuf> {
    let path = bench.slot.folder.join("bin").join(program);
    // Written aside first: a caller must find a whole program or none.
    let aside = path.with_extension("new");
    write_program(&aside, script)?;
    fs::rename(&aside, &path)?;
    Ok(path)
}

/// By a process of its own: what another trial starts in the moment in which we had the file
/// open would hold it open, too, and nobody could execute it until then.
pub(crate) fn write_program(path: &Path, script: &str) -> Outcome {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut process = install.spawn().during(|| "install".into())?;
    process.stdin.take().expect("it is piped").write_all(script.as_bytes())?;
    ensure!(process.wait()?.success(), "{} can't be written", path.display());
    Ok(())
}

/// Notes the arguments of each call in a file, and changes nothing.
pub(crate) fn record_runtime_calls(bench: &Bench) -> Outcome<PathBuf> {
    record_calls(bench, bench.runtime().binary())
}

pub(crate) fn record_calls(bench: &Bench, program: &str) -> Outcome<PathBuf> {
    let log = bench.fresh_folder("calls")?.join("calls");
    fake(bench, program, "*", &format!("echo \"$@\" >>{}", log.display()))?;
    Ok(log)
}

fn real_path(program: &str) -> Outcome<PathBuf> {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
        .ok_or_else(|| Failure::new(format!("this machine has no {program}")))
}

//! What each verb does when nothing goes wrong.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use serde_json::{Value, json};

use crate::call::{Call, Flavour};
use crate::checkpoint::checkpoint;
use crate::container::Birth;
use crate::failure::{Failure, Outcome};
use crate::process;
use crate::restore::restore;
use crate::script::Script;
use crate::state::{State, Status};

pub(crate) fn run(call: &Call, script: &Script) -> Outcome {
    script.reach("before")?;
    if script.skips("before") {
        return Ok(());
    }
    match call.verb.as_str() {
        "create" => create(call, script),
        "start" => start(call, script),
        "exec" => exec(call, script),
        "kill" => kill(call, script),
        "delete" => delete(call, script),
        "pause" => pause(call, script, true),
        "resume" => pause(call, script, false),
        "update" => update(call, script),
        "checkpoint" => checkpoint(call, script),
        "restore" => restore(call, script),
        "features" => features(call, script),
        "--version" => version(call, script),
        verb => Err(Failure::new(format!("unknown command {verb:?}"))),
    }
}

/// The configuration of the container in the bundle.
pub(crate) fn config() -> Outcome<Value> {
    Ok(serde_json::from_slice(&fs::read("config.json")?)?)
}

pub(crate) fn cgroups_path(config: &Value) -> &str {
    config["linux"]["cgroupsPath"].as_str().unwrap_or_default()
}

pub(crate) fn program(process: &Value) -> Vec<String> {
    let arguments = process["args"].as_array().into_iter().flatten();
    arguments.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The end of the first process is everybody's where pids are private.
fn is_private(config: &Value, namespace: &str) -> bool {
    let namespaces = config["linux"]["namespaces"].as_array();
    namespaces.into_iter().flatten().any(|listed| listed["type"] == namespace && listed["path"].is_null())
}

pub(crate) fn write_pid_file(call: &Call, script: &Script, pid: u32) -> Outcome {
    if let (Some(path), Some(text)) = (call.option("--pid-file"), script.pid_file(pid)) {
        fs::write(path, text)?;
    }
    Ok(())
}

/// Points: `made`, before there is a process; `born`, before it is made known.
fn create(call: &Call, script: &Script) -> Outcome {
    let config = config()?;
    let mut state = State::create(call, cgroups_path(&config))?;
    let made = make(call, script, &config, &mut state);
    if made.is_err() {
        // One that fails in good order leaves nothing; one that is killed does.
        state.kill_all();
        state.remove()?;
    }
    made
}

fn make(call: &Call, script: &Script, config: &Value, state: &mut State) -> Outcome {
    script.reach("made")?;
    let console = call.option("--console-socket");
    let program = program(&config["process"]);
    state.pid = Birth { state, program, console, waits: true, follows: None }.give()?;
    state.save()?;
    script.reach_with("born", Some(state.pid), None)?;
    write_pid_file(call, script, state.pid)?;
    script.reach_with("after", Some(state.pid), None)
}

fn start(call: &Call, script: &Script) -> Outcome {
    let mut state = State::load(call)?;
    match state.status() {
        Status::Created => {}
        Status::Stopped => return Err(Failure::new("cannot start a container that has stopped")),
        _ => return Err(Failure::new("cannot start an already running container")),
    }
    state.started = true;
    state.save()?;
    let_go(&state)?;
    script.reach_with("after", Some(state.pid), None)
}

/// The first process waits at its fifo; it may be killed on the way there.
pub(crate) fn let_go(state: &State) -> Outcome {
    let non_blocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let open = || OpenOptions::new().write(true).custom_flags(non_blocking).open(state.start_fifo());
    process::until(|| open().is_ok() || !process::is_alive(state.pid));
    Ok(())
}

/// Points as in `create`.
fn exec(call: &Call, script: &Script) -> Outcome {
    let state = State::load(call)?;
    if state.status() == Status::Stopped {
        return Err(Failure::new("exec failed: cannot exec in a stopped container"));
    }
    if state.status() == Status::Paused {
        return Err(Failure::new("exec failed: cannot exec in a paused container"));
    }
    let description = call.option("--process").ok_or_else(|| Failure::new("exec needs --process"))?;
    let description: Value = serde_json::from_slice(&fs::read(description)?)?;
    script.reach("made")?;
    let birth = Birth {
        state: &state,
        program: program(&description),
        console: call.option("--console-socket"),
        waits: false,
        follows: is_private(&config()?, "pid").then_some(state.pid),
    };
    let pid = birth.give()?;
    script.reach_with("born", Some(pid), None)?;
    write_pid_file(call, script, pid)?;
    script.reach_with("after", Some(pid), None)
}

fn kill(call: &Call, script: &Script) -> Outcome {
    let state = State::load(call)?;
    let signal = call.words.get(1).and_then(|signal| signal.parse().ok());
    let signal: i32 = signal.ok_or_else(|| Failure::new("unknown signal"))?;
    if call.has("--all") {
        state.signal_all(signal);
    } else if state.status() == Status::Stopped {
        return Err(Failure::new("container not running"));
    } else {
        process::kill(state.pid, signal)?;
    }
    script.reach_with("after", Some(state.pid), None)
}

/// Point `killed`: nothing lives, everything is still there.
fn delete(call: &Call, script: &Script) -> Outcome {
    let state = match State::load(call) {
        Ok(state) => state,
        Err(failure) => {
            if call.has("--force") {
                // What a creation that was cut short has left.
                let _ = fs::remove_dir_all(call.root.join(call.id()));
            }
            // crun says so in spite of the force.
            return if call.has("--force") && call.flavour == Flavour::Runc {
                script.reach("after")
            } else {
                Err(failure)
            };
        }
    };
    if state.status() != Status::Stopped && !call.has("--force") {
        return Err(Failure::new(format!("cannot delete container {} that is not stopped", call.id())));
    }
    state.kill_all();
    script.reach("killed")?;
    state.remove()?;
    script.reach("after")
}

fn pause(call: &Call, script: &Script, paused: bool) -> Outcome {
    let mut state = State::load(call)?;
    match (state.status(), paused) {
        (Status::Running, true) | (Status::Paused, false) => {}
        (_, true) => return Err(Failure::new("container not running")),
        (_, false) => return Err(Failure::new("container not paused")),
    }
    state.freeze(paused)?;
    state.paused = paused;
    state.save()?;
    script.reach_with("after", Some(state.pid), None)
}

fn update(call: &Call, script: &Script) -> Outcome {
    let state = State::load(call)?;
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let resources: Value = serde_json::from_slice(&input)?;
    File::create("updated.json")?.write_all(resources.to_string().as_bytes())?;
    script.reach_with("after", Some(state.pid), None)
}

fn features(call: &Call, script: &Script) -> Outcome {
    let annotations = match call.flavour {
        Flavour::Runc => json!({
            "org.opencontainers.runc.version": "1.3.6",
            "org.opencontainers.runc.checkpoint.enabled": "true",
        }),
        Flavour::Crun => json!({ "run.oci.crun.version": "1.28", "run.oci.crun.checkpoint.enabled": "true" }),
    };
    let features = json!({
        "ociVersionMin": "1.0.0", "ociVersionMax": "1.2.0",
        "hooks": ["prestart", "createRuntime"],
        "mountOptions": ["ro", "rro"],
        "linux": { "namespaces": ["mount", "network", "pid", "user"] },
        "annotations": annotations,
    });
    println!("{features}");
    script.reach("after")
}

fn version(call: &Call, script: &Script) -> Outcome {
    match call.flavour {
        Flavour::Runc => println!("runc version 1.3.6\ncommit: fake\nspec: 1.2.0"),
        Flavour::Crun => println!("crun version 1.28\ncommit: fake\nspec: 1.0.0"),
    }
    script.reach("after")
}

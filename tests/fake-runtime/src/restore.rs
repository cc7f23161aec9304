//! `restore`, with the part of CRIU in it: reading the image, and the call of a script
//! of the client's when the namespaces are there and nothing is in them yet.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::call::Call;
use crate::checkpoint::{CORE_BYTES, Criu, INVENTORY, PAGES_BYTES};
use crate::container::Birth;
use crate::failure::{Failure, Outcome};
use crate::script::Script;
use crate::state::State;
use crate::verbs::{cgroups_path, config, let_go, program, write_pid_file};

/// Points: `read`, nothing is made yet; `born`, there is a process that nobody knows.
pub(crate) fn restore(call: &Call, script: &Script) -> Outcome {
    let config = config()?;
    let criu = Criu::of(call, "restore.log")?;
    check(&criu, &config)?;
    script.reach_with("read", None, Some(&criu.log))?;
    let mut state = State::create(call, cgroups_path(&config))?;
    let console = call.option("--console-socket");
    let is_terminal = config["process"]["terminal"].as_bool().unwrap_or_default();
    if is_terminal != console.is_some() {
        state.remove()?;
        return Err(Failure::new("cannot allocate tty if runc will detach without setting console socket"));
    }
    let program = program(&config["process"]);
    state.pid = Birth { state: &state, program, console, waits: true, follows: None }.give()?;
    let brought_back = bring_back(&criu, script, &mut state);
    if brought_back.is_err() {
        // CRIU takes down what it had made.
        state.kill_all();
        state.remove()?;
        return brought_back;
    }
    write_pid_file(call, script, state.pid)?;
    script.reach_with("after", Some(state.pid), Some(&criu.log))
}

fn bring_back(criu: &Criu, script: &Script, state: &mut State) -> Outcome {
    criu.call_scripts("setup-namespaces", state.pid)?;
    script.reach_with("born", Some(state.pid), Some(&criu.log))?;
    state.started = true;
    state.save()?;
    let_go(state)?;
    criu.note("Restore finished successfully.")
}

/// CRIU trips over damage that nobody has found before.
fn check(criu: &Criu, config: &Value) -> Outcome {
    let read = |name: &str| match fs::read(criu.image.join(name)) {
        Ok(bytes) => Ok(bytes),
        Err(error) => criu.fail(&format!("Can't open file {name} on image: {error}")),
    };
    if !read("inventory.img")?.starts_with(&INVENTORY.to_le_bytes()) {
        return criu.fail("Magic doesn't match for inventory.img");
    }
    if read("core-1.img")?.len() < CORE_BYTES {
        return criu.fail("Can't read core-1.img: unexpected EOF");
    }
    if criu.image.join("pagemap-1.img").exists() && read("pages-1.img")?.len() != PAGES_BYTES {
        return criu.fail("Can't read pages-1.img: unexpected EOF");
    }
    let namespaces = config["linux"]["namespaces"].as_array();
    let network = namespaces.into_iter().flatten().find(|namespace| namespace["type"] == "network");
    let Some(path) = network.and_then(|network| network["path"].as_str()) else { return Ok(()) };
    if !Path::new(path).exists() {
        return criu.fail(&format!("Can't open namespace {path}"));
    }
    let external = read("netns-10.img")?.windows(12).any(|bytes| bytes == b"extRootNetNS");
    if external { Ok(()) } else { criu.fail("The network namespace isn't external in the image") }
}

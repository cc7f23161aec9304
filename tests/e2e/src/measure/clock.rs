//! How long a program takes, from where it is called to where it returns: by a shell's
//! clock, because entering the slot isn't part of what is timed.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::*;

const TIMED: &str = r#"
    times=$1; shift
    begun=$EPOCHREALTIME
    "$@"
    code=$? ended=$EPOCHREALTIME
    echo "$code $begun $ended" >"$times"
"#;

/// Takes the program and its arguments; what `read` reads goes to `times`.
pub(super) fn command(slot: &slot::Slot, times: &Path) -> Command {
    let mut command = slot.command("bash");
    command.args(["-c", TIMED, "bash"]).arg(times);
    command
}

/// The milliseconds that a program took; nothing if it failed.
pub(super) fn read(times: &Path) -> Outcome<Option<f64>> {
    let text = fs::read_to_string(times)?;
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match figures[..] {
        [0.0, begun, ended] => Ok(Some((ended - begun) * 1000.0)),
        _ => Ok(None),
    }
}

//! What the tests take for granted about our own shim's names, and its command.

use super::bench::Bench;
use super::failure::{During, Failure, Outcome};

/// Decides whether a checkpoint without options ends the container: "true" or "false".
pub(crate) const EXIT_ANNOTATION: &str = "cryo.checkpoint.exit";

/// How long a dump or a restore may take, for the scenarios in which one hangs.
pub(crate) const TIMEOUT_ANNOTATION: &str = "cryo.timeout";

/// Our own description of an image, beside CRIU's files.
pub(crate) const DESCRIPTION: &str = "cryo.json";

/// How the command ends, and what it says.
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) errors: String,
}

/// Runs `cryo ARGS` in the slot.
pub(crate) fn cryo(bench: &Bench, args: &[&str]) -> Outcome<Said> {
    let output = bench.slot.command("cryo").args(args).output().during(|| "cryo".into())?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (out, errors) = (text(output.stdout), text(output.stderr));
    Ok(Said { status: output.status.code().unwrap_or(-1), out, errors })
}

/// What it prints; it has to succeed.
#[track_caller]
pub(crate) fn cryo_prints(bench: &Bench, args: &[&str]) -> Outcome<String> {
    let said = cryo(bench, args)?;
    if said.status != 0 {
        return Err(Failure::new(format!("cryo {}: {}: {}", args.join(" "), said.status, said.errors)));
    }
    Ok(said.out)
}

/// The one sentence by which it refuses.
#[track_caller]
pub(crate) fn cryo_refuses(bench: &Bench, args: &[&str]) -> Outcome<String> {
    let Said { status, out, errors } = cryo(bench, args)?;
    let is_sentence = errors.starts_with("cryo: ") && errors.lines().count() == 1;
    if status != 2 || !out.is_empty() || !is_sentence {
        return Err(Failure::new(format!("cryo {}: {status}: {out}{errors}", args.join(" "))));
    }
    Ok(errors.trim_start_matches("cryo: ").trim().to_owned())
}

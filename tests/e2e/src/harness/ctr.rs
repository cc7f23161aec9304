//! What a user types: the `ctr` command, inside a slot.

use super::bench::Bench;
use super::docker::LONGEST;
use super::failure::{During, Failure, Outcome};
use super::wait::patient;

/// Runs `ctr ARGS` and returns what it printed.
#[track_caller]
pub(crate) fn ctr(bench: &Bench, args: &[&str]) -> Outcome<String> {
    let seconds = patient(LONGEST).as_secs().to_string();
    let output = bench
        .slot
        .command("timeout")
        .args([&*seconds, "ctr", "--namespace", &bench.slot.containerd_namespace()])
        .args(args)
        .output()
        .during(|| "ctr".into())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("ctr {}: {}: {}", args.join(" "), output.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

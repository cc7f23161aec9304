//! What a user types: the `ctr` command, inside a slot.

use super::bench::Bench;
use super::failure::{During, Failure, Outcome};

/// Runs `ctr ARGS` and returns what it printed.
#[track_caller]
pub(crate) fn ctr(bench: &Bench, args: &[&str]) -> Outcome<String> {
    let output = bench
        .slot
        .command("timeout")
        .args(["60", "ctr", "--namespace", &bench.slot.containerd_namespace()])
        .args(args)
        .output()
        .during(|| "ctr".into())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("ctr {}: {}: {}", args.join(" "), output.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! Which programs a figure or a claim is about.

use std::process::Command;

use crate::harness::{During, Failure, Outcome};

/// As its authors count, without what a distribution adds.
pub(crate) fn version(program: &str) -> Outcome<String> {
    let output = Command::new(program).arg("--version").output().during(|| format!("{program} --version"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |word: &str| {
        let word = word.trim_start_matches('v').split(['~', '+', '-', ',']).next().unwrap_or_default();
        (word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit()))
            .then(|| word.to_owned())
    };
    text.split_whitespace()
        .find_map(number)
        .ok_or_else(|| Failure::new(format!("{program} --version says no version: {text}")))
}

/// containerd, runc, crun and CRIU, in this order.
pub(crate) fn versions() -> Outcome<[(&'static str, String); 4]> {
    let of = |name, program| Ok::<_, Failure>((name, version(program)?));
    Ok([of("containerd", "containerd")?, of("runc", "runc")?, of("crun", "crun")?, of("CRIU", "criu")?])
}

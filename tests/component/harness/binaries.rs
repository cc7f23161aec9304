//! The two programs under test, built if nobody says where they are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SHIM: (&str, &str) = ("CRYO_SHIM", "containerd-shim-cryo-v2");
const RUNTIME: (&str, &str) = ("CRYO_FAKE_RUNTIME", "cryo-fake-runtime");

#[derive(Debug)]
pub(crate) struct Binaries {
    pub(crate) shim: PathBuf,
    pub(crate) runtime: PathBuf,
}

impl Binaries {
    pub(crate) fn find() -> Result<Binaries, String> {
        let missing = [SHIM, RUNTIME].into_iter().filter(|(variable, _)| env::var_os(variable).is_none());
        let packages: Vec<&str> = missing.map(|(_, package)| package).collect();
        if !packages.is_empty() {
            build(&packages)?;
        }
        Ok(Binaries { shim: place(SHIM)?, runtime: place(RUNTIME)? })
    }
}

/// With the same profile and into the same folder as this program.
fn build(packages: &[&str]) -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).args(["build", "--quiet"]);
    for package in packages {
        command.args(["--package", package]);
    }
    let folder = folder()?;
    if folder.ends_with("release") {
        command.arg("--release");
    }
    command.arg("--target-dir").arg(folder.parent().unwrap_or(&folder));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo can't build {packages:?}: {status}")),
        Err(error) => Err(format!("cargo can't be run: {error}")),
    }
}

fn place((variable, name): (&str, &str)) -> Result<PathBuf, String> {
    let path = match env::var_os(variable) {
        Some(path) => path.into(),
        None => folder()?.join(name),
    };
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
}

/// This program lies in `deps` there.
fn folder() -> Result<PathBuf, String> {
    let us = env::current_exe().map_err(|error| error.to_string())?;
    us.ancestors().nth(2).map(Path::to_owned).ok_or_else(|| format!("{} lies nowhere", us.display()))
}

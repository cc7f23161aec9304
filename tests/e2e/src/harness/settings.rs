//! What is tested, and with what: from flags and the environment, read once.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::failure::{During, Failure, Outcome};

/// How the shim under test gets to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shim {
    /// containerd's own: the oracle.
    Stock,
    /// Ours, under its own runtime name beside the stock one.
    Cryo,
    /// Ours, found in PATH before the stock one and under its name.
    DropIn,
}

impl Shim {
    pub(crate) fn is_cryo(self) -> bool {
        self != Shim::Stock
    }

    pub(crate) fn runtime_name(self) -> &'static str {
        match self {
            Shim::Stock | Shim::DropIn => "io.containerd.runc.v2",
            Shim::Cryo => "io.containerd.runc.cryo.v2",
        }
    }

    /// The file that containerd looks for in PATH.
    pub(crate) fn binary_name(self) -> &'static str {
        match self {
            Shim::Stock | Shim::DropIn => "containerd-shim-runc-v2",
            Shim::Cryo => "containerd-shim-cryo-v2",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) shim: Shim,
    /// The program that runs in containers.
    pub(crate) guest: PathBuf,
    /// The folder of our shim's binary.
    pub(crate) cryo_bin: Option<PathBuf>,
    /// The folder of another build of it: the version before.
    pub(crate) previous: Option<PathBuf>,
    /// Where logs of failed trials are stored.
    pub(crate) out: Option<PathBuf>,
    pub(crate) containerd: Version,
    pub(crate) docker: Option<Version>,
    /// Only what matters most, where everything would take too long.
    pub(crate) core: bool,
    /// Whether systemd makes the cgroups of containers.
    pub(crate) systemd: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

static SETTINGS: OnceLock<Settings> = OnceLock::new();

pub(crate) fn settings() -> &'static Settings {
    SETTINGS.get().expect("main reads the settings before anything else")
}

/// Reads the environment, and takes `--shim NAME` and `--core` out of the arguments.
pub(crate) fn read(args: &mut Vec<String>) -> Outcome {
    let mut shim = env::var("CRYO_E2E_SHIM").unwrap_or_else(|_| "stock".into());
    if let Some(at) = args.iter().position(|arg| arg == "--shim") {
        if at + 1 >= args.len() {
            return Err(Failure::new("--shim needs a name: stock, cryo or dropin"));
        }
        shim = args.remove(at + 1);
        args.remove(at);
    }
    let all = args.len();
    args.retain(|arg| arg != "--core");
    let core = args.len() < all;
    let shim = match shim.as_str() {
        "stock" => Shim::Stock,
        "cryo" => Shim::Cryo,
        "dropin" => Shim::DropIn,
        other => {
            return Err(Failure::new(format!("no shim is called '{other}'; there are stock, cryo, dropin")));
        }
    };
    let cryo_bin = env::var_os("CRYO_E2E_BIN").map(PathBuf::from);
    if shim.is_cryo() && cryo_bin.is_none() {
        return Err(Failure::new("CRYO_E2E_BIN must name the folder of containerd-shim-cryo-v2"));
    }
    let Some(guest) = env::var_os("CRYO_E2E_GUEST").map(PathBuf::from) else {
        return Err(Failure::new("CRYO_E2E_GUEST must name the guest program"));
    };
    let settings = Settings {
        shim,
        guest,
        previous: cryo_bin.as_ref().map(|folder| folder.join("previous")).filter(|folder| folder.exists()),
        cryo_bin,
        out: env::var_os("CRYO_E2E_OUT").map(PathBuf::from),
        containerd: version_of("containerd")?,
        docker: version_of("dockerd").ok(),
        core,
        systemd: env::var_os("CRYO_E2E_SYSTEMD").is_some(),
    };
    SETTINGS.set(settings).map_err(|_| Failure::new("the settings were read twice"))
}

/// The first word of the form 1.2… that `--version` prints.
fn version_of(program: &str) -> Outcome<Version> {
    let output = Command::new(program).arg("--version").output().during(|| format!("{program} --version"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .find_map(|word| {
            let mut parts = word.trim_start_matches('v').split(['.', '+', '~', '-']);
            Some(Version(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        })
        .ok_or_else(|| Failure::new(format!("{program} --version says no version: {text}")))
}

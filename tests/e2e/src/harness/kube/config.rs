//! containerd's configuration on a node of Kubernetes: our handlers as they are deployed,
//! others beside them, and a network for pods.

use std::fmt::Write;

use serde_json::json;

use super::super::image;
use super::super::settings::{Settings, Shim, Version, settings};
use super::super::slot::{BASE, Slot};

/// As users install them, but for the folder of the binary.
const DEPLOYED_V2: &str = include_str!("../../../../../deploy/containerd/runtime-v2.toml");
const DEPLOYED_V3: &str = include_str!("../../../../../deploy/containerd/runtime-v3.toml");

/// What isn't needed here, and takes time or wants folders of the machine's own.
const LEFT_OUT: &str = r#"disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart"]
"#;

/// A way to have pods run by a shim, by the name that a RuntimeClass has for it.
struct Handler {
    name: &'static str,
    shim: &'static str,
    path: bool,
    runtime: &'static str,
    allows_annotations: bool,
}

const HANDLERS: [Handler; 6] = [
    Handler { name: "cryo-crun", shim: STOCK, path: true, runtime: "crun", allows_annotations: true },
    Handler { name: "own", shim: OWN, path: false, runtime: "runc", allows_annotations: true },
    Handler { name: "own-crun", shim: OWN, path: false, runtime: "crun", allows_annotations: true },
    // Without a path it is the one in PATH that counts.
    Handler { name: "named", shim: STOCK, path: false, runtime: "runc", allows_annotations: true },
    Handler { name: "named-crun", shim: STOCK, path: false, runtime: "crun", allows_annotations: true },
    Handler { name: "deaf", shim: STOCK, path: true, runtime: "runc", allows_annotations: false },
];
const STOCK: &str = "io.containerd.runc.v2";
const OWN: &str = "io.containerd.runc.cryo.v2";

/// The handler that is tested: by the path of our shim, or by the stock shim's name.
pub(super) fn tested(runtime: super::super::matrix::Runtime, settings: &Settings) -> &'static str {
    use super::super::matrix::Runtime::{Crun, Runc};
    match (settings.shim, runtime) {
        (Shim::Cryo, Runc) => "cryo",
        (Shim::Cryo, Crun) => "cryo-crun",
        (Shim::Stock | Shim::DropIn, Runc) => "named",
        (Shim::Stock | Shim::DropIn, Crun) => "named-crun",
    }
}

/// What follows root and state in containerd's configuration.
pub(crate) fn configuration(slot: &Slot) -> String {
    if settings().containerd < Version(2, 0) { version_2(slot) } else { version_3(slot) }
}

/// A node's before anybody has heard of Cryo; of the version that is usual, or of the older one.
pub(crate) fn untouched(slot: &Slot, older: bool) -> String {
    if older || settings().containerd < Version(2, 0) { bare_2(slot) } else { bare_3(slot) }
}

/// containerd 2 understands this, too.
pub(crate) fn version_2(slot: &Slot) -> String {
    let mut text = bare_2(slot);
    add_handlers(&mut text, r#"plugins."io.containerd.grpc.v1.cri""#, DEPLOYED_V2);
    text
}

fn version_3(slot: &Slot) -> String {
    let mut text = bare_3(slot);
    add_handlers(&mut text, r#"plugins."io.containerd.cri.v1.runtime""#, DEPLOYED_V3);
    text
}

fn bare_2(slot: &Slot) -> String {
    let cri = r#"plugins."io.containerd.grpc.v1.cri""#;
    format!(
        r#"version = 2
{LEFT_OUT}
[{cri}]
  sandbox_image = "{pause}"
  # Tests may not raise a score that is theirs.
  restrict_oom_score_adj = true
[{cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{network}"
[{cri}.containerd.runtimes.runc]
  runtime_type = "{STOCK}"
[{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}
"#,
        pause = image::PAUSE,
        network = network(slot),
        systemd = settings().systemd,
    )
}

fn bare_3(slot: &Slot) -> String {
    let cri = r#"plugins."io.containerd.cri.v1.runtime""#;
    format!(
        r#"version = 3
{LEFT_OUT}
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[{cri}]
  restrict_oom_score_adj = true
[{cri}.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{network}"
[{cri}.containerd.runtimes.runc]
  runtime_type = "{STOCK}"
[{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}
"#,
        pause = image::PAUSE,
        network = network(slot),
        systemd = settings().systemd,
    )
}

fn add_handlers(text: &mut String, cri: &str, deployed: &str) {
    let ours = format!("{BASE}/bin/containerd-shim-cryo-v2");
    text.push_str(&deployed.replace("/usr/local/bin/containerd-shim-cryo-v2", &ours));
    let cgroups = format!("SystemdCgroup = {}\n", settings().systemd);
    let mut add = |line: String| writeln!(text, "{line}").expect("a string takes everything");
    add(format!("[{cri}.containerd.runtimes.cryo.options]\n  {cgroups}"));
    for handler in HANDLERS {
        let name = handler.name;
        add(format!("[{cri}.containerd.runtimes.{name}]\n  runtime_type = \"{}\"", handler.shim));
        if handler.path {
            add(format!("  runtime_path = \"{ours}\""));
        }
        if handler.allows_annotations {
            add("  pod_annotations = [\"cryo.*\"]\n  container_annotations = [\"cryo.*\"]".into());
        }
        add(format!("[{cri}.containerd.runtimes.{name}.options]\n  BinaryName = \"{}\"", handler.runtime));
        add(format!("  {cgroups}"));
    }
}

fn network(slot: &Slot) -> String {
    slot.folder.join("net.d").display().to_string()
}

/// The network of a slot's pods.
pub(super) fn network_description() -> String {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": super::BRIDGE,
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": "10.88.0.0/16" }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
    .to_string()
}

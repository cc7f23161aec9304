//! What an install or an uninstall says about itself.

use super::daemon_json;
use super::plan::{self, Step};
use crate::command::root::{BIN, Root};
use crate::command::unit::Unit;
use crate::command::{Daemon, Install};

/// All of it; `changed` is whether a daemon has to notice.
pub(super) fn told(root: &Root, options: &Install, steps: &[Step], changed: bool) -> String {
    let mut lines: Vec<_> = steps.iter().map(|step| step.told(options.dry_run)).collect();
    let name = options.daemon.name();
    if steps.is_empty() {
        lines.push(format!("nothing to undo: cryo isn't installed for {name}"));
        return lines.join("\n") + "\n";
    }
    let mut rest = match (options.uninstall, options.daemon) {
        (false, daemon) => advice(root, daemon),
        (true, Daemon::Docker) => {
            vec!["Containers made with `--runtime cryo` won't start any more.".to_owned()]
        }
        (true, Daemon::Kubernetes) => {
            vec!["Checkpoints and logs stay, in /var/lib/cryo and /var/log/cryo.".to_owned()]
        }
        (true, Daemon::Containerd) => Vec::new(),
    };
    if !(options.restart && root.has_systemd()) && (changed || options.daemon != Daemon::Kubernetes) {
        rest.push(next(root, options, changed));
    }
    if !rest.is_empty() {
        lines.push(String::new());
    }
    lines.extend(rest);
    lines.join("\n") + "\n"
}

fn next(root: &Root, options: &Install, changed: bool) -> String {
    let daemons = plan::serving(root, options.daemon);
    if options.daemon == Daemon::Kubernetes {
        let how = if root.has_systemd() { "systemctl restart containerd" } else { "restart containerd" };
        return format!("To finish: {how}. Pods that run don't mind.");
    }
    if root.has_systemd() {
        let units: Vec<_> = daemons.iter().map(|daemon| daemon.name()).collect();
        let when = if changed { "To finish:" } else { "If that hasn't been done since the last change:" };
        let until = if options.uninstall && changed { "\nUntil then no container can start." } else { "" };
        return format!("{when} systemctl daemon-reload && systemctl restart {}{until}", units.join(" "));
    }
    if options.uninstall {
        return "There is no systemd here: restart the daemons without that folder in their PATH. Until then none of them can start a container.".to_owned();
    }
    match options.daemon {
        Daemon::Containerd | Daemon::Kubernetes => {
            format!("There is no systemd here. To finish, start containerd with: PATH={BIN}:$PATH containerd")
        }
        Daemon::Docker => format!(
            "There is no systemd here. To finish, start the daemons with that folder first in PATH \
             (only dockerd, where it starts a containerd of its own):\n  \
             PATH={BIN}:$PATH containerd\n  PATH={BIN}:$PATH dockerd"
        ),
    }
}

/// What the user should know before the daemons are restarted.
fn advice(root: &Root, daemon: Daemon) -> Vec<String> {
    if daemon == Daemon::Kubernetes {
        return vec![
            "Pods ask for it by runtimeClassName, once deploy/kubernetes/runtimeclass.yaml is applied."
                .into(),
        ];
    }
    let mut lines = Vec::new();
    let daemons = plan::serving(root, daemon);
    if daemons.len() > 1 && root.has_systemd() {
        lines.push(
            "Docker's containers are started by containerd.service, so both daemons find Cryo first.".into(),
        );
    }
    for unit in daemons.iter().map(|daemon| daemon.unit()).filter(|_| root.has_systemd()) {
        if let Some(file) = Unit::without_ours(root, unit).overruled_by(root) {
            lines.push(format!("{} sets PATH for {unit} and wins: put {BIN}: first there.", file.display()));
        }
    }
    match daemon {
        Daemon::Docker => {
            let text = plan::text(root, daemon_json::PATH.as_ref()).ok().flatten().unwrap_or_default();
            if !daemon_json::keeps_containers(&text) {
                lines.push("Restarting Docker stops its containers, as \"live-restore\" isn't set.".into());
            }
        }
        Daemon::Containerd | Daemon::Kubernetes => lines.push(
            "Containers that run keep the shim they have. For pods there is `cryo install kubernetes`."
                .into(),
        ),
    }
    lines
}

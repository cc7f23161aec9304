//! Hooks at a restore. runc runs them when the container's namespaces are there; crun
//! runs none, so we do. Docker up to 27 and nerdctl set up networks by them.

use serde::Deserialize;
use serde_json::json;

use crate::container::Subject;
use crate::runtime::hook::{self, Hook};

/// Those that run before a container's program does, in the runtime's namespaces.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hooks {
    prestart: Option<Vec<Hook>>,
    create_runtime: Option<Vec<Hook>>,
}

/// Runs those that belong before the start of a container in the namespaces of `pid`.
pub(super) async fn run(subject: &Subject, pid: u32) -> Result<(), hook::Error> {
    let Subject { spec, bundle, id, runtime, .. } = subject;
    let state = json!({
        "ociVersion": spec.oci_version,
        "id": id,
        "status": "creating",
        "pid": pid,
        "bundle": bundle,
        "annotations": spec.annotations,
    });
    let state = state.to_string().into_bytes();
    let hooks = Hooks::deserialize(&spec.hooks).unwrap_or_default();
    for hook in [hooks.prestart, hooks.create_runtime].into_iter().flatten().flatten() {
        hook.run(runtime.reaper, bundle, &state).await?;
    }
    Ok(())
}

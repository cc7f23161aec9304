//! Hooks at a restore. runc runs them when the container's namespaces are there; crun
//! runs none, so we do. Docker up to 27 and nerdctl set up networks by them.

use serde_json::json;

use crate::container::Subject;
use crate::runtime::hook;

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
    for hook in spec.hooks.prestart.iter().chain(&spec.hooks.create_runtime) {
        hook.run(runtime.reaper, bundle, &state).await?;
    }
    Ok(())
}

//! Hooks at a restore. runc runs them when the container's namespaces are there; crun
//! runs none, so we do. Docker up to 27 and nerdctl set up networks by them.

use serde::Deserialize;

use super::Error;
use crate::container::Subject;
use crate::runtime::Abort;
use crate::runtime::hook::{self, Hook};

/// Those that run before a container's program does, in the runtime's namespaces.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hooks {
    prestart: Option<Vec<Hook>>,
    create_runtime: Option<Vec<Hook>>,
}

/// Runs those that belong before the start of a container in the namespaces of `pid`.
pub(super) async fn run(subject: &Subject, pid: u32, abort: &Abort) -> Result<(), Error> {
    let state = hook::state(subject, "creating", Some(pid));
    let hooks = Hooks::deserialize(&subject.spec.hooks).unwrap_or_default();
    for hook in [hooks.prestart, hooks.create_runtime].into_iter().flatten().flatten() {
        let run = hook.run(subject.runtime.reaper, &subject.bundle, &state);
        abort.unless("restore", run).await.map_err(Error::Runtime)??;
    }
    Ok(())
}

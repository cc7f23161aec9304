//! A shim mostly rests. What it maps of its program then is what it needed last, for a start,
//! say: some megabytes, of which it needs next to nothing while its container just runs.

use std::sync::Arc;
use std::time::Duration;

use cryo::container::Snapshot;
use cryo::sys;
use tokio::sync::watch;
use tokio::time::timeout;

/// Clients that start a container have some more questions.
const QUIET: Duration = Duration::from_secs(5);

/// Gives memory back whenever nothing has changed for a while.
pub(crate) async fn between(mut changes: watch::Receiver<Arc<Snapshot>>) {
    loop {
        match timeout(QUIET, changes.changed()).await {
            Ok(Ok(())) => continue,
            Ok(Err(_)) => return,
            Err(_) => {
                if let Err(error) = sys::let_go_of_code() {
                    tracing::debug!(%error, "the shim's code stays mapped");
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

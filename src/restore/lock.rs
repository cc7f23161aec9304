//! Keeping the other ends of connections quiet until all sockets are there, in a network
//! that others share. One that sends before would get an answer that ends the connection.
//! In a network of the container's own CRIU locks all of it.

use super::Attempt;
use crate::bundle::Sharing;
use crate::criu::connections;
use crate::criu::lock::{Lock, Note};
use crate::operation::aside;
use crate::policy::NetworkLock;
use crate::reaper::Reaper;

pub(super) struct Closed {
    lock: Lock,
    reaper: Reaper,
    _note: Note,
}

/// None if nothing is locked: no connections come back, or into a network of their own.
pub(super) async fn close(attempt: &Attempt) -> Option<Closed> {
    let by = attempt.policy.network_lock().unwrap_or(NetworkLock::Iptables);
    if !attempt.options().tcp_established || by == NetworkLock::Skip {
        return None;
    }
    let namespace = match attempt.subject.spec.sharing("network") {
        Sharing::Private => return None,
        Sharing::Host => None,
        Sharing::With(path) => Some(path),
    };
    let folder = attempt.image.path.clone();
    // One that can't be read is CRIU's to complain about.
    let rules = aside(move || connections::rules(&folder)).await.unwrap_or_default();
    let table =
        (by == NetworkLock::Nftables && !rules.is_empty()).then(|| format!("cryo-{}", attempt.anchor));
    let mut lock = Lock { rules, table, ..Lock::of(namespace) };
    let reaper = attempt.subject.runtime.reaper;
    let note = lock.note(&attempt.subject.bundle);
    let firewall = lock.firewall(reaper);
    let closed = match &lock.table {
        Some(table) => firewall.add_table(table, &lock.rules).await,
        None => firewall.add(&lock.rules).await,
    };
    if let Err(problem) = closed {
        tracing::warn!(problem, "nobody keeps the other ends of connections quiet");
        lock.release(reaper).await;
        (lock.rules, lock.table) = (Vec::new(), None);
    }
    Some(Closed { lock, reaper, _note: note })
}

impl Closed {
    /// Whoever it was that kept them quiet, they may speak. With runc CRIU locks all of a
    /// shared network, and if it is killed leaves it so.
    pub(super) async fn open(self, has_failed: bool) {
        if has_failed {
            self.lock.open(self.reaper).await;
        } else {
            self.lock.release(self.reaper).await;
        }
    }
}

//! Keeping the other ends of connections quiet until all sockets are there, in a network
//! that others share. One that sends before would get an answer that ends the connection.
//! In a network of the container's own CRIU locks all of it.

use super::Attempt;
use crate::bundle::Sharing;
use crate::criu::connections;
use crate::criu::firewall::{Firewall, Rule};
use crate::operation::aside;
use crate::policy::NetworkLock;

pub(super) struct Lock {
    rules: Vec<Rule>,
    /// Of nftables, if that is to be used.
    table: Option<String>,
    firewall: Firewall,
}

/// None if there is nothing to lock, or nothing to lock it with.
pub(super) async fn close(attempt: &Attempt) -> Option<Lock> {
    let by = attempt.policy.network_lock().unwrap_or(NetworkLock::Iptables);
    let firewall = firewall(attempt).filter(|_| by != NetworkLock::Skip)?;
    let folder = attempt.image.path.clone();
    // One that can't be read is CRIU's to complain about.
    let rules = aside(move || connections::rules(&folder)).await.unwrap_or_default();
    if rules.is_empty() {
        return None;
    }
    let table = (by == NetworkLock::Nftables).then(|| format!("cryo-{}", attempt.anchor));
    let lock = Lock { rules, table, firewall };
    let Lock { rules, table, firewall } = &lock;
    let closed = match table {
        Some(table) => firewall.add_table(table, rules).await,
        None => firewall.add(rules).await,
    };
    match closed {
        Ok(()) => Some(lock),
        Err(problem) => {
            tracing::warn!(problem, "nobody keeps the other ends of connections quiet");
            lock.open().await;
            None
        }
    }
}

/// With runc CRIU locks all of a shared network, and if it is killed leaves it so.
pub(super) async fn open_all(attempt: &Attempt) {
    if let Some(firewall) = firewall(attempt).filter(|firewall| firewall.namespace.is_some()) {
        firewall.open_all().await;
    }
}

/// If connections come back, and into a network that isn't theirs alone.
fn firewall(attempt: &Attempt) -> Option<Firewall> {
    let namespace = match attempt.subject.spec.sharing("network") {
        Sharing::Private => return None,
        Sharing::Host => None,
        Sharing::With(path) => Some(path),
    };
    let reaper = attempt.subject.runtime.reaper;
    attempt.options().tcp_established.then_some(Firewall { namespace, reaper })
}

impl Lock {
    /// Whoever it was that kept them quiet, they may speak.
    pub(super) async fn open(self) {
        match self.table {
            Some(table) => self.firewall.remove_table(&table).await,
            None => self.firewall.remove(&self.rules).await,
        }
    }
}
